"""Loop variables: which of them a block takes, and what its author is told where they do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from loopwright.blocks.declarations import Mistake
from loopwright.errors import did_you_mean

if TYPE_CHECKING:
    from loopwright.blocks.base import ModularPipelineBlocks

__all__ = ["RESERVED_VARIABLES", "LoopVariables", "loop_variables_of", "missing_variable", "reserved_variable"]

RESERVED_VARIABLES = ("components", "state")
"""What every block gets under these names; no loop variable may have one of them."""


class LoopVariables(NamedTuple):
    """The loop variables that a block takes as arguments of its `__call__`.

    Attributes:
        required: those without a default.
        optional: those with one.
        any: whether it takes all that there are (`**kwargs`).
        positional: the leading ones that can be given by position.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    any: bool
    positional: tuple[str, ...]


def loop_variables_of(block_class: type[ModularPipelineBlocks]) -> LoopVariables:
    """The loop variables that blocks of a class take: the arguments of `__call__` after `components` and the state."""
    return _loop_variables(block_class.__call__)


@lru_cache(maxsize=4096)
def _loop_variables(call: Callable[..., Any]) -> LoopVariables:
    # `inspect.signature` looks through decorators such as `torch.no_grad()`, which keep what they wrap
    parameters = list(inspect.signature(call).parameters.values())[3:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return LoopVariables(
        required=tuple(p.name for p in named if p.default is p.empty),
        optional=tuple(p.name for p in named if p.default is not p.empty),
        any=any(p.kind is p.VAR_KEYWORD for p in parameters),
        positional=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
    )


def missing_variable(
    name: str, block: ModularPipelineBlocks, variable: str, given: Iterable[str], loop: Any = None
) -> Mistake:
    """What to tell the author of a block whose required variable is not given.

    Args:
        name: the name of the block; empty if it has none.
        block: the block.
        variable: the variable.
        given: the names of the variables that the loops around the block give.
        loop: the class of the innermost of them; None if there is none, or it is not known.
    """
    known = sorted(given)
    cls = type(block).__name__
    takes = f"{f'block `{name}` (`{cls}`)' if name else f'`{cls}`'} takes the loop variable `{variable}`"
    if loop is None and not known:
        return Mistake(
            f"{takes}, and there is no loop around it",
            f"put the block into a loop that gives `{variable}`, or give the argument of `{cls}.__call__` a default",
        )
    where = "the loop around it" if loop is None else f"the loop `{loop.__name__}`"
    remedy = f"let the loop give `{variable}`" if loop is None else loop._how_to_give(variable)
    listed = ", ".join(f"`{variable_name}`" for variable_name in known) or "none"
    return Mistake(
        f"{takes}, which {where} does not give{did_you_mean(variable, known)}; it gives {listed}",
        f"{remedy}, or rename the argument of `{cls}.__call__`, or give it a default",
    )


def reserved_variable(loop: type, yields: str, name: str) -> Mistake:
    """What to tell the author of a loop that yields a variable of a reserved name."""
    what = "its state" if name == "state" else "the components"
    return Mistake(
        f"`{loop.__name__}.iterate` {yields} the loop variable `{name}`, and every block gets {what} under that name",
        "call it something else",
    )
