"""diffusers' declarations as ours: the same fields, in our classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec

__all__ = ["ATTRIBUTES", "converted"]

_CLASSES: dict[str, type[Any]] = {cls.__name__: cls for cls in (InputParam, OutputParam, ComponentSpec, ConfigSpec)}
_DECLARATIONS = ("inputs", "intermediate_outputs", "expected_components", "expected_configs")
# the attributes that hold lists of declarations
ATTRIBUTES = (*_DECLARATIONS, "outputs", *(f"loop_{name}" for name in _DECLARATIONS))


def converted(declarations: Iterable[Any]) -> list[Any]:
    """The declarations in our classes; those that are of our classes already are taken as they are."""
    return [_converted(declaration) for declaration in declarations]


def _converted(declaration: Any) -> Any:
    ours = next((_CLASSES[cls.__name__] for cls in type(declaration).__mro__ if cls.__name__ in _CLASSES), None)
    if ours is None or isinstance(declaration, ours):
        return declaration
    fields = {field.name for field in dataclasses.fields(ours)}
    return ours(**{name: value for name, value in vars(declaration).items() if name in fields})
