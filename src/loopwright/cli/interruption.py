"""Ctrl-C while a command works."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["CtrlC"]


class CtrlC:
    """Makes Ctrl-C a `KeyboardInterrupt`, or, while somebody listens, a call.

    Python throws away an exception that a signal raises inside a finalizer or a callback from C, of which loading a
    model has many. Such a one is raised again by `check`, and at the end.
    """

    def __init__(self) -> None:
        self._listener: Callable[[], None] | None = None
        self._pressed = False
        self._is_set = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        # a program that a shell script put into the background is not to notice Ctrl-C
        if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._previous = signal.signal(signal.SIGINT, self._press)
            self._is_set = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_set:
            signal.signal(signal.SIGINT, self._previous)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raises `KeyboardInterrupt` if Ctrl-C was pressed while nobody listened."""
        if self._pressed:
            raise KeyboardInterrupt

    @contextmanager
    def heard_by(self, listener: Callable[[], None] | None) -> Iterator[None]:
        """Have Ctrl-C call a function, in the main thread between any two of its instructions; None: have it raise.

        Raises:
            KeyboardInterrupt: it was pressed before, and nothing came of it.
        """
        self.check()
        previous, self._listener = self._listener, listener
        try:
            yield
            self.check()
        finally:
            self._listener = previous

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._listener is not None:
            self._listener()
            return
        self._pressed = True
        raise KeyboardInterrupt
