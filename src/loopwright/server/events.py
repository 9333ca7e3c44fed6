"""What happens to jobs, for those who watch: a short log for each job, which readers follow at their own pace.

Publishing appends to the log and wakes those who wait. It never waits for anybody: a reader that is too slow finds the
beginning of the log gone, and gets the job as it is now instead.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["LAST_ID", "Channel", "Event", "Hub"]

# the id of the last event of a job: who has it needs no more
LAST_ID = "end"
_KEPT = 128
_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        id: what a reader that comes back names as the last that it has.
        kind: `job`, `queue`, `progress` or `preview`.
        data: as JSON can carry it.
    """

    id: str
    kind: str
    data: dict[str, Any]


class Channel:
    """The log of one job that has not ended.

    Args:
        prefix: what the ids of its events begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._log: deque[Event] = deque(maxlen=_KEPT)
        # of the last event, from 1
        self._count = 0
        self._ended = False
        self._waiting: set[_Waiter] = set()
        self._waiting_for_end: set[_Waiter] = set()

    @property
    def has_readers(self) -> bool:
        return bool(self._waiting)

    def publish(self, kind: str, data: dict[str, Any], is_last: bool = False) -> None:
        """Add an event, from any thread."""
        with self._lock:
            if self._ended:
                return
            self._count += 1
            self._ended = is_last
            self._log.append(Event(LAST_ID if is_last else f"{self._prefix}-{self._count}", kind, data))
            self._waiting = _wake(self._waiting)
            if is_last:
                self._waiting_for_end = _wake(self._waiting_for_end)

    def close(self) -> None:
        """Let all readers go, without a last event: the server ends."""
        with self._lock:
            self._ended = True
            self._waiting = _wake(self._waiting)
            self._waiting_for_end = _wake(self._waiting_for_end)

    @property
    def position(self) -> int:
        """How many events there have been."""
        return self._count

    def position_of(self, event_id: str | None) -> int | None:
        """How many events a reader has seen, by the last of them; None if that is not known, or they are gone."""
        prefix, _, number = (event_id or "").rpartition("-")
        if prefix != self._prefix or not number.isascii() or not number.isdecimal() or len(number) > 18:
            return None
        return self._within(int(number))

    def _within(self, position: int) -> int | None:
        with self._lock:
            return position if self._count - len(self._log) <= position <= self._count else None

    async def after(self, position: int) -> tuple[list[Event] | None, bool]:
        """The events after a position, once there is one; and whether there will be no more.

        None for the events if the first of them are gone.
        """
        woken = asyncio.Event()
        entry = (asyncio.get_running_loop(), woken)
        while True:
            with self._lock:
                if position < self._count or self._ended:
                    missed = self._count - position
                    kept = len(self._log)
                    events = None if missed > kept else list(self._log)[kept - missed :]
                    return events, self._ended
                self._waiting.add(entry)
            try:
                await woken.wait()
            finally:
                with self._lock:
                    self._waiting.discard(entry)
            woken.clear()

    async def until_end(self) -> None:
        """Wait until there will be no more events."""
        woken = asyncio.Event()
        entry = (asyncio.get_running_loop(), woken)
        with self._lock:
            if self._ended:
                return
            self._waiting_for_end.add(entry)
        try:
            await woken.wait()
        finally:
            with self._lock:
                self._waiting_for_end.discard(entry)

    def label(self, position: int) -> str:
        """The id for a picture of the job as it is at a position."""
        return f"{self._prefix}-{position}"


def _wake(waiting: set[_Waiter]) -> set[_Waiter]:
    """Wake all who wait; none is left."""
    for loop, event in waiting:
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:
            # the event loop is closed, and its reader with it
            continue
    return set()


class Hub:
    """The channels of all jobs that have not ended."""

    def __init__(self) -> None:
        # the counts of another server would mean other events
        self._prefix = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._closed = False

    def open(self, job_id: str) -> Channel:
        """The channel of a job, made if there is none."""
        with self._lock:
            if job_id not in self._channels:
                self._channels[job_id] = Channel(self._prefix)
                if self._closed:
                    self._channels[job_id].close()
            return self._channels[job_id]

    def find(self, job_id: str) -> Channel | None:
        with self._lock:
            return self._channels.get(job_id)

    def drop(self, job_id: str) -> None:
        """Forget the channel of a job that has ended; its readers keep it until they are through."""
        with self._lock:
            self._channels.pop(job_id, None)

    def close(self) -> None:
        """Let all readers go."""
        with self._lock:
            self._closed = True
            channels = list(self._channels.values())
        for channel in channels:
            channel.close()

    @property
    def is_closed(self) -> bool:
        return self._closed
