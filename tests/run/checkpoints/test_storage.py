"""A local folder: a file is there whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopwright import Checkpoint
from loopwright.errors import CheckpointError
from loopwright.run.checkpoints import LocalFolder
from tests.blocks.arithmetic import Repeat
from tests.run.blocks import Do, Turnstile, counting, pipeline
from tests.run.checkpoints.storages import Failing

ROOT = Path(__file__).parents[3]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path / "new" / "folder")
    assert folder.names() == []
    folder.write("b", b"second")
    folder.write("a", b"first")
    folder.write("a", b"again")
    assert folder.names() == ["a", "b"]
    assert folder.read("a") == b"again"
    folder.remove("a")
    folder.remove("a")
    assert folder.names() == ["b"]
    with pytest.raises(FileNotFoundError):
        folder.read("a")


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        real_fsync(handle)

    def replace(source: Any, target: Any) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    LocalFolder(tmp_path).write("a", b"data")
    assert steps == ["file", "rename", "folder"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    folder = LocalFolder(tmp_path)
    folder.write("a", b"before")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, full)
        with pytest.raises(OSError, match="No space left"):
            folder.write("a", b"after")
    assert os.listdir(tmp_path) == ["a"]
    assert folder.read("a") == b"before"


def test_what_a_killed_process_left_half_written_is_no_file_and_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".abc.partial").write_bytes(b"half")
    folder = LocalFolder(tmp_path)
    assert folder.names() == []
    folder.write("a", b"whole")
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError) as raised:
        counting()(x=1, checkpoint=Checkpoint(tmp_path / "file"))
    assert str(raised.value).startswith(f"the run cannot be saved to {tmp_path / 'file'}: ")


def full_at(number: int) -> Any:
    def before_write(write: int) -> None:
        if write >= number:
            raise OSError(errno.ENOSPC, "No space left on device")

    return before_write


def test_a_full_disk_ends_a_strict_run_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    storage = Failing(full_at(3))
    with pytest.raises(CheckpointError) as raised:
        counting()(x=1, steps=4, checkpoint=Checkpoint(storage))
    assert str(raised.value) == (
        "the run cannot be saved to the memory: [Errno 28] No space left on device; what was saved before is still "
        "there"
    )
    assert storage.iterations == [1, 2]


def test_a_full_disk_is_a_warning_for_a_run_that_is_not_strict() -> None:
    storage = Failing(full_at(3))
    with pytest.warns(UserWarning, match="the run is not saved any more: the run cannot be saved to the memory"):
        state = counting()(x=1, steps=4, checkpoint=Checkpoint(storage, strict=False))
    assert state.x == 10
    assert storage.iterations == [1, 2]


# Two at once


def busy_message(folder: Path) -> str:
    return (
        f"another run is being saved in {folder} at this moment, by this process or another: take another folder, or, "
        f"once that run has ended, go on with it by `pipe.resume({str(folder)!r})`"
    )


def test_a_folder_in_which_a_run_is_being_saved_is_refused_to_another_run(tmp_path: Path) -> None:
    gate, folder = Turnstile(), tmp_path / "run"
    slow = pipeline(loop=Repeat.from_blocks_dict({"wait": Do(lambda components, x, i: gate() or x + 1)}))
    first = slow.start(x=1, steps=2, checkpoint=Checkpoint(folder))
    # both know of no checkpoint there
    second = counting().stream(x=100, checkpoint=Checkpoint(folder))
    gate.wait()
    with pytest.raises(CheckpointError) as raised:
        second.result()
    assert str(raised.value) == busy_message(folder)
    gate.let_go()
    gate.wait()
    with pytest.raises(CheckpointError) as raised:
        slow.resume(folder).result()
    assert str(raised.value) == busy_message(folder)
    gate.let_go()
    assert first.result().x == 3
    with pytest.raises(CheckpointError, match="already holds a run"):
        counting()(x=1, checkpoint=Checkpoint(folder))
    assert slow.resume(folder, output="x").result() == 3


def test_a_run_that_begins_in_a_folder_that_another_one_has_filled_meanwhile_is_refused(tmp_path: Path) -> None:
    pipe = counting()
    late = pipe.stream(x=100, checkpoint=Checkpoint(tmp_path))
    pipe(x=1, checkpoint=Checkpoint(tmp_path))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CheckpointError, match="already holds a run"):
        late.result()
    assert sorted(os.listdir(tmp_path)) == before


def test_a_run_that_is_never_saved_leaves_no_folder(tmp_path: Path) -> None:
    counting()(x=1, steps=0, checkpoint=Checkpoint(tmp_path / "new" / "run"))
    assert os.listdir(tmp_path) == []


HOLDING_CHILD = """
import sys
from loopwright.run.checkpoints import LocalFolder

with LocalFolder(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_another_process_keeps_a_folder_until_it_ends_in_whichever_way(tmp_path: Path) -> None:
    pipe = counting()
    pipe(x=1, checkpoint=Checkpoint(tmp_path))
    command = [sys.executable, "-c", HOLDING_CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(CheckpointError) as raised:
            pipe.resume(tmp_path).result()
        assert str(raised.value) == busy_message(tmp_path)
        child.kill()
        child.wait()
    assert pipe.resume(tmp_path, output="x").result() == 8


def test_a_folder_is_where_it_was_when_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    pipe = counting()
    for event in pipe.stream(x=1, steps=4, checkpoint=Checkpoint("run", keep=None)):
        if event.index == 1:
            os.chdir("below")
    assert len(os.listdir(tmp_path / "run")) == 4
    with pytest.raises(CheckpointError, match=r"^run holds no checkpoint"):
        pipe.resume("run")
    assert pipe.resume("../run", output="x").result() == 10
