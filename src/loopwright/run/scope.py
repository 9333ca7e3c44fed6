"""Which components belong to one run, and which are shared by all."""

from __future__ import annotations

from typing import Any

from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.schedulers.scheduling_utils import SchedulerMixin

__all__ = ["is_run_scoped"]


def is_run_scoped(component: Any) -> bool:
    """Whether a run changes the component while it works, so that each run needs a copy of its own.

    Schedulers and guiders do; any other component says so with an attribute `run_scoped = True`.
    """
    return isinstance(component, (SchedulerMixin, BaseGuidance)) or getattr(component, "run_scoped", False) is True
