"""Values compared bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

__all__ = ["attributes_of", "same", "tensor_bytes"]


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
    if isinstance(first, slice):
        return same((first.start, first.stop, first.step), (second.start, second.stop, second.step))
    if dataclasses.is_dataclass(first):
        return same(attributes_of(first), attributes_of(second))
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


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    found = dict(getattr(value, "__dict__", ()))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found
