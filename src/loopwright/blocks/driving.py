"""What steers a run from outside, as the blocks see it.

Composites ask the `components` that they are given for a driver. In a plain call there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from loopwright.blocks.composite import Step
    from loopwright.blocks.loop import LoopSequentialPipelineBlocks
    from loopwright.state import BlockState

__all__ = ["Driver", "current_driver", "driver_of"]


class Driver(Protocol):
    """Decides which blocks run, and looks at a run between the iterations of its loops."""

    def walk(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The steps of a composite that are to be run; each is run before the next is asked for."""
        ...

    def chosen(self, block: Any, name: str | None) -> str | None:
        """The name of the block that a conditional runs, given the one that it chooses; None for none."""
        ...

    def iterate(
        self, loop: LoopSequentialPipelineBlocks, components: Any, state: Any, variables: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Run one iteration of a loop, or skip it."""
        ...

    def has_ended(self, loop: LoopSequentialPipelineBlocks, state: BlockState) -> bool:
        """Whether a loop is to have no more iterations."""
        ...

    def bar_config(
        self, loop: LoopSequentialPipelineBlocks, config: dict[str, Any], total: int | None
    ) -> dict[str, Any]:
        """The arguments of a progress bar of a loop; it is told how many iterations the bar expects."""
        ...


# for what has no `components` at hand: the progress bars of loops
current_driver: ContextVar[Driver | None] = ContextVar("current_driver", default=None)


def driver_of(components: Any) -> Driver | None:
    """The driver of the run that `components` belongs to, None in a plain call."""
    return getattr(components, "_driver", None)
