"""What a run is told from outside, and where it waits: pause, cancel, time limit, listeners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loopwright.errors import RunStateError, RunTimeoutError
from loopwright.run.presence import Presence
from loopwright.run.trace import Trace

__all__ = ["Cancelled", "Control"]


class Cancelled(BaseException):
    """Leaves a run that was cancelled; not an `Exception`, so that no block takes it for its own trouble."""


class _Errand:
    """Something that the thread of a run does between two iterations, for another thread that waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self.done = False
        self.error: Exception | None = None


class Control:
    """The point at which the thread of a run meets those who steer it.

    A listener takes one event at a time; while it has one in hand the run waits, so that what it decides holds from
    the next iteration on. Nobody listening, the run goes on by itself and no events are kept.

    Args:
        timeout: seconds that the run may take, None for no limit.
        held: whether the run waits for a listener, or to be let go.
        trace: is told when the run waits.

    Attributes:
        presence: is told that the run halts, and that it is to go on; None if nobody waits for it.
    """

    def __init__(self, timeout: float | None = None, held: bool = False, trace: Trace | None = None) -> None:
        self.presence: Presence | None = None
        self._changed = threading.Condition()
        self._timeout = timeout
        self._began = time.perf_counter()
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._trace = trace or Trace()
        self._listening = held
        self._wanted = False
        self._event: Any = None
        self._holder: threading.Thread | None = None
        self._wake: Callable[[], None] | None = None
        self._errands: list[_Errand] = []
        self._thread: int | None = None
        self._paused = False
        self._cancelled = False
        self._finished = False

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without those for which it waited."""
        return (self._waiting_since or time.perf_counter()) - self._began - self._waited

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For a time that does not count, as the run waits."""
        self._waiting_since = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - self._waiting_since
            self._waiting_since = None

    # The thread of the run.

    def begin(self) -> None:
        """Wait until the run is let go, if it is held."""
        self._thread = threading.get_ident()
        with self._changed:
            self._wait(lambda: self._listening and not self._wanted)
        self._began = time.perf_counter()

    def meet(self, event: Callable[[], Any] | None = None) -> None:
        """Hand over an event if somebody listens, wait while the run is paused, and end a run that has to end.

        Args:
            event: makes the event; None at a point that is not the end of an iteration.

        Raises:
            Cancelled: the run was cancelled.
            RunTimeoutError: its time is over.
        """
        if self._paused or (event is not None and (self._listening or self._errands)):
            self._trace.begin_wait(time.perf_counter())
            try:
                with self.waiting():
                    with self._changed:
                        halted = self._stand_still(event)
                    if halted and self.presence is not None:
                        # not under the lock, as it may have to wait for its turn
                        self.presence.go_on()
            finally:
                self._trace.end_wait(time.perf_counter())
        self.check()

    def _stand_still(self, event: Callable[[], Any] | None) -> bool:
        """Wait as long as the run has to; returns whether it was paused."""
        if event is None:
            # a paused run goes on to the end of the iteration if something is to be done there
            return self._halt(lambda: self._paused and not self._errands)
        self._run_errands()
        if self._listening and not self._cancelled:
            self._event = event()
            self._tell()
            self._wait(lambda: self._listening and (self._event is not None or not self._wanted), errands=True)
            self._event = None
        return self._halt(lambda: self._paused, errands=True)

    def _halt(self, condition: Callable[[], bool], errands: bool = False) -> bool:
        halts = condition()
        if halts and self.presence is not None:
            with self._unlocked():
                self.presence.halt()
        self._wait(condition, errands)
        return halts

    def check(self) -> None:
        """End a run that has to end.

        Raises:
            Cancelled: the run was cancelled.
            RunTimeoutError: its time is over.
        """
        if self._cancelled:
            raise Cancelled
        if self._timeout is not None and self.elapsed > self._timeout:
            raise RunTimeoutError(f"the run took longer than its {self._timeout:g} seconds and was ended")

    def finish(self) -> None:
        """The run has ended, one way or the other."""
        with self._changed:
            self._finished = True
            self._tell()

    def _wait(self, condition: Callable[[], bool], errands: bool = False) -> None:
        while condition() and not self._cancelled:
            self._changed.wait()
            if errands:
                self._run_errands()
        if self._cancelled:
            raise Cancelled

    def _run_errands(self) -> None:
        while self._errands:
            errand = self._errands.pop(0)
            try:
                with self._unlocked():
                    errand.work()
            except Exception as error:
                errand.error = error
            finally:
                errand.done = True
                self._changed.notify_all()

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        """For what may wait for other locks: whoever has those may want to steer this run, or drop it."""
        self._changed.release()
        try:
            yield
        finally:
            self._changed.acquire()

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake()

    # Those who steer it.

    def pause(self) -> None:
        with self._changed:
            self._paused = True

    def go_on(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    @property
    def is_paused(self) -> bool:
        return self._paused

    def between_iterations(self, work: Callable[[], None]) -> None:
        """Have the run do something between two iterations, and wait until it is done.

        It is done where the run stands if that is the end of an iteration, otherwise at the next one, also if the run
        is paused before.

        Raises:
            RunStateError: the run ended first.
            Exception: what `work` raised.
        """
        if self._thread == threading.get_ident():
            work()
            return
        errand = _Errand(work)
        with self._changed:
            self._errands.append(errand)
            self._changed.notify_all()
            self._changed.wait_for(lambda: errand.done or self._finished)
        if errand.error is not None:
            raise errand.error
        if not errand.done:
            raise RunStateError("the run ended before it came to the end of an iteration")

    def let_go(self, unless_wanted: bool = False) -> None:
        """Nobody listens any more; the run goes on by itself.

        Args:
            unless_wanted: whether to leave that to a listener, in another thread, who waits for an event or has one in
                hand.
        """
        with self._changed:
            if unless_wanted and (self._wanted or self._is_held_elsewhere()):
                return
            self._listening = self._wanted = False
            self._holder = None
            self._changed.notify_all()

    def _is_held_elsewhere(self) -> bool:
        holder = self._holder
        return holder is not None and holder is not threading.current_thread() and holder.is_alive()

    def take(self) -> Any:
        """The next event; waits for it. None when the run has ended."""
        with self._changed:
            self.want()
            self._changed.wait_for(lambda: self._event is not None or self._finished)
            return self.taken()

    def want(self, wake: Callable[[], None] | None = None) -> None:
        """Ask for the next event. `wake` is called once, in the thread of the run, when there is one, or at its end."""
        with self._changed:
            self._listening = self._wanted = True
            self._holder = None
            self._wake = wake
            self._changed.notify_all()
            if self._event is not None or self._finished:
                self._tell()

    def taken(self) -> Any:
        """The event that was asked for, once there is one; None when the run has ended."""
        with self._changed:
            event, self._event = self._event, None
            self._wanted = False
            self._holder = None if event is None else threading.current_thread()
            self._changed.notify_all()
            return event

    def at_end(self, wake: Callable[[], None]) -> None:
        """Let the run go, and call `wake` once, in the thread of the run, at its end."""
        with self._changed:
            self._wake = wake
            self.let_go()
            if self._finished:
                self._tell()

    def wait_for_end(self, timeout: float | None) -> bool:
        """Whether the run has ended, waiting for it at most so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._finished, timeout)
