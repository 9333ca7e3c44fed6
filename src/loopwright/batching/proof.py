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
from loopwright.batching.outputs import CannotSplitError, Share, copied, difference, learn, same_bits, split

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


class _Kind:
    """What is known of calls of one signature.

    Attributes:
        trusted: what was proven, by the class of their number.
        refusal: why they are not made together; None if they may be.
        room: how many rows fit into the memory; None if no limit was met.
    """

    def __init__(self) -> None:
        self.trusted: dict[Any, _Trust] = {}
        self.refusal: str | None = None
        self.room: int | None = None


class Ledger:
    """What was found out about calls: what was proven, what was refused, how many rows fit into the memory.

    It is remembered of the signatures that came last, and found out again for others. Any thread may ask for `refusal`
    and `room`; all else is for one thread.

    Args:
        every: after how many merged calls a proof is made again.
        most: of how many signatures it is remembered.
    """

    def __init__(self, every: int, most: int = 1024) -> None:
        self._every, self._most = every, most
        # those that came last are the last
        self._kinds: dict[Any, _Kind] = {}

    def _kind(self, key: Any) -> _Kind:
        kind = self._kinds.pop(key, None) or _Kind()
        self._kinds[key] = kind
        if len(self._kinds) > self._most:
            del self._kinds[next(iter(self._kinds))]
        return kind

    def how(self, key: Any, size: Any) -> Any:
        """How outputs are taken apart; None if there is no proof, or it is time to make it again.

        Args:
            key: the signature of the calls.
            size: the class of their number.
        """
        trust = self._kind(key).trusted.get(size)
        if trust is None or trust.left <= 0:
            return None
        trust.left -= 1
        return trust.how

    def trust(self, key: Any, size: Any, how: Any) -> None:
        self._kind(key).trusted[size] = _Trust(how, self._every)

    def refuse(self, key: Any, reason: str) -> None:
        self._kind(key).refusal = reason

    def refusal(self, key: Any) -> str | None:
        """Why calls of a signature are not made together; None if they are."""
        kind = self._kinds.get(key)
        return None if kind is None else kind.refusal

    def limit(self, key: Any, rows: int) -> None:
        """No more than so many rows fit into the memory."""
        self._kind(key).room = rows

    def room(self, key: Any) -> int | None:
        """How many rows fit into the memory; None if no limit was met."""
        kind = self._kinds.get(key)
        return None if kind is None else kind.room


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
        Exception: what a call raised, made alone; or that there is not enough memory.
    """
    varied = vary(calls)
    # of several lengths of text the shortest tells the most
    place = min(range(len(calls)), key=lambda number: calls[number].length)
    if len({call.length for call in calls}) > 1:
        varied[place] = _cut(varied[place])
    parts = shares(varied)
    forwards = len(calls) + 1
    try:
        alone = [_made_alone(call, forward) for call in varied]
    except CannotSplitError as error:
        return Verdict(None, str(error), forwards)
    try:
        merged = forward(*merge(varied))
        how = learn(alone[place], merged, parts[place])
        for output, share in zip(alone, parts, strict=True):
            found = difference(split(how, merged, share), output)
            if found is not None:
                return Verdict(None, f"made together, the calls give something else: {found}", forwards)
    except Exception as error:
        return Verdict(None, _why_not(error, "made together, the calls fail"), forwards)
    return Verdict(how, None, forwards)


def prove_fixed(call: Arguments, forward: Forward, count: int) -> Verdict:
    """Find out whether the bits of a call depend on it alone when it is made with others in a batch of fixed size.

    Where texts are padded it is found out with as little text as possible, which holds for all lengths.

    Args:
        call: the arguments of the call.
        forward: makes a call.
        count: how many calls there are in a batch.

    Raises:
        Exception: what the call raised, made alone; or that there is not enough memory.
    """
    total, forwards = count * call.rows, 4
    try:
        alone = _made_alone(call, forward)
    except CannotSplitError as error:
        return Verdict(None, str(error), 1)
    try:
        if text_length([call], fixed=True) > call.length:
            call, forwards = _cut(call), forwards + 1
            alone = _made_alone(call, forward)
        others = vary([call] * (2 * count - 1))[1:]
        last = [*others[: count - 1], call]
        filled = forward(*merge([call], total, fixed=True))
        first = forward(*merge([call, *others[count - 1 :]], total, fixed=True))
        other = forward(*merge(last, total, fixed=True))
        share = shares([call], total, fixed=True)[0]
        how = learn(alone, filled, share)
        by_itself = split(how, filled, share)
        found = difference(by_itself, alone)
        if found is not None:
            return Verdict(None, f"in a batch of {count}, the call gives something else: {found}", forwards)
        if not same_bits(split(how, first, share), by_itself) or not same_bits(
            split(how, other, share._replace(start=total - call.rows)), by_itself
        ):
            return Verdict(None, "its bits depend on the calls that are made with it", forwards)
    except Exception as error:
        return Verdict(None, _why_not(error, "made with others, the call fails"), forwards)
    return Verdict(how, None, forwards)


def _why_not(error: Exception, what: str) -> str:
    """Why calls are not made together, of which a comparison failed.

    Raises:
        Exception: the error, if it says that there is not enough memory.
    """
    if is_out_of_memory(error):
        raise error
    return str(error) if isinstance(error, CannotSplitError) else f"{what}: {type(error).__name__}: {error}"


def _made_alone(call: Arguments, forward: Forward) -> Any:
    """The output of a call by itself.

    Raises:
        CannotSplitError: the call changes its arguments, which its run would not notice if it was made with others.
    """
    arguments = call.filled([leaf.value for leaf in call.leaves])
    # the arguments are the run's, which is to make the call yet
    given = copied(arguments)
    output = forward(*given)
    if not same_bits(given, arguments):
        raise CannotSplitError("it changes its arguments")
    return output


def _cut(call: Arguments) -> Arguments:
    """The call with as little of its text as the mask allows, so that the padding makes the most of a difference."""
    masks = [leaf.value for leaf in call.leaves if leaf.text and "mask" in leaf.name]
    length = 1 + max(int((mask != 0).int().argmax(1).max()) for mask in masks)
    leaves = tuple(leaf._replace(value=leaf.value[:, :length]) if leaf.text else leaf for leaf in call.leaves)
    return call._replace(leaves=leaves, length=length)


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
