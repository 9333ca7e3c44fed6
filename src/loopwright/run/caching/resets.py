"""Whether the global random states are put back while a block works.

What a block draws in between, as under `torch.random.fork_rng()`, does not show in the states before and after it, and
yet depends on them.
"""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["noticing_resets"]

_PLACES: tuple[tuple[Any, str], ...] = (
    (torch, "set_rng_state"),
    (torch.random, "set_rng_state"),
    (torch.cuda, "set_rng_state"),
    (np.random, "set_state"),
    (random, "setstate"),
)
_lock = threading.Lock()
_here = threading.local()
# how many threads listen, and what stood in the places before they did
_listening = 0
_originals: list[Any] = []


@contextmanager
def noticing_resets(told: Callable[[], None]) -> Iterator[None]:
    """Meanwhile, a function is called whenever this thread sets a global random state to a given one."""
    outer = getattr(_here, "told", None)
    _here.told = told
    _listen()
    try:
        yield
    finally:
        _forget()
        _here.told = outer


def _listen() -> None:
    global _listening
    with _lock:
        _listening += 1
        if _listening == 1:
            _originals[:] = [getattr(*place) for place in _PLACES]
            for (module, name), original in zip(_PLACES, _originals, strict=True):
                setattr(module, name, _telling(original))


def _forget() -> None:
    global _listening
    with _lock:
        _listening -= 1
        if not _listening:
            for (module, name), original in zip(_PLACES, _originals, strict=True):
                setattr(module, name, original)


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def set_state(*args: Any, **kwargs: Any) -> Any:
        told = getattr(_here, "told", None)
        if told is not None:
            told()
        return original(*args, **kwargs)

    return set_state
