"""Generators of random numbers that several runs draw from at the same time, so that none can be repeated."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["drawing_from"]

_lock = threading.Lock()
# by their id; those that are here are alive, so that no other one has it
_in_use: dict[int, torch.Generator] = {}


@contextmanager
def drawing_from(values: Iterable[Any]) -> Iterator[None]:
    """The time in which a run draws from the generators among its values; it warns if another run does so, too.

    Args:
        values: the values that the run begins with; a list may hold a generator for each picture.
    """
    listed = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    own = {id(each): each for each in listed if isinstance(each, torch.Generator)}
    with _lock:
        are_shared = not own.keys().isdisjoint(_in_use)
        own = {key: generator for key, generator in own.items() if key not in _in_use}
        _in_use.update(own)
    try:
        if are_shared:
            warnings.warn(
                "two runs that go on at the same time draw from one `torch.Generator`, so that the noise of each "
                "depends on when the other draws: give each run a generator of its own",
                stacklevel=2,
            )
        yield
    finally:
        with _lock:
            for key in own:
                del _in_use[key]
