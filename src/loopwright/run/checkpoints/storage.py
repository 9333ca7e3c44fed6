"""Where checkpoints lie: four operations on named blocks of bytes, and a local folder that has them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

__all__ = ["LocalFolder", "Storage"]


class Storage(Protocol):
    """Blocks of bytes by name. A block is there whole or not at all, and is still there after a loss of power."""

    def write(self, name: str, data: bytes) -> None: ...

    def read(self, name: str) -> bytes:
        """Raises `FileNotFoundError` if there is none of that name."""
        ...

    def names(self) -> list[str]: ...

    def remove(self, name: str) -> None:
        """Does nothing if there is none of that name."""
        ...


class LocalFolder:
    """A folder on a local disk, made when it is first written to. One process at a time writes there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._is_ready = False

    def __str__(self) -> str:
        return str(self.path)

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
