"""Pipelines made of blocks, in which the loop is a first-class block."""

from typing import TYPE_CHECKING, Any

from loopwright.blocks import (
    AutoPipelineBlocks,
    ConditionalPipelineBlocks,
    InsertableDict,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    SequentialPipelineBlocks,
)
from loopwright.blocks import registry as _registry
from loopwright.check import Finding, check
from loopwright.describe import describe
from loopwright.errors import LoopwrightError
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec
from loopwright.state import BlockState, PipelineState

if TYPE_CHECKING:
    from loopwright.components import ComponentsManager
    from loopwright.pipeline import ModularPipeline
    from loopwright.run import Checkpoint

__version__ = "0.1.0"

__all__ = [
    "AutoPipelineBlocks",
    "BlockState",
    "Checkpoint",
    "ComponentSpec",
    "ComponentsManager",
    "ConditionalPipelineBlocks",
    "ConfigSpec",
    "Finding",
    "InputParam",
    "InsertableDict",
    "LoopSequentialPipelineBlocks",
    "LoopwrightError",
    "ModularPipeline",
    "ModularPipelineBlocks",
    "OutputParam",
    "PipelineState",
    "SequentialPipelineBlocks",
    "check",
    "describe",
]

_registry.provide("pipeline", "loopwright.pipeline:ModularPipeline")
_registry.provide("blocks by name", "loopwright.bridge:blocks_by_name")
_registry.provide("blocks of a repository", "loopwright.bridge:blocks_of_repository")
_registry.provide("config of blocks", "loopwright.bridge:config_of_blocks")
_registry.provide("loading blocks", "loopwright.bridge:load_blocks")
_registry.provide("saving blocks", "loopwright.components:save_blocks")
_registry.provide("bridged", "loopwright.bridge:bridged")
_registry.provide("describe", "loopwright.describe:describe")


def __getattr__(name: str) -> Any:
    # what needs torch and diffusers, which take seconds, is imported when it is first used
    if name == "ModularPipeline":
        from loopwright.pipeline import ModularPipeline

        return ModularPipeline
    if name == "ComponentsManager":
        from loopwright.components import ComponentsManager

        return ComponentsManager
    if name == "Checkpoint":
        from loopwright.run import Checkpoint

        return Checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
