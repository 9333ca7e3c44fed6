"""Going another way from a checkpoint: with other inputs from there on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loopwright.run.checkpoints.comparison import same
from loopwright.run.checkpoints.replay import Contents, Replay, SavedFrame
from loopwright.run.checkpoints.saved import Saved
from loopwright.run.checkpoints.start import generators_in
from loopwright.state import PipelineState

if TYPE_CHECKING:
    from loopwright.run.driver import Frame

__all__ = ["Branch"]


class Branch(Replay):
    """Leads a run with other inputs to the point at which another one was saved.

    The blocks before the loop run with the changed inputs. In the loop, what its blocks had written is taken from the
    checkpoint, with the state of schedulers and guiders, and of generators that are not changed; all else is as the
    changed inputs make it.

    Args:
        saved: the checkpoint.
        pipeline: the pipeline.
        view: the run's view of it.
        classes: classes of values beyond those that are known.
        start: the state that the run begins with.
        changed: the names of the values that are not those with which the saved run began.
    """

    def __init__(
        self,
        saved: Saved,
        pipeline: Any,
        view: Any,
        classes: Sequence[type],
        start: PipelineState,
        changed: frozenset[str],
    ) -> None:
        super().__init__(saved, pipeline, view, classes)
        self._changes = {name: start.values[name] for name in changed if name in start.values}
        for name, written in saved.body["generators"].items():
            if name not in changed:
                for generator, entry in zip(generators_in(start.values.get(name)), written, strict=True):
                    if "number" in entry:
                        self._generators[entry["number"]] = generator

    def is_done(self, depth: int, name: str) -> bool:
        return depth >= len(self._frames[0]["names"]) and super().is_done(depth, name)

    def chosen(self, depth: int) -> str | None:
        return super().chosen(depth) if depth >= len(self._frames[0]["names"]) else None

    def _reason(self) -> str:
        return "the changed inputs change its iterations, and a branch goes on with those that there were"

    def rewind(self, frame: Frame, depth: int) -> None:
        contents = self._contents()
        names = frozenset(self._written(frame, contents.frames[depth], depth, contents))
        self._histories[depth].restore(frame.index, frame.values, names)

    def _restore_state(self, state: PipelineState, contents: Contents) -> None:
        pass

    def _enter(self, frame: Frame, depth: int, contents: Contents) -> None:
        names = self._written(frame, contents.frames[depth - 1], depth - 1, contents)
        entry = contents.entries[depth]
        frame.values.update((name, value) for name, value, _ in entry.changed if name in names)

    def _restore_frame(self, frame: Frame, saved: SavedFrame, depth: int, contents: Contents) -> None:
        written = self._written(frame, saved, depth, contents)
        frame.values.update(written)
        frame.values.update((name, value) for name, value in self._changes.items() if name in written)

    def _written(self, frame: Frame, saved: SavedFrame, depth: int, contents: Contents) -> dict[str, Any]:
        """What the blocks of a loop had written: its outputs, and its inputs that are not what they were around it."""
        values = contents.values if saved.values is None else saved.values
        around = contents.frames[depth - 1].values if depth else None
        outer = contents.values if around is None else around
        outputs = set(frame.loop.intermediate_output_names)
        return {
            name: value
            for name, value in values.items()
            if name in outputs
            or (name not in self._changes and outer.get(name) is not None and not same(outer[name], value))
        }
