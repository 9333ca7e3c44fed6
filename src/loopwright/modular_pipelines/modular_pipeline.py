"""The names of `diffusers.modular_pipelines.modular_pipeline`."""

from loopwright.blocks import (
    AutoPipelineBlocks,
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    SequentialPipelineBlocks,
)
from loopwright.pipeline import ModularPipeline
from loopwright.state import BlockState, PipelineState

__all__ = [
    "AutoPipelineBlocks",
    "BlockState",
    "ConditionalPipelineBlocks",
    "LoopSequentialPipelineBlocks",
    "ModularPipeline",
    "ModularPipelineBlocks",
    "PipelineState",
    "SequentialPipelineBlocks",
]
