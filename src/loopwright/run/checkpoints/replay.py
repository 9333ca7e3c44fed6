"""Going on from a checkpoint: what is done is passed over, loops are wound forward without running their blocks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from loopwright.errors import CheckpointMismatchError, brief_pair
from loopwright.run.checkpoints.checkpoint import classes_of, made_with
from loopwright.run.checkpoints.comparison import same
from loopwright.run.checkpoints.decoder import Decoder
from loopwright.run.checkpoints.file import reading
from loopwright.run.checkpoints.history import History
from loopwright.run.checkpoints.saved import Saved
from loopwright.run.checkpoints.start import Start
from loopwright.state import PipelineState, is_progress_bar, loop_record

if TYPE_CHECKING:
    from loopwright.run.driver import Frame

__all__ = ["Contents", "Replay", "SavedFrame", "saved_start"]


class SavedFrame(NamedTuple):
    """A loop that was running when the run was saved.

    Attributes:
        variables: those of its iteration.
        values: those that its blocks shared; None if they worked on the state of the pipeline.
        written: the rest, as JSON.
    """

    variables: dict[str, Any]
    values: dict[str, Any] | None
    written: dict[str, Any]


class SavedEntry(NamedTuple):
    """What a loop found when it began, where that was another when the run was saved.

    Attributes:
        changed: name, value, and the number of the object that it was, if that was changed itself.
        new: names that there were not yet.
    """

    changed: list[tuple[str, Any, int | None]]
    new: list[str]


class Contents(NamedTuple):
    """Everything that was saved, read anew; what is one object in several places is one object here.

    Attributes:
        generators: those that the run began with, by name.
        values: those of the pipeline's state.
        frames: the loops that were running, outermost first.
        entries: what each of them found.
        components: the attributes of the components of the run.
        rng: the global random states.
        attributes: what blocks assigned to the run's view of the pipeline.
    """

    generators: dict[str, list[torch.Generator]]
    values: dict[str, Any]
    frames: list[SavedFrame]
    entries: list[SavedEntry]
    components: dict[str, dict[str, Any]]
    rng: dict[str, Any]
    attributes: dict[str, Any]


class Replay:
    """Leads a run to the point at which it was saved.

    Args:
        saved: the checkpoint.
        pipeline: the pipeline.
        view: the run's view of it.
        classes: classes of values beyond those that are known.
    """

    def __init__(self, saved: Saved, pipeline: Any, view: Any, classes: Sequence[type] = ()) -> None:
        self._saved, self._view = saved, view
        self._classes = classes_of(pipeline, classes)
        self._frames: list[dict[str, Any]] = saved.body["frames"]
        # one object for each, as the wrapper of a loop may hold it
        self._generators: dict[int, torch.Generator] = {}
        self._containers: dict[int, Any] = {}
        with reading(saved.name):
            self._histories = [History.read(written) for written in saved.body["histories"]]
        self.names = [name for frame in self._frames for name in frame["names"]]

    @property
    def iterations(self) -> int:
        return self._saved.iteration

    @property
    def depth(self) -> int:
        """How many loops were running."""
        return len(self._frames)

    def path(self, depth: int) -> str:
        path: str = self._frames[depth]["path"]
        return path

    def index(self, depth: int) -> int:
        """The iteration in which a loop was, by how many loops are around it."""
        index: int = self._frames[depth]["index"]
        return index

    def state(self) -> PipelineState:
        """The state of the pipeline as it was when the outermost loop that was running began."""
        contents, groups = self._contents(in_place=True), self._saved.body["state"]["groups"]
        self._view.__dict__.update(contents.attributes)
        if contents.entries:
            self._put(contents.entries[0], contents.values)
        return PipelineState(contents.values, {kind: list(names) for kind, names in groups.items()})

    def _put(self, entry: SavedEntry, values: dict[str, Any]) -> None:
        """Have values be those that a loop found, in the objects that it found."""
        for name in entry.new:
            values.pop(name, None)
        for name, value, number in entry.changed:
            known = None if number is None else self._containers.get(number)
            if known is not None and type(known) is type(value):
                known.clear()
                known.extend(value) if isinstance(value, list) else known.update(value)
            values[name] = value if known is None or type(known) is not type(value) else known

    def start(self) -> Start:
        """What the run began with, with the generators as this run has them."""
        return Start(self._saved.body["start"], self._saved.start_tensors(), self._contents().generators)

    def is_done(self, depth: int, name: str) -> bool:
        """Whether a block was passed before the checkpoint; not the one in which it was taken.

        Args:
            depth: how many names lead to the block.
            name: its own name.
        """
        return depth < len(self.names) and self.names[depth] != name

    def chosen(self, depth: int) -> str | None:
        """The block in which the checkpoint was taken, of those to which so many names lead."""
        return self.names[depth] if depth < len(self.names) else None

    def check_variables(self, depth: int, path: str, index: int, variables: dict[str, Any]) -> None:
        """Compare the variables of the iteration of the checkpoint with those that were saved.

        Raises:
            CheckpointMismatchError: they differ.
        """
        saved = self._contents().frames[depth].variables
        for name in [*saved, *(name for name in variables if name not in saved)]:
            if name not in variables or name not in saved or not same(variables[name], saved[name]):
                now, was = brief_pair(variables.get(name), saved.get(name))
                now = f"{name}={now}" if name in variables else f"no `{name}`"
                was = f"{name}={was}" if name in saved else f"no `{name}`"
                raise CheckpointMismatchError(
                    f"iteration {index} of loop `{path}` had {was} when it was saved, and now has {now}: "
                    f"{self._reason()}"
                )

    def _reason(self) -> str:
        return "its iterations depend on something that is not saved"

    def restore(self, frames: list[Frame], state: PipelineState) -> None:
        """Give the loops that run their saved values, and, if they are all there, everything else too.

        Args:
            frames: the frames of the loops, outermost first.
            state: the state of the pipeline.
        """
        depth = len(frames)
        is_there = frames[-1].index == self.index(depth - 1)
        # a wrapper may hold what it found: from here on it goes on with that
        contents = self._contents(in_place=is_there)
        reached = is_there and depth == self.depth
        if reached or any(saved.values is None for saved in contents.frames[:depth]):
            self._restore_state(state, contents)
        for number, (frame, saved) in enumerate(zip(frames, contents.frames, strict=False)):
            self._restore_frame(frame, saved, number, contents)
        if not is_there:
            self.rewind(frames[-1], depth - 1)
        elif not reached:
            self._enter(frames[-1], depth, contents)
        if not reached:
            return
        for frame, saved, written in zip(frames, contents.frames, self._saved.body["histories"], strict=True):
            frame.ended = saved.written["ended"]
            frame.history = History.read(written)
        for name, attributes in contents.components.items():
            component = getattr(self._view, name)
            for attribute in vars(component).keys() - made_with(component):
                delattr(component, attribute)
            vars(component).update(attributes)
        self._view.__dict__.update(contents.attributes)
        with reading(self._saved.name):
            for name, rng in contents.rng.items():
                _set_global_rng(name, rng)

    def rewind(self, frame: Frame, depth: int) -> None:
        """Set the small values of a loop to what they were after its current iteration."""
        self._histories[depth].restore(frame.index, frame.values)

    def _restore_state(self, state: PipelineState, contents: Contents) -> None:
        state.values.clear()
        state.values.update(contents.values)

    def _enter(self, frame: Frame, depth: int, contents: Contents) -> None:
        """In a loop that is where it was, the next one inside of it is about to begin.

        Args:
            frame: the loop.
            depth: how many loops are around the next one.
            contents: what was saved.
        """
        self._put(contents.entries[depth], frame.values)

    def _restore_frame(self, frame: Frame, saved: SavedFrame, depth: int, contents: Contents) -> None:
        record = loop_record(frame.state)
        record.iteration = saved.written["iteration"]
        if saved.values is not None:
            bars = {name: value for name, value in frame.values.items() if is_progress_bar(value)}
            frame.values.clear()
            frame.values.update({**saved.values, **bars})
            record.groups = {kind: list(names) for kind, names in saved.written["groups"].items()}

    def _contents(self, in_place: bool = False) -> Contents:
        with reading(self._saved.name):
            return self._read(in_place)

    def _read(self, in_place: bool) -> Contents:
        body = self._saved.body
        decoder = self._decoder(self._containers if in_place else None)
        decode = decoder.decode

        def decoded(pairs: list[Any]) -> dict[str, Any]:
            return {name: decode(value) for name, value in pairs}

        # in the order in which it was written: what occurs twice is written where it first occurs
        generators = {name: [decode(value) for value in values] for name, values in body["generators"].items()}
        values = decoded(body["state"]["values"])
        frames = [
            SavedFrame(
                decoded(frame["variables"]),
                None if frame["values"] is None else decoded(frame["values"]),
                frame,
            )
            for frame in self._frames
        ]
        components = {name: decoded(attributes) for name, attributes in body["components"].items()}
        rng, attributes = decoded(body["rng"]), decoded(body["attributes"])
        entries = [
            SavedEntry([(name, decode(value), number) for name, value, number in entry["changed"]], entry["new"])
            for entry in body["entries"]
        ]
        return Contents(generators, values, frames, entries, components, rng, attributes)

    def _decoder(self, containers: dict[int, Any] | None) -> Decoder:
        return Decoder(self._saved.tensor, self._component, self._classes, self._generators, containers)

    def _component(self, name: str) -> Any:
        return getattr(self._view, name) if name in self._view._component_specs else None


def saved_start(saved: Saved, pipeline: Any, classes: Sequence[type] = ()) -> PipelineState | None:
    """The state with which a saved run began; None if it could not be saved."""
    written = saved.body["start"]
    if written is None:
        return None
    decoder = Decoder(saved.tensor, pipeline.components.get, classes_of(pipeline, classes), {})
    with reading(saved.name):
        values = {name: decoder.decode(value) for name, value in written["values"]}
        return PipelineState(values, {kind: list(names) for kind, names in written["groups"].items()})


def _set_global_rng(name: str, state: Any) -> None:
    if name == "torch":
        torch.set_rng_state(state)
    elif name == "python":
        version, internal, gauss = state
        random.setstate((version, tuple(internal.tolist()), gauss))
    elif name == "numpy":
        np.random.set_state(state)
    elif torch.cuda.device_count() == len(state):
        torch.cuda.set_rng_state_all(state)
