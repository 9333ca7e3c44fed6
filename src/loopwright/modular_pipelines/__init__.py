"""The public names under the path that users of `diffusers.modular_pipelines` know."""

from loopwright.modular_pipelines.modular_pipeline import (
    AutoPipelineBlocks,
    BlockState,
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    PipelineState,
    SequentialPipelineBlocks,
)
from loopwright.modular_pipelines.modular_pipeline_utils import (
    ComponentSpec,
    ConfigSpec,
    InputParam,
    InsertableDict,
    OutputParam,
)

__all__ = [
    "AutoPipelineBlocks",
    "BlockState",
    "ComponentSpec",
    "ConditionalPipelineBlocks",
    "ConfigSpec",
    "InputParam",
    "InsertableDict",
    "LoopSequentialPipelineBlocks",
    "ModularPipeline",
    "ModularPipelineBlocks",
    "OutputParam",
    "PipelineState",
    "SequentialPipelineBlocks",
]
