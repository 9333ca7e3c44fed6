"""What the author of a block declares, and the mistakes that its class shows by itself."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from loopwright.blocks.sub_blocks import from_diffusers
from loopwright.errors import DefinitionError, article, kind_of
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec

if TYPE_CHECKING:
    from loopwright.blocks.base import ModularPipelineBlocks

__all__ = [
    "Mistake",
    "declaration_mistakes",
    "is_list",
    "misspelt_attributes",
    "require_declarations",
    "signature_mistake",
]

# what the attributes of a leaf, and those of a loop wrapper, are lists of
_DECLARATIONS: dict[str, type] = {
    "inputs": InputParam,
    "intermediate_outputs": OutputParam,
    "expected_components": ComponentSpec,
    "expected_configs": ConfigSpec,
}
_LOOP_DECLARATIONS = {f"loop_{attribute}": kind for attribute, kind in _DECLARATIONS.items()}

_OTHER_ATTRIBUTES = ("block_classes", "block_names", "block_trigger_inputs", "default_block_name")

# what they were called in earlier versions of diffusers
_FORMER_NAMES = {"intermediate_inputs": "inputs", "loop_intermediate_inputs": "loop_inputs"}


class Mistake(NamedTuple):
    """What is wrong, and what to do."""

    message: str
    suggestion: str


def is_list(value: Any) -> bool:
    """Whether a value can stand where a list is expected: anything that can be gone through, but text and dicts."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def declaration_mistakes(block: ModularPipelineBlocks) -> Iterator[Mistake]:
    """Attributes of a block that are not lists of what they should be lists of."""
    for attribute, kind in _declared_by(block).items():
        place = f"`{type(block).__name__}.{attribute}`"
        value = getattr(block, attribute)
        if inspect.ismethod(value):
            yield Mistake(f"{place} is a method", "put `@property` above it")
        elif not is_list(value):
            yield Mistake(
                f"{place} is {kind_of(value)}", f"give a list: `{attribute} = [{_written(kind, _some_name(value))}]`"
            )
        else:
            for item in value:
                mistake = _item_mistake(item, kind)
                if mistake is not None:
                    yield Mistake(f"{place} holds {mistake.message}", mistake.suggestion)


def require_declarations(block: ModularPipelineBlocks) -> None:
    """Raise a `DefinitionError` for the first of the `declaration_mistakes`."""
    for mistake in declaration_mistakes(block):
        raise DefinitionError(f"{mistake.message}; {mistake.suggestion}")


def _declared_by(block: ModularPipelineBlocks) -> dict[str, type]:
    """The attributes by which a block itself declares something: those of other composites follow from their blocks."""
    if hasattr(type(block), "loop_inputs"):
        return _LOOP_DECLARATIONS
    return {} if block.sub_blocks else _DECLARATIONS


def _item_mistake(item: Any, kind: type) -> Mistake | None:
    if isinstance(item, kind):
        name, group = getattr(item, "name", None), getattr(item, "kwargs_type", None)
        if isinstance(name, str) or (name is None and group is not None and kind is InputParam):
            return None
        if name is None:
            return Mistake(f"{_with_article(kind)} without a name", f"give it one: `{_written(kind, None)}`")
        what = f"{_with_article(kind)} whose name is {kind_of(name)}"
        return Mistake(what, f"put a name first: `{_written(kind, None, name)}`")
    if from_diffusers(item, kind):
        return Mistake(f"{_with_article(kind)} of diffusers", f"import `{kind.__name__}` from `loopwright`")
    name = _some_name(item)
    shown = f'`{type(item).__name__}("{name}")`' if hasattr(item, "name") and name else kind_of(item)
    return Mistake(
        f"{repr(item) if isinstance(item, str) else shown}, which is not {_with_article(kind)}",
        f"write `{_written(kind, name, item)}`",
    )


def _some_name(value: Any) -> str | None:
    """The name that the author had in mind, as far as it can be told."""
    name = getattr(value, "name", value)
    if isinstance(value, Mapping):
        name = next(iter(value), None)
    return name if isinstance(name, str) else None


def _written(kind: type, name: str | None, given: Any = None) -> str:
    """A declaration as the author should write it; what was given is its type hint if it is a class."""
    more = f", {given.__name__}" if isinstance(given, type) else ""
    return f'{kind.__name__}("{name or "name"}"{", default=..." if kind is ConfigSpec else more})'


def _with_article(kind: type) -> str:
    return f"{article(kind.__name__)} `{kind.__name__}`"


def misspelt_attributes(cls: type) -> Iterator[tuple[str, str]]:
    """Attributes that authors set on a class of blocks, each with the one that they must have meant.

    Only what the class does not define by its right name counts as meant.
    """
    ours = [base for base in cls.__mro__ if base.__module__.startswith("loopwright.blocks.")]
    own = {name for base in cls.__mro__ if base not in ours for name in vars(base)}
    inherited = {name for base in ours for name in vars(base)}
    names = {*_DECLARATIONS, *_LOOP_DECLARATIONS, *_OTHER_ATTRIBUTES}
    lacking = [name for name in sorted(names - own) if name in inherited]
    for name in sorted(own):
        if name == "inputs":
            # those of a loop follow from what its blocks read
            meant = "loop_inputs"
        elif name in inherited or name.startswith("_"):
            continue
        else:
            close = difflib.get_close_matches(name, lacking, n=1, cutoff=0.82)
            meant = _FORMER_NAMES.get(name) or next(iter(close), "")
        if meant in lacking:
            yield name, meant


def signature_mistake(cls: type, method: str, *given: str) -> Mistake | None:
    """Whether a method of a class of blocks leaves no room for the arguments that it is called with.

    Args:
        cls: the class.
        method: the name of the method.
        *given: what the arguments are called in the documentation.
    """
    function: Callable[..., Any] = getattr(cls, method)
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > len(given) or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return Mistake(
        f"`{cls.__name__}` defines `{method}({', '.join(map(str, parameters))})`, which cannot be called with "
        f"{' and '.join(f'`{name}`' for name in given)}",
        f"define `{method}(self, {', '.join(given)})`",
    )
