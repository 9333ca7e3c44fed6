"""The output of a call made for several: how it is taken apart, learned by comparing it with that of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from loopwright.batching.contents import elements

__all__ = ["CannotSplitError", "Share", "copied", "difference", "learn", "same_bits", "split"]

# How far a row may be from what it is alone, relative to the largest value of the output, by dtype.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


class CannotSplitError(Exception):
    """What calls that are made together leave cannot be told apart; the message says why."""


class Share(NamedTuple):
    """What part of a merged call belongs to one of the calls.

    Attributes:
        start: the first of its rows.
        rows: how many it has.
        total: how many rows the merged call has.
        length: the length of its text, 0 if it has none that may differ.
        padded: the length of the texts of the merged call.
    """

    start: int
    rows: int
    total: int
    length: int = 0
    padded: int = 0


class _Axes(NamedTuple):
    """A tensor: the axis of its rows, None if all calls get the same; and the axis of the text, if it has one."""

    rows: int | None
    text: int | None


class _Listed(NamedTuple):
    """A list with an entry for each row."""


class _Parts(NamedTuple):
    """Something that has parts, by name or position."""

    parts: Mapping[Any, Any]


def learn(alone: Any, merged: Any, share: Share) -> Any:
    """How a merged output is taken apart.

    Args:
        alone: the output of a call by itself.
        merged: the output of a call that was made for it and others.
        share: its part of the merged call, which must have more rows than its own.

    Raises:
        CannotSplitError: the outputs are not alike, or something in them cannot be taken apart.
    """
    if isinstance(alone, torch.Tensor) and isinstance(merged, torch.Tensor):
        return _learn_axes(alone, merged, share)
    if type(alone) is not type(merged):
        raise CannotSplitError(f"alone it gives {_kind(alone)}, together {_kind(merged)}")
    if type(alone) is list and (len(alone), len(merged)) == (share.rows, share.total):
        return _Listed()
    parts, others = _parts(alone), _parts(merged)
    if parts is None or others is None:
        if isinstance(alone, (bool, int, float, str, type(None))) and alone == merged:
            return None
        raise CannotSplitError(f"its output holds {_kind(alone)}, which cannot be taken apart")
    if parts.keys() != others.keys():
        raise CannotSplitError("alone it gives other parts than together")
    return _Parts({name: learn(part, others[name], share) for name, part in parts.items()})


def _learn_axes(alone: torch.Tensor, merged: torch.Tensor, share: Share) -> _Axes:
    if alone.ndim != merged.ndim:
        raise CannotSplitError("alone its output has other axes than together")
    rows = text = None
    for axis, sizes in enumerate(zip(alone.shape, merged.shape, strict=True)):
        if sizes[0] == sizes[1]:
            continue
        if rows is None and sizes == (share.rows, share.total):
            rows = axis
        elif text is None and sizes == (share.length, share.padded):
            text = axis
        else:
            raise CannotSplitError(
                f"alone its output has the shape {tuple(alone.shape)}, with others {tuple(merged.shape)}"
            )
    return _Axes(rows, text)


def split(how: Any, merged: Any, share: Share) -> Any:
    """The part of a merged output that belongs to one call; its tensors are copies.

    Raises:
        CannotSplitError: the output is not what was learned.
    """
    if type(how) is _Axes:
        if not isinstance(merged, torch.Tensor):
            raise CannotSplitError("its output has changed its kind")
        part = merged
        if how.rows is not None:
            if merged.shape[how.rows] != share.total:
                raise CannotSplitError(f"its output has {merged.shape[how.rows]} rows in place of {share.total}")
            part = part.narrow(how.rows, share.start, share.rows)
        if how.text is not None:
            part = part.narrow(how.text, 0, share.length)
        return part.clone()
    if type(how) is _Listed:
        return [copied(entry) for entry in merged[share.start : share.start + share.rows]]
    if type(how) is _Parts:
        parts = _parts(merged)
        if parts is None or parts.keys() != how.parts.keys():
            raise CannotSplitError("its output has changed its parts")
        return _made(merged, {name: split(inner, parts[name], share) for name, inner in how.parts.items()})
    return merged


def copied(value: Any) -> Any:
    """Something with copies of its tensors."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    parts = _parts(value)
    return value if parts is None else _made(value, {name: copied(part) for name, part in parts.items()})


def _parts(value: Any) -> dict[Any, Any] | None:
    """The parts of something that has some, None for anything else."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    # outputs of diffusers and of transformers are dicts as well as dataclasses
    if isinstance(value, dict):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if type(value) is DiagonalGaussianDistribution:
        return {"parameters": value.parameters}
    return None


def _made(like: Any, parts: dict[Any, Any]) -> Any:
    """Something of the same class with other parts."""
    cls = type(like)
    if isinstance(like, (list, tuple)):
        return cls(*parts.values()) if hasattr(like, "_fields") else cls(parts.values())
    if cls is DiagonalGaussianDistribution:
        return DiagonalGaussianDistribution(parts["parameters"], like.deterministic)
    return cls(**parts) if is_dataclass(like) else cls(parts)


def difference(one: Any, other: Any) -> str | None:
    """Where two outputs are further apart than rounding explains; None if they are not."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return _apart(one, other)
    parts, others = _parts(one), _parts(other)
    if parts is None or others is None:
        return None if one == other else f"{one!r} in place of {other!r}"
    if parts.keys() != others.keys():
        return "parts are missing"
    return next((found for name in parts if (found := difference(parts[name], others[name])) is not None), None)


def _apart(one: torch.Tensor, other: torch.Tensor) -> str | None:
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"a tensor {tuple(one.shape)} {one.dtype} in place of {tuple(other.shape)} {other.dtype}"
    if one.dtype not in TOLERANCE:
        return None if torch.equal(one, other) else "other whole numbers"
    wide = torch.promote_types(one.dtype, torch.float32)
    given, wanted = one.to(wide), other.to(wide)
    if not torch.equal(given.isnan(), wanted.isnan()):
        return "other places with no number"
    given, wanted = given.nan_to_num(), wanted.nan_to_num()
    if not wanted.numel():
        return None
    apart, most = (given - wanted).abs().max().item(), wanted.abs().max().item()
    if apart <= TOLERANCE[one.dtype] * most:
        return None
    return f"values up to {apart:.3g} apart, where the largest is {most:.3g}"


def same_bits(one: Any, other: Any) -> bool:
    """Whether two outputs are equal bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return torch.equal(elements(one), elements(other))
    parts, others = _parts(one), _parts(other)
    if parts is None or others is None:
        return bool(one == other)
    return parts.keys() == others.keys() and all(same_bits(part, others[name]) for name, part in parts.items())


def _kind(value: Any) -> str:
    return f"`{type(value).__name__}`"
