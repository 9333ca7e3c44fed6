"""Values as JSON and tensors, and back.

Nothing is pickled, and no class is looked up by a name from a file: an object is written as its attributes only if its
class is in a table, which is made of classes that this module, the caller, or the pipeline's own declarations name.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
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

from loopwright.errors import CheckpointDamagedError, UnsavableValueError

__all__ = ["Decoder", "Encoder", "class_key", "same", "savable_classes", "tensor_bytes"]

_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
# of tensors; complex ones are written as pairs of floats
_STORED_DTYPES = {
    _DTYPES[f"torch.{name}"]
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float16", "bfloat16", "float32"),
        *("float64", "complex64", "complex128"),
    )
    if f"torch.{name}" in _DTYPES
}
_CONTAINERS: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "ordered dict": OrderedDict,
    "frozen dict": FrozenDict,
}
_CONTAINER_NAMES = {kind: name for name, kind in _CONTAINERS.items()}
_IMMUTABLE_CONTAINERS = (tuple, frozenset, FrozenDict)
# numbers, booleans and text
_ARRAY_KINDS = "biufcUS"
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


def same(first: Any, second: Any) -> bool:
    """Whether two values are alike bit for bit, as far as can be told; objects of unknown classes always are."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        alike = first.dtype == second.dtype and first.shape == second.shape
        return bool(alike and tensor_bytes(first).data == tensor_bytes(second).data)
    if isinstance(first, torch.Generator):
        return torch.equal(first.get_state(), second.get_state())
    if isinstance(first, np.ndarray):
        return bool(first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes())
    if isinstance(first, (float, complex, np.generic)):
        return repr(first) == repr(second)
    if isinstance(first, Mapping):
        return list(first) == list(second) and all(same(first[name], second[name]) for name in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if dataclasses.is_dataclass(first):
        return same(_attributes(first), _attributes(second))
    if isinstance(first, Image.Image):
        return bool(first.mode == second.mode and first.size == second.size and first.tobytes() == second.tobytes())
    compares: Any = type(first).__eq__
    return bool(compares is object.__eq__ or first == second)


def tensor_bytes(tensor: torch.Tensor) -> Any:
    """The elements of a tensor, in order, as an array of bytes."""
    plain = tensor.detach()
    if not (plain.is_cpu and plain.is_contiguous()) or plain.is_conj() or plain.is_neg():
        plain = plain.cpu().resolve_conj().resolve_neg().contiguous()
    # a dimension of size 1 may have any stride: set it, a view as bytes needs it to be 1
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8).numpy()


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    found = dict(getattr(value, "__dict__", ()))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


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
    """

    def __init__(self, components: Mapping[str, Any], classes: Mapping[str, type], prefix: str = "t") -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._prefix = prefix
        self._components = {id(component): name for name, component in components.items() if component is not None}
        self._classes = {cls: key for key, cls in classes.items()}
        self._seen: dict[int, int] = {}
        # an object that is gone could leave its id to another
        self._kept: list[Any] = []
        # those that are made whole only when all that is inside them has been read
        self._open: set[int] = set()

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
        return {"number": number, **self._object(value, kind, path)}

    def attributes(self, value: Any, path: str, without: Iterable[str] = ()) -> Any:
        """The attributes of an object as JSON."""
        left_out = set(without)
        return [
            [name, self.encode(item, f"{path}.{name}")]
            for name, item in _attributes(value).items()
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
            return self._tensor(value)
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
        if isinstance(value, PurePath):
            return {"$": "path", "value": str(value)}
        if kind is _brownian_sampler():
            return {"$": "brownian tree", **self._brownian(value, path)}
        if kind in self._classes:
            key = self._classes[kind]
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
        key = f"{self._prefix}{len(self.tensors)}"
        self.tensors[key] = value
        return {
            "$": "tensor",
            "key": key,
            "device": str(value.device),
            "stride": _restorable_stride(value),
            "parameter": isinstance(value, torch.nn.Parameter),
            "grad": value.requires_grad,
            "complex": value.is_complex(),
        }

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


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class Decoder:
    """Reads what an `Encoder` wrote.

    Args:
        tensor: returns a tensor by its key.
        component: returns a component by its name.
        classes: the classes of objects that may be made.
        generators: generators by their numbers; one decoder after another may use the same ones, whose state is then
            set in place.
    """

    def __init__(
        self,
        tensor: Callable[[str], torch.Tensor],
        component: Callable[[str], Any],
        classes: Mapping[str, type],
        generators: dict[int, torch.Generator],
    ) -> None:
        self._get_tensor, self._component, self._classes = tensor, component, classes
        self._generators = generators
        self._seen: dict[int, Any] = {}

    def decode(self, written: Any) -> Any:
        """The value that was written.

        Raises:
            CheckpointDamagedError: it is not what an `Encoder` writes.
        """
        if not isinstance(written, dict):
            return written
        kind = written.get("$")
        if kind == "float":
            return float(written["value"])
        if kind == "component":
            return self._component(written["name"])
        try:
            if kind == "seen":
                return self._seen[written["number"]]
            if kind in _CONTAINERS:
                return self._container(_CONTAINERS[kind], written)
            if kind == "object":
                return self._made_of_attributes(written)
            value = self._seen[written["number"]] = self._leaf(str(kind), written)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointDamagedError):
                raise
            raise CheckpointDamagedError(f"the checkpoint holds a value that cannot be read: {error!r}") from error
        return value

    def _container(self, kind: type, written: dict[str, Any]) -> Any:
        number, items = written["number"], written["items"]
        if issubclass(kind, dict):
            mapping: Any = {} if kind is FrozenDict else kind()
            self._seen[number] = mapping
            for written_key, item in items:
                # in this order, in which an assignment would not evaluate them
                key = self.decode(written_key)
                mapping[key] = self.decode(item)
            if kind is FrozenDict:
                mapping = self._seen[number] = FrozenDict(mapping)
            return mapping
        if kind is list:
            members: list[Any] = []
            self._seen[number] = members
            members.extend(self.decode(item) for item in items)
            return members
        make: Any = kind
        value = self._seen[number] = make(self.decode(item) for item in items)
        return value

    def _made_of_attributes(self, written: dict[str, Any]) -> Any:
        cls: Any = self._class(written["class"])
        value = self._seen[written["number"]] = cls.__new__(cls)
        for name, item in written["attributes"]:
            # past a frozen dataclass's guard
            object.__setattr__(value, name, self.decode(item))
        return value

    def _class(self, key: str) -> type:
        if key not in self._classes:
            raise CheckpointDamagedError(
                f"the checkpoint holds an object of class `{key}`, which neither this pipeline nor "
                f"`Checkpoint(classes=[...])` names"
            )
        return self._classes[key]

    def _leaf(self, kind: str, written: dict[str, Any]) -> Any:
        if kind == "tensor":
            return self._tensor(written)
        if kind == "generator":
            generator = self._generators.get(written["number"])
            if generator is None:
                generator = self._generators[written["number"]] = torch.Generator(written["device"])
            generator.set_state(self._get_tensor(written["state"]["key"]))
            return generator
        if kind == "dtype":
            return _DTYPES[written["name"]]
        if kind == "device":
            return torch.device(written["name"])
        if kind == "size":
            return torch.Size(written["items"])
        if kind == "array":
            flat = np.frombuffer(self._data(written), np.dtype(written["dtype"]))
            return flat.reshape(written["shape"], order=written["order"]).copy(order="K")
        if kind == "scalar":
            return np.frombuffer(base64.b64decode(written["data"]), np.dtype(written["dtype"]))[0]
        if kind == "image":
            return self._image(written)
        if kind == "bytes":
            return base64.b64decode(written["data"])
        if kind == "complex":
            return complex(written["value"])
        if kind == "range":
            return range(*written["items"])
        if kind == "slice":
            return slice(*written["items"])
        if kind == "path":
            return Path(written["value"])
        if kind == "enum":
            return self._class(written["class"])[written["name"]]  # type: ignore[index]
        if kind == "named tuple":
            return tuple.__new__(self._class(written["class"]), map(self.decode, written["items"]))
        if kind == "brownian tree":
            return self._brownian(written)
        raise CheckpointDamagedError(f"the checkpoint holds a value of the unknown kind `{kind}`")

    def _data(self, written: dict[str, Any]) -> bytes:
        data: bytes = self._get_tensor(written["data"]["key"]).numpy().tobytes()
        return data

    def _image(self, written: dict[str, Any]) -> Image.Image:
        size, data = tuple(written["size"]), self._data(written)
        image = Image.frombytes(written["mode"], size, data) if data else Image.new(written["mode"], size)
        if written["palette"] is not None:
            mode, colours = written["palette"]
            image.putpalette(colours, mode)
        transparency = self.decode(written["transparency"])
        if transparency is not None:
            image.info["transparency"] = transparency
        return image

    def _tensor(self, written: dict[str, Any]) -> torch.Tensor:
        stored = self._get_tensor(written["key"])
        if written["complex"]:
            stored = torch.view_as_complex(stored)
        device = torch.device(written["device"])
        tensor = torch.empty_strided(stored.shape, written["stride"], dtype=stored.dtype, device=device)
        tensor.copy_(stored)
        if written["parameter"]:
            return torch.nn.Parameter(tensor, requires_grad=written["grad"])
        return tensor.requires_grad_(written["grad"])

    def _brownian(self, written: dict[str, Any]) -> Any:
        sample = torch.empty(
            [len(written["seeds"]), *written["shape"]] if written["batched"] else written["shape"],
            dtype=_DTYPES[written["dtype"]],
            device=written["device"],
        )
        start, end = self.decode(written["start"]), self.decode(written["end"])
        if written["sign"] < 0:
            start, end = end, start
        seeds = written["seeds"]
        from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

        return BrownianTreeNoiseSampler(sample, start, end, seeds if written["batched"] else seeds[0])
