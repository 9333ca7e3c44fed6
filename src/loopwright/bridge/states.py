"""States that code for diffusers makes by itself, for blocks that it calls."""

from __future__ import annotations

from typing import Any

import diffusers.modular_pipelines.modular_pipeline as library

from loopwright.state import PipelineState

__all__ = ["adopted"]


def adopted(state: Any) -> Any:
    """A state of diffusers as one of ours with the same values: what is written to one is in the other."""
    return PipelineState(state.values, state.kwargs_mapping) if type(state) is library.PipelineState else state
