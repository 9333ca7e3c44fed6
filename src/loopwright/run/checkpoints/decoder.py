"""Values made again from JSON and tensors, as an `Encoder` wrote them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from PIL import Image

from loopwright.errors import CheckpointDamagedError
from loopwright.run.checkpoints.encoder import CONTAINERS, DTYPES, PATHS

__all__ = ["Decoder"]


class Decoder:
    """Reads what an `Encoder` wrote.

    Args:
        tensor: returns a tensor by its key.
        component: returns a component by its name.
        classes: the classes of objects that may be made.
        generators: generators by their numbers; one decoder after another may use the same ones, whose state is then
            set in place.
        containers: likewise lists, dicts and sets; None for new ones.
    """

    def __init__(
        self,
        tensor: Callable[[str], torch.Tensor],
        component: Callable[[str], Any],
        classes: Mapping[str, type],
        generators: dict[int, torch.Generator],
        containers: dict[int, Any] | None = None,
    ) -> None:
        self._get_tensor, self._component, self._classes = tensor, component, classes
        self._generators, self._containers = generators, containers
        self._seen: dict[int, Any] = {}
        # what several tensors share, by its key
        self._memory: dict[str, torch.Tensor] = {}

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
            if kind in CONTAINERS:
                return self._container(CONTAINERS[kind], written)
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
            mapping: Any = {} if kind is FrozenDict else self._empty(kind, number)
            self._seen[number] = mapping
            for written_key, item in items:
                # in this order, in which an assignment would not evaluate them
                key = self.decode(written_key)
                mapping[key] = self.decode(item)
            if kind is FrozenDict:
                mapping = self._seen[number] = FrozenDict(mapping)
            return mapping
        if kind is list:
            members = self._seen[number] = self._empty(list, number)
            members.extend(self.decode(item) for item in items)
            return members
        if kind is set:
            inside = [self.decode(item) for item in items]
            value = self._seen[number] = self._empty(set, number)
            value.update(inside)
            return value
        make: Any = kind
        value = self._seen[number] = make(self.decode(item) for item in items)
        return value

    def _empty(self, kind: type, number: int) -> Any:
        """A container with nothing in it: one that the run has already, if it is to be used."""
        known = None if self._containers is None else self._containers.get(number)
        if type(known) is kind:
            known.clear()  # type: ignore[attr-defined]
            return known
        made = kind()
        if self._containers is not None:
            self._containers[number] = made
        return made

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
            generator.set_state(self._stored(written["state"]))
            return generator
        if kind == "dtype":
            return DTYPES[written["name"]]
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
            return range(*map(self.decode, written["items"]))
        if kind == "slice":
            return slice(*map(self.decode, written["items"]))
        if kind in PATHS:
            return PATHS[kind](written["value"])
        if kind == "numpy text":
            return np.str_(written["value"])
        if kind == "numpy bytes":
            return np.bytes_(base64.b64decode(written["data"]))
        if kind == "flag":
            make: Any = self._class(written["class"])
            return make(written["value"])
        if kind == "enum":
            return self._class(written["class"])[written["name"]]  # type: ignore[index]
        if kind == "named tuple":
            return tuple.__new__(self._class(written["class"]), map(self.decode, written["items"]))
        if kind == "brownian tree":
            return self._brownian(written)
        raise CheckpointDamagedError(f"the checkpoint holds a value of the unknown kind `{kind}`")

    def _data(self, written: dict[str, Any]) -> bytes:
        data: bytes = self._stored(written["data"]).numpy().tobytes()
        return data

    def _stored(self, written: dict[str, Any]) -> torch.Tensor:
        """The elements of a tensor, as they were written."""
        if "elements" not in written:
            return self._get_tensor(written["key"])
        data = bytearray(base64.b64decode(written["elements"]))
        dtype = DTYPES[written["dtype"]]
        return (
            torch.frombuffer(data, dtype=dtype).view(written["shape"])
            if data
            else torch.empty(written["shape"], dtype=dtype)
        )

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
        stored = self._stored(written)
        device = torch.device(written["device"])
        if "part" in written:
            tensor = self._part(written, stored, device)
        else:
            if written["complex"] and not stored.is_complex():
                stored = torch.view_as_complex(stored)
            tensor = torch.empty_strided(stored.shape, written["stride"], dtype=stored.dtype, device=device)
            tensor.copy_(stored)
        if written["parameter"]:
            return torch.nn.Parameter(tensor, requires_grad=written["grad"])
        return tensor.requires_grad_(written["grad"])

    def _part(self, written: dict[str, Any], stored: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A tensor that shares its memory with others."""
        key, part = written["key"], written["part"]
        if key not in self._memory:
            self._memory[key] = torch.empty(stored.shape, dtype=stored.dtype, device=device).copy_(stored)
        memory = self._memory[key].untyped_storage()
        shape, stride, offset = part["shape"], written["stride"], part["offset"]
        tensor = torch.empty(0, dtype=DTYPES[part["dtype"]], device=device)
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if min(offset, *shape, *stride, 0) < 0 or (last + 1) * tensor.element_size() > memory.nbytes():
            raise CheckpointDamagedError("the checkpoint holds a tensor that lies outside of its memory")
        return tensor.set_(memory, offset, shape, stride)

    def _brownian(self, written: dict[str, Any]) -> Any:
        sample = torch.empty(
            [len(written["seeds"]), *written["shape"]] if written["batched"] else written["shape"],
            dtype=DTYPES[written["dtype"]],
            device=written["device"],
        )
        start, end = self.decode(written["start"]), self.decode(written["end"])
        if written["sign"] < 0:
            start, end = end, start
        seeds = written["seeds"]
        from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

        return BrownianTreeNoiseSampler(sample, start, end, seeds if written["batched"] else seeds[0])
