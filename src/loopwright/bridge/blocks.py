"""Classes of blocks that are diffusers' and ours at the same time.

A class of diffusers gets a subclass in which ours takes the place of its library's. In the order in which Python looks
for a method, what the class itself defines comes first, its `super()` calls included; then what is ours; and what
diffusers' library defines comes last:

    FluxDenoiseStep, made here > diffusers' FluxDenoiseStep > our LoopSequentialPipelineBlocks > diffusers' one
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

import diffusers.modular_pipelines.modular_pipeline as library

from loopwright import blocks as ours
from loopwright.blocks.sub_blocks import SubBlocks
from loopwright.bridge.declarations import ATTRIBUTES, converted
from loopwright.bridge.pipelines import pipeline_class_of_family
from loopwright.bridge.states import adopted

__all__ = ["bridged_block", "bridged_block_class"]


class _Bridged:
    """What bridged blocks have in common."""

    model_name: str | None

    def __setattr__(self, name: str, value: Any) -> None:
        # blocks that a block holds besides its children run here as well
        super().__setattr__(name, bridged_block(value) if _is_theirs(value) else value)

    # the code of a block may call others with states of its own making

    def get_block_state(self, state: Any) -> Any:
        return super().get_block_state(adopted(state))  # type: ignore[misc]

    def set_block_state(self, state: Any, block_state: Any) -> None:
        super().set_block_state(adopted(state), block_state)  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle looks classes up by name, and finds the one of diffusers there
        cls = type(self)
        made = next((base for base in cls.__mro__ if _made.get(base) is cls), None)
        how: tuple[Any, ...] = (copyreg.__newobj__, (cls,)) if made is None else (_blank, (made,))  # type: ignore[attr-defined]
        return (*how, vars(self))

    @property
    def _pipeline_class(self) -> type[Any]:
        return pipeline_class_of_family(self.model_name)


class _Leaf(_Bridged, ours.ModularPipelineBlocks, library.ModularPipelineBlocks):  # type: ignore[misc]
    pass


class _Sequence(_Bridged, ours.SequentialPipelineBlocks, library.SequentialPipelineBlocks):  # type: ignore[misc]
    @property
    def required_inputs(self) -> list[str]:
        """As in diffusers: what a block requires, also where an earlier block writes it."""
        return list(dict.fromkeys(name for block in self.sub_blocks.values() for name in block.required_inputs))


class _Conditional(_Bridged, ours.ConditionalPipelineBlocks, library.ConditionalPipelineBlocks):  # type: ignore[misc]
    pass


class _Auto(_Bridged, ours.AutoPipelineBlocks, library.AutoPipelineBlocks):  # type: ignore[misc]
    pass


class _Loop(_Bridged, ours.LoopSequentialPipelineBlocks, library.LoopSequentialPipelineBlocks):  # type: ignore[misc]
    def _call_apart(self, components: Any, state: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return super()._call_apart(components, adopted(state), *args, **kwargs)


# a class of diffusers' library and what stands in its place, the special before the general
_BASES: tuple[tuple[type, type], ...] = (
    (library.LoopSequentialPipelineBlocks, _Loop),
    (library.SequentialPipelineBlocks, _Sequence),
    (library.AutoPipelineBlocks, _Auto),
    (library.ConditionalPipelineBlocks, _Conditional),
    (library.ModularPipelineBlocks, _Leaf),
)
_LIBRARY = frozenset(cls for theirs, _ in _BASES for cls in theirs.__mro__)

# reentrant, as classes may convert blocks while a subclass is made of them
_lock = threading.RLock()
_made: WeakKeyDictionary[type, type[Any]] = WeakKeyDictionary()


def bridged_block_class(cls: type[Any]) -> type[Any]:
    """The class of ours for a class of diffusers' blocks, always the same one."""
    with _lock:
        if cls not in _made:
            _made[cls] = _bridged_block_class(cls)
        return _made[cls]


def _bridged_block_class(cls: type[Any]) -> type[Any]:
    base = next(ours for theirs, ours in _BASES if issubclass(cls, theirs))
    if cls in _LIBRARY:
        return base
    defined = {name for own in cls.__mro__ if own not in _LIBRARY for name in vars(own)}
    body: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    body.update((name, property(_getter(cls, name))) for name in ATTRIBUTES if name in defined)
    if "description" in defined:
        # a property, which `ModularPipelineBlocks` makes one that can be set
        body["description"] = property(lambda block: _inherited(cls, block, "description"))
    return type(cls.__name__, (cls, base), body)


def _getter(cls: type, name: str) -> Callable[[Any], list[Any]]:
    return lambda block: converted(_inherited(cls, block, name))


def _inherited(cls: type, block: Any, name: str) -> Any:
    """An attribute of a block as its class in diffusers has it."""
    return getattr(super(_made[cls], block), name)


def bridged_block(block: Any, memo: dict[int, Any] | None = None) -> Any:
    """A block of ours that does what a block of diffusers does; neither changes with the other.

    Args:
        block: the block of diffusers.
        memo: what was made so far, as for `copy.deepcopy`.
    """
    memo = {} if memo is None else memo
    bridged = memo[id(block)] = _blank(type(block))
    own = {name: value for name, value in vars(block).items() if name != "sub_blocks"}
    vars(bridged).update((name, _own(value, memo)) for name, value in own.items())
    # a class that does not call the `__init__` of its base has none
    children = getattr(block, "sub_blocks", {})
    bridged.sub_blocks = SubBlocks({name: _own(child, memo) for name, child in children.items()})
    return bridged


def _own(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of what a block of diffusers has; of a block of diffusers, one of ours."""
    return bridged_block(value, memo) if _is_theirs(value) and id(value) not in memo else deepcopy(value, memo)


def _is_theirs(value: Any) -> bool:
    return isinstance(value, library.ModularPipelineBlocks) and not isinstance(value, ours.ModularPipelineBlocks)


def _blank(cls: type[Any]) -> Any:
    """A block of the class of ours for a class of diffusers', before it is given its attributes."""
    return ours.ModularPipelineBlocks.__new__(bridged_block_class(cls))
