"""The arguments of a call: what calls must have in common to be made together, and how they are put together.

The first tensor with two axes or more, or the first list of tensors, says how many rows a call has. Then

- a tensor whose first axis has that many entries is a *row* argument: those of several calls are concatenated,
- a number or a tensor without axes that stands for a timestep is the same for all rows of its call: it is repeated,
- a list that has that many entries has one for each row: lists are joined,
- all else must be equal: tensors by content, plain values by value,
- a text and the mask that goes with it may differ in length: they are padded, and the mask says so.

What is neither a tensor, a plain value nor made of these cannot be merged: it may be changed by the call. Whether the
guess is right is not decided here but by comparing results, see `proof.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

import torch

from loopwright.batching.contents import Contents

__all__ = ["Arguments", "describe", "merge", "text_length"]

# What a model takes for all rows at once, or one for each row.
_PER_ROW_NUMBERS = frozenset({"sigma", "t", "timestep", "timesteps"})
# A mask, and the text whose padding it tells, where the name of the mask does not say.
_MASKED = {"encoder_attention_mask": "encoder_hidden_states", "attention_mask": "input_ids"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, Enum)
# Lengths of texts in deterministic mode are rounded up to a multiple of this.
LENGTH_CLASS = 64


class Leaf(NamedTuple):
    """A part of the arguments that is put together from those of all calls.

    Attributes:
        kind: `rows`, `number` or `list`.
        value: what it is in this call.
        name: the name of the argument.
        text: whether it is a text that is padded, or its mask.
    """

    kind: str
    value: Any
    name: str
    text: bool = False


class Arguments(NamedTuple):
    """The arguments of one call.

    Attributes:
        key: equal for calls that can be made together.
        proof_key: the same without the contents of tensors: for these calls one proof holds.
        rows: how many rows it has.
        leaves: the parts that are merged.
        tree: the positional arguments and those by name, with the numbers of leaves in place of these.
        length: the length of its text, if that may differ; otherwise 0.
    """

    key: Any
    proof_key: Any
    rows: int
    leaves: tuple[Leaf, ...]
    tree: tuple[Any, Any]
    length: int

    def filled(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional arguments and those by name, with these leaves."""
        positional, named = self.tree
        return tuple(_fill(part, leaves) for part in positional), {n: _fill(part, leaves) for n, part in named.items()}


class _Slot(NamedTuple):
    """Where a leaf stands in the tree."""

    number: int


class _Branch(NamedTuple):
    """A list, tuple or dict in the tree, of which something is a leaf or may be."""

    kind: type
    parts: Any


def _fill(part: Any, leaves: Sequence[Any]) -> Any:
    if type(part) is _Slot:
        return leaves[part.number]
    if type(part) is _Branch:
        if part.kind is dict:
            return {name: _fill(inner, leaves) for name, inner in part.parts.items()}
        return part.kind(_fill(inner, leaves) for inner in part.parts)
    return part


class _CannotMerge(Exception):
    """There is an argument that is not understood."""


def describe(
    names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any], contents: Contents, fixed: bool = False
) -> Arguments | str:
    """What there is to know of the arguments of a call, or why it cannot be merged.

    Args:
        names: the names of the positional parameters.
        args, kwargs: the arguments.
        contents: remembers the contents of tensors.
        fixed: whether the shapes of the merged call must follow from this call alone.
    """
    named = [(names[n] if n < len(names) else f"*{n}", value) for n, value in enumerate(args)]
    named += kwargs.items()
    rows = _rows(value for _, value in named)
    if rows is None:
        return "it has no argument with rows"
    reader = _Reader(rows, _texts(dict(named), rows), contents, fixed)
    try:
        parts = [reader.read(name, value, top=True) for name, value in named]
    except _CannotMerge as error:
        return str(error)
    count = len(args)
    length = reader.length
    if fixed:
        # what is not padded is not put together with what is: it may not be possible to pad it
        length_key, row_key = (_length_class(length), length % LENGTH_CLASS > 0), rows
    else:
        length_key, row_key = (length > 0, False), 0
    order = (count, tuple(name for name, _ in named))
    return Arguments(
        key=(order, length_key, row_key, tuple(reader.key)),
        proof_key=(order, length_key, row_key, tuple(reader.proof_key)),
        rows=rows,
        leaves=tuple(reader.leaves),
        tree=(tuple(parts[:count]), {name: part for (name, _), part in zip(named[count:], parts[count:], strict=True)}),
        length=length,
    )


def _rows(values: Iterator[Any]) -> int | None:
    for value in values:
        if isinstance(value, torch.Tensor) and value.ndim >= 2:
            return len(value)
        if type(value) is list and value and all(isinstance(part, torch.Tensor) and part.ndim for part in value):
            return len(value)
    return None


def _texts(named: dict[str, Any], rows: int) -> dict[str, int]:
    """The names of the texts that a mask goes with, and of the masks, with their length."""
    found: dict[str, int] = {}
    for name, mask in named.items():
        if not isinstance(mask, torch.Tensor) or mask.ndim != 2 or len(mask) != rows:
            continue
        text_name = _MASKED.get(name, name.removesuffix("_mask") if name.endswith("_mask") else "")
        text = named.get(text_name)
        if isinstance(text, torch.Tensor) and text.shape[:2] == mask.shape:
            found |= {name: mask.shape[1], text_name: mask.shape[1]}
    # texts of two lengths in one call are left as they are
    return found if len({*found.values()}) == 1 else {}


class _Reader:
    """Reads the arguments of a call, part by part."""

    def __init__(self, rows: int, texts: dict[str, int], contents: Contents, fixed: bool) -> None:
        self.rows, self.texts, self.contents, self.fixed = rows, texts, contents, fixed
        self.length = next(iter(texts.values()), 0)
        self.leaves: list[Leaf] = []
        self.key: list[Any] = []
        self.proof_key: list[Any] = []

    def read(self, name: str, value: Any, top: bool = False) -> Any:
        """A part of the tree."""
        kind = type(value)
        if isinstance(value, torch.Tensor):
            return self._tensor(name, value, text=top and name in self.texts)
        if top and kind in (int, float) and name in _PER_ROW_NUMBERS:
            return self._leaf("number", value, name, ("number", kind))
        if isinstance(value, _PLAIN):
            self._note((kind, value))
            return value
        if kind is list and len(value) == self.rows and top and not self._are_batches(value):
            return self._leaf("list", value, name, ("list", self._entries(value)))
        if kind in (list, tuple):
            self._note((kind, len(value)))
            return _Branch(kind, [self.read(name, part) for part in value])
        if kind is dict:
            self._note((kind, tuple(value)))
            return _Branch(kind, {key: self.read(name, part) for key, part in value.items()})
        raise _CannotMerge(f"`{name}` holds an object of class `{kind.__name__}`")

    def _note(self, key: Any, proof_key: Any = None) -> None:
        self.key.append(key)
        self.proof_key.append(key if proof_key is None else proof_key)

    def _leaf(self, kind: str, value: Any, name: str, key: Any, text: bool = False) -> _Slot:
        self._note(key)
        self.leaves.append(Leaf(kind, value, name, text))
        return _Slot(len(self.leaves) - 1)

    def _tensor(self, name: str, value: torch.Tensor, text: bool) -> Any:
        if type(value) is not torch.Tensor and type(value) is not torch.nn.Parameter:
            raise _CannotMerge(f"`{name}` is a tensor of class `{type(value).__name__}`")
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise _CannotMerge(f"`{name}` is a tensor whose rows do not lie one after the other")
        what = (value.dtype, value.device)
        if value.ndim == 0:
            return self._leaf("number", value, name, ("number", *what))
        if text:
            return self._leaf("rows", value, name, ("text", value.shape[2:], *what), text=True)
        if len(value) == self.rows:
            return self._leaf("rows", value, name, ("rows", value.shape[1:], *what))
        # how its elements lie in memory may decide on bits
        shape = ("shared", value.shape, value.stride() if self.fixed else (), *what)
        self._note((*shape, self.contents.digest(value)), shape)
        return value

    def _are_batches(self, value: list[Any]) -> bool:
        """Whether a list holds whole batches, and not one thing for each row."""
        return all(isinstance(part, torch.Tensor) and part.ndim >= 3 and len(part) == self.rows for part in value)

    def _entries(self, value: list[Any]) -> Any:
        """What the entries of a list, one for each row, have in common."""
        kinds = {self._entry(part) for part in value}
        if self.fixed or len(kinds) == 1:
            return tuple(sorted(kinds, key=repr))
        raise _CannotMerge("the entries of a list are of several kinds")

    def _entry(self, part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            if type(part) is not torch.Tensor:
                raise _CannotMerge(f"a list holds a tensor of class `{type(part).__name__}`")
            # of any length, if the model takes lists
            return "tensor", part.dtype, part.device, tuple(part.shape) if self.fixed else part.ndim
        if type(part) in (list, tuple):
            return type(part), tuple(self._entry(inner) for inner in part)
        if isinstance(part, _PLAIN):
            return type(part), part
        raise _CannotMerge(f"a list holds an object of class `{type(part).__name__}`")


def _length_class(length: int) -> int:
    return -(-length // LENGTH_CLASS) * LENGTH_CLASS


def text_length(calls: Sequence[Arguments], fixed: bool) -> int:
    """To how many tokens the texts of calls that are made together are padded; 0 if there are none."""
    longest = max(call.length for call in calls)
    return _length_class(longest) if fixed else longest


def merge(
    calls: Sequence[Arguments], fill_to: int | None = None, fixed: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional arguments and those by name for one call in place of several.

    Args:
        calls: the arguments of the calls, with equal keys.
        fill_to: how many rows there are to be, at least as many as all calls have; those of the first call are
            repeated. None for no more than there are.
        fixed: whether texts are padded to a length that follows from each call alone.
    """
    first = calls[0]
    rows = [call.rows for call in calls]
    spare = 0 if fill_to is None else fill_to - sum(rows)
    length = text_length(calls, fixed)
    device = next((leaf.value.device for leaf in first.leaves if isinstance(leaf.value, torch.Tensor)), None)
    merged: list[Any] = []
    for number, leaf in enumerate(first.leaves):
        values = [call.leaves[number].value for call in calls]
        if leaf.kind == "list":
            joined = [entry for value in values for entry in value]
            merged.append(joined + [leaf.value[n % first.rows] for n in range(spare)])
            continue
        if leaf.kind == "number":
            if isinstance(leaf.value, torch.Tensor):
                parts = [value.reshape(1).expand(count) for value, count in zip(values, rows, strict=True)]
            else:
                parts = [torch.full((count,), value, device=device) for value, count in zip(values, rows, strict=True)]
        elif leaf.text:
            parts = [_padded(value, length) for value in values]
        else:
            parts = values
        if spare:
            repeats = -(-spare // first.rows)
            parts = [*parts, torch.cat([parts[0]] * repeats)[:spare]]
        merged.append(_joined(parts) if fixed else torch.cat(parts))
    return first.filled(merged)


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows in one tensor whose elements lie in their order, however they lie in the parts."""
    rows = sum(len(part) for part in parts)
    return torch.cat(list(parts), out=parts[0].new_empty((rows, *parts[0].shape[1:])))


def _padded(text: torch.Tensor, length: int) -> torch.Tensor:
    """A text [B, L, ...], or its mask, with zeros up to so many tokens."""
    if text.shape[1] == length:
        return text
    return torch.cat([text, text.new_zeros(len(text), length - text.shape[1], *text.shape[2:])], dim=1)
