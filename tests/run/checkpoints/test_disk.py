"""A disk that is full, that nobody may write to, or that fails: the run says so, and goes on from what is there."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopwright import Checkpoint
from loopwright.errors import CheckpointError
from loopwright.run.checkpoints import LocalFolder
from tests.run.blocks import counting
from tests.run.checkpoints.storages import Memory, saved_run

ROOT = Path(__file__).parents[3]
PIPE = counting()
STEPS, RESULT = 5, 12
_, ALL = saved_run(PIPE, x=1, steps=STEPS)
SIZE = sum(map(len, ALL.files.values()))


class Limited(Memory):
    """Has room for so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, name: str, data: bytes) -> None:
        if sum(map(len, self.files.values())) + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(name, data)


class Guarded(Memory):
    """Refuses operations of some names."""

    def __init__(self, files: dict[str, bytes] | None = None, refused: tuple[str, ...] = ()) -> None:
        super().__init__(files)
        self.refused = refused

    def _look(self, operation: str) -> None:
        if operation in self.refused:
            raise OSError(errno.EROFS, "Read-only file system")

    def write(self, name: str, data: bytes) -> None:
        self._look("write")
        super().write(name, data)

    def read(self, name: str) -> bytes:
        self._look("read")
        return super().read(name)

    def remove(self, name: str) -> None:
        self._look("remove")
        super().remove(name)


@pytest.mark.parametrize("room", range(0, SIZE, SIZE // 12))
def test_a_disk_that_gets_full_at_any_point_leaves_a_run_that_goes_on_when_there_is_room(room: int) -> None:
    storage = Limited(room)
    with pytest.raises(CheckpointError, match="No space left on device; what was saved before is still there"):
        PIPE(x=1, steps=STEPS, checkpoint=Checkpoint(storage, keep=None))
    storage.room = 2 * SIZE
    if storage.iterations:
        assert PIPE.resume(storage, output="x").result() == RESULT
    else:
        assert PIPE(x=1, steps=STEPS, checkpoint=Checkpoint(storage), output="x") == RESULT


def test_a_resumed_run_that_cannot_be_saved_says_so_and_leaves_what_was_there() -> None:
    storage = Guarded(ALL.until(2).files, refused=("write", "remove"))
    before = dict(storage.files)
    with pytest.raises(CheckpointError) as raised:
        PIPE.resume(storage).result()
    assert str(raised.value) == (
        "the run cannot be saved to the memory: [Errno 30] Read-only file system; what was saved before is still there"
    )
    assert storage.files == before


def test_an_older_checkpoint_that_cannot_be_removed_is_named() -> None:
    storage = Guarded(refused=("remove",))
    with pytest.raises(CheckpointError) as raised:
        PIPE(x=1, steps=STEPS, checkpoint=Checkpoint(storage, keep=1))
    first = next(name for name in storage.names() if f"`{name}`" in str(raised.value))
    assert str(raised.value) == (
        f"`{first}` in the memory is no longer needed and cannot be removed: [Errno 30] Read-only file system; what "
        f"was saved is still there"
    )
    storage.refused = ()
    assert PIPE.resume(storage, output="x").result() == RESULT


def test_a_run_that_is_not_strict_goes_on_without_being_saved() -> None:
    for refused in ("write", "remove"):
        storage = Guarded(refused=(refused,))
        with pytest.warns(UserWarning, match="the run is not saved any more: .*Read-only file system"):
            state = PIPE(x=1, steps=STEPS, checkpoint=Checkpoint(storage, keep=1, strict=False))
        assert state.x == RESULT


def test_a_checkpoint_that_cannot_be_read_is_named() -> None:
    storage = Guarded(ALL.files, refused=("read",))
    with pytest.raises(CheckpointError) as raised:
        PIPE.resume(storage)
    assert str(raised.value).startswith(
        f"`{ALL.names()[-1]}` in the memory cannot be read: [Errno 30] Read-only file system"
    )


def test_a_folder_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "run"
    with pytest.raises(CheckpointError, match="Not a directory") as raised:
        PIPE(x=1, checkpoint=Checkpoint(folder))
    assert str(raised.value).startswith(f"the run cannot be saved to {folder}: ")


LIMITED_CHILD = """
import json, resource, sys
from loopwright import Checkpoint
from loopwright.errors import CheckpointError
from tests.run.blocks import counting

folder, told = sys.argv[1], {}
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)

def limit(event):
    if event.index == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))

try:
    counting()(x=1, steps=5, checkpoint=Checkpoint(folder), callbacks=limit)
except CheckpointError as error:
    told["error"] = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
told["result"] = counting().resume(folder, output="x").result()
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_file_that_the_system_cuts_while_it_is_written_is_none(tmp_path: Path) -> None:
    """A real file, in a process that may write 1,000 bytes of it and no more."""
    folder = tmp_path / "run"
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED_CHILD, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert told["error"] == (
        f"the run cannot be saved to {folder}: [Errno 27] File too large; what was saved before is still there"
    )
    assert told["result"] == RESULT
    assert [path for path in folder.iterdir() if path.name not in LocalFolder(folder).names()] == []
