"""The folder of a run of a command: its checkpoints, and what else is needed to go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loopwright.errors import CheckpointError, InvalidInputError

from .frames import Frames, is_frame, stride
from .request import REQUEST_NAME, Request, read_request, resume_command

if TYPE_CHECKING:
    from PIL import Image

    from loopwright.run import Checkpoint, Run
    from loopwright.run.checkpoints import Storage

__all__ = ["RunFolder", "free_folder", "holds_checkpoint", "new_folder"]


class RunFolder:
    """Keeps what `loopwright resume` needs beside the checkpoints: the request, and the frames of its animation.

    Without a folder frames are kept in memory, and a folder beside the output is made when the run is saved.

    Args:
        request: what the command was asked.
        path: the folder that the user named; None if there is none.
    """

    def __init__(self, request: Request, path: Path | None) -> None:
        from loopwright.run.checkpoints import LocalFolder

        self._request, self._path = request, path
        self._storage: Storage = _Memory() if path is None else LocalFolder(path)
        self._frames = Frames(self._storage)
        self._has_request = False
        # made by `save`
        self._made: Path | None = None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the run is saved after each step; None for nowhere."""
        from loopwright.run import Checkpoint

        return None if self._path is None else Checkpoint(self._storage)

    @property
    def saved_in(self) -> Path | None:
        """Where the run is saved; None if it is not, or not yet."""
        if self._path is not None:
            return self._path if self._path.is_dir() and holds_checkpoint(self._path) else None
        return self._made

    def wants_frame(self, index: int) -> bool:
        """Whether the pictures after a step belong to an animation."""
        return bool(self._request.animations) and index % stride(index) == 0

    def keep(self, index: int, pictures: Sequence[Image.Image]) -> None:
        """Before a run is saved after a step: keep the request, and the pictures if they belong to an animation.

        Raises:
            CheckpointError: the folder cannot be written to.
        """
        try:
            if self._path is not None and not self._has_request:
                self._storage.write(REQUEST_NAME, self._request.to_bytes())
            self._has_request = True
            if self.wants_frame(index):
                self._frames.add(index, pictures)
        except OSError as error:
            raise CheckpointError(f"the run cannot be saved to {self._path}: {error.strerror or error}") from error

    def frames_of(self, number: int) -> list[Image.Image]:
        """The frames of one of the animations."""
        return self._frames.of(number)

    def save(self, run: Run) -> Path:
        """Save a run that stands between two steps, if it is not saved after each anyway.

        Returns:
            Where it is saved.

        Raises:
            CheckpointError: it cannot be saved.
        """
        if self._path is not None:
            return self._path
        from loopwright.run.checkpoints import LocalFolder

        folder = free_folder(self._request.outputs[0])
        storage = LocalFolder(folder)
        try:
            storage.write(REQUEST_NAME, replace(self._request, was_asked_for=False).to_bytes())
            for name in self._storage.names():
                storage.write(name, self._storage.read(name))
            run.save(storage)
        except BaseException as error:
            _remove(folder)
            if isinstance(error, OSError):
                raise CheckpointError(f"{folder} cannot be written: {error.strerror or error}") from error
            raise
        if self._made is not None:
            _remove(self._made)
        self._made = folder
        return folder

    def finish(self) -> None:
        """The files are written: remember that in a folder that the user named, remove one that the user did not."""
        if self._path is not None and self._request.was_asked_for:
            self._storage.write(REQUEST_NAME, replace(self._request, is_finished=True).to_bytes())
        for folder in (self._made, None if self._request.was_asked_for else self._path):
            if folder is not None:
                _remove(folder)


class _Memory:
    """A `Storage` that ends with the process."""

    def __init__(self) -> None:
        self._blocks: dict[str, bytes] = {}

    def write(self, name: str, data: bytes) -> None:
        self._blocks[name] = data

    def read(self, name: str) -> bytes:
        return self._blocks[name]

    def names(self) -> list[str]:
        return list(self._blocks)

    def remove(self, name: str) -> None:
        self._blocks.pop(name, None)


def new_folder(path: Path) -> Path:
    """The folder, if a run can be saved in it.

    Raises:
        InvalidInputError: it holds a run, or something else, or cannot be made.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(f"--checkpoint: there is no folder {path.parent} to make {path.name} in")
    if not path.exists():
        return path
    if not path.is_dir():
        raise InvalidInputError(f"--checkpoint: {path} is a file; name a folder")
    names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    if holds_checkpoint(path):
        hint = f"`{resume_command(path)}` goes on with it"
        with suppress(CheckpointError):
            hint = "it is finished; remove it or name another folder" if read_request(path).is_finished else hint
        raise InvalidInputError(f"--checkpoint: {path} holds a run already: {hint}")
    # what a run leaves that ended before its first checkpoint is written over
    if not all(name == REQUEST_NAME or is_frame(name) for name in names):
        raise InvalidInputError(f"--checkpoint: {path} holds other files; name a new or an empty folder")
    return path


def holds_checkpoint(path: Path) -> bool:
    """Whether a folder holds a checkpoint of a run."""
    return any(_is_checkpoint(entry.name) for entry in path.iterdir())


def free_folder(output: Path) -> Path:
    """The folder beside a file for a run that writes it: `apple.run` for `apple.png`, or `apple-2.run` and so on."""
    names = (output.with_name(f"{output.stem}{suffix}.run") for suffix in ("", *(f"-{n}" for n in range(2, 10_000))))
    return next(name for name in names if not name.exists())


def _remove(folder: Path) -> None:
    """Remove a folder and what a run keeps in it; a folder with other files stays."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.name == REQUEST_NAME or is_frame(entry.name) or _is_checkpoint(entry.name):
                entry.unlink()
        folder.rmdir()


def _is_checkpoint(name: str) -> bool:
    return name.endswith(".safetensors")
