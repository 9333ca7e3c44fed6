"""Classes of blocks that are diffusers' and ours at the same time.

A class of diffusers gets a subclass in which ours takes the place of its library's. In the order in which Python looks
for a method, what the class itself defines comes first, its `super()` calls included; then what is ours; and what
diffusers' library defines comes last:

    FluxDenoiseStep, made here > diffusers' FluxDenoiseStep > our LoopSequentialPipelineBlocks > diffusers' one
"""

from __future__ import annotations

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

__all__ = ["bridged_block", "bridged_block_class"]


class _Bridged:
    """What bridged blocks have in common."""

    model_name: str | None

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
    pass


# a class of diffusers' library and what stands in its place, the special before the general
_BASES: tuple[tuple[type, type], ...] = (
    (library.LoopSequentialPipelineBlocks, _Loop),
    (library.SequentialPipelineBlocks, _Sequence),
    (library.AutoPipelineBlocks, _Auto),
    (library.ConditionalPipelineBlocks, _Conditional),
    (library.ModularPipelineBlocks, _Leaf),
)
_LIBRARY = frozenset(cls for theirs, _ in _BASES for cls in theirs.__mro__)

_lock = threading.Lock()
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


def bridged_block(block: Any) -> Any:
    """A block of ours that does what a block of diffusers does; neither changes with the other."""
    cls = bridged_block_class(type(block))
    bridged = ours.ModularPipelineBlocks.__new__(cls)
    attributes = {name: value for name, value in vars(block).items() if name != "sub_blocks"}
    vars(bridged).update(deepcopy(attributes))
    bridged.sub_blocks = SubBlocks({name: bridged_block(child) for name, child in block.sub_blocks.items()})
    return bridged
