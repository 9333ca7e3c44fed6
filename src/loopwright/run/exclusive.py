"""Models that serve one run at a time, each for as long as it must.

Most models are re-entrant, and runs share them freely. The exceptions:

- Some keep values on themselves while they work (`KEEPS_VALUES`): one call at a time.
- Some guiders hook the model between predictions, under fixed names: a block that works with such a guider has its
  models alone. Other runs, with other guiders, wait with their calls of these models.
- Blocks change some models for the time of their work: they scale adapters, and compute in float32 with an autoencoder
  that overflows in half precision. A block that works with such a model has its models alone, too.
- A model with caching enabled keeps what it predicted in one iteration for the next. A run has it alone during an
  iteration of a loop, with a memory that belongs to that loop; between two iterations other runs may work with it.

Between two iterations a run holds nothing, so one that stands still is in nobody's way.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from types import MethodType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.hooks import HookRegistry
from diffusers.models.cache_utils import CacheMixin

__all__ = ["KEEPS_VALUES", "Exclusive", "needs_exclusive"]

# By the names of classes, so that none of them has to be imported: the methods that keep values on the model.
KEEPS_VALUES = {
    "AutoencoderKLQwenImage": ("decode", "encode", "forward"),
    "AutoencoderKLQwenImage21": ("decode", "encode", "forward"),
    "AutoencoderKLWan": ("decode", "encode", "forward"),
    "Qwen2VLForConditionalGeneration": ("forward", "generate"),
    "Qwen2VLModel": ("forward",),
    "Qwen2_5_VLForConditionalGeneration": ("forward", "generate"),
    "Qwen2_5_VLModel": ("forward",),
    "Qwen3VLForConditionalGeneration": ("forward", "generate"),
    "Qwen3VLModel": ("forward",),
}

# How often, in seconds, a run that waits for a model looks whether it has to end.
_LOOK = 0.05


@lru_cache(maxsize=1024)
def _methods_of(cls: Any) -> tuple[str, ...]:
    return next((KEEPS_VALUES[base.__name__] for base in cls.__mro__ if base.__name__ in KEEPS_VALUES), ())


def _methods(model: torch.nn.Module) -> tuple[str, ...]:
    """The methods of a model that keep values on it."""
    cls: Any = type(model)
    return _methods_of(cls)


def _hooks_models(component: Any) -> bool:
    """Whether it is a guider that changes the model between predictions."""
    return isinstance(component, BaseGuidance) and type(component).prepare_models is not BaseGuidance.prepare_models


def _is_changed_by_blocks(model: torch.nn.Module) -> bool:
    """Whether blocks change it while they work with it: its adapters, or the dtype of an autoencoder."""
    own = vars(model)
    if own.get("peft_config"):
        return True
    config = own.get("_internal_dict")
    if config is None or not config.get("force_upcast"):
        return False
    gate = _gates.get(model)
    # in float32 it may be because of another run that has it alone at this moment
    return (gate is not None and gate.owner is not None) or next(model.parameters()).dtype is not torch.float32


def _is_cached(model: Any) -> bool:
    return isinstance(model, CacheMixin) and model.is_cache_enabled


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """What `torch.compile` wraps."""
    return getattr(model, "_orig_mod", model)


def needs_exclusive(components: Iterable[Any]) -> bool:
    """Whether a run with these components has to have some of them for itself at times."""
    for component in components:
        cls: Any = type(component)
        if not _is_free(cls) and _is_exclusive(component):
            return True
    return False


@lru_cache(maxsize=1024)
def _is_free(cls: Any) -> bool:
    """Whether no object of a class ever is for one run at a time; asked at each call of a pipeline."""
    return not issubclass(cls, (BaseGuidance, torch.nn.Module))


def _is_exclusive(component: Any) -> bool:
    if isinstance(component, torch.nn.Module):
        model = _unwrapped(component)
        return bool(_methods(model)) or _is_cached(model) or _is_changed_by_blocks(model)
    return _hooks_models(component)


class _Gate:
    """Who is at work with a model.

    Attributes:
        owner: the run that has it alone.
        depth: how often it has taken it.
        inside: how many calls of each run are in progress.
        waiting: how many runs wait to have it alone.
    """

    def __init__(self) -> None:
        self.owner: Any = None
        self.depth = 0
        self.inside: Counter[Any] = Counter()
        self.waiting = 0


# One for all gates: several are taken together or not at all, so that no two runs wait for each other.
_changed = threading.Condition()
_gates: WeakKeyDictionary[torch.nn.Module, _Gate] = WeakKeyDictionary()
# how many gates, of any model, a run has passed and not left
_passed: Counter[Any] = Counter()


class _Who(NamedTuple):
    run: Any
    check: Callable[[], None]


_who: ContextVar[_Who | None] = ContextVar("who", default=None)


def _current() -> _Who:
    # code outside of runs, such as a plain call of another pipeline that shares the model, counts by its thread
    return _who.get() or _Who(threading.get_ident(), lambda: None)


def _wait_until(condition: Callable[[], bool], check: Callable[[], None]) -> None:
    while not condition():
        _changed.wait(_LOOK)
        check()


@contextmanager
def _alone(models: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Have models alone."""
    run, check = _current()
    with _changed:
        gates = [_gates.setdefault(model, _Gate()) for model in models]
        for gate in gates:
            gate.waiting += 1
        try:
            _wait_until(
                lambda: all(gate.owner in (None, run) and not gate.inside.keys() - {run} for gate in gates), check
            )
        finally:
            for gate in gates:
                gate.waiting -= 1
        for gate in gates:
            gate.owner = run
            gate.depth += 1
        _passed[run] += len(gates)
    try:
        yield
    finally:
        with _changed:
            for gate in gates:
                gate.depth -= 1
                if not gate.depth:
                    gate.owner = None
            _leave(run, len(gates))


@contextmanager
def _together(model: torch.nn.Module) -> Iterator[None]:
    """Make a call of a model while other runs may make theirs, but none has it alone."""
    run, check = _current()
    with _changed:
        gate = _gates.setdefault(model, _Gate())
        # those who wait to have it alone come first, unless they may be waiting for this run
        _wait_until(lambda: gate.owner in (None, run) and (not gate.waiting or run in _passed), check)
        gate.inside[run] += 1
        _passed[run] += 1
    try:
        yield
    finally:
        with _changed:
            gate.inside[run] -= 1
            if not gate.inside[run]:
                del gate.inside[run]
            _leave(run, 1)


def _leave(run: Any, count: int) -> None:
    _passed[run] -= count
    if not _passed[run]:
        del _passed[run]
    _changed.notify_all()


class _Wrapped:
    """Methods of a model, wrapped on the instance for as long as runs need that."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.users = 0
        self._model = model
        self._methods: dict[str, tuple[Any, Any]] = {}
        for name in {*_methods(model), "forward"}:
            own = vars(model).get(name)
            self._methods[name] = self._gated(name, own), own
            vars(model)[name] = self._methods[name][0]

    def _gated(self, name: str, own: Any) -> Any:
        keeps_values = name in _methods(self._model)
        function = getattr(type(self._model), name) if own is None else own

        @wraps(function)
        def gated(model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            with _alone([model]) if keeps_values or _is_cached(model) else _together(model):
                return function(*([model] if own is None else []), *args, **kwargs)

        if own is None:
            return MethodType(gated, self._model)
        # what was put on the instance takes no `self`, and is not bound
        return wraps(own)(lambda *args, **kwargs: gated(self._model, *args, **kwargs))

    def remove(self) -> None:
        for name, (gated, own) in self._methods.items():
            # somebody may have wrapped it again meanwhile, and then it stays
            if vars(self._model).get(name) is gated:
                if own is None:
                    del vars(self._model)[name]
                else:
                    vars(self._model)[name] = own


_wrapped: dict[torch.nn.Module, _Wrapped] = {}


class Exclusive:
    """What one run has to have for itself.

    Args:
        view: the run's view of its pipeline.
        check: called now and then while the run waits for a model; raises what ends the run.
    """

    def __init__(self, view: Any, check: Callable[[], None]) -> None:
        self._view = view
        self._who = _Who(self, check)
        self._models = {_unwrapped(model) for model in view._modules()}

    @property
    def is_holding(self) -> bool:
        """Whether others may be waiting for the run."""
        return self in _passed

    @contextmanager
    def active(self) -> Iterator[None]:
        """For the time of the run: make its calls of models, and those of others, wait for their turn."""
        with _changed:
            for model in self._models:
                wrapped = _wrapped.get(model)
                if wrapped is None:
                    wrapped = _wrapped[model] = _Wrapped(model)
                wrapped.users += 1
        token = _who.set(self._who)
        try:
            yield
        finally:
            _who.reset(token)
            with _changed:
                for model in self._models:
                    _wrapped[model].users -= 1
                    if not _wrapped[model].users:
                        _wrapped.pop(model).remove()

    def _components_of(self, block: Any) -> tuple[list[Any], list[torch.nn.Module]]:
        """The components of a block, and the models among them."""
        components = [getattr(self._view, name, None) for name in block.component_names if name]
        return components, [_unwrapped(model) for model in components if isinstance(model, torch.nn.Module)]

    @contextmanager
    def block(self, block: Any) -> Iterator[None]:
        """For the call of a block: have its models alone if it, or a guider that it works with, changes them."""
        components, models = self._components_of(block)
        guiders = [component for component in components if _hooks_models(component)]
        if block.sub_blocks or not (guiders or any(map(_is_changed_by_blocks, models))):
            yield
            return
        with _alone(models):
            dtypes = [(model, next(model.parameters()).dtype) for model in models if _is_changed_by_blocks(model)]
            try:
                yield
            except BaseException:
                _remove_hooks(guiders, models)
                for model, dtype in dtypes:
                    model.to(dtype)
                raise

    @contextmanager
    def iteration(self, loop: Any, memory: dict[Any, Any]) -> Iterator[None]:
        """For an iteration of a loop: have its models alone if they cache, with the memory of this loop.

        Args:
            loop: the loop.
            memory: empty when the loop begins; filled here.
        """
        _, models = self._components_of(loop)
        if not any(map(_is_cached, models)):
            yield
            return
        # all of them, so that no block of the loop has to wait for one while it has another
        with _alone(models), ExitStack() as stack:
            for model in filter(_is_cached, models):
                stack.enter_context(_own_memory(model, memory))
            yield


def _remove_hooks(guiders: list[Any], models: list[torch.nn.Module]) -> None:
    """Take off what guiders put on models, in a block that was left before it did so."""
    named = [names for guider in guiders for key, names in vars(guider).items() if key.endswith("_hook_names")]
    for model in models:
        for name in [name for names in named for name in names]:
            HookRegistry.check_if_exists_or_initialize(model).remove_hook(name, recurse=True)


@contextmanager
def _own_memory(model: torch.nn.Module, memory: dict[Any, Any]) -> Iterator[None]:
    """Put states of a model's hooks that belong to one loop in place of those that are there.

    Args:
        model: the model.
        memory: the states of the loop by model, empty at first.
    """
    places = [
        (hook, name, state)
        for module in model.modules()
        if isinstance(registry := vars(module).get("_diffusers_hook"), HookRegistry)
        for hook in registry.hooks.values()
        if hook._is_stateful
        for name, state in vars(hook).items()
        if callable(getattr(state, "reset", None))
    ]
    if model not in memory:
        copies: dict[int, Any] = {id(module): module for module in model.modules()}
        memory[model] = [copy.deepcopy(state, copies) for _, _, state in places]
        for state in memory[model]:
            state.reset()
    for (hook, name, _), state in zip(places, memory[model], strict=True):
        setattr(hook, name, state)
    try:
        yield
    finally:
        for hook, name, state in places:
            setattr(hook, name, state)
