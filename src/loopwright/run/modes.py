"""The modes of the calling thread, taken along into the thread of a run: torch keeps most of them per thread."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import overrides
from torch.utils import _python_dispatch as dispatch
from torch.utils._device import DeviceContext

__all__ = ["ThreadModes"]

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
Result = TypeVar("Result")


class ThreadModes:
    """Grad, inference and autocast modes, default device, function and dispatch modes, CUDA stream, context variables.

    Made in one thread, it lets another one work under exactly the same, whatever its own are. Nothing that happens
    there comes back.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._grad = torch.is_grad_enabled()
        self._inference = torch.is_inference_mode_enabled()
        self._autocast = _autocast()
        self._autocast_cache = torch.is_autocast_cache_enabled()
        # torch has no public way to read these stacks; they hold the default device too
        self._function_modes = list(overrides._get_current_function_mode_stack())  # type: ignore[no-untyped-call]
        self._dispatch_modes = list(dispatch._get_current_dispatch_mode_stack())
        # which stands for the current device as well
        initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._stream = torch.cuda.current_stream() if initialized else None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for modes under which a model does the same. Context variables are left out."""
        modes = tuple(map(_key, (*self._function_modes, *self._dispatch_modes)))
        autocast = *self._autocast.items(), self._autocast_cache
        return self._grad, self._inference, autocast, len(self._function_modes), modes, self._stream

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function under these modes, in the current thread."""
        return self._context.copy().run(self.call_here, function)

    def call_here(self, function: Callable[[], Result]) -> Result:
        """Call a function under these modes, but with the context variables of the current thread."""
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled() != self._inference:
                stack.enter_context(torch.inference_mode(self._inference))
            stack.enter_context(torch.set_grad_enabled(self._grad))
            for device in {**_autocast(), **self._autocast}:
                enabled = device in self._autocast
                stack.enter_context(
                    torch.autocast(device, self._autocast.get(device), enabled, cache_enabled=self._autocast_cache)
                )
            if self._stream is not None:
                stack.enter_context(torch.cuda.stream(self._stream))
            current = overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
            stack.enter_context(_stack(current, self._function_modes, overrides._push_mode, overrides._pop_mode))
            current = dispatch._get_current_dispatch_mode_stack()
            stack.enter_context(_stack(current, self._dispatch_modes, dispatch._push_mode, dispatch._pop_mode))
            return function()


def _key(mode: Any) -> Any:
    # each `with torch.device(...)` makes an object of its own
    return mode.device if type(mode) is DeviceContext else id(mode)


def _autocast() -> dict[str, torch.dtype]:
    """The devices for which autocast is on, and its dtype there."""
    return {
        device: torch.get_autocast_dtype(device) for device in _AUTOCAST_DEVICES if torch.is_autocast_enabled(device)
    }


@contextmanager
def _stack(current: list[Any], modes: list[Any], push: Callable[[Any], Any], pop: Callable[..., Any]) -> Iterator[None]:
    """Put modes in place of those that are on a stack."""
    # pushed rather than entered: entering notes the former mode on the object, which the caller's thread uses too
    before = list(current)
    for _ in before:
        pop()
    for mode in modes:
        push(mode)
    try:
        yield
    finally:
        for _ in modes:
            pop()
        for mode in before:
            push(mode)
