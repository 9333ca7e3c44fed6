"""diffusers' declarations as ours: the same fields, in our classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec

__all__ = ["ATTRIBUTES", "converted"]


class _InputParam(InputParam):
    """An input that a block of diffusers declares: there a default lifts the requirement."""

    @property
    def must_be_given(self) -> bool:
        return self.required and self.default is None


_CLASSES: dict[str, type[Any]] = {
    "InputParam": _InputParam,
    "OutputParam": OutputParam,
    "ComponentSpec": ComponentSpec,
    "ConfigSpec": ConfigSpec,
}
_DECLARATIONS = ("inputs", "intermediate_outputs", "expected_components", "expected_configs")
# the attributes that hold lists of declarations
ATTRIBUTES = (*_DECLARATIONS, "outputs", *(f"loop_{name}" for name in _DECLARATIONS))


def converted(declarations: Iterable[Any]) -> list[Any]:
    """The declarations in our classes; those that are of our classes already are taken as they are."""
    return [_converted(declaration) for declaration in declarations]


def _converted(declaration: Any) -> Any:
    if isinstance(declaration, (InputParam, OutputParam, ComponentSpec, ConfigSpec)):
        return declaration
    ours = next((_CLASSES[cls.__name__] for cls in type(declaration).__mro__ if cls.__name__ in _CLASSES), None)
    if ours is None:
        # what is wrong with it is told where declarations are checked
        return declaration
    fields = {field.name for field in dataclasses.fields(ours)}
    return ours(**{name: value for name, value in vars(declaration).items() if name in fields})
