"""What the result of a run would be if its loops ended now."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from loopwright.blocks import ConditionalPipelineBlocks
from loopwright.errors import InvalidInputError, RunStateError
from loopwright.run.driver import Frame, LoopDriver
from loopwright.run.exclusive import Exclusive
from loopwright.run.modes import ThreadModes
from loopwright.run.request import check_output
from loopwright.state import BlockState, PipelineState, fork_block_state, fork_values

__all__ = ["Moment"]


class Moment:
    """The end of one iteration of a run, from which its end can be foreseen as long as the run stands there.

    Args:
        pipeline: the pipeline.
        view: the run's view of it.
        driver: the driver of the run.
        modes: the modes under which the run works.
    """

    def __init__(self, pipeline: Any, view: Any, driver: LoopDriver, modes: ThreadModes) -> None:
        self._pipeline, self._view, self._driver, self._modes = pipeline, view, driver, modes
        self._mark = driver.mark

    def peek(self, output: Any = None) -> Any:
        """Run the blocks that follow the loops, on a copy, and return what a call would return.

        Raises:
            RunStateError: the run has gone on, or a block calls one of the loops by itself.
            InvalidInputError: a value cannot be copied, or what a block put on the components.
        """
        self._require_here()
        if output is not None:
            check_output(self._pipeline, output, self._driver.state)
        fork = _Fork(self._pipeline, self._view, self._driver)
        self._require_here()
        self._modes.call(fork.finish)
        return self._pipeline._returned(fork.state, output)

    def _require_here(self) -> None:
        if self._mark is None or self._driver.mark is not self._mark:
            raise RunStateError(
                "`peek` shows the run as it stands at this event, and it has gone on since: peek before the next event "
                "is asked for"
            )


class _Fork:
    """A copy of a run that stands between two iterations."""

    def __init__(self, pipeline: Any, view: Any, driver: LoopDriver) -> None:
        frames = list(driver.frames)
        self._names = driver.block_names
        self._parents = [pipeline._blocks, *driver.blocks]
        self._require_known(frames)
        # what refers to a model refers to the same one
        memo: dict[int, Any] = {id(model): model for model in view._modules()}
        self._components = view._view()
        self._exclusive = Exclusive(self._components, lambda: None) if view._needs_exclusive() else None
        own = self._components.__dict__
        own.update(copy.deepcopy(view._own_components(), memo))
        own.update(_copies(view._assigned(pipeline), memo))
        self.state = driver.state.fork(memo)
        # of each loop, outermost first: itself, its state, and how many names lead to the loop around it
        self._loops = [
            (
                frame.loop,
                # some wrappers let their blocks share the pipeline's own state
                self.state if isinstance(frame.state, PipelineState) else fork_block_state(frame.state, memo),
                frame.outer_depth,
            )
            for frame in frames
        ]

    def _require_known(self, frames: list[Frame]) -> None:
        """Refuse a loop that a block calls by itself, or one inside of what a block calls by itself."""
        path = zip(self._names, self._parents, self._parents[1:], strict=False)
        if any(frame.is_held for frame in frames) or any(
            parent.sub_blocks.get(name) is not block for name, parent, block in path
        ):
            raise RunStateError(
                f"`peek` cannot tell what follows loop `{frames[-1].path}`: a block calls it by itself, and it is not "
                f"among the blocks of the pipeline"
            )

    def finish(self) -> None:
        """Leave the loops from the innermost outwards, and run what follows each of them."""
        with (
            torch.no_grad(),
            _same_random_numbers(),
            nullcontext() if self._exclusive is None else self._exclusive.active(),
        ):
            if self._exclusive is not None:
                self._components._driver = LoopDriver(self.state, lambda frames: None, exclusive=self._exclusive)
            while self._loops:
                loop, state, outer_depth = self._loops.pop()
                around = self._loops[-1][1] if self._loops else self.state
                if isinstance(state, BlockState):
                    loop.set_block_state(around, state)
                self._run_following(around, outer_depth)

    def _run_following(self, state: Any, outer_depth: int) -> None:
        variables = dict(state._loop.variables or {}) if state._loop is not None else {}
        while len(self._names) > outer_depth:
            name, parent = self._names.pop(), self._parents[len(self._names)]
            if not isinstance(parent, ConditionalPipelineBlocks):
                steps = parent._plan(variables).steps
                following = [step.name for step in steps].index(name) + 1
                parent._run(steps[following:], self._components, state, variables)


def _copies(assigned: dict[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """Copies of what blocks put on the components of a run.

    Raises:
        InvalidInputError: something cannot be copied.
    """
    try:
        return fork_values(assigned, memo)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}; a block put it on the components") from error.__cause__


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Put the global generators back to where they were."""
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if initialized else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
