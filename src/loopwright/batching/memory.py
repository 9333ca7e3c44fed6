"""How much memory a run takes, as measured, and whether an error says that there was not enough."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["RunMemory", "is_out_of_memory"]


# How devices and their libraries say it, besides by the class of the exception; the third is the CPU.
_OUT_OF_MEMORY = ("out of memory", "alloc_failed", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory of the device was not enough."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


class RunMemory:
    """Whether another run fits into a budget, by what the runs before it took.

    What a run takes is measured over all of them: the memory in use above that before the first run, over the number of
    runs, where it was most. Until something was measured, one run at a time begins.

    Args:
        budget: how many bytes all runs together may take; None for as many as they like.
        read: how many bytes are in use now, and the most since it was last asked.
    """

    def __init__(self, budget: int | None, read: Callable[[], tuple[int, int]] | None) -> None:
        self._budget, self._read = budget, read
        self._before: int | None = None
        self.run_bytes: int | None = None

    def note(self, active: int) -> None:
        """Look how much is in use, with so many runs active."""
        if self._budget is None or self._read is None:
            return
        now, most = self._read()
        if active == 0:
            self._before = now
        elif self._before is not None:
            each = -(-max(0, most - self._before) // active)
            self.run_bytes = max(self.run_bytes or 0, each)

    def has_room(self, active: int) -> bool:
        """Whether another run fits beside so many. One always does, as it would never be made otherwise."""
        if self._budget is None or self._read is None or active == 0:
            return True
        return self.run_bytes is not None and (active + 1) * self.run_bytes <= self._budget
