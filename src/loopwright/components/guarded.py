"""Models whose calls pass a gate, so that it is known which runs work with them.

A model is guarded while a run needs that, and for as long as it is offloaded. Its own methods are wrapped; the model
stays what it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, lru_cache, partial, update_wrapper
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from accelerate.hooks import AlignDevicesHook
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.models.cache_utils import CacheMixin

from loopwright.components.turns import alone, together

__all__ = [
    "KEEPS_VALUES",
    "comes_in_parts",
    "guard",
    "is_cached",
    "keeps_values",
    "moves_others",
    "unguard",
    "unguarded",
]

# What calls of a model go through.
_CALLS = ("decode", "encode", "forward", "generate")

# Models that keep values on themselves while they work serve one call at a time. By the names of classes, so that none
# of them has to be imported: the methods that do it.
KEEPS_VALUES = {
    "AutoencoderKLMagvit": ("decode", "encode", "forward"),
    "AutoencoderKLQwenImage": ("decode", "encode", "forward"),
    "AutoencoderKLQwenImage21": ("decode", "encode", "forward"),
    "AutoencoderKLWan": ("decode", "encode", "forward"),
    "AutoencoderVidTok": ("decode", "encode", "forward"),
}
# The models that read text and images keep the positions that an image takes, for the tokens that come after it.
_KEEPS_POSITIONS = "rope_deltas"


@lru_cache(maxsize=1024)
def _methods_of(cls: Any) -> tuple[str, ...]:
    return next((KEEPS_VALUES[base.__name__] for base in cls.__mro__ if base.__name__ in KEEPS_VALUES), ())


def keeps_values(model: torch.nn.Module) -> tuple[str, ...]:
    """The methods of a model that keep values on it."""
    cls: Any = type(model)
    inner = model._modules.get("model")
    if _KEEPS_POSITIONS in vars(model) or (inner is not None and _KEEPS_POSITIONS in vars(inner)):
        return ("forward", "generate")
    return _methods_of(cls)


def moves_others(model: torch.nn.Module) -> bool:
    """Whether a hook that knows nothing of runs brings a model to its device when it is called, and moves others."""
    hook = vars(model).get("_hf_hook")
    return hook is not None and not isinstance(hook, AlignDevicesHook) and not hasattr(hook, "bring")


def comes_in_parts(model: torch.nn.Module) -> bool:
    """Whether parts of a model are brought to its device in a call, and away again: for one call at a time."""
    if isinstance(vars(model).get("_hf_hook"), AlignDevicesHook):
        hooks = (vars(module).get("_hf_hook") for module in model.modules())
        return any(getattr(hook, "offload", False) for hook in hooks)
    # to look for it takes time, and there is none without such a device
    return _has_accelerator() and _is_group_offload_enabled(model)


@cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


def is_cached(model: Any) -> bool:
    """Whether a model keeps what it predicted in one iteration for the next."""
    return isinstance(model, CacheMixin) and model.is_cache_enabled


class _Guard:
    """The methods of a model, wrapped on the instance. It does not keep the model.

    Attributes:
        users: how many need it.
        comes_in_parts, moves_others: what these functions say of the model.
    """

    def __init__(self) -> None:
        self.users = 0
        self.comes_in_parts = self.moves_others = False
        self._wrapped: dict[str, Callable[[], Any]] = {}

    def put_on(self, model: torch.nn.Module) -> None:
        own = vars(model)
        for name in _CALLS:
            if callable(getattr(type(model), name, None)):
                # a partial, which a copy of the model gets with the copy in the model's place
                method = getattr(model, name)
                wrapped: Any = update_wrapper(partial(_pass_gate, model, name, method), method)
                wrapped.replaced = own.get(name)
                self._wrapped[name] = ref(wrapped)
                own[name] = wrapped

    def beneath(self, name: str) -> Any:
        """The method that is wrapped now, None if it is not."""
        wrapped = self._wrapped.get(name, lambda: None)()
        return None if wrapped is None else wrapped.args[-1]

    def take_off(self, model: torch.nn.Module) -> None:
        own = vars(model)
        while self._wrapped:
            name, wrapped = self._wrapped.popitem()
            found: Any = own.get(name)
            # somebody may have wrapped it again meanwhile, and then it stays
            if found is not None and found is wrapped():
                if found.replaced is None:
                    del own[name]
                else:
                    own[name] = found.replaced


# stands for all models that are moved by hooks which know nothing of runs: one of them is called at a time
_moved_by_others = torch.nn.Module()
_lock = threading.Lock()
_guards: WeakKeyDictionary[torch.nn.Module, _Guard] = WeakKeyDictionary()


def _pass_gate(model: torch.nn.Module, name: str, method: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a model when its turn has come, and with the model on its device."""
    guard = _guards.get(model)
    is_outermost = guard is not None and guard.beneath(name) is method
    with ExitStack() as stack:
        if name in keeps_values(model) or is_cached(model) or (guard is not None and guard.comes_in_parts):
            stack.enter_context(alone([model], for_call=True))
        stack.enter_context(together(model))
        # after the model itself: who has that alone may wait for this one in a call
        if guard is not None and guard.moves_others:
            stack.enter_context(alone([_moved_by_others], for_call=True))
        bring = getattr(vars(model).get("_hf_hook"), "bring", None)
        if bring is not None:
            bring(model)
        if guard is not None and is_outermost:
            # a hook may have come or gone while it waited
            method = guard.beneath(name) or getattr(model, name)
        return method(*args, **kwargs)


def guard(model: torch.nn.Module) -> None:
    """Make the calls of a model wait for their turn, until `unguard` has been called as often."""
    with _lock:
        made = _guards.get(model)
        if made is None:
            made = _guards[model] = _Guard()
            made.put_on(model)
        made.users += 1
        made.comes_in_parts, made.moves_others = comes_in_parts(model), moves_others(model)


def unguard(model: torch.nn.Module) -> None:
    """Take back a call of `guard`."""
    with _lock:
        made = _guards[model]
        made.users -= 1
        if not made.users:
            _guards.pop(model).take_off(model)


@contextmanager
def unguarded(model: torch.nn.Module) -> Iterator[None]:
    """For code that wraps methods of a model by itself: they are as they would be without a guard."""
    with _lock:
        made = _guards.get(model)
        if made is not None:
            made.take_off(model)
        try:
            yield
        finally:
            if made is not None:
                made.put_on(model)
