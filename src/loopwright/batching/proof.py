"""Whether calls may be made together: decided by comparing, not by looking at the model.

Calls are made together and one by one, with arguments whose rows all differ: a model that lets rows see each other, or
takes an argument for something else than rows, gives something else then. Runs that begin together have the same
timesteps, and so on: where rows do not differ by themselves, copies are compared that were made to differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from loopwright.batching.arguments import Arguments, Leaf, merge, text_length
from loopwright.batching.contents import row_digests
from loopwright.batching.memory import is_out_of_memory
from loopwright.batching.outputs import CannotSplitError, Share, difference, learn, same_bits, split

__all__ = ["Ledger", "Verdict", "prove", "prove_fixed", "shares", "size_class", "vary"]

Forward = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Verdict(NamedTuple):
    """What a comparison showed.

    Attributes:
        how: how outputs are taken apart, if the calls may be made together.
        reason: why not, otherwise.
        forwards: how many forwards it took.
    """

    how: Any
    reason: str | None
    forwards: int


class _Trust:
    """That calls may be made together, and how often they were since."""

    def __init__(self, how: Any, every: int) -> None:
        self.how = how
        self.left = every


class Ledger:
    """What was proven, and what was refused.

    Args:
        every: after how many merged calls a proof is made again.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._trusted: dict[Any, _Trust] = {}
        self._refused: dict[Any, str] = {}

    def how(self, key: Any, size: Any) -> Any:
        """How outputs are taken apart; None if there is no proof, or it is time to make it again.

        Args:
            key: the signature of the calls.
            size: the class of their number.
        """
        trust = self._trusted.get((key, size))
        if trust is None or trust.left <= 0:
            return None
        trust.left -= 1
        return trust.how

    def trust(self, key: Any, size: Any, how: Any) -> None:
        self._trusted[key, size] = _Trust(how, self._every)

    def refuse(self, key: Any, reason: str) -> None:
        self._refused[key] = reason

    def refusal(self, key: Any) -> str | None:
        """Why calls of a signature are not made together; None if they are."""
        return self._refused.get(key)


def size_class(rows: int) -> int:
    """The class of a batch: sizes up to the next power of two."""
    return 1 << (rows - 1).bit_length()


def shares(calls: Sequence[Arguments], total: int | None = None, fixed: bool = False) -> list[Share]:
    """The part of each call in the merged one.

    Args:
        calls: the arguments of the calls.
        total: how many rows the merged call has, if it was filled up.
        fixed: as for `merge`.
    """
    padded = text_length(calls, fixed)
    found, start = [], 0
    total = sum(call.rows for call in calls) if total is None else total
    for call in calls:
        found.append(Share(start, call.rows, total, call.length, padded))
        start += call.rows
    return found


def prove(calls: Sequence[Arguments], forward: Forward) -> Verdict:
    """Compare calls that are made together with the same calls one by one.

    Raises:
        Exception: what a call raised, made alone.
    """
    varied = vary(calls)
    # of several lengths of text the shortest tells the most
    place = min(range(len(calls)), key=lambda number: calls[number].length)
    parts = shares(varied)
    alone = [forward(*call.filled([leaf.value for leaf in call.leaves])) for call in varied]
    forwards = len(calls) + 1
    try:
        merged = forward(*merge(varied))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return Verdict(None, f"made together, the calls fail: {type(error).__name__}: {error}", forwards)
    try:
        how = learn(alone[place], merged, parts[place])
        for output, share in zip(alone, parts, strict=True):
            found = difference(split(how, merged, share), output)
            if found is not None:
                return Verdict(None, f"made together, the calls give something else: {found}", forwards)
    except CannotSplitError as error:
        return Verdict(None, str(error), forwards)
    return Verdict(how, None, forwards)


def prove_fixed(call: Arguments, forward: Forward, count: int) -> Verdict:
    """Find out whether the bits of a call depend on it alone when it is made with others in a batch of fixed size.

    Args:
        call: the arguments of the call.
        forward: makes a call.
        count: how many calls there are in a batch.

    Raises:
        Exception: what the call raised, made alone; or that there is not enough memory.
    """
    total = count * call.rows
    alone = forward(*call.filled([leaf.value for leaf in call.leaves]))
    others = vary([call] * (2 * count - 1))[1:]
    last = [*others[: count - 1], call]
    try:
        filled = forward(*merge([call], total, fixed=True))
        first = forward(*merge([call, *others[count - 1 :]], total, fixed=True))
        other = forward(*merge(last, total, fixed=True))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return Verdict(None, f"made with others, the call fails: {type(error).__name__}: {error}", 4)
    share = shares([call], total, fixed=True)[0]
    try:
        how = learn(alone, filled, share)
        by_itself = split(how, filled, share)
        found = difference(by_itself, alone)
        if found is not None:
            return Verdict(None, f"in a batch of {count}, the call gives something else: {found}", 4)
        if not same_bits(split(how, first, share), by_itself) or not same_bits(
            split(how, other, share._replace(start=total - call.rows)), by_itself
        ):
            return Verdict(None, "its bits depend on the calls that are made with it", 4)
    except CannotSplitError as error:
        return Verdict(None, str(error), 4)
    return Verdict(how, None, 4)


def vary(calls: Sequence[Arguments]) -> list[Arguments]:
    """The calls, changed so that in each merged argument all rows differ; the first row of the first call stays.

    Values and timesteps get smaller, whole numbers change places or count down, masks get shorter.
    """
    leaves = [list(call.leaves) for call in calls]
    for number in range(len(calls[0].leaves)):
        column = [made[number] for made in leaves]
        if _all_differ(column):
            continue
        most = max(_height(leaf) for leaf in column)
        for place, leaf in enumerate(column):
            leaves[place][number] = leaf._replace(value=_varied(leaf, place, len(calls), most))
    return [call._replace(leaves=tuple(made)) for call, made in zip(calls, leaves, strict=True)]


def _height(leaf: Leaf) -> int:
    """How many rows a leaf has."""
    if leaf.kind == "list":
        return len(leaf.value)
    return len(leaf.value) if isinstance(leaf.value, torch.Tensor) and leaf.value.ndim else 1


def _all_differ(column: Sequence[Leaf]) -> bool:
    seen: list[Any] = []
    for leaf in column:
        if isinstance(leaf.value, torch.Tensor):
            value = leaf.value.reshape(1) if leaf.value.ndim == 0 else leaf.value
            seen += row_digests(value)
        elif leaf.kind == "list":
            seen += [row_digests(e[None])[0] if isinstance(e, torch.Tensor) else repr(e) for e in leaf.value]
        else:
            seen.append(leaf.value)
    return len(set(seen)) == len(seen)


def _varied(leaf: Leaf, place: int, count: int, most: int) -> Any:
    """What a leaf is in the copy of a call at some place.

    Args:
        leaf: the leaf.
        place: which of the calls it is from.
        count: how many calls there are.
        most: how many rows one of them has at most.
    """
    # the rows of one call are told apart as well
    steps = [place + number * count for number in range(_height(leaf))]
    total = count * most
    if leaf.kind == "list":
        return [
            _varied_row(entry, leaf.name, step, total) if isinstance(entry, torch.Tensor) else entry
            for entry, step in zip(leaf.value, steps, strict=True)
        ]
    if not isinstance(leaf.value, torch.Tensor):
        return leaf.value * (1 - 0.5 * place / total) if isinstance(leaf.value, float) else abs(leaf.value - place)
    if leaf.value.ndim == 0:
        return _varied_row(leaf.value, leaf.name, place, total)
    rows = zip(leaf.value.unbind(0), steps, strict=True)
    return torch.stack([_varied_row(row, leaf.name, step, total) for row, step in rows])


def _varied_row(row: torch.Tensor, name: str, step: int, total: int) -> torch.Tensor:
    if "mask" in name:
        return _shortened(row, step)
    if row.is_floating_point() or row.is_complex():
        fraction = 0.5 * step / total
        return row * (1 - fraction) + 0.01 * fraction
    if row.dtype is torch.bool or row.numel() == 0:
        return row
    if row.numel() == 1:
        return (row - step).abs()
    return row.flatten().roll(step).view_as(row)


def _shortened(mask: torch.Tensor, count: int) -> torch.Tensor:
    """A mask without its last entries; at least one stays."""
    kept = mask.flatten().nonzero().flatten()
    if len(kept) < 2 or not count:
        return mask
    flat = mask.flatten().clone()
    flat[kept[len(kept) - count % len(kept) :]] = 0
    return flat.view_as(mask)
