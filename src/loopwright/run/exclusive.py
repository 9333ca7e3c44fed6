"""Models that serve one run at a time, each for as long as it must.

Most models are re-entrant, and runs share them freely. The exceptions:

- Some keep values on themselves while they work: one call at a time (`components/guarded.py` has the table).
- Some guiders hook the model between predictions, under fixed names: a block that works with such a guider has its
  models alone. Other runs, with other guiders, wait with their calls of these models.
- Blocks change some models for the time of their work: they scale adapters, and compute in float32 with an autoencoder
  that overflows in half precision. A block that works with such a model has its models alone, too.
- A model with caching enabled keeps what it predicted in one iteration for the next. A run has it alone during an
  iteration of a loop, with a memory that belongs to that loop; between two iterations other runs may work with it.
- Some loops set the precision that a model computes with before each iteration (`SWITCHES_PRECISION`). A run has it
  alone from the beginning of the loop to its end, but for the points between two iterations.
- Some blocks generate text with a model that they keep to themselves, made of parts of their components
  (`KEEPS_A_MODEL`): such a block has its models alone.
- A model that is offloaded may be moved by any run, unless another is making a call of it: the calls are counted. Where
  hooks of others move models, or bring parts of a model in its call, there is one call at a time.

Between two iterations a run holds nothing, so one that stands still is in nobody's way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.hooks import HookRegistry

from loopwright.blocks import LoopSequentialPipelineBlocks
from loopwright.components import adapters
from loopwright.components.guarded import comes_in_parts, guard, is_cached, keeps_values, moves_others, unguard
from loopwright.components.offload import is_offloaded
from loopwright.components.turns import (
    acting_as,
    alone,
    at_work,
    has_owner,
    is_holding,
    keeping,
    undisturbed,
    unwrapped,
)

__all__ = ["KEEPS_A_MODEL", "SWITCHES_PRECISION", "Exclusive", "needs_exclusive"]

# The models with weights in float8 that loops tell, before each iteration, whether to compute in it; by the names of
# classes, so that none of them has to be imported.
SWITCHES_PRECISION = ("Cosmos3OmniTransformer",)

# The blocks that make a model of their own of their components, by the names of classes.
KEEPS_A_MODEL = ("Ideogram4PromptUpsampleStep",)


def _hooks_models(component: Any) -> bool:
    """Whether it is a guider that changes the model between predictions."""
    return isinstance(component, BaseGuidance) and type(component).prepare_models is not BaseGuidance.prepare_models


def _is_changed_by_blocks(model: torch.nn.Module) -> bool:
    """Whether blocks change it while they work with it: its adapters, or the dtype of an autoencoder."""
    return adapters.has_adapters(model) or _is_upcast(model)


def _is_upcast(model: torch.nn.Module) -> bool:
    """Whether blocks compute in float32 with an autoencoder that is kept in half precision."""
    config = vars(model).get("_internal_dict")
    if config is None or not config.get("force_upcast"):
        return False
    # in float32 it may be because of another run that has it alone at this moment
    with undisturbed():
        return has_owner(model) or next(model.parameters()).dtype is not torch.float32


@lru_cache(maxsize=1024)
def _is_one_of(cls: Any, names: tuple[str, ...]) -> bool:
    return any(base.__name__ in names for base in cls.__mro__)


def _switches_precision(model: torch.nn.Module) -> bool:
    """Whether loops set the precision that it computes with."""
    cls: Any = type(model)
    return _is_one_of(cls, SWITCHES_PRECISION) and any(
        weight.dtype is torch.float8_e4m3fn for weight in model.parameters()
    )


def _keeps_model(block: Any) -> bool:
    """Whether a block generates text with a model that is not a component."""
    cls: Any = type(block)
    return _is_one_of(cls, KEEPS_A_MODEL)


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
        model = unwrapped(component)
        return (
            bool(keeps_values(model))
            or is_cached(model)
            or _is_changed_by_blocks(model)
            or _switches_precision(model)
            or is_offloaded(component)
            or moves_others(component)
            or comes_in_parts(component)
        )
    return _hooks_models(component)


class Exclusive:
    """What one run has to have for itself.

    Args:
        view: the run's view of its pipeline.
        check: called now and then while the run waits for a model; raises what ends the run.
    """

    def __init__(self, view: Any, check: Callable[[], None]) -> None:
        self._view = view
        self._check = check
        self._models = {unwrapped(model) for model in view._modules()}
        self._switching = {model for model in self._models if _switches_precision(model)}
        # what the blocks that run have alone but for the points between two iterations, outermost first
        self._had: list[tuple[ExitStack, list[torch.nn.Module]]] = []

    @property
    def is_holding(self) -> bool:
        """Whether others may be waiting for the run."""
        return is_holding(self)

    @contextmanager
    def active(self) -> Iterator[None]:
        """For the time of the run: make its calls of models, and those of others, wait for their turn."""
        for model in self._models:
            guard(model)
        try:
            with at_work(self, self._check):
                yield
        finally:
            for model in self._models:
                unguard(model)

    def _components_of(self, block: Any) -> tuple[list[Any], list[torch.nn.Module]]:
        """The components of a block, and the models among them."""
        components = [getattr(self._view, name, None) for name in block.component_names if name]
        return components, [unwrapped(model) for model in components if isinstance(model, torch.nn.Module)]

    @contextmanager
    def block(self, block: Any) -> Iterator[None]:
        """For the call of a block: have its models alone if it, or a guider that it works with, is not re-entrant."""
        is_loop = isinstance(block, LoopSequentialPipelineBlocks)
        if block.sub_blocks and not is_loop:
            yield
            return
        components, models = self._components_of(block)
        with self._alone_but_at_boundaries([model for model in models if model in self._switching]):
            if is_loop:
                yield
                return
            guiders = [component for component in components if _hooks_models(component)]
            changes = guiders or any(map(_is_changed_by_blocks, models)) or _keeps_model(block)
            with alone(models if changes else (), for_block=True), keeping():
                before = [_Before(model) for model in models if changes]
                try:
                    yield
                except BaseException:
                    if changes:
                        _remove_hooks(guiders, models)
                    for model_before in before:
                        model_before.put_back()
                    raise

    @contextmanager
    def _alone_but_at_boundaries(self, models: list[torch.nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            if models:
                stack.enter_context(alone(models, for_block=True))
                self._had.append((stack, models))
            try:
                yield
            finally:
                if models:
                    self._had.pop()

    @contextmanager
    def boundary(self) -> Iterator[None]:
        """Between two iterations: let others have the models that a loop has to have alone."""
        for stack, _ in reversed(self._had):
            stack.close()
        try:
            yield
        finally:
            # also where the run ends here: what the loop does at its end would disturb the others
            with acting_as(self, lambda: None):
                for stack, models in self._had:
                    stack.enter_context(alone(models, for_block=True))

    @contextmanager
    def iteration(self, loop: Any, memory: dict[Any, Any]) -> Iterator[None]:
        """For an iteration of a loop: have its models alone if they cache, with the memory of this loop.

        Args:
            loop: the loop.
            memory: empty when the loop begins; filled here.
        """
        _, models = self._components_of(loop)
        if not any(map(is_cached, models)):
            yield
            return
        # all of them, so that no block of the loop has to wait for one while it has another
        with alone(models, for_block=True), ExitStack() as stack:
            for model in filter(is_cached, models):
                stack.enter_context(_own_memory(model, memory))
            yield


class _Before:
    """What blocks change of a model for the time of their work, as it was before; for one that is left too early.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._adapters = adapters.read(model) if adapters.has_adapters(model) else None
        self._dtypes = {name: tensor.dtype for name, tensor in _tensors(model)} if _is_upcast(model) else {}

    def put_back(self) -> None:
        # a block that puts adapters on a model may have been left in between
        if self._adapters is not None and len(adapters.read(self._model)) == len(self._adapters):
            adapters.write(self._model, self._adapters)
        for name, tensor in _tensors(self._model) if self._dtypes else ():
            # each for itself: some are kept in another dtype than the rest
            if tensor.dtype is not self._dtypes.get(name, tensor.dtype):
                tensor.data = tensor.data.to(self._dtypes[name])


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


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
        for hook in registry.hooks.values()  # some share the state of one that says it is stateful, and do not say so
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
