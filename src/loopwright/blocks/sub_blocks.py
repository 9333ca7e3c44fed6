"""The ordered, named children of a composite block."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from typing import Any, Self

from loopwright.blocks import epoch
from loopwright.errors import BlockTypeError

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
    """

    plan: Any = None

    def _changed(self) -> None:
        self.plan = None
        epoch.advance()

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, as_block(value, key))
        self._changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._changed()

    def clear(self) -> None:
        super().clear()
        self._changed()

    def pop(self, key: str, *default: Any) -> Any:
        value = super().pop(key, *default)
        self._changed()
        return value

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        item = super().popitem(last)
        self._changed()
        return item

    def move_to_end(self, key: str, last: bool = True) -> None:
        super().move_to_end(key, last)
        self._changed()

    def __reduce__(self) -> tuple[type[SubBlocks], tuple[list[tuple[str, Any]]]]:
        # a copy starts without a plan: it holds calls of the blocks that were copied
        return SubBlocks, (list(self.items()),)


def as_block(value: Any, name: str) -> Any:
    """A block for what stands where a block belongs: an instance as it is, a class as an instance of it.

    Args:
        value: what was put there.
        name: the name it was given, for messages.

    Raises:
        BlockTypeError: it is neither a block nor a class of blocks that can be made without arguments.
    """
    from loopwright.blocks.base import ModularPipelineBlocks

    if isinstance(value, ModularPipelineBlocks):
        return value
    if not (inspect.isclass(value) and issubclass(value, ModularPipelineBlocks)):
        kind = f"the class `{value.__name__}`" if inspect.isclass(value) else f"a {type(value).__name__}"
        raise BlockTypeError(
            f"sub-block `{name}` is {kind}, which is not a block: give a subclass of `ModularPipelineBlocks`, "
            f"or an instance of one"
        )
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
            f"sub-block `{name}` is the class `{value.__name__}`, which needs the arguments {', '.join(needed)}: "
            f"give an instance, such as `{value.__name__}({', '.join(f'{n}=...' for n in needed)})`"
        ) from error
