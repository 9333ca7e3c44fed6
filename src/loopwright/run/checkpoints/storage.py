"""Where checkpoints lie: four operations on named blocks of bytes, and a local folder that has them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from loopwright.errors import CheckpointError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LocalFolder", "Storage"]


class Storage(Protocol):
    """Blocks of bytes by name. A block is there whole or not at all, and is still there after a loss of power."""

    def write(self, name: str, data: bytes) -> None: ...

    def read(self, name: str) -> bytes:
        """Raises `FileNotFoundError` if there is none of that name."""
        ...

    def names(self) -> list[str]:
        """The names of all, in any order."""
        ...

    def remove(self, name: str) -> None:
        """Does nothing if there is none of that name."""
        ...


class LocalFolder:
    """A folder on a local disk, made when it is first written to. One process at a time writes there.

    Args:
        path: the folder; a relative path is one in the folder in which the process works now.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._given = Path(path)
        self._is_ready = False

    def __str__(self) -> str:
        return str(self._given)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs, of this process or another, from being saved here meanwhile, where the system can.

        The lock of a process that ends, in whichever way, is gone with it.

        Raises:
            CheckpointError: another run is being saved here.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = _lock_handle(self.path)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another run is being saved in {self} at this moment, by this process or another: take another "
                f"folder, or, once that run has ended, go on with it by `pipe.resume({str(self)!r})`"
            ) from error
        except OSError:
            # a folder that cannot be written to is reported when it is, and some file systems have no locks
            handle = None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                # a run that was never saved leaves nothing
                for folder in made:
                    folder.rmdir()
            if handle is not None:
                _unlock(handle)

    def write(self, name: str, data: bytes) -> None:
        if not self._is_ready:
            self._make_ready()
        partial = self.path / f".{name}.partial"
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
        self._sync()

    def _make_ready(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # what a process that was killed left half written
        for left in self.path.glob(".*.partial"):
            left.unlink(missing_ok=True)
        self._is_ready = True

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _sync(self) -> None:
        """Make the names in the folder durable, where the system can."""
        if os.name != "posix":
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lock_handle(folder: Path) -> int:
    """A file handle that holds the lock of a folder until it is closed.

    Raises:
        BlockingIOError: another one holds it.
        OSError: it cannot be locked.
    """
    if sys.platform == "win32":
        # a folder has no lock there
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    else:
        handle = os.open(folder, os.O_RDONLY)
    try:
        if sys.platform == "win32":
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                raise BlockingIOError from error
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _unlock(handle: int) -> None:
    if sys.platform != "win32":
        # closing it is not enough where a process that was forked meanwhile has it as well
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)
