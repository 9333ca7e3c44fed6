"""What follows from the declarations of a tree of blocks: combined inputs and outputs, and who needs what.

Each composite's aggregated declarations are computed here, once per tree. A tree may be edited at any depth, and a
leaf may compute its declarations from its attributes; so a fact is remembered together with what it was computed from:
all blocks of the tree and their attributes, which are compared by identity. That is far cheaper than asking every leaf
again, because most leaves have no attributes and make new `InputParam`s each time they are asked. And it is left out
altogether while no block anywhere has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import Enum
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from loopwright.blocks import epoch
from loopwright.errors import DefinitionError
from loopwright.params import InputParam, OutputParam

if TYPE_CHECKING:
    from loopwright.blocks.base import ModularPipelineBlocks

__all__ = [
    "FactCache",
    "cached",
    "combine_inputs",
    "combine_outputs",
    "first_of_each",
    "fresh",
    "input_key",
    "outside_reads",
    "union",
    "walk",
]

Param = TypeVar("Param", InputParam, OutputParam)

# attributes on which no fact depends; the children are looked at one by one
_INTERNAL = frozenset({"_cache", "_progress_bar_config", "_sub_blocks", "block_classes", "block_names"})


class FactCache:
    """What is remembered about one block. A copy of the block starts with an empty one.

    Attributes:
        epoch: the epoch in which the stamp was last seen to hold; None if it has to be looked at each time.
        stamp: the objects that the facts were computed from.
        facts: the facts by name.
        access: what the block reads and writes; one of the facts, at hand.
    """

    __slots__ = ("access", "epoch", "facts", "stamp")

    def __init__(self) -> None:
        self.epoch: object | None = None
        self.stamp: list[Any] = []
        self.facts: dict[str, Any] = {}
        self.access: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> FactCache:
        return FactCache()

    def __reduce__(self) -> tuple[type[FactCache], tuple[()]]:
        return (FactCache, ())


def cached(block: ModularPipelineBlocks, key: str, compute: Callable[[Any], Any]) -> Any:
    """`compute(block)`, remembered under `key` until the tree below the block changes."""
    cache = block._cache
    if cache.epoch is not epoch.current:
        _renew(block, cache)
    if key in cache.facts:
        return cache.facts[key]
    fact = compute(block)
    cache.facts[key] = fact
    return fact


def _renew(block: ModularPipelineBlocks, cache: FactCache) -> None:
    """Forget the facts if they no longer hold."""
    now = epoch.current
    stamp: list[Any] = []
    settled = _append_stamp(block, stamp)
    if len(stamp) != len(cache.stamp) or not all(map(is_, stamp, cache.stamp)):
        cache.stamp = stamp
        cache.facts = {}
        cache.access = None
    cache.epoch = now if settled else None


def _append_stamp(block: ModularPipelineBlocks, stamp: list[Any]) -> bool:
    """Append all that the facts about a tree depend on, object by object.

    Returns:
        Whether a change would advance the epoch. Lists, dicts and objects that are attributes of a block can change
        unnoticed.
    """
    settled = True
    stamp.append(block)
    for name, value in block.__dict__.items():
        if name in _INTERNAL:
            continue
        stamp.append(name)
        stamp.append(value)
        if isinstance(value, dict):
            stamp.extend(value.keys())
            stamp.extend(value.values())
            settled = False
        elif isinstance(value, (list, tuple, set)):
            stamp.extend(value)
            settled = settled and isinstance(value, tuple)
        elif isinstance(getattr(value, "_cache", None), FactCache) and not any(value is seen for seen in stamp[:-1]):
            settled = _append_stamp(value, stamp) and settled
        elif _has_attributes(value):
            stamp.extend(vars(value).values())
            settled = False
    for name, child in block._sub_blocks.items():
        stamp.append(name)
        settled = _append_stamp(child, stamp) and settled
    return settled


def _has_attributes(value: Any) -> bool:
    """Whether a value is an object whose attributes a declaration may depend on, such as settings."""
    return bool(getattr(value, "__dict__", None)) and not isinstance(value, (type, FunctionType, Enum))


def fresh(params: Iterable[Param]) -> list[Param]:
    """Copies of declarations, for a caller who may change them."""
    copies = []
    for param in params:
        copied = object.__new__(type(param))
        copied.__dict__.update(param.__dict__)
        copies.append(copied)
    return copies


def input_key(param: InputParam) -> str:
    """What identifies an input: its name, or its group for one that takes a whole group of values.

    Raises:
        DefinitionError: it has neither.
    """
    if param.name is not None:
        return param.name
    if param.kwargs_type is None:
        raise DefinitionError(
            "an `InputParam` needs a `name`, or a `kwargs_type` for a group of values; this one has neither"
        )
    return f"**{param.kwargs_type}"


def combine_inputs(*named_inputs: tuple[str, list[InputParam]]) -> list[InputParam]:
    """The inputs of blocks of which one is chosen: each once, as it is first declared.

    Where the blocks declare different defaults, the default is None, and `defaults_by_block` holds them; the names of
    blocks of nested conditionals are joined with dots. The given declarations are not changed.
    """
    combined: dict[str, InputParam] = {}
    defaults: dict[str, dict[str, Any]] = {}
    for block_name, inputs in named_inputs:
        for param in inputs:
            key = input_key(param)
            if param.defaults_by_block:
                own = {f"{block_name}.{inner}": default for inner, default in param.defaults_by_block.items()}
            else:
                own = {block_name: param.default}
            combined.setdefault(key, param)
            defaults.setdefault(key, {}).update(own)
    for key, by_block in defaults.items():
        first, *others = by_block.values()
        if any(_differ(first, other) for other in others):
            combined[key] = replace(combined[key], default=None, defaults_by_block=by_block)
    return list(combined.values())


def combine_outputs(*named_outputs: tuple[str, list[OutputParam]]) -> list[OutputParam]:
    """The outputs of several blocks: each once, as it is first declared, or as it is first declared with a group."""
    combined: dict[str, OutputParam] = {}
    for _, outputs in named_outputs:
        for param in outputs:
            known = combined.get(param.name)
            if known is None or (known.kwargs_type is None and param.kwargs_type is not None):
                combined[param.name] = param
    return list(combined.values())


def outside_reads(blocks: Iterable[ModularPipelineBlocks]) -> list[InputParam]:
    """What blocks that run one after the other read and no earlier one is sure to have written, as each declares it.

    Outputs of a block that may be skipped are not counted as written.
    """
    reads: list[InputParam] = []
    written: set[str] = set()
    for block in blocks:
        reads.extend(param for param in block.inputs if input_key(param) not in written)
        if not block.may_be_skipped:
            written.update(param.name for param in block.intermediate_outputs)
    return reads


def first_of_each(params: Iterable[InputParam]) -> list[InputParam]:
    """Each input once, as its first reader declares it."""
    inputs: dict[str, InputParam] = {}
    for param in params:
        inputs.setdefault(input_key(param), param)
    return list(inputs.values())


def union(items: Iterable[Any]) -> list[Any]:
    """Each item once, in the order of first appearance. Items are compared with `==`, and need not be hashable."""
    unique: list[Any] = []
    for item in items:
        if item not in unique:
            unique.append(item)
    return unique


def _differ(first: Any, second: Any) -> bool:
    try:
        return bool(first != second)
    except (RuntimeError, ValueError):  # tensors and arrays of several elements have no single answer
        return first is not second


def walk(block: ModularPipelineBlocks, path: str = "") -> Iterator[tuple[str, ModularPipelineBlocks]]:
    """The block and all blocks below it, each with its path, outer before inner, in order of execution."""
    yield path, block
    for name, child in block.sub_blocks.items():
        yield from walk(child, f"{path}.{name}" if path else name)
