"""`Event`: what those who watch a run are told after each iteration of each of its loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loopwright.state import PipelineState, fork_values

__all__ = ["Event"]


@dataclass(frozen=True, eq=False)
class Event:
    """One iteration of one loop has run.

    Attributes:
        path: the path of the loop (`denoise`, `frames.denoise`).
        position: path and index of each loop around this point, outermost first, this one last.
        index: the index of the iteration, from 0.
        total: the number of iterations, None where it is not known.
        loop_kwargs: the variables of the iteration (`i`, `t`).
        elapsed: seconds since the run began, without the time for which it waited.
        state: the values at this point: those of the pipeline's state, over them those of each loop. The state is this
            event's own: what later iterations assign does not change it. The values are the run's: nothing is copied,
            and what a block writes *into* a tensor or a list shows. `freeze` makes copies.
    """

    path: str
    position: tuple[tuple[str, int], ...]
    index: int
    total: int | None
    loop_kwargs: Mapping[str, Any]
    elapsed: float
    state: PipelineState = field(repr=False)
    _peek: Callable[[Any], Any] = field(repr=False)

    @property
    def values(self) -> dict[str, Any]:
        """The values of `state`, by name."""
        return self.state.values

    def freeze(self) -> Event:
        """The same event with copies of its values (models are shared), which nothing changes any more.

        Raises:
            InvalidInputError: a value cannot be copied.
        """
        memo: dict[int, Any] = {}
        state = self.state.fork(memo)
        state._strict = True
        return replace(self, state=state, loop_kwargs=fork_values(self.loop_kwargs, memo))

    def peek(self, output: Any = None) -> Any:
        """What the result would be if the loop ended now, and the loops around it.

        Runs the blocks that follow on a copy of the values, with copies of schedulers, guiders and generators, and of
        what blocks put on `components`: the run itself is not changed by it, and the global random generators are put
        back, which concerns every other run that draws from them meanwhile. It shows the run as it is when it is
        called. What the code of a loop itself does after its last iteration is left out.

        Args:
            output: as for a call of the pipeline: a name, a list of names, or None for the state.

        Raises:
            RunStateError: the run has gone on since; or a block calls the loop by itself, so that nobody knows what it
                would do next.
            InvalidInputError: a value cannot be copied, or what a block put on `components`.
        """
        return self._peek(output)
