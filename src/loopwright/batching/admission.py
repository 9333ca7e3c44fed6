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
# Of how many clients it is known when they were served last. Those that were served before are as new ones.
_MOST_CLIENTS = 10_000


class Client(NamedTuple):
    """Who a run is for.

    Attributes:
        name: the client; None for who gave no name.
        priority: runs of a higher one begin first.
    """

    name: str | None = None
    priority: int = 0


class Place:
    """What a run has while it goes on, and waits for before.

    Attributes:
        client: who the run is for.
        is_awaited: tells whether a run that goes on waits for this one.
        is_taken: whether the run has it.
        is_left: whether the run has had it, and halts.
    """

    def __init__(self, client: Client, is_awaited: Callable[[], bool]) -> None:
        self.client, self.is_awaited = client, is_awaited
        self.is_taken = self.is_left = False


class Admission:
    """Lets runs begin, and those go on that have halted.

    Of those that wait, the run of the highest priority is next; among equals that of the client for which the fewest
    runs are going on, then of the one that was served longest ago; then the one that waited longest.

    Args:
        max_active: how many runs go on at once; None for any number.
        memory: tells whether there is room for another.
    """

    def __init__(self, max_active: int | None, memory: RunMemory) -> None:
        self._max_active, self._memory = max_active, memory
        self._changed = threading.Condition()
        self._waiting: list[Place] = []
        self._active: Counter[str | None] = Counter()
        self._halted = 0
        # when each client was served last, in runs; those that were served longest ago are first
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
            return dict(Counter(place.client.name for place in self._waiting))

    @contextmanager
    def admitted(
        self, client: Client, check: Callable[[], None], is_awaited: Callable[[], bool] = lambda: False
    ) -> Iterator[Place]:
        """Wait for one's turn, and have a place for the time of the context.

        Args:
            client: who the run is for.
            check: called now and then meanwhile; raises what ends the run.
            is_awaited: tells whether a run that goes on waits for this one, which is then admitted at once.
        """
        place = Place(client, is_awaited)
        self._take(place, check)
        try:
            yield place
            with self._changed:
                # what did not come to its end says little of what a run takes
                self._memory.note(self.active + self._halted)
        finally:
            with self._changed:
                if place.is_taken:
                    self._leave(place)
                elif place.is_left:
                    self._halted -= 1
                self._changed.notify_all()

    def halt(self, place: Place) -> None:
        """A run halts: others go on in its place. The memory that it takes stays taken."""
        with self._changed:
            self._leave(place)
            self._halted += 1
            place.is_left = True
            self._changed.notify_all()

    def go_on(self, place: Place, check: Callable[[], None]) -> None:
        """Wait for one's turn to go on after `halt`."""
        self._take(place, check)

    def _take(self, place: Place, check: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(place)
            try:
                while not self._is_next(place):
                    self._changed.wait(_LOOK)
                    check()
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
            name = place.client.name
            self._active[name] += 1
            self._halted -= place.is_left
            place.is_taken, place.is_left = True, False
            self._count += 1
            self._served.pop(name, None)
            self._served[name] = self._count
            if len(self._served) > _MOST_CLIENTS:
                del self._served[next(iter(self._served))]

    def _leave(self, place: Place) -> None:
        place.is_taken = False
        self._active[place.client.name] -= 1
        if not self._active[place.client.name]:
            del self._active[place.client.name]

    def _is_next(self, place: Place) -> bool:
        """Whether a run is the next to go on, and there is room."""
        if place.is_awaited():
            return True
        if self._max_active is not None and self.active >= self._max_active:
            return False
        has_room = self._memory.has_room(self.active + self._halted)
        ready = [waiting for waiting in self._waiting if has_room or waiting.is_left]
        # the first of several that are equal is the one that came first
        first = min(
            ready,
            key=lambda waiting: (
                -waiting.client.priority,
                self._active[waiting.client.name],
                self._served.get(waiting.client.name, 0),
            ),
            default=None,
        )
        return first is place
