"""What the small values of a loop were after each of its iterations.

Code of a loop's wrapper that runs between two iterations runs again when the loop is wound forward, and may decide by
such values: how far a count is, whether a bound was reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from loopwright.run.checkpoints.codec import Encoder, same

__all__ = ["History"]

# elements of a tensor, items of a container
_MOST = 16
_ABSENT = object()


class History:
    """The small values of one loop, each with the iterations after which it was another one than before."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[int, Any]]] = {}

    def note(self, index: int, values: Mapping[str, Any]) -> None:
        """Take down the values after an iteration."""
        for name in self._changes.keys() - values.keys():
            self._add(name, index, _ABSENT)
        for name, value in values.items():
            if name in self._changes or _is_small(value):
                self._add(name, index, value if _is_small(value) else _ABSENT)

    def _add(self, name: str, index: int, value: Any) -> None:
        changes = self._changes.get(name)
        if changes is None:
            changes = self._changes[name] = [(-1, _ABSENT)] if index > 0 else []
        if not changes or not same(changes[-1][1], value):
            changes.append((index, _copied(value)))

    def restore(self, index: int, values: dict[str, Any], names: frozenset[str] | None = None) -> None:
        """Set the values to what they were after an iteration.

        Args:
            index: its index.
            values: the values of the loop, changed in place.
            names: those to set; None for all.
        """
        for name, changes in self._changes.items():
            if names is not None and name not in names:
                continue
            value = next((value for since, value in reversed(changes) if since <= index), _ABSENT)
            if value is not _ABSENT:
                values[name] = _copied(value)
            elif _is_small(values.get(name)):
                values.pop(name, None)

    def encoded(self, encoder: Encoder, path: str) -> list[Any]:
        return [
            [name, [[i] if v is _ABSENT else [i, encoder.encode(v, f"{path}: {name}")] for i, v in changes]]
            for name, changes in self._changes.items()
        ]

    @classmethod
    def decoded(cls, written: list[Any], decode: Any) -> History:
        history = cls()
        history._changes = {
            name: [(index, decode(value[0]) if value else _ABSENT) for index, *value in changes]
            for name, changes in written
        }
        return history


def _is_small(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if type(value) is torch.Tensor:
        return value.numel() <= _MOST
    if type(value) in (list, tuple):
        return len(value) <= _MOST and all(map(_is_small, value))
    return False


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value
