"""Tensors that calls must have in common, told apart by content: looked at once per tensor, not once per call."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import torch

__all__ = ["Contents", "elements", "row_digests"]


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


def elements(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of the elements of a tensor, in their order."""
    # a copy, as one element may lie in memory in ways of which there is no view
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return plain.view(-1).view(torch.uint8)


def _digest(tensor: torch.Tensor) -> bytes:
    data: Any = elements(tensor).cpu().numpy()
    return hashlib.blake2b(data, digest_size=16).digest()
