"""Copies of what a block left, in which everything lies in memory and shares memory as in the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loopwright.run.caching.content import Incomparable, Place, clusters
from loopwright.state import fork_value

__all__ = ["Given", "copied"]

# the addresses of copies are the same modulo this, as the speed and the rounding of kernels may depend on it
_ALIGNMENT = 64


class Given:
    """Stands in a stored value for an object that the run that takes it has: one that the block read.

    Attributes:
        content: the position of the value that the object is a part of, among those that the block read; None for a
            component.
        number: its number in there, or the name of the component.
        part: for a tensor that is a part of that tensor its offset there, size and stride; None for the object itself.
    """

    def __init__(self, content: int | None, number: int | str, part: tuple[int, Any, Any] | None = None) -> None:
        self.content, self.number, self.part = content, number, part

    def within(self, whole: Place, place: Place) -> Given | None:
        """What stands for a tensor that shares the memory of the one that this stands for; None if it is not in it."""
        outer, inner = whole.value, place.value
        if (
            type(inner) is not torch.Tensor
            or not isinstance(outer, torch.Tensor)
            or inner.requires_grad
            or inner.dtype != outer.dtype
            or inner.untyped_storage().data_ptr() != outer.untyped_storage().data_ptr()
            or not whole.begin <= place.begin < place.end <= whole.end
        ):
            return None
        offset = int(inner.storage_offset()) - int(outer.storage_offset())
        return Given(self.content, self.number, (offset, inner.shape, inner.stride()))

    def resolved(self, value: Any) -> Any:
        """What it stands for in a run that has a certain object."""
        if self.part is None:
            return value
        offset, size, stride = self.part
        return value.detach().as_strided(size, stride, value.storage_offset() + offset)


def copied(value: Any, places: Sequence[Place], memo: dict[int, Any]) -> Any:
    """A copy of a value that shares nothing with it.

    Args:
        value: containers, tensors, arrays, and objects that are their attributes.
        places: where the tensors and arrays in it lie.
        memo: by the `id` of an object in the value, what takes its place in the copy. Copies are added.

    Raises:
        Incomparable: it cannot be copied, or not so that it shares memory in the same way.
    """
    own = [place for place in places if id(place.value) not in memo]
    for group in clusters(own):
        _copy_tensors([own[position].value for position in group], own[group[0]].begin, memo)
    try:
        return fork_value(value, memo)
    except Exception as error:
        raise Incomparable(f"what it made cannot be copied: {error}") from error


def copied_bytes(places: Sequence[Place], left_out: dict[int, Any]) -> int:
    """The bytes that the copies of tensors and arrays take."""
    own = [place for place in places if id(place.value) not in left_out]
    return sum(
        max(own[position].end for position in group) - min(own[position].begin for position in group)
        for group in clusters(own)
    )


def _copy_tensors(values: list[Any], begin: int, memo: dict[int, Any]) -> None:
    """Copies of tensors that share memory, in one piece of memory."""
    if not isinstance(values[0], torch.Tensor) and len({id(value) for value in values}) == 1:
        return
    if not all(isinstance(value, torch.Tensor) for value in values):
        raise Incomparable("a numpy array among what it made shares memory with something else")
    storage = values[0].untyped_storage()
    if any(value.untyped_storage().data_ptr() != storage.data_ptr() for value in values):
        raise Incomparable("tensors among what it made share memory that does not belong to one of them")
    if any(type(value) is not torch.Tensor or value.requires_grad for value in values):
        raise Incomparable("a tensor among what it made is a parameter, or has a gradient")
    begin -= storage.data_ptr()
    begin -= begin % _ALIGNMENT
    end = max(Place.of(value).end for value in values) - storage.data_ptr()  # type: ignore[union-attr]
    bytes_ = torch.empty(0, dtype=torch.uint8, device=values[0].device).set_(storage, begin, (end - begin,), (1,))
    copy = bytes_.clone().untyped_storage()
    for value in values:
        offset = value.storage_offset() - begin // value.element_size()
        made = torch.empty(0, dtype=value.dtype, device=value.device)
        memo[id(value)] = made.set_(copy, offset, value.shape, value.stride())
