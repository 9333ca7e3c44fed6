"""Going on with a saved run, and going another way from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loopwright.errors import CheckpointError, CheckpointMismatchError, brief_pair
from loopwright.run.checkpoints import Checkpoint, compare, fingerprint, read_saved, same, saved_start
from loopwright.run.execution import Execution
from loopwright.run.options import RunOptions
from loopwright.run.request import check_output, start_state
from loopwright.state import PipelineState

__all__ = ["branched", "resumed"]


def resumed(
    pipeline: Any,
    path: Any,
    inputs: dict[str, Any],
    classes: Sequence[type],
    fall_back: bool,
    held: bool = False,
    **options: Any,
) -> Execution:
    """The execution that goes on with a saved run; see `ModularPipeline.resume`."""
    given = Checkpoint(path, classes=classes)
    saved = read_saved(given.storage, fall_back=fall_back)
    compare(saved.body["fingerprint"], fingerprint(pipeline, anew=True))
    _compare_inputs(pipeline, saved_start(saved, pipeline, classes), inputs)
    settings = saved.body["settings"]
    # files of earlier versions do not say the last
    bounds = settings["every"], settings["keep"], settings["strict"]
    checkpoint = Checkpoint(given.storage, *bounds, classes, settings.get("seconds", 0.0))
    execution = Execution.resumed(pipeline, saved, RunOptions.read(checkpoint=checkpoint, **options), classes, held)
    if execution.options.output is not None:
        check_output(pipeline, execution.options.output, execution.driver.state)
    return execution


def branched(
    pipeline: Any,
    path: Any,
    at: int,
    changes: dict[str, Any],
    classes: Sequence[type],
    held: bool = False,
    **options: Any,
) -> Execution:
    """The execution that goes another way from a saved run; see `ModularPipeline.branch`."""
    saved = read_saved(Checkpoint(path).storage, at=at)
    compare(saved.body["fingerprint"], fingerprint(pipeline, anew=True))
    start = saved_start(saved, pipeline, classes)
    if start is None:
        raise CheckpointError(f"{path} does not hold the inputs of its run, as one of them could not be saved")
    read = RunOptions.read(**options)
    changed = {name for kind in changes.keys() & start.kwargs_mapping.keys() for name in changes[kind]}
    changed.update(changes)
    state = start_state(pipeline, start, dict(changes))
    if read.output is not None:
        check_output(pipeline, read.output, state)
    return Execution.branched(pipeline, saved, state, frozenset(changed), read, classes, held)


def _compare_inputs(pipeline: Any, start: PipelineState | None, inputs: dict[str, Any]) -> None:
    """Check that inputs are those with which a saved run began.

    Raises:
        UnknownInputError: an input that no block has.
        CheckpointMismatchError: one is another.
    """
    if start is None:
        for name in inputs:
            raise CheckpointError(f"the run was saved without its inputs, so `{name}` cannot be compared with them")
        return
    start_state(pipeline, start, dict(inputs))
    groups = start.kwargs_mapping
    for name, value in inputs.items():
        before = {key: start.values[key] for key in groups[name]} if name in groups else start.values.get(name)
        if not same(before, value):
            now, was = brief_pair(value, before)
            raise CheckpointMismatchError(
                f"the run began with {name}={was}, not with {now}; leave the inputs out to go "
                f"on with it, or go another way from it with `pipe.branch(...)`"
            )
