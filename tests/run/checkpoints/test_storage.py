"""A local folder: a file is there whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from loopwright import Checkpoint
from loopwright.errors import CheckpointError
from loopwright.run.checkpoints import LocalFolder
from tests.run.blocks import counting
from tests.run.checkpoints.storages import Failing


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
