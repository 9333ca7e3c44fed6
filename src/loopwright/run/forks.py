"""Copies of the values of a run, which nothing that the run does afterwards changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.errors import InvalidInputError
from loopwright.state import BlockState, PipelineState, fork_value, loop_record

__all__ = ["fork_block_state", "fork_state", "fork_values"]


def fork_values(values: Mapping[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """Copies of values; models are shared.

    Args:
        values: the values by name.
        memo: copies by the `id` of their original, as for `copy.deepcopy`.

    Raises:
        InvalidInputError: a value cannot be copied.
    """
    forked = {}
    for name, value in values.items():
        try:
            forked[name] = fork_value(value, memo)
        except Exception as error:
            raise InvalidInputError(
                f"the value `{name}` of the run ({type(value).__name__}) cannot be copied: {error}"
            ) from error
    return forked


def fork_state(state: PipelineState, memo: dict[int, Any]) -> PipelineState:
    """A state with copies of the values."""
    groups = {kind: list(names) for kind, names in state.kwargs_mapping.items()}
    return PipelineState(fork_values(state.values, memo), groups)


def fork_block_state(state: BlockState, memo: dict[int, Any]) -> BlockState:
    """A `BlockState` with copies of the values, in the same iteration."""
    fork = BlockState()
    fork.__dict__.update(fork_values(state.__dict__, memo))
    if state._loop is not None:
        loop = loop_record(fork)
        loop.groups = {kind: list(names) for kind, names in state._loop.groups.items()}
        loop.iteration = state._loop.iteration
        loop.variables, loop.outer_variables = state._loop.variables, state._loop.outer_variables
    return fork
