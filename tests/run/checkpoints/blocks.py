"""Blocks that several tests of checkpoints share."""

from __future__ import annotations

from typing import Any

import torch

from loopwright import InputParam, ModularPipelineBlocks, OutputParam


class Draw(ModularPipelineBlocks):
    """Adds a random number of the generator."""

    inputs = [InputParam("x", required=True), InputParam("generator")]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        state.set("x", state.get("x") + torch.rand(1, generator=state.get("generator")).item())
        return components, state
