"""Where a run is, for other runs that would wait for it at the calls of models."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Presence"]


class Presence(Protocol):
    """Is told where one run is."""

    def active(self) -> AbstractContextManager[None]:
        """A context for the time of the run; entering it may wait until the run is admitted."""
        ...

    def announce(self) -> None:
        """The run is about to begin."""
        ...

    def leave(self) -> None:
        """The run has ended, or will not begin."""
        ...

    def halt(self) -> None:
        """The run halts, so that nobody should wait for it."""
        ...

    def go_on(self) -> None:
        """The run is to go on after it halted; this may wait until it is admitted again."""
        ...

    def in_loop(self, loop: Any) -> None:
        """The innermost loop that the run is in; None if it is in none. Told often, and mostly the same."""
        ...
