"""One execution of a pipeline for one request, whichever thread it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from loopwright.blocks.driving import current_driver
from loopwright.components.turns import at_work
from loopwright.errors import InvalidInputError, RunStateError, UnknownNameError, did_you_mean, kind_of
from loopwright.run.caching import RunCache
from loopwright.run.checkpoints import Branch, Checkpoint, Recorder, Replay, Saved, Start, classes_of
from loopwright.run.control import Control
from loopwright.run.driver import Frame, LoopDriver
from loopwright.run.event import Event
from loopwright.run.exclusive import Exclusive
from loopwright.run.generators import drawing_from
from loopwright.run.memory import memory_gauge
from loopwright.run.model_calls import watched_models
from loopwright.run.modes import ThreadModes
from loopwright.run.options import RunOptions, StepEnd, require_steps
from loopwright.run.peek import Moment
from loopwright.run.presence import Presence
from loopwright.run.tokenizers import one_encoding_at_a_time
from loopwright.run.trace import Trace
from loopwright.state import PipelineState

__all__ = ["Execution"]


class Execution:
    """A pipeline's blocks, run with a driver.

    Args:
        pipeline: the pipeline.
        state: the state that the blocks start with.
        options: the options of the run.
        held: whether it waits for a listener before it begins.

    Attributes:
        view: the run's own view of the pipeline, which the blocks get as `components`.
        control: what steers it from outside.
        trace: how long its blocks and iterations took.
        cache: what it takes over from earlier runs, None if the pipeline keeps nothing of them.
    """

    def __init__(self, pipeline: Any, state: PipelineState, options: RunOptions, held: bool = False) -> None:
        require_steps(pipeline._blocks, options.callbacks)
        self.options = options
        self.trace = Trace(pipeline._blocks)
        self.control = Control(options.timeout, held, self.trace)
        self.view = pipeline._view()
        self._exclusive = Exclusive(self.view, self.control.check) if pipeline._needs_exclusive() else None
        cache = pipeline._block_cache
        self.cache = None if cache is None else RunCache(cache, pipeline, self.view, self._why_iterate)
        batch = pipeline._batch
        self._presence: Presence | None = None if batch is None else batch.presence(self.view, self.control)
        self.control.presence = self._presence
        self.driver = LoopDriver(
            state, self._boundary, options.progress, self._exclusive, self.trace, self.cache, self._presence
        )
        self.view._driver = self.driver
        self.view.__dict__.pop("_interrupt", None)
        self._pipeline = pipeline
        # a block that calls a pipeline may hand on the generator of its run, and waits
        self._is_nested = current_driver.get() is not None
        # None stands for the innermost loop
        self._stops: set[str | None] = set()
        self._callbacks = options.callbacks
        self._recorder: Recorder | None = None
        if options.checkpoint is None:
            self._start = Start.unsaved(state)
        else:
            classes = classes_of(pipeline, options.checkpoint.classes)
            self._start = Start.of(state, self.view.components, classes)
            self._recorder = Recorder(options.checkpoint, pipeline, self.view, self._start)

    @classmethod
    def resumed(
        cls, pipeline: Any, saved: Saved, options: RunOptions, classes: Sequence[type] = (), held: bool = False
    ) -> Execution:
        """The execution that goes on from a checkpoint, and goes on to save in the same folder."""
        checkpoint = options.checkpoint
        execution = cls(pipeline, PipelineState(), replace(options, checkpoint=None), held)
        replay = Replay(saved, pipeline, execution.view, classes)
        execution.driver.state = replay.state()
        execution.driver.replay = replay
        execution._start = replay.start()
        if checkpoint is not None:
            execution._recorder = Recorder(checkpoint, pipeline, execution.view, execution._start, saved.iteration)
        return execution

    @classmethod
    def branched(
        cls,
        pipeline: Any,
        saved: Saved,
        state: PipelineState,
        changed: frozenset[str],
        options: RunOptions,
        classes: Sequence[type] = (),
        held: bool = False,
    ) -> Execution:
        """The execution that goes another way from a checkpoint.

        Args:
            pipeline: the pipeline.
            saved: the checkpoint.
            state: the state that the blocks start with.
            changed: the names of the values in it that are not those with which the saved run began.
            options: the options of the run.
            classes: as for `Checkpoint`.
            held: whether it waits for a listener before it begins.
        """
        execution = cls(pipeline, state, options, held)
        execution.driver.replay = Branch(saved, pipeline, execution.view, classes, state, changed)
        return execution

    def run(self) -> PipelineState:
        """Run the blocks, and return the state that they leave."""
        self._modes = ThreadModes()
        token = current_driver.set(self.driver)
        try:
            with (
                nullcontext() if self._recorder is None else self._recorder.active(),
                torch.no_grad(),
                nullcontext() if self._is_nested else drawing_from(self.driver.state.values.values()),
                nullcontext() if self._presence is None else self._presence.active(),
                watched_models(self.view, self._before_model),
                one_encoding_at_a_time(self.view._uncopied_components()),
                # also a run that needs nothing for itself may meet others that do
                at_work(self, self.control.check) if self._exclusive is None else self._exclusive.active(),
                self.trace.running(memory_gauge(self.view)),
            ):
                return self.driver.run(self._pipeline._blocks, self.view)
        finally:
            current_driver.reset(token)

    def announce(self) -> None:
        """It is about to begin, in some thread."""
        if self._presence is not None:
            self._presence.announce()

    def withdraw(self) -> None:
        """It does not begin after all."""
        if self._presence is not None:
            self._presence.leave()

    def finish(self) -> None:
        """It has ended, in whichever way."""
        self.withdraw()
        self.control.finish()

    def _before_model(self) -> None:
        if self._exclusive is not None and self._exclusive.is_holding:
            # others may be waiting for what the run has: no place to stand still
            self.control.check()
        else:
            self.control.meet()

    def returned(self, state: PipelineState) -> Any:
        """What a call returns of the state that the blocks left."""
        return self._pipeline._returned(state, self.options.output)

    def stop_loop(self, path: str | None) -> None:
        """End a loop after its current iteration, or after its first if it does not run yet.

        Args:
            path: the path of the loop; None for the innermost that runs.

        Raises:
            UnknownNameError: the pipeline has no loop of that path.
        """
        known = [*self._pipeline._loop_paths(), *(frame.path for frame in list(self.driver.frames) if frame.is_held)]
        if path is not None and path not in known:
            raise UnknownNameError(
                f"this pipeline has no loop `{path}`{did_you_mean(path, known)}; "
                + (f"it has {', '.join(f'`{name}`' for name in known)}" if known else "it has none")
            )
        self._stops.add(path)

    def _why_iterate(self) -> tuple[str, bool] | None:
        """Why the run goes through loops whose result is known, and whether they may then have another result."""
        if self._callbacks.step_end:
            return "a callback may change the values of each iteration", True
        if self._stops:
            return "a loop was told to end", True
        if self._callbacks.on_event:
            return "a callback is called after each iteration", False
        if self._recorder is not None:
            return "the run is saved after its iterations", False
        return None

    def save(self, checkpoint: Checkpoint | None) -> None:
        """Save the run, which stands between two iterations.

        Args:
            checkpoint: where; None for where it is saved anyway.

        Raises:
            RunStateError: it is not saved anywhere.
        """
        if checkpoint is None and self._recorder is None:
            raise RunStateError("the run has no `checkpoint`, so it is not saved anywhere: name a folder")
        self._end_stopped(self.driver.frames)
        if checkpoint is not None:
            recorder = Recorder(checkpoint, self._pipeline, self.view, self._start)
            with recorder.active():
                recorder.save(self.driver)
        elif self._recorder is not None:
            self._recorder.record(self.driver, anyway=True)

    def _boundary(self, frames: list[Frame]) -> None:
        """After an iteration: callbacks may change its values, then those who listen and steer have their turn."""
        made: list[Event] = []

        def event() -> Event:
            if not made:
                made.append(self._event(frames))
            return made[0]

        ended = sum(frame.ended for frame in frames)
        try:
            for callback in self._callbacks.step_end:
                self._step_end(callback, frames[-1])
            for on_event in self._callbacks.on_event:
                on_event(event())
        except Exception as error:
            error.add_note(f"in a callback, after iteration {frames[-1].index} of loop `{frames[-1].path}`")
            raise
        if self.view.__dict__.pop("_interrupt", False):
            frames[-1].ended = True
        ended = self._record(frames, ended)
        self.control.meet(event)
        self._end_stopped(frames)
        if sum(frame.ended for frame in frames) > ended:
            self._record(frames, ended)

    def _end_stopped(self, frames: list[Frame]) -> None:
        """End the loops that `stop_loop` was told to end, of those that run."""
        for path in self._stops.copy():
            stopped = frames[-1:] if path is None else [frame for frame in frames if frame.path == path]
            for frame in stopped:
                frame.ended = True
                self._stops.discard(path)

    def _record(self, frames: list[Frame], ended: int) -> int:
        """Save the run if it is time to, or if a loop was ended, which a resumed run would not know.

        Args:
            frames: the frames of the loops.
            ended: how many of them had been told to end.

        Returns:
            How many have by now.
        """
        now = sum(frame.ended for frame in frames)
        if self._recorder is not None:
            self._recorder.record(self.driver, anyway=now > ended)
        return now

    def _event(self, frames: list[Frame]) -> Event:
        state, innermost = PipelineState(), frames[-1]
        for values, groups in [
            (self.driver.state.values, self.driver.state.kwargs_mapping),
            *((frame.values, frame.groups) for frame in frames),
        ]:
            state.values.update(values)
            state.kwargs_mapping.update((kind, list(names)) for kind, names in groups.items())
        state._strict = True
        return Event(
            path=innermost.path,
            position=tuple((frame.path, frame.index) for frame in frames),
            index=innermost.index,
            total=innermost.total,
            loop_kwargs=dict(innermost.variables),
            elapsed=self.control.elapsed,
            state=state,
            _peek=Moment(self._pipeline, self.view, self.driver, self._modes).peek,
        )

    def _step_end(self, callback: StepEnd, frame: Frame) -> None:
        """Call a callback of a step's end; loops that have no `i` and `t` have no such steps."""
        if "i" not in frame.variables or "t" not in frame.variables:
            return
        values = frame.values
        missing = [name for name in callback.tensor_inputs if name not in values]
        if missing:
            raise InvalidInputError(
                f"the callback asks for `{missing[0]}`, which loop `{frame.path}` does not have"
                f"{did_you_mean(missing[0], values)}; it has {', '.join(f'`{name}`' for name in sorted(values))}"
            )
        given = {name: values[name] for name in callback.tensor_inputs}
        changed = callback.function(self.view, frame.variables["i"], frame.variables["t"], given)
        if changed is None:
            return
        if not isinstance(changed, Mapping):
            raise InvalidInputError(
                f"the callback returned {kind_of(changed)}; it must return a dict of the values to change, or None"
            )
        known = {*values, *frame.loop.input_names, *frame.loop.intermediate_output_names}
        for name in changed:
            if name not in known:
                raise InvalidInputError(
                    f"the callback changes `{name}`, and loop `{frame.path}` has no such value"
                    f"{did_you_mean(name, known)}; it has {', '.join(f'`{each}`' for each in sorted(known))}"
                )
        values.update(changed)
