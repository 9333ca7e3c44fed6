"""A suspension point at each call of a model, for loops that are hidden inside a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

__all__ = ["is_watch", "watched_models"]

_meet: ContextVar[Callable[[], None] | None] = ContextVar("meet", default=None)
_lock = threading.Lock()
# how many runs watch a model, and the handle of the one hook that serves them all
_watched: dict[torch.nn.Module, tuple[int, Any]] = {}


def _before_forward(module: torch.nn.Module, arguments: Any) -> None:
    meet = _meet.get()
    if meet is not None:
        meet()


def is_watch(hook: Any) -> bool:
    """Whether a hook is the one that meets those who steer a run."""
    return hook is _before_forward


@contextmanager
def watched_models(pipeline: Any, meet: Callable[[], None]) -> Iterator[None]:
    """Call `meet` before each forward of a model of the pipeline that this thread makes."""
    # a model that compiled itself would be compiled anew with the hook
    models = [model for model in pipeline._modules() if model._compiled_call_impl is None]
    with _lock:
        for model in models:
            count, handle = _watched.get(model, (0, None))
            _watched[model] = (count + 1, handle or model.register_forward_pre_hook(_before_forward))
    token = _meet.set(meet)
    try:
        yield
    finally:
        _meet.reset(token)
        with _lock:
            for model in models:
                count, handle = _watched.pop(model)
                if count > 1:
                    _watched[model] = (count - 1, handle)
                else:
                    handle.remove()
