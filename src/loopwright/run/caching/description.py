"""What a component is that runs share: a model with its weights, a tokenizer, an image processor."""

from __future__ import annotations

import enum
import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from loopwright.components.offload import CustomOffloadHook
from loopwright.run.checkpoints.comparison import tensor_bytes
from loopwright.run.checkpoints.fingerprint import weights_digest

__all__ = ["description"]

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, np.generic, enum.Enum, range)
# of a module: what the digest of the weights covers, or the list of modules
_COVERED = frozenset({"_parameters", "_buffers", "_modules"})
# warnings that were given once, which no result depends on
_IRRELEVANT = frozenset({"deprecation_warnings", "warnings_issued"})
# containers with more items are told apart by what they are, not by what they hold
_MOST_ITEMS = 2000


def description(component: Any, pins: list[Any]) -> str:
    """A digest of a component: class, configuration, weights, and everything else that its attributes hold.

    What has neither attributes nor a known content is the same only if it is one object.

    Args:
        component: the component.
        pins: gets the objects whose `id` stands for them, which must be kept alive as long as the digest is used.
    """
    written = _Writer(pins).write(component)
    if hasattr(type(component), "__len__"):
        written = [written, len(component)]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()[:32]


class _Writer:
    def __init__(self, pins: list[Any]) -> None:
        self._pins = pins
        self._seen: dict[int, int] = {}
        # an object that is gone could leave its id to another
        self._kept: list[Any] = []

    def write(self, value: Any) -> Any:
        if value is None or isinstance(value, _PLAIN):
            return [type(value).__name__, repr(value)]
        if isinstance(value, FunctionType):
            # methods of what serves one run at a time are wrapped anew for each
            value = inspect.unwrap(value)
        if isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            return ["function", self._pin(value)]
        if isinstance(value, MethodType):
            return ["method", self.write(value.__func__), self.write(value.__self__)]
        if id(value) in self._seen:
            return ["seen", self._seen[id(value)]]
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        if isinstance(value, partial):
            return ["partial", self.write(value.func), self.write(value.args), self.write(value.keywords)]
        if isinstance(value, torch.Tensor):
            return ["tensor", str(value.dtype), list(value.shape), str(value.device), self._elements(value)]
        if isinstance(value, np.ndarray):
            data = self._pin(value) if value.dtype.hasobject else hashlib.sha256(value.tobytes()).hexdigest()
            return ["array", str(value.dtype), list(value.shape), data]
        if isinstance(value, torch.nn.Module):
            return self._model(value)
        if isinstance(value, CustomOffloadHook):
            # the other models that it moves change nothing
            return ["offloaded", str(value.execution_device)]
        written = [type(value).__qualname__, self._pin(type(value))]
        if isinstance(value, (list, tuple, set, frozenset, Mapping)):
            if len(value) > _MOST_ITEMS:
                return [*written, self._pin(value), len(value)]
            written.append(self._items(value))
        attributes = getattr(value, "__dict__", None)
        if attributes is not None:
            return [*written, self._attributes(attributes)]
        return written if len(written) > 2 else [*written, self._pin(value)]

    def _pin(self, value: Any) -> int:
        self._pins.append(value)
        return id(value)

    def _elements(self, tensor: torch.Tensor) -> Any:
        if tensor.is_meta or tensor.layout is not torch.strided:
            return self._pin(tensor)
        return hashlib.sha256(tensor_bytes(tensor)).hexdigest()

    def _items(self, value: Any) -> list[Any]:
        if isinstance(value, Mapping):
            return [[self.write(key), self.write(item)] for key, item in value.items()]
        return [
            self.write(item) for item in (sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)
        ]

    def _attributes(self, attributes: dict[str, Any]) -> list[Any]:
        return [
            # hooks are numbered anew each time that they are put on
            [name, self.write(list(value.values()) if name.endswith("_hooks") and isinstance(value, dict) else value)]
            for name, value in list(attributes.items())
            if name not in _COVERED and name not in _IRRELEVANT
        ]

    def _model(self, model: torch.nn.Module) -> list[Any]:
        written: list[Any] = ["model", weights_digest(model)]
        modules = list(model.named_modules(remove_duplicate=False))
        for _, module in modules:
            self._seen.setdefault(id(module), len(self._seen))
        hook = vars(model).get("_hf_hook")
        for name, module in modules:
            tensors = [*module._parameters.items(), *module._buffers.items()]
            devices = sorted({str(tensor.device) for _, tensor in tensors if tensor is not None})
            if isinstance(hook, CustomOffloadHook):
                # where it is called, wherever it waits
                devices = [str(hook.execution_device)]
            written.append(
                [name, self._seen[id(module)], self._pin(type(module)), devices, self._attributes(vars(module))]
            )
        return written
