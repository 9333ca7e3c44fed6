"""The methods of a model, wrapped on the instance for the time of a batch: it keeps identity, type and hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from types import MethodType
from typing import Any

import torch
from diffusers.models.cache_utils import CacheMixin
from torch.nn.modules import module as torch_module

from loopwright.batching.member import Member
from loopwright.components.offload import is_offloaded
from loopwright.run.exclusive import SWITCHES_PRECISION
from loopwright.run.model_calls import is_watch

__all__ = ["Method", "WrappedModel", "can_be_lent", "why_alone"]

# What blocks call models by.
METHODS = ("forward", "encode", "decode", "generate")
# Hooks that a row does not notice.
_HARMLESS = frozenset({"layerwise_casting", "peft_autocast_disable", "group_offloading", "layer_execution_tracker"})
_HARMLESS |= {"lazy_prefetch_group_offloading"}

# With hooks from here transformers collects hidden states, for the call that is going on in a thread.
_COLLECTING = ("transformers.utils.output_capturing",)


class Method:
    """A method of a model, as it is without the batch.

    Attributes:
        model: the model.
        name: its name.
        names: the names of its positional parameters.
    """

    def __init__(self, model: torch.nn.Module, name: str) -> None:
        self.model, self.name = model, name
        self._own = vars(model).get(name)
        self.function: Any = getattr(type(model), name) if self._own is None else self._own
        self.names = _positional_names(self.function, bound=self._own is not None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._own is None:
            return self.function(self.model, *args, **kwargs)
        return self.function(*args, **kwargs)

    def within(self, context: tuple[Any, ...] | None) -> AbstractContextManager[None]:
        """The cache context that a run has set, set on the model; None for none."""
        model: Any = self.model
        return nullcontext() if context is None else type(model).cache_context(model, context[0], **context[1])

    def wrap(self, call: Callable[..., Any]) -> Any:
        """What stands in place of the method: calls `call(method, args, kwargs)`."""
        method, function = self, self.function

        if self._own is not None:
            # what was put on the instance takes no `self`, and is not bound
            return wraps(function)(lambda *args, **kwargs: call(method, args, kwargs))

        @wraps(function)
        def together(model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            # a deep copy of the model takes this along, and is another model
            return call(method, args, kwargs) if model is method.model else function(model, *args, **kwargs)

        return MethodType(together, self.model)


def _positional_names(function: Any, bound: bool) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(names if bound else names[1:])


# what batches put on models that are over, where others have wrapped it; with what was there before
_covered: dict[int, tuple[Any, Any]] = {}


class WrappedModel:
    """A model whose calls go through a batch.

    Args:
        model: the model.
        call: called as `call(method, args, kwargs)` in place of each of its methods.
        member: the run of the batch that the code which asks belongs to, None if it belongs to none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        call: Callable[[Method, tuple[Any, ...], dict[str, Any]], Any],
        member: Callable[[], Member | None],
    ) -> None:
        self.model = model
        self._put: dict[str, tuple[Any, Any]] = {}
        own = vars(model)
        for name in METHODS:
            if callable(own.get(name) or getattr(type(model), name, None)):
                self._replace(name, Method(model, name).wrap(call))
        if isinstance(model, CacheMixin):
            self._replace("cache_context", _context_of_run(model, member))

    def _replace(self, name: str, value: Any) -> None:
        self._put[name] = value, vars(self.model).get(name)
        vars(self.model)[name] = value

    def remove(self) -> None:
        """Leave the model as it was."""
        for name, (put, own) in self._put.items():
            if vars(self.model).get(name) is not put:
                # somebody has wrapped it again meanwhile, and another batch takes both off
                _covered[id(put)] = put, own
                continue
            while id(own) in _covered:
                _, own = _covered.pop(id(own))
            if own is None:
                del vars(self.model)[name]
            else:
                vars(self.model)[name] = own


def _context_of_run(model: Any, member: Callable[[], Member | None]) -> Any:
    """What stands in place of `cache_context`: a run of the batch sets its context for itself, not on the model."""
    function = type(model).cache_context

    @wraps(function)
    @contextmanager
    def cache_context(model_: Any, name: str, **kwargs: Any) -> Iterator[None]:
        run = member()
        if model_ is not model or model.is_cache_enabled or run is None:
            with function(model_, name, **kwargs):
                yield
            return
        before = run.contexts.get(id(model))
        run.contexts[id(model)] = name, kwargs
        try:
            yield
        finally:
            run.contexts[id(model)] = before

    return MethodType(cache_context, model)


def can_be_lent(model: torch.nn.Module) -> bool:
    """Whether a run that has a model alone could have changed nothing but its adapters."""
    config = vars(model).get("_internal_dict") or {}
    switches = any(cls.__name__ in SWITCHES_PRECISION for cls in type(model).__mro__)
    return why_alone(model) is None and not config.get("force_upcast") and not switches and not is_offloaded(model)


def why_alone(model: torch.nn.Module) -> str | None:
    """What makes the calls of a model depend on which run makes them; None if nothing does."""
    if model.training:
        return "it is in training mode"
    if model._compiled_call_impl is not None:
        return "it compiled itself"
    if isinstance(model, CacheMixin) and model.is_cache_enabled:
        return "its caching is enabled"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "there are forward hooks for all modules"
    # asked before each forward, so without the names that torch makes for modules
    parts = [model]
    while parts:
        own = parts.pop().__dict__
        if own["_forward_hooks"] or own["_forward_pre_hooks"]:
            for hook in (*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values()):
                if not is_watch(hook) and getattr(hook, "__module__", None) not in _COLLECTING:
                    return "it has forward hooks"
        if "_diffusers_hook" in own:
            hooks = own["_diffusers_hook"].hooks
            if not hooks.keys() <= _HARMLESS:
                return f"it has the hook {', '.join(sorted(hooks))}"
        if own["_modules"]:
            parts += [part for part in own["_modules"].values() if part is not None]
    return None
