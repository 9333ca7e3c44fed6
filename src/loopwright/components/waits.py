"""Which thread waits for which other one, as far as it can be told.

A block may give its work to threads of its own and wait for them. What they do is then the work of the run that the
block belongs to, though nothing else says so.
"""

from __future__ import annotations

import gc
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
# where a thread stands that waits in one of these ways
_STANDING = {
    getattr(function, "__code__", None)
    for function in (
        threading.Condition.wait,
        threading.Thread.join,
        getattr(threading.Thread, "_wait_for_tstate_lock", None),
    )
}
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


def waits_for(waiting: int, other: int, thorough: bool = True) -> bool:
    """Whether a thread stands still until another one is done with what it does.

    That is so if it is the same thread, if it joins the other one, or if it waits for a future at which the other one
    works, or which comes after that in the queue of a pool. In between, other threads may wait for each other likewise.

    Args:
        waiting: the thread, by its ident.
        other: the other one.
        thorough: whether the code of threads is looked at, rather than only what they have said.
    """
    if other in _declared(waiting):
        return True
    if not thorough:
        return False
    frames = _standing_frames()
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
        futures.discard(None)
        if futures:
            todo.extend(ident for ident, frame in frames.items() if futures & _works_at(frame))
    return False


def _declared(waiting: int) -> set[int]:
    """A thread, those that it has said it waits for, those that these have said they wait for, and so on."""
    found: set[int] = set()
    todo = [waiting]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo.extend(_awaited.get(current, ()))
    return found


def _standing_frames() -> dict[int, FrameType]:
    """The frames of this thread and of those that stand still, by their idents.

    Those of a thread that runs must not be looked at: they may be gone in the middle of it, and Python ends with a
    segmentation fault.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # a collection in `_current_frames` may wait for ever, as threads that begin or end wait for that
    try:
        frames = sys._current_frames()
    finally:
        if was_enabled:
            gc.enable()
    mine = threading.get_ident()
    return {ident: frame for ident, frame in frames.items() if ident == mine or frame.f_code in _STANDING}


def _waited_for(frame: FrameType | None) -> tuple[set[int], set[Any]]:
    """The threads and the futures that the code of a thread waits for."""
    threads: set[int] = set()
    futures: set[Any] = set()
    while frame is not None:
        code = frame.f_code
        if code is _JOIN:
            threads.add(frame.f_locals["self"].ident)
        elif code is _RESULT or code is _EXCEPTION:
            futures.add(frame.f_locals["self"])
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
            # None once it has failed
            futures.add(getattr(frame.f_locals["self"], "future", None))
        elif frame.f_code is _WORKER:
            futures.update(_queued(frame.f_locals["work_queue"]))
        frame = frame.f_back
    return futures


def _queued(queue: Any) -> Iterator[Any]:
    """The futures of what is in the queue of a pool, which does not let itself be looked into otherwise."""
    for held in gc.get_referents(queue):
        for item in list(held) if isinstance(held, list) else [held]:
            if isinstance(item, thread._WorkItem):
                yield item.future
