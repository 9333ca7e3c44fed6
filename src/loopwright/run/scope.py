"""Which components belong to one run, and which are shared by all."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.schedulers.scheduling_utils import SchedulerMixin

__all__ = ["is_run_scoped"]


def is_run_scoped(component: Any) -> bool:
    """Whether a run changes the component while it works, so that each run needs a copy of its own.

    Schedulers and guiders do; any other component, or its class, says so with an attribute `run_scoped = True`.
    """
    cls: Any = type(component)
    # not asked of the component itself: a model goes through all that it has before it says no
    return _is_run_scoped_class(cls) or getattr(component, "__dict__", {}).get("run_scoped") is True


@lru_cache(maxsize=1024)
def _is_run_scoped_class(cls: Any) -> bool:
    return issubclass(cls, (SchedulerMixin, BaseGuidance)) or getattr(cls, "run_scoped", False) is True
