"""The ordered, named children of a composite block."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self

from loopwright.blocks import epoch
from loopwright.blocks.registry import provided
from loopwright.errors import BlockTypeError, DefinitionError, UnknownNameError, did_you_mean, kind_of

__all__ = ["InsertableDict", "SubBlocks"]


class InsertableDict(OrderedDict[str, Any]):
    """An ordered dict that also inserts at a position."""

    def insert(self, key: str, value: Any, index: int) -> Self:
        """Put an item at a position; an item of the same name is taken out first.

        Returns:
            The dict itself.
        """
        items = [(name, item) for name, item in self.items() if name != key]
        items.insert(index, (key, value))
        self.clear()
        self.update(items)
        return self

    def __repr__(self) -> str:
        def describe(value: Any) -> str:
            cls = value if inspect.isclass(value) else type(value)
            return f"<{'class' if inspect.isclass(value) else 'obj'} '{cls.__module__}.{cls.__name__}'>"

        lines = [f"  {i}: ({key!r}, {describe(value)})" for i, (key, value) in enumerate(self.items())]
        return "InsertableDict([\n" + ",\n".join(lines) + "\n])" if lines else "InsertableDict()"


class SubBlocks(InsertableDict):
    """The children of one composite. A class that is put in becomes an instance of it.

    Attributes:
        plan: how the composite runs them; forgotten at every change.

    Raises:
        BlockTypeError: what is put in is not a block, or its name is not a string.
        DefinitionError: what is put in is, or holds, the composite itself.
        UnknownNameError: what is asked for, or taken out, is not there.
    """

    plan: Any = None

    def _changed(self) -> None:
        self.plan = None
        epoch.advance()

    def __missing__(self, key: str) -> Any:
        names = ", ".join(f"`{name}`" for name in self) or "none"
        raise UnknownNameError(f"there is no sub-block `{key}`{did_you_mean(str(key), self)}; there are {names}")

    def _require(self, key: str) -> None:
        if key not in self:
            self.__missing__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, self._sub_block(key, value))
        self._changed()

    def __delitem__(self, key: str) -> None:
        self._require(key)
        super().__delitem__(key)
        self._changed()

    def insert(self, key: str, value: Any, index: int) -> Self:
        if not isinstance(index, int):
            raise BlockTypeError(
                f'`insert` takes a name, a block and a position, as in `insert("denoise", block, 0)`; the position is '
                f"{kind_of(index)}"
            )
        # made a block before anything is taken out, so that a failure changes nothing
        return super().insert(key, self._sub_block(key, value), index)

    def _sub_block(self, name: Any, value: Any) -> Any:
        """The block for what is put here under a name."""
        if not isinstance(name, str) or not name:
            given = kind_of(name) if isinstance(name, type) else repr(name)
            raise BlockTypeError(
                f"the name of a sub-block is {given}; it must be a string, and not an empty one: "
                f'`{{"denoise": DenoiseStep}}`'
            )
        block = as_block(value, f"sub-block `{name}`")
        refuse_cycle(name, block, lambda inner: inner._sub_blocks is self)
        return block

    def clear(self) -> None:
        super().clear()
        self._changed()

    def pop(self, key: str, *default: Any) -> Any:
        if not default:
            self._require(key)
        value = super().pop(key, *default)
        self._changed()
        return value

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        item = super().popitem(last)
        self._changed()
        return item

    def move_to_end(self, key: str, last: bool = True) -> None:
        self._require(key)
        super().move_to_end(key, last)
        self._changed()

    def __reduce__(self) -> tuple[type[SubBlocks], tuple[list[tuple[str, Any]]]]:
        # a copy starts without a plan: it holds calls of the blocks that were copied
        return SubBlocks, (list(self.items()),)


def refuse_cycle(name: str, block: Any, is_owner: Callable[[Any], bool]) -> None:
    """Raise a `DefinitionError` if a block that is put among the sub-blocks of another is, or holds, that other one.

    Args:
        name: the name that it is put there under.
        block: the block.
        is_owner: whether a block is the one among whose sub-blocks it is put.
    """
    below = [(name, block)]
    while below:
        path, inner = below.pop()
        if is_owner(inner):
            raise DefinitionError(
                f"`{type(inner).__name__}` would contain itself, as `{path}`; put a copy there: `copy.deepcopy(block)`"
            )
        below.extend((f"{path}.{child}", value) for child, value in inner._sub_blocks.items())


def as_block(value: Any, place: str) -> Any:
    """A block for what stands where a block belongs: an instance as it is, a class as an instance of it.

    Those of diffusers become ours.

    Args:
        value: what was put there.
        place: the place, for messages.

    Raises:
        BlockTypeError: it is neither a block nor a class of blocks that can be made without arguments.
    """
    from loopwright.blocks.base import ModularPipelineBlocks

    if from_diffusers(value, ModularPipelineBlocks):
        value = provided("bridged")(value)
    if isinstance(value, ModularPipelineBlocks):
        return value
    if not (inspect.isclass(value) and issubclass(value, ModularPipelineBlocks)):
        inside = isinstance(getattr(value, "_blocks", None), ModularPipelineBlocks)
        advice = "its `blocks`" if inside else "a subclass of `ModularPipelineBlocks`, or an instance of one"
        raise BlockTypeError(f"{place} is {kind_of(value)}, which is not a block: give {advice}")
    try:
        return value()
    except TypeError as error:
        needed = [
            parameter.name
            for parameter in inspect.signature(value).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if not needed:
            raise
        raise BlockTypeError(
            f"{place} is the class `{value.__name__}`, which needs the argument{'s' if len(needed) > 1 else ''} "
            f"{', '.join(f'`{name}`' for name in needed)}: "
            f"give an instance, such as `{value.__name__}({', '.join(f'{n}=...' for n in needed)})`"
        ) from error


def from_diffusers(value: Any, cls: type) -> bool:
    """Whether a value is an instance, or a subclass, of the class of diffusers that has the name of one of ours.

    What the bridge made of it is not.
    """
    if isinstance(value, cls) or (inspect.isclass(value) and issubclass(value, cls)):
        return False
    mro = (value if inspect.isclass(value) else type(value)).__mro__
    return any(base.__name__ == cls.__name__ and base.__module__.startswith("diffusers.") for base in mro)
