"""A mark that changes whenever any block changes: while it stays the same, what was derived from blocks still holds."""

from __future__ import annotations

__all__ = ["advance", "current"]

current: object = object()
"""The mark. A new object rather than a number: two threads that change blocks at once cannot arrive at the same one."""


def advance() -> None:
    """Some block has changed."""
    global current
    current = object()
