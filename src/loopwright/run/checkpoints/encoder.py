"""Values as JSON and tensors; `Decoder` reads them.

Nothing is pickled, and no class is looked up by a name from a file: an object is written as its attributes only if its
class is in a table, which is made of classes that this module, the caller, or the pipeline's own declarations name.
"""

from __future__ import annotations

import base64
import copy
import enum
import math
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.hooks import LayerSkipConfig
from diffusers.hooks.smoothed_energy_guidance_utils import SmoothedEnergyGuidanceConfig
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image

from loopwright.errors import UnsavableValueError
from loopwright.run.checkpoints.comparison import attributes_of, tensor_bytes

__all__ = ["CONTAINERS", "DTYPES", "PATHS", "Encoder", "class_key", "savable_classes"]

DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
# of tensors; complex ones are written as pairs of floats
_STORED_DTYPES = {
    DTYPES[f"torch.{name}"]
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float16", "bfloat16", "float32"),
        *("float64", "complex64", "complex128"),
    )
    if f"torch.{name}" in DTYPES
}
CONTAINERS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "ordered dict": OrderedDict,
    "frozen dict": FrozenDict,
}
_CONTAINER_NAMES = {kind: name for name, kind in CONTAINERS.items()}
_IMMUTABLE_CONTAINERS = (tuple, frozenset, FrozenDict)
# a path of the system it was written on is one of the system it is read on
PATHS: dict[str, type[PurePath]] = {"path": Path, "posix path": PurePosixPath, "windows path": PureWindowsPath}
_PATH_NAMES = {
    PosixPath: "path",
    WindowsPath: "path",
    PurePosixPath: "posix path",
    PureWindowsPath: "windows path",
}
# numbers, booleans and text
_ARRAY_KINDS = "biufcUS"
# of memory that tensors share: a begin that fits any dtype
_ALIGNMENT = 64
# objects whose attributes are all there is to them
_PLAIN_OBJECTS: tuple[type, ...] = (MomentumBuffer, LayerSkipConfig, SmoothedEnergyGuidanceConfig)
# such objects of single families, whose modules are imported where they are in use
_PLAIN_OBJECTS_OF_FAMILIES = {
    "diffusers.models.transformers.transformer_qwenimage21": ("QwenImage21KVCache", "QwenImage21KVLayerCache"),
    "diffusers.modular_pipelines.minimax_h3.references": (
        "MiniMaxH3AudioReference",
        "MiniMaxH3ImageReference",
        "MiniMaxH3VideoReference",
    ),
    "diffusers.pipelines.ltx2.pipeline_ltx2_condition": ("LTX2VideoCondition",),
    "diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora": ("LTX2ReferenceCondition",),
}


def class_key(cls: type) -> str:
    """What a class is called in a file."""
    return f"{cls.__module__}:{cls.__qualname__}"


def savable_classes(named: Iterable[Any]) -> dict[str, type]:
    """The classes of objects that can be written, by key.

    Args:
        named: classes beyond those of this module: enums, dataclasses, and others that are their attributes.
    """
    known = [
        *_PLAIN_OBJECTS,
        *_plain_objects_of_families(),
        *_subclasses(SchedulerMixin),
        *_subclasses(BaseGuidance),
        *(cls for cls in named if isinstance(cls, type)),
    ]
    return {class_key(cls): cls for cls in known}


def _plain_objects_of_families() -> Iterable[type[Any]]:
    for module, names in _PLAIN_OBJECTS_OF_FAMILIES.items():
        if module in sys.modules:
            yield from (getattr(sys.modules[module], name) for name in names)


def _subclasses(cls: type[Any]) -> Iterable[type[Any]]:
    child: type[Any]
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def _brownian_sampler() -> type | None:
    """The class of the noise of SDE samplers, if it is in use: its module needs `torchsde`, which not everybody has."""
    module = sys.modules.get("diffusers.schedulers.scheduling_dpmsolver_sde")
    return None if module is None else module.BrownianTreeNoiseSampler


class Encoder:
    """Writes values as JSON; tensors go to `tensors`, by a key.

    An object that occurs several times is written once, and is one object again when it is read.

    Args:
        components: the components of the run; one of them is written as its name.
        classes: the classes of objects that may be written.
        prefix: what the keys of the tensors begin with.
        inline: whether the elements of tensors are written as JSON, too.
    """

    def __init__(
        self, components: Mapping[str, Any], classes: Mapping[str, type], prefix: str = "t", inline: bool = False
    ) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._prefix, self._inline = prefix, inline
        self._components = {id(component): name for name, component in components.items() if component is not None}
        self._classes = {cls: key for key, cls in classes.items()}
        self._seen: dict[int, int] = {}
        # an object that is gone could leave its id to another
        self._kept: list[Any] = []
        # those that are made whole only when all that is inside them has been read
        self._open: set[int] = set()
        # tensors that lie in some memory as they are written, by where that is, each with its JSON
        self._in_memory: dict[int, list[tuple[torch.Tensor, dict[str, Any]]]] = {}

    def encode(self, value: Any, path: str) -> Any:
        """A value as JSON.

        Args:
            value: the value.
            path: where it is, for messages: `state.latents`.

        Raises:
            UnsavableValueError: there is no way to write it, or something inside it.
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
        if id(value) in self._components:
            return {"$": "component", "name": self._components[id(value)]}
        if id(value) in self._open:
            raise UnsavableValueError(f"`{path}` is a {kind.__name__} that holds itself, which cannot be saved")
        if id(value) in self._seen:
            return {"$": "seen", "number": self._seen[id(value)]}
        number = self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        written = self._object(value, kind, path)
        written["number"] = number
        return written

    def number(self, value: Any) -> int | None:
        """The number under which an object was written; None if it was not, or needs none."""
        return self._seen.get(id(value))

    def can_encode(self, value: Any) -> bool:
        """Whether there is a way to write a value."""
        trial = copy.copy(self)
        trial.tensors, trial._in_memory = {}, {}
        trial._seen, trial._kept, trial._open = dict(self._seen), [], set()
        try:
            trial.encode(value, "")
        except (UnsavableValueError, RecursionError):
            return False
        return True

    def join(self) -> None:
        """Have tensors that share memory written as parts of one, so that they share it again.

        Called when all values have been encoded; changes the JSON of such tensors in place.
        """
        for tensors in self._in_memory.values():
            if len(tensors) > 1:
                spans = sorted(
                    ((*_span(tensor), tensor, written) for tensor, written in tensors), key=lambda at: at[:2]
                )
                group = spans[:1]
                for span in spans[1:]:
                    if span[0] >= max(end for _, end, _, _ in group):
                        self._join(group)
                        group = []
                    group.append(span)
                self._join(group)
        self._in_memory.clear()

    def _join(self, group: list[tuple[int, int, torch.Tensor, dict[str, Any]]]) -> None:
        if len(group) < 2:
            return
        begin, end = group[0][0], max(end for _, end, _, _ in group)
        begin -= begin % _ALIGNMENT
        first = group[0][2]
        memory = torch.empty(0, dtype=torch.uint8, device=first.device)
        key = group[0][3]["key"]
        self.tensors[key] = memory.set_(first.untyped_storage(), begin, (end - begin,), (1,))
        for _, _, tensor, written in group:
            if written["key"] != key:
                del self.tensors[written["key"]]
            written["key"] = key
            written["stride"] = list(tensor.stride())
            written["part"] = {
                "dtype": str(tensor.dtype),
                "shape": list(tensor.shape),
                "offset": tensor.storage_offset() - begin // tensor.element_size(),
            }

    def attributes(self, value: Any, path: str, without: Iterable[str] = ()) -> Any:
        """The attributes of an object as JSON."""
        left_out = set(without)
        return [
            [name, self.encode(item, f"{path}.{name}")]
            for name, item in attributes_of(value).items()
            if name not in left_out
        ]

    def _object(self, value: Any, kind: type, path: str) -> dict[str, Any]:
        if kind in _CONTAINER_NAMES:
            return {"$": _CONTAINER_NAMES[kind], "items": self._items(value, kind, path)}
        if isinstance(value, torch.Tensor):
            if kind not in (torch.Tensor, torch.nn.Parameter):
                raise UnsavableValueError(f"`{path}` is a {_class_name(kind)}, which cannot be saved")
            if value.layout is not torch.strided or value.is_meta or value.dtype not in _STORED_DTYPES:
                raise UnsavableValueError(
                    f"`{path}` is a tensor of dtype {value.dtype} and layout {value.layout} on {value.device}, which "
                    f"cannot be saved"
                )
            written = self._tensor(value)
            if value.numel() and not self._inline and not value.is_conj() and not value.is_neg():
                self._in_memory.setdefault(value.untyped_storage().data_ptr(), []).append((value, written))
            return written
        if isinstance(value, torch.Generator):
            return {"$": "generator", "device": str(value.device), "state": self._tensor(value.get_state())}
        if isinstance(value, torch.dtype):
            return {"$": "dtype", "name": str(value)}
        if isinstance(value, torch.device):
            return {"$": "device", "name": str(value)}
        if isinstance(value, torch.Size):
            return {"$": "size", "items": list(value)}
        if kind is np.ndarray:
            if value.dtype.kind not in _ARRAY_KINDS:
                raise UnsavableValueError(f"`{path}` is a numpy array of dtype {value.dtype}, which cannot be saved")
            columns = value.flags.f_contiguous and not value.flags.c_contiguous
            return {
                "$": "array",
                "dtype": value.dtype.str,
                "shape": list(value.shape),
                "order": "F" if columns else "C",
                "data": self._data(value.tobytes("F" if columns else "C")),
            }
        if kind is np.str_:
            # as a scalar of an array it would lose what is zero at its end
            return {"$": "numpy text", "value": str(value)}
        if kind is np.bytes_:
            return {"$": "numpy bytes", "data": base64.b64encode(value).decode()}
        if isinstance(value, np.generic) and value.dtype.kind in _ARRAY_KINDS:
            return {"$": "scalar", "dtype": value.dtype.str, "data": base64.b64encode(value.tobytes()).decode()}
        if isinstance(value, Image.Image):
            palette = value.palette
            return {
                "$": "image",
                "mode": value.mode,
                "size": list(value.size),
                "palette": None if palette is None else [palette.mode, value.getpalette(palette.mode)],
                "transparency": self.encode(value.info.get("transparency"), f"{path}.info['transparency']"),
                "data": self._data(value.tobytes()),
            }
        if kind is bytes:
            return {"$": "bytes", "data": base64.b64encode(value).decode()}
        if kind is complex:
            return {"$": "complex", "value": repr(value)}
        if kind in (range, slice):
            return {
                "$": kind.__name__,
                "items": [self.encode(getattr(value, n), path) for n in ("start", "stop", "step")],
            }
        if kind in _PATH_NAMES:
            return {"$": _PATH_NAMES[kind], "value": str(value)}
        if kind is _brownian_sampler():
            return {"$": "brownian tree", **self._brownian(value, path)}
        if kind in self._classes:
            key = self._classes[kind]
            if isinstance(value, enum.Flag):
                # several at once have no name of their own
                return {"$": "flag", "class": key, "value": value.value}
            if isinstance(value, enum.Enum):
                return {"$": "enum", "class": key, "name": value.name}
            if issubclass(kind, tuple) and hasattr(kind, "_fields"):
                return {"$": "named tuple", "class": key, "items": self._items(value, kind, path)}
            foreign = next((cls for cls in kind.__mro__[:-1] if cls.__module__ == "builtins"), None)
            if foreign is not None:
                raise UnsavableValueError(
                    f"`{path}` is a {_class_name(kind)}, which is a {foreign.__name__} beside its attributes and "
                    f"cannot be saved; keep it out of the state"
                )
            return {"$": "object", "class": key, "attributes": self.attributes(value, path)}
        raise UnsavableValueError(
            f"`{path}` is a {_class_name(kind)}, which cannot be saved; keep it out of the state, or, if it is its "
            f"attributes and no more, name its class in `Checkpoint(classes=[...])`"
        )

    def _items(self, value: Any, kind: type, path: str) -> list[Any]:
        """What is inside a container."""
        whole = issubclass(kind, _IMMUTABLE_CONTAINERS)
        if whole:
            self._open.add(id(value))
        if isinstance(value, dict):
            items: list[Any] = [
                [self.encode(key, f"{path} (a key)"), self.encode(item, f"{path}[{key!r}]")]
                for key, item in value.items()
            ]
        else:
            members = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
            items = [self.encode(item, f"{path}[{index}]") for index, item in enumerate(members)]
        if whole:
            self._open.discard(id(value))
        return items

    def _data(self, data: bytes) -> dict[str, Any]:
        """Bytes, as a tensor of them."""
        return self._tensor(torch.from_numpy(np.frombuffer(data, np.uint8).copy()))

    def _tensor(self, value: torch.Tensor) -> dict[str, Any]:
        written: dict[str, Any] = {
            "$": "tensor",
            "device": str(value.device),
            "stride": _restorable_stride(value),
            "parameter": isinstance(value, torch.nn.Parameter),
            "grad": value.requires_grad,
            "complex": value.is_complex(),
        }
        if self._inline:
            data = base64.b64encode(tensor_bytes(value)).decode()
            return {**written, "dtype": str(value.dtype), "shape": list(value.shape), "elements": data}
        key = written["key"] = f"{self._prefix}{len(self.tensors)}"
        self.tensors[key] = value
        return written

    def _brownian(self, value: Any, path: str) -> dict[str, Any]:
        if value.transform is not type(value).__init__.__defaults__[-1]:
            raise UnsavableValueError(
                f"`{path}` is a BrownianTreeNoiseSampler with a `transform`, which cannot be saved"
            )
        # the noise of an interval follows from the seed, whichever intervals were asked for before
        trees = value.tree.trees
        first = trees[0]
        return {
            "seeds": [int(tree._entropy) for tree in trees],
            "batched": value.tree.batched,
            "sign": value.tree.sign,
            "start": self.encode(torch.as_tensor(first._start), path),
            "end": self.encode(torch.as_tensor(first._end), path),
            "shape": list(first._size),
            "dtype": str(first._dtype),
            "device": str(first._device),
        }


def _restorable_stride(value: torch.Tensor) -> list[int]:
    """Its strides, or those of a contiguous copy if elements share memory or have gaps between them."""
    dense = 1
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size != 1 and stride != dense:
            return list(torch.empty(value.shape, device="meta").stride())
        dense *= size
    return list(value.stride())


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor begins and ends in its memory, in bytes."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin, size = int(tensor.storage_offset()), tensor.element_size()
    return begin * size, (begin + last + 1) * size


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
