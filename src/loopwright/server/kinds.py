"""How a value of a declared type travels in a request: as JSON, as an image, or as a tensor."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import numpy as np
import torch
from PIL import Image

__all__ = ["ANY", "Kind", "kind_of_hint", "kind_of_input"]

Schema = dict[str, Any]
# says why a value is not of the kind, or None if it is
Test = Callable[[Any], str | None]


@dataclass(frozen=True)
class Kind:
    """How values of one declared type travel.

    Attributes:
        carrier: `json`, `image` or `tensor`; None for a type that no request can carry.
        schema: as JSON Schema.
        says: what it is, for messages: "a whole number".
        test: whether a JSON value is one.
        many: whether there may be a list of them.
    """

    carrier: str | None
    schema: Schema
    says: str
    test: Test
    many: bool = False


def _accepts(says: str, *classes: type) -> Test:
    def test(value: Any) -> str | None:
        fits = isinstance(value, classes) and (bool in classes or not isinstance(value, bool))
        if fits and float in classes and not -sys.float_info.max <= value <= sys.float_info.max:
            fits = False
        return None if fits else says

    return test


def _simple(name: str, says: str, *classes: type) -> Kind:
    return Kind("json", {"type": name}, says, _accepts(says, *classes))


ANY = Kind("json", {}, "anything", lambda value: None)
_TEXT = _simple("string", "a text", str)
_INTEGER = _simple("integer", "a whole number", int)
_NUMBER = _simple("number", "a number", int, float)
_BOOLEAN = _simple("boolean", "true or false", bool)
_NULL = _simple("null", "null", type(None))
_IMAGE = Kind("image", {"type": "string"}, "an image", _accepts("an image", str))
_TENSOR = Kind("tensor", {"type": "array", "items": {}}, "a tensor", _accepts("a tensor", list))
_SIMPLE = {str: _TEXT, int: _INTEGER, float: _NUMBER, bool: _BOOLEAN, type(None): _NULL, Any: ANY, None: ANY}


def kind_of_input(name: str, hint: Any) -> Kind:
    """How the values of an input travel: as its type says, or its name, if it is declared without a type.

    Many blocks of diffusers declare `image` or `width` without one. These names always mean the same there:

    - `image` and `..._image`: an image, or a list of them; of a `mask` one.
    - `images`, `..._images` and `video`: a list of images.
    - `latents`, `..._latents` and `..._embeds`: a tensor.
    - `width`, `height` and `num_...`: a whole number.

    Args:
        name: the name of the input.
        hint: its type hint; None if it has none.
    """
    if hint is not None:
        return kind_of_hint(hint)
    if name in ("width", "height") or name.startswith("num_"):
        return _INTEGER
    last = name.rpartition("_")[2]
    if last == "image":
        return _IMAGE if "mask" in name else _listed(_IMAGE)
    if last in ("images", "video"):
        return _listed(_IMAGE)
    return _TENSOR if last in ("latents", "embeds") else ANY


def kind_of_hint(hint: Any) -> Kind:
    """How values of a type travel.

    Args:
        hint: the type hint of a declaration; None if it has none, which stands for anything that JSON has.
    """
    if isinstance(hint, typing.Hashable) and hint in _SIMPLE:
        return _SIMPLE[hint]
    if isinstance(hint, type) and not typing.get_args(hint):
        return _kind_of_class(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return kind_of_hint(arguments[0])
    if origin is Literal:
        return _one_of(arguments)
    if origin in (Union, types.UnionType):
        return _union([kind_of_hint(argument) for argument in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(kind_of_hint(arguments[1]) if len(arguments) == 2 else ANY)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _listed(_union([kind_of_hint(argument) for argument in arguments if argument is not ...]))
    return _uncarried(hint)


def _kind_of_class(cls: type) -> Kind:
    if issubclass(cls, Image.Image):
        return _IMAGE
    if issubclass(cls, (torch.Tensor, np.ndarray)):
        return _TENSOR
    if issubclass(cls, Mapping):
        return _mapping(ANY)
    if issubclass(cls, Sequence) and cls is not bytes:
        return _listed(ANY)
    return _uncarried(cls)


def _uncarried(hint: Any) -> Kind:
    says = f"`{getattr(hint, '__name__', hint)}`"
    return Kind(None, {"not": {}}, says, lambda value: says)


def _one_of(values: tuple[Any, ...]) -> Kind:
    says = "one of " + ", ".join(repr(value) for value in values)
    return Kind("json", {"enum": list(values)}, says, lambda value: None if value in values else says)


def _listed(item: Kind) -> Kind:
    if item.carrier == "image":
        return Kind(
            "image", {"type": "array", "items": item.schema, "minItems": 1}, "a list of images", item.test, True
        )
    if item.carrier != "json":
        return item
    says = f"a list, each {item.says}"

    def test(value: Any) -> str | None:
        fits = isinstance(value, list) and all(item.test(each) is None for each in value)
        return None if fits else says

    return Kind("json", {"type": "array", "items": item.schema}, says, test)


def _mapping(item: Kind) -> Kind:
    says = "an object" if item is ANY else f"an object, each value {item.says}"

    def test(value: Any) -> str | None:
        fits = isinstance(value, dict) and all(item.test(each) is None for each in value.values())
        return None if fits else says

    return Kind("json", {"type": "object", "additionalProperties": item.schema}, says, test)


def _union(kinds: list[Kind]) -> Kind:
    """Any of several; those that no request can carry are left out."""
    carried = [kind for kind in kinds if kind.carrier is not None]
    if not carried:
        return kinds[0] if kinds else ANY
    for carrier in ("image", "tensor"):
        found = [kind for kind in carried if kind.carrier == carrier]
        if found:
            # a list of images is also one image
            return next((kind for kind in found if kind.many), found[0])
    if len(carried) == 1:
        return carried[0]
    says = " or ".join(dict.fromkeys(kind.says for kind in carried))

    def test(value: Any) -> str | None:
        return None if any(kind.test(value) is None for kind in carried) else says

    return Kind("json", {"anyOf": [kind.schema for kind in carried]}, says, test)
