"""The worker threads that a thread keeps for torch, given back while it waits for a run.

GNU's OpenMP, which torch uses on Linux, keeps worker threads for each thread that has called torch. As soon as all of
them together are more than the processors, the workers no longer spin between two operations but sleep, and waking them
each time makes a small model on the CPU slower by half. So the thread that waits for a run must not keep any.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

__all__ = ["release_torch_threads"]

_SOFT = 1  # `omp_pause_soft`


def release_torch_threads() -> None:
    """Give back the worker threads of the calling thread; they are made anew when it next calls torch."""
    for release in _releases():
        release()


@lru_cache(maxsize=1)
def _releases() -> tuple[Callable[[], object], ...]:
    """For each GNU OpenMP in the process, what gives back its threads; none on other systems."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "libgomp" in line}
    except OSError:
        return ()
    found: list[Callable[[], object]] = []
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
            pause, host = library.omp_pause_resource, library.omp_get_initial_device()
        except (OSError, AttributeError):
            # it is no longer there under this name, or older than OpenMP 5
            continue
        found.append(lambda pause=pause, host=host: pause(_SOFT, host))  # type: ignore[misc]
    return tuple(found)
