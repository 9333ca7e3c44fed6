"""What values are, for comparing them: a digest of each, and which of them share objects or memory."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from loopwright.blocks import ModularPipelineBlocks
from loopwright.errors import UnsavableValueError
from loopwright.run.checkpoints.comparison import tensor_bytes
from loopwright.run.checkpoints.encoder import Encoder, class_key

__all__ = ["Classes", "Content", "Incomparable", "Place", "aliases", "clusters", "digest"]

Classes = Mapping[str, type]

# attributes of blocks that say what the tree says, are only for readers, or are derived
_OF_THE_TREE = frozenset(
    {"_cache", "_progress_bar_config", "_sub_blocks", "block_classes", "block_names", "description"}
)
_IMMUTABLE = (
    *(tuple, frozenset, bytes, complex, range, slice, type, FunctionType, BuiltinFunctionType, PurePath, np.generic),
    *(torch.dtype, torch.device, torch.Size),
)


class Incomparable(Exception):
    """There is no telling whether something is the same as something else; the message says what, for a report."""


def digest(written: Any) -> bytes:
    """The digest of something that JSON can hold."""
    return hashlib.sha256(json.dumps(written).encode()).digest()


class Place(NamedTuple):
    """Where a tensor or an array lies in memory.

    Attributes:
        value: the tensor or array.
        device: its device.
        begin: the address of its first byte.
        end: the address after its last one.
    """

    value: Any
    device: str
    begin: int
    end: int

    @classmethod
    def of(cls, value: Any) -> Place | None:
        """None for one that has no elements."""
        if isinstance(value, torch.Tensor):
            if not value.numel():
                return None
            last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
            begin = value.data_ptr()
            return cls(value, str(value.device), begin, begin + (last + 1) * value.element_size())
        if not value.size:
            return None
        steps = [(size - 1) * stride for size, stride in zip(value.shape, value.strides, strict=True)]
        begin = value.ctypes.data
        first, last = sum(step for step in steps if step < 0), sum(step for step in steps if step > 0)
        return cls(value, "cpu", begin + first, begin + last + value.itemsize)


class Content(Encoder):
    """What one value is made of.

    Functions and classes are the same if they are one object; `pins` keeps these alive, as their `id` stands for them.

    Args:
        components: the components of the run; a value that is one of them is written as its name and description.
        classes: the classes of objects that are their attributes.
        describe: the description of a component, by its name; adds objects that must be kept alive to a list.
        hashing: whether the elements of tensors are looked at.

    Attributes:
        pins: objects whose `id` was written.
        places: where the tensors and arrays lie.
    """

    def __init__(
        self,
        components: Mapping[str, Any],
        classes: Classes,
        describe: Callable[[str, list[Any]], str],
        hashing: bool = True,
    ) -> None:
        super().__init__(components, classes)
        self.pins: list[Any] = []
        self.places: list[Place] = []
        self._describe, self._hashing = describe, hashing

    @property
    def objects(self) -> list[Any]:
        """The objects that the value is made of, in an order that is the same for equal values."""
        return self._kept

    def encode(self, value: Any, path: str) -> Any:
        name = None if value is None or type(value) in (bool, int, float, str) else self._components.get(id(value))
        if name is not None:
            return {"$": "component", "name": name, "is": self._describe(name, self.pins)}
        return super().encode(value, path)

    def _object(self, value: Any, kind: type, path: str) -> dict[str, Any]:
        if isinstance(value, ModularPipelineBlocks):
            return {"$": "block", **self.block(value, path)}
        if isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            return {"$": "function", "id": self.pin(value)}
        written = super()._object(value, kind, path)
        if isinstance(value, (torch.Tensor, np.ndarray)):
            place = Place.of(value)
            if place is not None:
                self.places.append(place)
        if isinstance(value, torch.Tensor):
            if value.is_conj() or value.is_neg():
                raise UnsavableValueError(f"`{path}` is a tensor whose elements are not written out")
            written["strides"] = list(value.stride())
        elif isinstance(value, np.ndarray):
            written["strides"] = list(value.strides)
        elif isinstance(value, Image.Image):
            written["class"] = class_key(kind)
            written["format"] = getattr(value, "format", None)
            written["info"] = self.encode(dict(value.info), f"{path}.info")
            written["exif"] = value.getexif().tobytes().hex()
        return written

    def _tensor(self, value: torch.Tensor) -> dict[str, Any]:
        written = super()._tensor(value)
        if self._hashing:
            written["key"] = hashlib.sha256(tensor_bytes(value)).hexdigest()
        return {**written, "dtype": str(value.dtype), "shape": list(value.shape)}

    def pin(self, value: Any) -> int:
        """The `id` of an object that will not go away."""
        self.pins.append(value)
        return id(value)

    def block(self, block: ModularPipelineBlocks, path: str) -> dict[str, Any]:
        """What a block is: its class and the code of that, its attributes, and the blocks inside it.

        Raises:
            Incomparable: an attribute cannot be compared.
        """
        return {
            "code": [self._code(cls) for cls in type(block).__mro__ if not cls.__module__.startswith(_LIBRARY)],
            "class": self.pin(type(block)),
            "attributes": [
                [name, self._attribute(value, f"{path}.{name}" if path else name)]
                for name, value in vars(block).items()
                if name not in _OF_THE_TREE
            ],
            "blocks": [
                [name, self._attribute(inner, f"{path}.{name}" if path else name)]
                for name, inner in block.sub_blocks.items()
            ],
        }

    def _attribute(self, value: Any, path: str) -> Any:
        try:
            return self.encode(value, path)
        except (UnsavableValueError, RecursionError) as error:
            raise Incomparable(f"its attribute `{path}` ({type(value).__name__}) cannot be compared") from error

    def _code(self, cls: type) -> list[Any]:
        """The attributes of a class; of functions their code, which a notebook may exchange."""
        written = []
        for name, value in list(vars(cls).items()):
            function = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
            code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", value)
            written.append([name, self.pin(code)])
        return written


_LIBRARY = ("loopwright.blocks.", "builtins", "typing", "abc")


def clusters(places: Iterable[Place]) -> list[list[int]]:
    """Groups of places that share memory, by their positions."""
    found: list[list[int]] = []
    reach: tuple[str, int] | None = None
    for position, place in sorted(enumerate(places), key=lambda item: (item[1].device, item[1].begin, item[1].end)):
        if reach is not None and reach[0] == place.device and place.begin < reach[1]:
            found[-1].append(position)
            reach = place.device, max(reach[1], place.end)
        else:
            found.append([position])
            reach = place.device, place.end
    return found


def aliases(contents: Sequence[Content]) -> list[Any]:
    """Which of several values hold the same objects, and which tensors and arrays share memory, and how."""
    first: dict[int, tuple[int, int]] = {}
    shared: list[Any] = []
    for number, content in enumerate(contents):
        for place, value in enumerate(content.objects):
            if isinstance(value, _IMMUTABLE):
                continue
            known = first.setdefault(id(value), (number, place))
            if known != (number, place):
                shared.append([number, place, *known])
    places = [place for content in contents for place in content.places]
    for group in clusters(places):
        if len(group) > 1:
            begin = places[group[0]].begin
            shared.append(sorted([position, places[position].begin - begin] for position in group))
    return sorted(shared, key=repr)
