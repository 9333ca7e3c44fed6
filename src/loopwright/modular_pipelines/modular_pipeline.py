"""The names of `diffusers.modular_pipelines.modular_pipeline`."""

from loopwright.blocks import (
    AutoPipelineBlocks,
    ConditionalPipelineBlocks,
    IterativePipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularLoopPipelineBlocks,
    ModularPipelineBlocks,
    SequentialPipelineBlocks,
)
from loopwright.pipeline import ModularPipeline
from loopwright.state import BlockState, PipelineState

__all__ = [
    "AutoPipelineBlocks",
    "BlockState",
    "ConditionalPipelineBlocks",
    "IterativePipelineBlocks",
    "LoopSequentialPipelineBlocks",
    "ModularLoopPipelineBlocks",
    "ModularPipeline",
    "ModularPipelineBlocks",
    "PipelineState",
    "SequentialPipelineBlocks",
]
