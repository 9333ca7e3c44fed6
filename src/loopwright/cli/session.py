"""A run in its thread, and the person at the terminal in the main one."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from loopwright.errors import CheckpointError, RunStateError

from .display import Display
from .interruption import CtrlC
from .request import resume_command
from .run_folder import RunFolder

if TYPE_CHECKING:
    from PIL import Image

    from loopwright.run import Event, Run

__all__ = ["Session"]

# how long a run that was told to stop may take to notice, before the process ends without it
_PATIENCE = 3.0
# between two looks at the keyboard on systems that do not wake a waiting thread for Ctrl-C
_LOOK = 0.5


class _Step(NamedTuple):
    """One step of the run was done, and saved if it is saved at all.

    Attributes:
        where: the step, in words.
        done: the number of steps done; None after an iteration of an outer loop, which is no step of its own.
        total: the number of all steps.
        elapsed: in seconds.
        pictures: those after the step, if they are shown.
    """

    where: str
    done: int | None
    total: int | None
    elapsed: float
    pictures: Sequence[Image.Image]


class _Pressed:
    """Ctrl-C."""


class _Ended:
    """The run has ended."""


class Session:
    """Shows a run while it works, pauses it at Ctrl-C, and stops it at the second.

    All that is shown, asked and decided is so in the main thread, which gets messages: of each step from the thread
    that iterates the run, and of Ctrl-C. The run goes on when it has dealt with the step.

    Args:
        folder: keeps what is needed to resume the run.
        display: shows it.
        ctrl_c: Ctrl-C.
        frames: the number of frames around the steps; None if the steps are all there is.
    """

    def __init__(self, folder: RunFolder, display: Display, ctrl_c: CtrlC, frames: int | None = None) -> None:
        self._folder, self._display, self._ctrl_c, self._frames = folder, display, ctrl_c, frames
        self._messages: SimpleQueue[_Step | type[_Pressed] | type[_Ended]] = SimpleQueue()
        self._dealt_with: SimpleQueue[None] = SimpleQueue()
        self._pictures: Sequence[Image.Image] = ()

    def on_event(self, event: Event) -> None:
        """A callback of the run: before it is saved after an iteration, keep what belongs to that."""
        index = event.index
        is_wanted = self._display.shows_pictures or self._folder.wants_frame(index)
        self._pictures = event.peek("images") if is_wanted and self._is_step(event) else ()
        self._folder.keep(index, self._pictures)

    def result(self, run: Run) -> Any:
        """The result of the run.

        Raises:
            KeyboardInterrupt: it was stopped by Ctrl-C.
            Exception: what ended the run.
        """
        try:
            with run, self._ctrl_c.heard_by(lambda: self._messages.put(_Pressed)):
                threading.Thread(target=self._iterate, args=(run,), name="loopwright-session", daemon=True).start()
                return self._attend(run)
        finally:
            self._dealt_with.put(None)
            self._display.clear()

    def _iterate(self, run: Run) -> None:
        # what ended the run is raised by its `result`
        with suppress(BaseException):
            for event in run:
                self._messages.put(self._step(event))
                self._dealt_with.get()
                del event
        self._messages.put(_Ended)

    def _is_step(self, event: Event) -> bool:
        return self._frames is None or len(event.position) > 1

    def _step(self, event: Event) -> _Step:
        of = "" if event.total is None else f" of {event.total}"
        if self._frames is None:
            where = f"step {event.index + 1}{of}"
            return _Step(where, event.index + 1, event.total, event.elapsed, self._pictures)
        frame = event.position[0][1]
        where = f"frame {frame + 1} of {self._frames}"
        if event.total is None or not self._is_step(event):
            return _Step(where, None, None, event.elapsed, ())
        where = f"step {event.index + 1}{of} for {where}"
        done = frame * event.total + event.index + 1
        return _Step(where, done, self._frames * event.total, event.elapsed, self._pictures)

    def _attend(self, run: Run) -> Any:
        pausing = False
        while (message := self._next()) is not _Ended:
            if isinstance(message, _Step):
                if message.done is not None:
                    self._display.show(message.done, message.total, message.elapsed, message.pictures)
                if pausing:
                    self._pause(run, message)
                    pausing = False
                self._dealt_with.put(None)
            elif pausing:
                self._stop(run)
            else:
                pausing = True
                self._display.say("pausing after this step; Ctrl-C again stops")
        return run.result()

    def _next(self, seconds: float | None = None) -> _Step | type[_Pressed] | type[_Ended]:
        """The next message; `Empty` if there is none for so many seconds."""
        if seconds is not None:
            return self._messages.get(timeout=seconds)
        while True:
            with suppress(Empty):
                return self._messages.get(timeout=_LOOK)

    def _pause(self, run: Run, step: _Step) -> None:
        """Say how to go on; come back if the person wants to go on now."""
        self._display.leave()
        try:
            folder = self._folder.save(run)
            saved, later = f"saved in {folder}", f"later: {resume_command(folder)}"
        except (CheckpointError, RunStateError) as error:
            saved, later = f"not saved: {error}", "there is no going on later"
        can_ask = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        if not can_ask:
            typer.echo(f"stopped after {step.where}, {saved}; {later}", err=True)
            self._stop(run, hint=False, patience=None)
        typer.echo(f"paused after {step.where}, {saved}\nEnter goes on, Ctrl-C stops; {later}", err=True)
        try:
            with self._ctrl_c.heard_by(None):
                if not self._messages.empty():
                    # it was pressed while this was said
                    raise KeyboardInterrupt
                line = _line()
        except KeyboardInterrupt:
            # below the ^C
            typer.echo(err=True)
            line = ""
        if not line:
            self._stop(run, hint=False)

    def _stop(self, run: Run, hint: bool = True, patience: float | None = _PATIENCE) -> None:
        """End the run, and with it the command."""
        self._display.clear()
        if hint and self._folder.saved_in is not None:
            typer.echo(f"saved: {resume_command(self._folder.saved_in)} goes on with it", err=True)
        run.cancel()
        self._dealt_with.put(None)
        try:
            while (message := self._next(patience)) is not _Ended:
                if message is _Pressed:
                    break
                self._dealt_with.put(None)
            else:
                raise KeyboardInterrupt
        except Empty:
            pass
        # the thread is within a long operation, in which it may not be left behind by an interpreter that ends
        typer.echo("interrupted", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)


def _line() -> str:
    """The line that a person enters; empty if there will be none.

    A read that begins just after Ctrl-C does not notice it, so it begins only once there is a line.
    """
    if os.name == "posix":
        while not select.select([sys.stdin], [], [], _LOOK)[0]:
            pass
    return sys.stdin.readline()
