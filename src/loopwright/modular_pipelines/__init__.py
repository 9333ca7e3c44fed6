"""The public names under the path that users of `diffusers.modular_pipelines` know."""

from loopwright.modular_pipelines.components_manager import ComponentsManager
from loopwright.modular_pipelines.modular_pipeline import (
    AutoPipelineBlocks,
    BlockState,
    ConditionalPipelineBlocks,
    IterativePipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularLoopPipelineBlocks,
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
    "ComponentsManager",
    "ConditionalPipelineBlocks",
    "ConfigSpec",
    "InputParam",
    "InsertableDict",
    "IterativePipelineBlocks",
    "LoopSequentialPipelineBlocks",
    "ModularLoopPipelineBlocks",
    "ModularPipeline",
    "ModularPipelineBlocks",
    "OutputParam",
    "PipelineState",
    "SequentialPipelineBlocks",
]
