"""`Checkpoint`: where and how often a run is saved; and saving it."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import random
import time
import warnings
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from types import FunctionType
from typing import Any

import numpy as np
import torch

from loopwright.blocks import walk
from loopwright.errors import (
    CheckpointError,
    InvalidInputError,
    UnsavableValueError,
    kind_of,
)
from loopwright.run.checkpoints.encoder import Encoder, savable_classes
from loopwright.run.checkpoints.file import TensorFiles, checkpoints_in, iteration_of, read_body, read_file
from loopwright.run.checkpoints.fingerprint import fingerprint
from loopwright.run.checkpoints.history import Entry, History
from loopwright.run.checkpoints.start import Start
from loopwright.run.checkpoints.storage import LocalFolder, Storage
from loopwright.run.driver import Frame, LoopDriver
from loopwright.run.scope import is_run_scoped
from loopwright.state import PipelineState, is_progress_bar, loop_record

__all__ = ["Checkpoint", "Recorder", "classes_of", "made_with"]

# the configuration of a scheduler or guider is not its state, and is compared by the fingerprint
_CONFIGURATION = ("_internal_dict",)


class Checkpoint:
    """Where a run is saved, and how often: `pipe(prompt="red apple", checkpoint=Checkpoint("apple-run"))`.

    A folder holds one run. `pipe.resume("apple-run")` goes on with it. Resuming also sets the global random states of
    torch, Python and numpy, which a run may use: of several runs at a time, only one can rely on them.

    Args:
        path: a folder, or a `Storage`.
        every: save after every so many iterations, counted over all loops.
        keep: how many of the last ones to keep; None keeps all.
        strict: whether a value that cannot be saved ends the run; otherwise there is a warning, and the run is not
            saved any more.
        classes: classes of values that the run may save beside those that Loopwright knows: enums, dataclasses, and
            others that are their attributes and no more.
        seconds: how long to wait at least between two saves, so that iterations which take less than saving does are
            not slowed: what a crash costs is then so many seconds, and an iteration.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Storage,
        every: int = 1,
        keep: int | None = 2,
        strict: bool = True,
        classes: Sequence[type] = (),
        seconds: float = 0.0,
    ) -> None:
        if type(seconds) not in (int, float) or not seconds >= 0:
            raise InvalidInputError(f"`seconds` of a `Checkpoint` is {seconds!r}; it must be 0 or more")
        for name, value in (("every", every), ("keep", keep)):
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidInputError(f"`{name}` of a `Checkpoint` is {value!r}; it must be 1 or more")
        if not isinstance(path, (str, os.PathLike)) and not hasattr(path, "names"):
            raise InvalidInputError(f"the folder of a run cannot be {kind_of(path)}; give a path, or a `Storage`")
        self.storage: Storage = LocalFolder(path) if isinstance(path, (str, os.PathLike)) else path
        self.every, self.keep, self.strict, self.classes = every, keep, strict, tuple(classes)
        self.seconds = float(seconds)


def classes_of(pipeline: Any, classes: Sequence[type]) -> dict[str, type]:
    """The classes of objects that a run of a pipeline may save: those given, and those that its blocks declare."""
    hints: set[Any] = set()
    for _, block in walk(pipeline._blocks):
        hints.update(param.type_hint for param in block.inputs if isinstance(param.type_hint, type))
        hints.update(param.type_hint for param in block.intermediate_outputs if isinstance(param.type_hint, type))
    return savable_classes([*(hint for hint in hints if _is_plain(hint)), *classes])


def _is_plain(cls: type) -> bool:
    """Whether a class that a block declares is one whose objects are their attributes, by what it is."""
    return dataclasses.is_dataclass(cls) or issubclass(cls, enum.Enum)


class Recorder:
    """Saves one run.

    Args:
        checkpoint: where and how often.
        pipeline: the pipeline that is run.
        view: the run's view of it.
        start: what the run began with.
        resumed: the iteration that the run goes on from in the same folder, None for a run that begins there.

    Raises:
        CheckpointError: the folder already holds another run.
    """

    def __init__(self, checkpoint: Checkpoint, pipeline: Any, view: Any, start: Start, resumed: int | None = None):
        self._checkpoint, self._pipeline, self._view, self._start = checkpoint, pipeline, view, start
        self._files = TensorFiles(checkpoint.storage)
        self._classes = classes_of(pipeline, checkpoint.classes)
        self._references: dict[str, set[str]] = {}
        self._checked = self._broken = False
        self._saved_at = time.monotonic()
        self._resumed = resumed
        view._driver.remember = Entry
        if resumed is None:
            self._require_free()

    @contextmanager
    def active(self) -> Iterator[None]:
        """While the run is under way; no other run is saved in the same folder meanwhile.

        Raises:
            CheckpointError: another run is, or was.
        """
        lock = getattr(self._checkpoint.storage, "lock", nullcontext)
        with lock():
            if self._resumed is None:
                self._require_free()
            else:
                self._take_over(self._resumed)
            yield

    def _require_free(self) -> None:
        storage = self._checkpoint.storage
        if checkpoints_in(storage):
            raise CheckpointError(
                f"{storage} already holds a run: go on with it by `pipe.resume({str(storage)!r})`, or take another "
                f"folder"
            )

    def _take_over(self, resumed: int) -> None:
        """Count the files that are there as this run's, but for those beyond the point that it goes on from."""
        for iteration, name in checkpoints_in(self._checkpoint.storage):
            if iteration > resumed:
                self._remove(name)
                continue
            try:
                body = read_body(read_file(self._checkpoint.storage, name), name)
            except CheckpointError:
                continue
            self._references[name] = {file for file, _ in body["places"].values() if file}

    def record(self, driver: LoopDriver, anyway: bool = False) -> None:
        """Look at the run after an iteration, and save it if it is time to.

        Args:
            driver: the driver of the run.
            anyway: whether it is to be saved now: something happened that a resumed run would not do by itself.

        Raises:
            UnsavableValueError: a value cannot be saved, and the checkpoint is strict.
            CheckpointError: the folder cannot be written to, and the checkpoint is strict.
        """
        if self._broken:
            return
        self._note(driver.frames[-1])
        try:
            if anyway or self._is_due(driver.iterations):
                self.save(driver)
            elif not self._checked:
                self._encoded(driver, self._encoder())
        except CheckpointError as error:
            if self._checkpoint.strict:
                raise
            warnings.warn(f"the run is not saved any more: {error}", stacklevel=2)
            self._broken = True
        self._checked = True

    def _is_due(self, iterations: int) -> bool:
        checkpoint = self._checkpoint
        return iterations % checkpoint.every == 0 and time.monotonic() - self._saved_at >= checkpoint.seconds

    def _note(self, frame: Frame) -> None:
        if frame.history is None:
            frame.history = History()
        frame.history.note(frame.index, frame.values)

    @cached_property
    def _unchanging(self) -> str:
        """What is the same in all files of the run. Not made before the first, as it takes reading all weights."""
        settings = {name: getattr(self._checkpoint, name) for name in ("every", "keep", "strict", "seconds")}
        unchanging = {"fingerprint": fingerprint(self._pipeline), "settings": settings, "start": self._start.written}
        return json.dumps(unchanging, allow_nan=False)

    def save(self, driver: LoopDriver) -> None:
        encoder = self._encoder()
        body = {"iteration": driver.iterations, **self._encoded(driver, encoder)}
        tensors = {**encoder.tensors, **self._start.tensors}
        histories = ", ".join((frame.history or History()).written for frame in driver.frames)
        parts = {"run": self._unchanging, "histories": f'{{"histories": [{histories}]}}'}
        name, references = self._files.write(driver.iterations, parts, body, tensors)
        for older in [older for older in self._references if iteration_of(older) == driver.iterations]:
            del self._references[older]
            if older != name:
                self._remove(older)
        self._references[name] = references
        self._saved_at = time.monotonic()
        self._prune()

    def _encoder(self) -> Encoder:
        return Encoder(self._view.components, self._classes)

    def _encoded(self, driver: LoopDriver, encoder: Encoder) -> dict[str, Any]:
        """What is read back in the same order, as what occurs twice is written where it first occurs."""
        for frame in driver.frames:
            if frame.visit:
                raise UnsavableValueError(
                    f"the loop `{frame.path}` runs for the {frame.visit + 1}th time within one call of the block that "
                    f"holds it, and what that block keeps meanwhile cannot be saved; make the loop a sub-block"
                )
        assigned = self._view._assigned(self._pipeline, with_configuration=True)
        try:
            encoded = {
                "generators": {
                    name: [encoder.encode(generator, name) for generator in generators]
                    for name, generators in self._start.generators.items()
                },
                "state": {
                    "values": _pairs(encoder, driver.state.values),
                    "groups": driver.state.kwargs_mapping,
                },
                "frames": [self._frame(driver, frame, encoder) for frame in driver.frames],
                "components": {
                    name: encoder.attributes(component, name, without=self._made_with(name, component))
                    for name, component in self._view.components.items()
                    if is_run_scoped(component)
                },
                "rng": [
                    [name, encoder.encode(state, f"the global random state of {name}")]
                    for name, state in _global_rng().items()
                ],
                "attributes": _pairs(encoder, assigned, "components"),
                "entries": [
                    self._entry(frame, around, encoder)
                    for frame, around in zip(
                        driver.frames, [driver.state.values, *(frame.values for frame in driver.frames)], strict=False
                    )
                ],
            }
        except RecursionError as error:
            raise UnsavableValueError("a value is nested too deeply to be saved") from error
        encoder.join()
        return encoded

    def _made_with(self, name: str, component: Any) -> set[str]:
        """The attributes of a component that are no state: its configuration, and functions that it was given."""
        own, now = vars(getattr(self._pipeline, name)), vars(component)
        return {key for key in made_with(component) if key in _CONFIGURATION or own.get(key) is now[key]}

    def _frame(self, driver: LoopDriver, frame: Frame, encoder: Encoder) -> dict[str, Any]:
        shared = isinstance(frame.state, PipelineState)
        # a wrapper that has a bar among its values makes a new one before its first iteration
        values = {name: value for name, value in frame.values.items() if not is_progress_bar(value)}
        return {
            "path": frame.path,
            "names": driver.block_names[frame.outer_depth : frame.depth],
            "index": frame.index,
            "ended": frame.ended,
            "variables": _pairs(encoder, frame.variables, frame.path),
            # a wrapper may work on the state of the pipeline itself
            "values": None if shared else _pairs(encoder, values, frame.path),
            "groups": None if shared else loop_record(frame.state).groups,
            "iteration": loop_record(frame.state).iteration,
        }

    def _entry(self, frame: Frame, around: Mapping[str, Any], encoder: Encoder) -> dict[str, Any]:
        """What the loop found when it began, where it is another now."""
        return {"changed": [], "new": []} if frame.entry is None else frame.entry.encoded(encoder, frame.path, around)

    def _remove(self, name: str) -> None:
        try:
            self._checkpoint.storage.remove(name)
        except OSError as error:
            raise CheckpointError(
                f"`{name}` in {self._checkpoint.storage} is no longer needed and cannot be removed: {error}; what was "
                f"saved is still there"
            ) from error

    def _prune(self) -> None:
        """Remove the files that neither one of the last checkpoints is, nor refers to."""
        if self._checkpoint.keep is None:
            return
        last = list(self._references)[-self._checkpoint.keep :]
        needed = {*last, *(file for name in last for file in self._references[name])}
        for name in [*self._references]:
            if name not in needed:
                self._remove(name)
        # a file that is only referred to is not a checkpoint to go back to
        self._references = {name: references for name, references in self._references.items() if name in needed}


def made_with(component: Any) -> set[str]:
    """The attributes of a component that hold its configuration, or functions."""
    functions = {name for name, value in vars(component).items() if isinstance(value, FunctionType)}
    return {*_CONFIGURATION, *functions}


def _pairs(encoder: Encoder, values: Mapping[str, Any], path: str = "") -> list[Any]:
    return [[name, encoder.encode(value, f"{path}: {name}" if path else name)] for name, value in values.items()]


def _global_rng() -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        # as an array it is written only when it has changed
        "python": (version, np.frombuffer(array("I", internal), np.uint32), gauss),
        "numpy": np.random.get_state(legacy=False),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states
