"""Tensors that calls must have in common, told apart by content: looked at once per tensor, not once per call."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import torch

__all__ = ["Contents", "row_digests"]


class Contents:
    """The digests of tensors, remembered for as long as a tensor lives and is not written to.

    The elements of a tensor on a device are read by the host, which waits for the device: once for each tensor.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int, bytes]] = {}

    def digest(self, tensor: torch.Tensor) -> bytes:
        """The digest of the elements of a tensor."""
        if tensor.is_inference():
            # has no version that would tell whether it was written to
            return _digest(tensor)
        number, version = id(tensor), tensor._version
        known = self._known.get(number)
        if known is not None and known[0]() is tensor and known[1] == version:
            return known[2]
        digest = _digest(tensor)
        forget = self._known
        self._known[number] = weakref.ref(tensor, lambda _: forget.pop(number, None)), version, digest
        return digest


def row_digests(tensor: torch.Tensor) -> list[bytes]:
    """The digest of each row, along the first axis."""
    return [_digest(row) for row in tensor.unbind(0)]


def _digest(tensor: torch.Tensor) -> bytes:
    data: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()
    return hashlib.blake2b(data, digest_size=16).digest()
