"""Checkpoints found again: the last one in a folder, or that of a certain iteration."""

from __future__ import annotations

import warnings

import torch

from loopwright.errors import CheckpointDamagedError, CheckpointError
from loopwright.run.checkpoints.file import checkpoints_in, load_tensors, read_body, read_file
from loopwright.run.checkpoints.storage import Storage

__all__ = ["Saved", "read_saved"]


class Saved:
    """A checkpoint that was read.

    Attributes:
        name: the name of its file.
        body: its JSON.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name = storage, name
        data = read_file(storage, name)
        self.body = read_body(data, name)
        self._tensors = {"": load_tensors(data, name)}
        for file in {file for file, _ in self.body["places"].values() if file}:
            self._tensors[file] = load_tensors(read_file(storage, file), file)

    @property
    def iteration(self) -> int:
        iteration: int = self.body["iteration"]
        return iteration

    def tensor(self, key: str) -> torch.Tensor:
        file, stored = self.body["places"].get(key, ("", key))
        if stored not in self._tensors.get(file, ()):
            raise CheckpointDamagedError(f"`{self.name}` holds no tensor `{key}`")
        return self._tensors[file][stored]

    def start_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of what the run began with."""
        keys = [*self._tensors[""], *self.body["places"]]
        return {key: self.tensor(key) for key in keys if key.startswith("start")}


def read_saved(storage: Storage, at: int | None = None, fall_back: bool = False) -> Saved:
    """The last checkpoint in a folder, or the one after iteration `at`.

    Args:
        storage: the folder.
        at: the number of iterations, of all loops, after which it was taken.
        fall_back: whether an earlier one may be taken, with a warning, if the last one is damaged.

    Raises:
        CheckpointError: there is none.
        CheckpointDamagedError: it is damaged.
    """
    by_iteration = dict(checkpoints_in(storage))
    numbers = list(by_iteration)
    if not numbers:
        raise CheckpointError(
            f"{storage} holds no checkpoint: the run did not finish an iteration, or the folder is not that of a run"
        )
    if at is not None:
        if at not in by_iteration:
            raise CheckpointError(
                f"{storage} holds no checkpoint after iteration {at}; it has {', '.join(map(str, numbers))}; "
                f"`Checkpoint(..., keep=None)` keeps all of a run"
            )
        return Saved(storage, by_iteration[at])
    try:
        return Saved(storage, by_iteration[numbers[-1]])
    except CheckpointError as error:
        if not fall_back or len(numbers) == 1:
            more = ""
            if len(numbers) > 1:
                more = "; the one before may be whole: `pipe.resume(..., fall_back=True)` goes on from there"
            raise type(error)(f"{error}{more}") from error
        for number in reversed(numbers[:-1]):
            try:
                saved = Saved(storage, by_iteration[number])
            except CheckpointError:
                continue
            warnings.warn(
                f"`{by_iteration[numbers[-1]]}` is damaged; the run goes on from iteration {number} instead",
                stacklevel=2,
            )
            return saved
        raise
