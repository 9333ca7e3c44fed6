"""Which run begins next: not more than there is room for, higher priorities first, and each client in its turn."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from loopwright.batching.memory import RunMemory

__all__ = ["Admission", "Client"]

# How often, in seconds, a run that waits looks whether it has to end.
_LOOK = 0.05


class Client(NamedTuple):
    """Who a run is for.

    Attributes:
        name: the client; None for who gave no name.
        priority: runs of a higher one begin first.
    """

    name: str | None = None
    priority: int = 0


class _Ticket:
    """A run that waits to begin."""

    def __init__(self, client: Client) -> None:
        self.client = client


class Admission:
    """Lets runs begin.

    Of those that wait, the run of the highest priority is next; among equals that of the client for which the fewest
    runs are going on, then of the one that was served longest ago; then the one that waited longest.

    Args:
        max_active: how many runs go on at once; None for any number.
        memory: tells whether there is room for another.
    """

    def __init__(self, max_active: int | None, memory: RunMemory) -> None:
        self._max_active, self._memory = max_active, memory
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._active: Counter[str | None] = Counter()
        # when each client was served last, in runs
        self._served: dict[str | None, int] = {}
        self._count = 0
        memory.note(0)

    @property
    def active(self) -> int:
        """How many runs are going on."""
        return self._active.total()

    @property
    def waiting(self) -> dict[str | None, int]:
        """How many runs wait, by the names of the clients."""
        with self._changed:
            return dict(Counter(ticket.client.name for ticket in self._waiting))

    @contextmanager
    def admitted(self, client: Client, check: Callable[[], None]) -> Iterator[None]:
        """Wait for one's turn, and have a place for the time of the context.

        Args:
            client: who the run is for.
            check: called now and then meanwhile; raises what ends the run.
        """
        ticket = _Ticket(client)
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._next() is not ticket:
                    self._changed.wait(_LOOK)
                    check()
            except BaseException:
                self._waiting.remove(ticket)
                self._changed.notify_all()
                raise
            self._waiting.remove(ticket)
            self._active[client.name] += 1
            self._count += 1
            self._served[client.name] = self._count
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._memory.note(self.active)
                self._active[client.name] -= 1
                if not self._active[client.name]:
                    del self._active[client.name]
                self._changed.notify_all()

    def _next(self) -> _Ticket | None:
        """The run that begins next, if there is room."""
        if self._max_active is not None and self.active >= self._max_active:
            return None
        if not self._waiting or not self._memory.has_room(self.active):
            return None
        # the first of several that are equal is the one that came first
        return min(
            self._waiting,
            key=lambda ticket: (
                -ticket.client.priority,
                self._active[ticket.client.name],
                self._served.get(ticket.client.name, 0),
            ),
        )
