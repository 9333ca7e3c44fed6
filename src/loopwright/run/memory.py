"""How much memory is in use, as far as that can be read without holding anything up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["MemoryGauge", "memory_gauge"]

# of each device that counts: the bytes in use, and the most that ever were
_Readings = list[tuple[int, int]]


class MemoryGauge:
    """Reads how much memory is in use, and whether more was since it was last read.

    The most that ever was is only of use where it has grown: then it was reached since the last time. It is never set
    back, as it may be somebody else's figure.

    Args:
        kind: whose memory it is, in words.
        read: reads it.
        asynchronous: whether blocks hand their work to the device and do not wait for its end.
    """

    def __init__(self, kind: str, read: Callable[[], _Readings], asynchronous: bool = False) -> None:
        self.kind, self.asynchronous = kind, asynchronous
        self._read = read
        self._most = [most for _, most in read()]

    def sample(self) -> tuple[int, int]:
        """The bytes in use, and the most since the last sample, as far as that is known."""
        readings = self._read()
        before = self._most
        self._most = [most for _, most in readings]
        # a device that was not there before had nothing in use
        before += [0] * (len(readings) - len(before))
        now = sum(count for count, _ in readings)
        grown = [most if most > past else count for (count, most), past in zip(readings, before, strict=False)]
        return now, max(now, sum(grown))


def memory_gauge(view: Any) -> MemoryGauge | None:
    """The gauge for the memory that a run works in; None where it cannot be read.

    Args:
        view: the run's view of its pipeline.
    """
    # to find the device may mean to look at each module
    if torch.version.cuda or torch.version.hip or torch.backends.mps.is_built():
        device = view._execution_device.type
        if device == "cuda":
            return MemoryGauge(
                "allocated by torch on the CUDA devices of this process", _cuda_readings, asynchronous=True
            )
        if device == "mps":
            return MemoryGauge("allocated by torch on the MPS device", _mps_readings, asynchronous=True)
    try:
        return MemoryGauge("resident memory of the whole process", _resident_readings)
    except (ImportError, OSError):
        return None


def _cuda_readings() -> _Readings:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    # what `max_memory_allocated` reads, without the sorting of all other figures
    stats = [torch.cuda.memory_stats_as_nested_dict(device) for device in range(torch.cuda.device_count())]
    counts = [of_device.get("allocated_bytes", {}).get("all", {}) for of_device in stats]
    return [(count.get("current", 0), count.get("peak", 0)) for count in counts]


def _mps_readings() -> _Readings:
    return [(torch.mps.current_allocated_memory(), 0)]


def _resident_readings() -> _Readings:
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if not sys.platform.startswith("linux"):
        return [(most, most)]
    with open("/proc/self/statm", "rb") as file:
        return [(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), most)]
