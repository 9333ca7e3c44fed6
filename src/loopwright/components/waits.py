"""Which thread waits for which other one, as far as it can be told.

A block may give its work to threads of its own and wait for them. What they do is then the work of the run that the
block belongs to, though nothing else says so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, as_completed, thread, wait
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["awaiting", "waits_for"]

_RESULT, _EXCEPTION, _JOIN = (f.__code__ for f in (Future.result, Future.exception, threading.Thread.join))
_WAIT, _AS_COMPLETED = wait.__code__, as_completed.__code__
_WORK, _WORKER = thread._WorkItem.run.__code__, thread._worker.__code__
# by threads: those that they wait for, if they said so
_awaited: dict[int, list[int]] = {}


@contextmanager
def awaiting(other: int | None) -> Iterator[None]:
    """While this thread waits for another one, given by its ident."""
    mine = threading.get_ident()
    if other is None:
        yield
        return
    _awaited.setdefault(mine, []).append(other)
    try:
        yield
    finally:
        _awaited[mine].remove(other)
        if not _awaited[mine]:
            del _awaited[mine]


def waits_for(waiting: int, other: int) -> bool:
    """Whether a thread stands still until another one is done with what it does.

    That is so if it is the same thread, if it joins the other one, or if it waits for a future at which the other one
    works, or which comes after that in the queue of a pool. In between, other threads may wait for each other likewise.

    Args:
        waiting: the thread, by its ident.
        other: the other one.
    """
    frames = sys._current_frames()
    seen: set[int] = set()
    todo = [waiting]
    while todo:
        current = todo.pop()
        if current == other:
            return True
        if current in seen:
            continue
        seen.add(current)
        todo.extend(_awaited.get(current, ()))
        threads, futures = _waited_for(frames.get(current))
        todo.extend(threads)
        if futures:
            todo.extend(ident for ident, frame in frames.items() if futures & _works_at(frame))
    return False


def _waited_for(frame: FrameType | None) -> tuple[set[int], set[Any]]:
    """The threads and the futures that the code of a thread waits for."""
    threads: set[int] = set()
    futures: set[Any] = set()
    while frame is not None:
        code = frame.f_code
        if code is _JOIN:
            threads.add(frame.f_locals["self"].ident)
        elif code is _RESULT or code is _EXCEPTION:
            futures.add(frame.f_locals.get("self"))
        elif code is _WAIT:
            futures.update(frame.f_locals["fs"])
        elif code is _AS_COMPLETED:
            futures.update(frame.f_locals.get("pending", ()))
        frame = frame.f_back
    return threads, futures


def _works_at(frame: FrameType | None) -> set[Any]:
    """The futures that are done when the code of a thread is: the one that it computes, and those queued behind it."""
    futures: set[Any] = set()
    while frame is not None:
        if frame.f_code is _WORK:
            futures.add(frame.f_locals["self"].future)
        elif frame.f_code is _WORKER:
            futures.update(item.future for item in list(frame.f_locals["work_queue"].queue) if item is not None)
        frame = frame.f_back
    return futures
