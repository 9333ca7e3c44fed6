"""Which thread waits for which other one, as far as they say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["awaiting", "waits_for"]

# by threads: those that they wait for
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

    That is so if it is the same thread, or if it waits for the other one, or for one that does.

    Args:
        waiting: the thread, by its ident.
        other: the other one.
    """
    seen: set[int] = set()
    todo = [waiting]
    while todo:
        current = todo.pop()
        if current == other:
            return True
        if current not in seen:
            seen.add(current)
            todo.extend(_awaited.get(current, ()))
    return False
