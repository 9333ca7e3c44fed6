"""What the values of a loop were when it began, and its small ones after each of its iterations.

Code of a loop's wrapper that runs before the first iteration and between two of them runs again when the loop is wound
forward, and may decide by such values: how far a count is, what is left of a list, whether a bound was reached.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from loopwright.errors import UnsavableValueError
from loopwright.run.checkpoints.comparison import same
from loopwright.run.checkpoints.decoder import Decoder
from loopwright.run.checkpoints.encoder import Encoder

__all__ = ["Entry", "History"]

# elements of a tensor
_MOST_ELEMENTS = 16
# items of a container, with those inside of it
_MOST_ITEMS = 10_000
# characters that the changes of a value may take, at all and for each iteration
_MOST_TEXT, _MOST_TEXT_EACH = 65_536, 1024
_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS = frozenset({list, tuple, dict})
_ABSENT: Any = object()


class History:
    """The small values of one loop, each with the iterations after which it was another one than before.

    Numbers, text, small tensors, and containers of these. Of a container or a text only what has changed is written. A
    value whose changes take too much even so is left out, as are values that are large.
    """

    def __init__(self) -> None:
        # the values after the last iteration, and the changes until then as JSON
        self._values: dict[str, Any] = {}
        self._written: list[tuple[str, str]] = []
        self._sizes: dict[str, int] = {}
        self._left_out: set[str] = set()
        # of a history that was read: the changes, how many of them are in the values, and the last iteration in them
        self._changes: list[Any] = []
        self._names: list[str] = []
        self._done, self._index = 0, -1

    def note(self, index: int, values: Mapping[str, Any]) -> None:
        """Take down the values after an iteration."""
        for name in [name for name in self._values if name not in values]:
            self._forget(index, name)
        for name, value in values.items():
            if name in self._left_out:
                continue
            before = self._values.get(name, _ABSENT)
            if before is value and type(value) in _SCALARS:
                continue
            if type(value) is list and type(before) is list and _are_the_same_scalars(before, value):
                continue
            try:
                copy = _copied(value, _Room())
                if before is _ABSENT or not same(before, copy):
                    change = _change(before, copy)
                    self._values[name] = copy
                    self._write(index, name, change)
            except (_TooLarge, UnsavableValueError):
                self._forget(index, name)

    def _forget(self, index: int, name: str) -> None:
        if self._values.pop(name, _ABSENT) is not _ABSENT:
            self._write(index, name, [])

    def _write(self, index: int, name: str, change: list[Any]) -> None:
        text = json.dumps([index, name, *change], allow_nan=False)
        self._written.append((name, text))
        self._sizes[name] = self._sizes.get(name, 0) + len(text)
        if self._sizes[name] > _MOST_TEXT + _MOST_TEXT_EACH * index:
            self._left_out.add(name)
            self._values.pop(name, None)
            self._written = [entry for entry in self._written if entry[0] != name]

    @property
    def written(self) -> str:
        """As JSON: `changes` are iteration, name, and what it is from then on; `left out` are names."""
        changes = ", ".join([text for _, text in self._written])
        return f'{{"left out": {json.dumps(sorted(self._left_out))}, "changes": [{changes}]}}'

    @classmethod
    def read(cls, written: dict[str, Any]) -> History:
        """What was written."""
        history, changes = cls(), written["changes"]
        history._left_out = set(written["left out"])
        history._changes = changes
        for change in changes:
            name, text = change[1], json.dumps(change)
            history._written.append((name, text))
            history._sizes[name] = history._sizes.get(name, 0) + len(text)
        history._names = list({name: None for _, name, *_ in changes})
        history._go_to(max((index for index, *_ in changes), default=-1))
        return history

    def _go_to(self, index: int) -> None:
        """Have the values be those after an iteration."""
        if index < self._index:
            self._values, self._done = {}, 0
        while self._done < len(self._changes) and self._changes[self._done][0] <= index:
            _, name, *change = self._changes[self._done]
            self._done += 1
            if change:
                self._values[name] = _changed(self._values.get(name), change)
            else:
                self._values.pop(name, None)
        self._index = index

    def restore(self, index: int, values: dict[str, Any], names: frozenset[str] | None = None) -> None:
        """Set the values to what they were after an iteration; for a history that was read.

        Args:
            index: its index.
            values: the values of the loop, changed in place.
            names: those to set; None for all.
        """
        self._go_to(index)
        for name in self._names:
            if names is not None and name not in names:
                continue
            if name in self._values:
                values[name] = _copied(self._values[name], _Room())
            elif name in values and _is_small(values[name]):
                del values[name]


class Entry:
    """What a loop found when it began, to tell later what of it is another by then.

    Containers are copied, and the small tensors in them; other objects are told apart by which they are.

    Args:
        values: the values around the loop.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        # past what notes who asks for a value
        self._values: dict[str, Any] = dict(dict.items(values))
        self._copies: dict[str, Any] = {}
        for name, value in self._values.items():
            if type(value) not in _SCALARS:
                try:
                    self._copies[name] = _copied(value, _Room(), of_any_kind=True)
                except _TooLarge:
                    continue

    def encoded(self, encoder: Encoder, path: str, now: Mapping[str, Any]) -> dict[str, Any]:
        """What is another now, as JSON: name, what it was, and the number of the object that has changed, if it did.

        Args:
            encoder: has encoded the values as they are now.
            path: the loop, for messages.
            now: the values around the loop.
        """
        changed = []
        for name, value in self._values.items():
            copy = self._copies.get(name, value)
            is_changed = now.get(name, _ABSENT) is not value or not _alike(copy, value)
            # what could not be saved when the loop began, and is gone, is no reason not to save it now
            if is_changed and encoder.can_encode(copy):
                written = encoder.encode(copy, f"{path}: {name}")
                changed.append([name, written, encoder.number(value)])
        return {"changed": changed, "new": [name for name in now if name not in self._values]}


class _TooLarge(Exception):
    """A value is not looked at, as it is too large or of another kind."""


class _Room:
    """How many more items a value may have."""

    def __init__(self) -> None:
        self._left = _MOST_ITEMS

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _TooLarge


def _copied(value: Any, room: _Room, of_any_kind: bool = False) -> Any:
    """A copy of a value: of its containers and small tensors, down to objects of other kinds, if these are allowed.

    Raises:
        _TooLarge: it is too large, or holds what is not allowed.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind in _CONTAINERS or (of_any_kind and kind is set):
        room.take(len(value) + 1)
        if kind is dict:
            return {key: _copied(item, room, of_any_kind) for key, item in value.items()}
        return kind(_copied(item, room, of_any_kind) for item in value)
    if kind is torch.Tensor and value.numel() <= _MOST_ELEMENTS and value.layout is torch.strided and not value.is_meta:
        return value.detach().clone()
    if kind is np.ndarray and value.size <= _MOST_ELEMENTS and not value.dtype.hasobject:
        return value.copy()
    if of_any_kind or (isinstance(value, np.generic) and value.dtype.kind in "biufc"):
        return value
    raise _TooLarge


def _is_small(value: Any) -> bool:
    try:
        _copied(value, _Room())
    except _TooLarge:
        return False
    return True


def _alike(copy: Any, value: Any) -> bool:
    """Whether a value is still as when it was copied, other objects being the same ones."""
    if copy is value:
        return True
    if type(copy) is not type(value):
        return False
    if type(copy) in (list, tuple):
        return len(copy) == len(value) and all(map(_alike, copy, value))
    if type(copy) is dict:
        return list(copy) == list(value) and all(map(_alike, copy.values(), value.values()))
    if type(copy) is set:
        return bool(copy == value)
    is_copied = type(copy) in _SCALARS or isinstance(copy, (torch.Tensor, np.ndarray, np.generic))
    return is_copied and same(copy, value)


def _are_the_same_scalars(before: list[Any], now: list[Any]) -> bool:
    """Whether two lists hold the same objects, none of which can change; told fast."""
    return len(before) == len(now) and all(map(operator.is_, before, now)) and _SCALARS.issuperset(map(type, now))


def _change(before: Any, now: Any) -> list[Any]:
    """How a value became another, as JSON: what it is now, or what takes the place of which of its parts."""
    encoder = Encoder({}, {}, inline=True)
    kind = type(now)
    if type(before) is not kind or kind not in (str, list, tuple, dict):
        return [encoder.encode(now, "a value")]
    old, new = (list(value.items()) if kind is dict else value for value in (before, now))
    begin = _in_common(old, new)
    is_within = begin < min(len(old), len(new))
    end = _in_common(old[begin:][::-1], new[begin:][::-1]) if is_within else 0
    put = new[begin : len(new) - end]
    return [begin, len(old) - end, put if kind is str else encoder.encode(list(put), "a value")]


def _in_common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many parts two texts or lists begin with in common."""
    most = min(len(first), len(second))
    if isinstance(first, str):
        # by halves, each compared at once
        low = 0
        while low < most:
            middle = (low + most + 1) // 2
            if first[low:middle] == second[low:middle]:
                low = middle
            else:
                most = middle - 1
        return low
    return next((i for i in range(most) if first[i] is not second[i] and not same(first[i], second[i])), most)


def _not_there(key: str) -> Any:
    """A history refers to no tensors and components."""
    raise KeyError(key)


def _changed(before: Any, change: list[Any]) -> Any:
    """What `_change` told."""
    decode = Decoder(_not_there, _not_there, {}, {}).decode
    if len(change) == 1:
        return decode(change[0])
    begin, end, put = change
    if isinstance(before, str):
        return before[:begin] + put + before[end:]
    items = list(before.items()) if isinstance(before, dict) else list(before)
    return type(before)([*items[:begin], *decode(put), *items[end:]])
