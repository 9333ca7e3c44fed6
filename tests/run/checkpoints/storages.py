"""Storages for tests: in memory, and one that fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loopwright import Checkpoint
from loopwright.run.checkpoints.file import iteration_of


class Memory:
    """Keeps its blocks of bytes in a dict."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})

    def __str__(self) -> str:
        return "the memory"

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def read(self, name: str) -> bytes:
        try:
            return self.files[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def names(self) -> list[str]:
        return sorted(self.files)

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    @property
    def iterations(self) -> list[int]:
        """After which iterations there is a file."""
        return [number for name in self.names() if (number := iteration_of(name)) is not None]

    def until(self, iteration: int) -> Memory:
        """A copy as it was after an iteration, if all are kept."""
        return Memory({name: data for name, data in self.files.items() if (iteration_of(name) or 0) <= iteration})


class Failing(Memory):
    """Calls a function before each write, which may raise."""

    def __init__(self, before_write: Callable[[int], Any]) -> None:
        super().__init__()
        self._before_write = before_write
        self._writes = 0

    def write(self, name: str, data: bytes) -> None:
        self._writes += 1
        self._before_write(self._writes)
        super().write(name, data)


def saved_run(pipe: Any, *, every: int = 1, classes: Any = (), **inputs: Any) -> tuple[Any, Memory]:
    """A whole run, and all of its checkpoints."""
    memory = Memory()
    state = pipe(checkpoint=Checkpoint(memory, every=every, keep=None, classes=classes), **inputs)
    return state, memory
