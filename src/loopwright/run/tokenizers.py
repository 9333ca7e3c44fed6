"""Tokenizers encode for one run at a time.

A fast tokenizer is told how to truncate and to pad before it encodes, and keeps that. Two runs that encode at the same
time would get each other's lengths.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, wraps
from typing import Any

import torch
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.schedulers.scheduling_utils import SchedulerMixin

__all__ = ["one_encoding_at_a_time"]

_METHOD = "_encode_plus"
_lock = threading.Lock()
# by the ids of tokenizers: how many runs use one, the tokenizer, and what stands in place of its method
_guarded: dict[int, tuple[int, Any, Any]] = {}


_NOTHING = nullcontext()


@lru_cache(maxsize=1024)
def _is_fast_tokenizer(cls: Any) -> bool:
    # by name, so that transformers need not be imported
    return any(base.__name__ == "TokenizersBackend" for base in cls.__mro__)


@lru_cache(maxsize=1024)
def _has_no_tokenizer(cls: Any) -> bool:
    """Whether no object of a class is a tokenizer, or has one; asked at each call of a pipeline."""
    return cls.__module__ == "builtins" or issubclass(cls, (torch.nn.Module, SchedulerMixin, BaseGuidance))


def _tokenizers(components: Iterable[Any]) -> dict[int, Any]:
    """The fast tokenizers among components, and in processors among them, by their ids."""
    others = [component for component in components if not _has_no_tokenizer(type(component))]  # type: ignore[arg-type]
    if not others:
        return {}
    held = [value for component in others for value in (component, getattr(component, "tokenizer", None))]
    return {id(value): value for value in held if _is_fast_tokenizer(type(value))}  # type: ignore[arg-type]


def _guard(tokenizer: Any) -> Any:
    encode, turn = getattr(tokenizer, _METHOD), threading.RLock()

    @wraps(encode)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with turn:
            return encode(*args, **kwargs)

    vars(tokenizer)[_METHOD] = guarded
    return guarded


def one_encoding_at_a_time(components: Iterable[Any]) -> AbstractContextManager[None]:
    """For the time of a run: each tokenizer among its components finishes an encoding before it begins another."""
    tokenizers = _tokenizers(components)
    return _guarding(tokenizers) if tokenizers else _NOTHING


@contextmanager
def _guarding(tokenizers: dict[int, Any]) -> Iterator[None]:
    with _lock:
        for number, tokenizer in tokenizers.items():
            count, _, guarded = _guarded.get(number, (0, None, None))
            _guarded[number] = count + 1, tokenizer, guarded or _guard(tokenizer)
    try:
        yield
    finally:
        with _lock:
            for number, tokenizer in tokenizers.items():
                count, _, guarded = _guarded.pop(number)
                if count > 1:
                    _guarded[number] = count - 1, tokenizer, guarded
                elif vars(tokenizer).get(_METHOD) is guarded:
                    del vars(tokenizer)[_METHOD]
