"""`Run`: one execution in a thread of its own, watched and steered from outside."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from loopwright.components.waits import awaiting
from loopwright.errors import RunCancelledError, RunStateError, close_location
from loopwright.run.caching import CacheReport
from loopwright.run.checkpoints import Checkpoint
from loopwright.run.control import Cancelled
from loopwright.run.event import Event
from loopwright.run.execution import Execution
from loopwright.run.modes import ThreadModes
from loopwright.run.torch_threads import release_torch_threads
from loopwright.run.trace import Trace

__all__ = ["Run"]


class Run:
    """One execution of a pipeline, in a thread of its own.

    Iterate it for an `Event` after each iteration of each loop. While an event is in hand the run waits, so what is
    decided on it (`stop_loop`, `cancel`) holds from the next iteration on; nobody iterating, it goes on by itself. It
    may end at any moment, so whoever steers a run that has ended already is not told: it stays as it ended. Used as a
    context manager it is cancelled on leaving, if it still runs; dropped, too.

        with pipe.start(prompt="red apple") as run:
            for event in run:
                print(event.index, event.total)
            image = run.result().images[0]

    Args:
        execution: what is run.
        held: whether it begins only when it is iterated, or its result is asked for.
    """

    def __init__(self, execution: Execution, held: bool = False) -> None:
        self._execution = execution
        self._task = _Task(execution)
        self._finalizer = weakref.finalize(self, execution.control.cancel)
        self._finalizer.atexit = False
        if not held:
            self._task.start()

    @property
    def status(self) -> str:
        """`waiting` before it begins; then `running`, `paused`, `succeeded`, `failed` or `cancelled`."""
        if self._task.status is not None:
            return self._task.status
        if not self._task.has_begun:
            return "waiting"
        return "paused" if self._execution.control.is_paused else "running"

    @property
    def components(self) -> Any:
        """The run's own view of the pipeline: `run.components.scheduler` is the scheduler that it steps."""
        return self._execution.view

    @property
    def trace(self) -> Trace:
        """How long each block and iteration took, and how much memory was in use: `print(run.trace)`."""
        return self._execution.trace

    def cache_report(self) -> CacheReport:
        """What came from the cache of the pipeline, what was stored there, and what was not and why, so far.

        One entry for each block outside loops, and for each loop as a whole: `print(run.cache_report())`.
        """
        cache = self._execution.cache
        return CacheReport(is_on=False) if cache is None else cache.report

    def pause(self) -> None:
        """Halt after the current iteration, or before the next call of a model, until `go_on`."""
        self._execution.control.pause()

    def go_on(self) -> None:
        """Go on after `pause`."""
        self._execution.control.go_on()

    def cancel(self) -> None:
        """End the run after the current iteration, or before the next call of a model. What was saved stays."""
        self._execution.control.cancel()
        self._task.start()

    def stop_loop(self, path: str | None = None) -> None:
        """End a loop after its current iteration, and run the blocks that follow it.

        Args:
            path: the path of the loop; if None, the innermost that runs.

        Raises:
            UnknownNameError: the pipeline has no loop of that path.
        """
        self._execution.stop_loop(path)

    def save(self, path: Any = None, classes: Sequence[type] = ()) -> None:
        """Save the run, which goes on as it would; `pipe.resume(path)` goes on from here, in this process or another.

        It is saved between two iterations: at once if it stands there, otherwise after the current iteration, which
        this waits for. A run that was paused within an iteration goes on to its end, and waits there.

        Args:
            path: a folder that holds no run yet, or a `Storage`; None for where the run is saved anyway, by its
                `checkpoint`.
            classes: as for `Checkpoint`.

        Raises:
            RunStateError: the run has not begun, or ended before it could be saved; or it has no `checkpoint`, and
                there is no `path`.
            CheckpointError: it cannot be saved, or not there.
        """
        if not self._task.has_begun:
            raise RunStateError("the run has not begun, there is nothing to save: iterate it, or ask for its result")
        checkpoint = None if path is None else Checkpoint(path, classes=classes)
        self._execution.control.between_iterations(partial(self._execution.save, checkpoint))

    def result(self, timeout: float | None = None) -> Any:
        """What the call would have returned; waits for it.

        A run that stands still for this thread is let go. One whose events another thread takes goes on as that thread
        does.

        Args:
            timeout: seconds to wait at most, None for as long as it takes.

        Raises:
            RunCancelledError: the run was cancelled.
            TimeoutError: it has not ended in time; it goes on.
            Exception: what ended the run, as it was raised.
        """
        control = self._execution.control
        control.let_go(unless_wanted=True)
        self._task.start()
        with awaiting(self._task.thread):
            has_ended = control.wait_for_end(timeout)
        if not has_ended:
            raise TimeoutError(f"the run has not ended after {timeout:g} seconds; it goes on")
        # there is nothing left to cancel, and what a callback holds may lead back to this run
        self._finalizer.detach()
        return self._task.result()

    def __iter__(self) -> Iterator[Event]:
        control = self._execution.control
        try:
            while (event := self._next()) is not None:
                yield event
        finally:
            control.let_go()
        self._task.raise_failure()

    def _next(self) -> Event | None:
        self._task.start()
        with awaiting(self._task.thread):
            event: Event | None = self._execution.control.take()
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task.status is None:
            self.cancel()
            with awaiting(self._task.thread):
                self._execution.control.wait_for_end(None)

    def __repr__(self) -> str:
        return f"<Run: {self.status}>"


class _Task:
    """What the thread of a run does. It knows nothing of the `Run`, so that a run that nobody holds is noticed."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._modes: ThreadModes | None = ThreadModes()
        self._result: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self.status: str | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, if it has not been started; the calling thread is about to wait for it."""
        release_torch_threads()
        with self._lock:
            if self._thread is None:
                self._execution.announce()
                # a daemon: a program that ends does not wait for runs that it has forgotten
                self._thread = threading.Thread(target=self._work, name="loopwright-run", daemon=True)
                try:
                    self._thread.start()
                except BaseException:
                    # there may be no more threads: it has not begun
                    self._thread = None
                    self._execution.withdraw()
                    raise

    @property
    def has_begun(self) -> bool:
        return self._thread is not None

    @property
    def thread(self) -> int | None:
        """The ident of the thread, None if there is none yet."""
        return None if self._thread is None else self._thread.ident

    def _work(self) -> None:
        modes, self._modes = self._modes, None
        assert modes is not None
        try:
            self._result = modes.call(self._run)
            self.status = "succeeded"
        except Cancelled:
            self.status = "cancelled"
        except BaseException as error:
            close_location(error)
            self._error, self._traceback = error, error.__traceback__
            self.status = "failed"
        finally:
            self._execution.finish()

    def _run(self) -> Any:
        self._execution.control.begin()
        return self._execution.returned(self._execution.run())

    def raise_failure(self) -> None:
        """Raise what ended the run, if it failed."""
        if self._error is not None:
            # of its own: with each raise one would grow
            raise self._error.with_traceback(self._traceback)

    def result(self) -> Any:
        if self.status == "cancelled":
            raise RunCancelledError(
                "the run was cancelled, so it has no result; `stop_loop` ends a loop early and goes on to the result"
            )
        self.raise_failure()
        return self._result
