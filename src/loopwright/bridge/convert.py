"""`from_diffusers`: a block or a pipeline of diffusers as one of ours."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers.modular_pipelines.modular_pipeline as library
from diffusers import DiffusionPipeline

from loopwright.blocks.sub_blocks import as_block
from loopwright.bridge.blocks import bridged_block, bridged_block_class
from loopwright.bridge.pipelines import bridged_pipeline

__all__ = ["bridged", "from_diffusers"]


def from_diffusers(value: Any) -> Any:
    """A block or a pipeline of diffusers as one of ours, with the same names, inputs, outputs and results.

    Args:
        value: a block, a class of blocks, of which an instance is made, or a pipeline, whose components are shared: one
            of blocks, or a classic one (`FluxPipeline`) whose family has blocks. What is ours already is given back.

    Returns:
        A `ModularPipelineBlocks` of ours, which is an instance of its class in diffusers as well; or a
        `ModularPipeline` of ours. What is changed in it does not change the original, nor the other way round.

    Raises:
        BlockTypeError: it is none of these, or a classic pipeline whose family has no blocks.
    """
    if isinstance(value, (library.ModularPipeline, DiffusionPipeline)):
        return bridged_pipeline(value)
    return as_block(value, "what `from_diffusers` is given")


def bridged(value: Any) -> Any:
    """A block of diffusers as a block of ours, and a class of diffusers' blocks as a class of ours."""
    return bridged_block_class(value) if inspect.isclass(value) else bridged_block(value)
