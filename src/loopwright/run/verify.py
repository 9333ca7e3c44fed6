"""Whether the loops of a pipeline can be resumed: a check for those who write them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

from loopwright.errors import CheckpointMismatchError, brief_pair
from loopwright.run.checkpoints import Checkpoint, read_saved, same
from loopwright.run.execution import Execution
from loopwright.run.options import Callbacks, RunOptions
from loopwright.run.request import start_state
from loopwright.state import PipelineState, fork_value, fork_values

__all__ = ["verify_resume"]

_COMPARABLE = (bool, int, float, complex, str, list, tuple, dict, torch.Tensor, torch.Generator, np.ndarray, np.generic)
# of a wrapper: what the run gives it anew
_GIVEN = ("self", "components", "state", "block_state", "iterations", "driver", "variables")


class _Moment(NamedTuple):
    """The values after an iteration.

    Attributes:
        where: the iteration, in words.
        values: those of the pipeline's state and of the loops.
        variables: the local variables of the loop's wrapper.
        wrapper: the name of the function that they belong to.
    """

    where: str
    values: dict[str, Any]
    variables: dict[str, Any]
    wrapper: str


def verify_resume(pipe: Any, inputs: Mapping[str, Any], classes: Sequence[type] = ()) -> None:
    """Run a pipeline, resume it from after each of its iterations, and compare all that follows bit for bit.

    Args:
        pipe: the pipeline.
        inputs: the inputs of the run.
        classes: as for `Checkpoint`.

    Raises:
        CheckpointMismatchError: a resumed run goes another way; the message names the first value that differs, and
            the local variables of the loop's wrapper that do.
        UnsavableValueError: a value cannot be saved.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(folder, keep=None, classes=classes)
        state = start_state(pipe, PipelineState(), fork_values(inputs, {}))
        whole = _Watched(Execution(pipe, state, RunOptions(checkpoint=checkpoint)))
        values = whole.run()
        for iteration in sorted(whole.moments):
            saved = read_saved(checkpoint.storage, at=iteration)
            resumed = _Watched(Execution.resumed(pipe, saved, RunOptions(), classes))
            after = f"resumed after {whole.moments[iteration].where}, the run"
            try:
                ended = resumed.run()
            except Exception as error:
                error.add_note(f"{after} failed")
                raise
            hint = _hint(whole.moments[iteration], resumed.moments[iteration])
            for later in sorted(number for number in whole.moments if number > iteration):
                if later not in resumed.moments:
                    raise CheckpointMismatchError(f"{after} ended before {whole.moments[later].where}")
                _compare(whole.moments[later], resumed.moments[later], after, hint)
            _compare(_Moment("its end", values, {}, ""), _Moment("its end", ended, {}, ""), after, hint)


class _Watched:
    """An execution, and copies of its values after each iteration; for a resumed one, also where it goes on from."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        execution._callbacks = Callbacks(on_event=(lambda event: self._look(execution.driver.iterations),))
        self.moments: dict[int, _Moment] = {}
        replay = execution.driver.replay
        if replay is not None:
            restore = replay.restore

            def watched(frames: Any, state: Any) -> None:
                restore(frames, state)
                self._look(replay.iterations)

            replay.restore = watched  # type: ignore[method-assign]

    def run(self) -> dict[str, Any]:
        return self._execution.run().values

    def _look(self, iteration: int) -> None:
        driver = self._execution.driver
        values = dict(driver.state.values)
        for frame in driver.frames:
            values.update(frame.values)
        variables, wrapper = _local_variables(driver.frames[-1].loop)
        where = f"iteration {driver.frames[-1].index} of loop `{driver.frames[-1].path}`"
        self.moments[iteration] = _Moment(where, _copies(values), _copies(variables), wrapper)


def _copies(values: dict[str, Any]) -> dict[str, Any]:
    memo: dict[int, Any] = {}
    return {name: fork_value(value, memo) for name, value in values.items() if isinstance(value, _COMPARABLE)}


def _local_variables(loop: Any) -> tuple[dict[str, Any], str]:
    """The local variables of the wrapper of a loop that runs in this thread, and the name of the function."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is loop:
            generator = getattr(frame.f_locals.get("iterations"), "gi_frame", None)
            found = frame.f_locals if generator is None else generator.f_locals
            name = "__call__" if generator is None else "iterate"
            return {name: value for name, value in found.items() if name not in _GIVEN}, f"{type(loop).__name__}.{name}"
        frame = frame.f_back
    return {}, ""


def _hint(whole: _Moment, resumed: _Moment) -> str:
    """Why a resumed run may go another way, from the local variables of the wrapper where it goes on."""
    unlike = [
        f"`{name}`"
        for name, value in whole.variables.items()
        if name not in resumed.variables or not same(value, resumed.variables[name])
    ]
    if not unlike:
        return (
            "what it depends on is kept outside the state, or in a part of it that a resumed run has only as it was "
            "when it was saved: a large tensor that is changed in place, or memory that arrays share"
        )
    return (
        f"when the run was resumed, {', '.join(unlike)} in `{whole.wrapper}` was not as before: what moves from one "
        f"iteration to the next must be in the block state"
    )


def _compare(whole: _Moment, resumed: _Moment, after: str, hint: str) -> None:
    names = [*whole.values, *(name for name in resumed.values if name not in whole.values)]
    for name in names:
        if name not in resumed.values or name not in whole.values:
            what = "no" if name not in resumed.values else "a"
            difference = f"has {what} `{name}` after {whole.where}, unlike before"
        elif not same(whole.values[name], resumed.values[name]):
            now, was = brief_pair(resumed.values[name], whole.values[name])
            difference = f"has {name}={now} after {whole.where}, and it was {was}"
        else:
            continue
        raise CheckpointMismatchError(f"{after} {difference}; {hint}")
