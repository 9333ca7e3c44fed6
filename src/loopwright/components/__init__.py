"""Components of pipelines: what holds them, where they are kept, and how they are loaded."""

from loopwright.components.block_code import code_files, save_blocks
from loopwright.components.index import CLASSIC_INDEX, MODULAR_INDEX, PipelineIndex, read_index
from loopwright.components.loading import Origin
from loopwright.components.manager import ComponentsManager
from loopwright.components.owner import ComponentOwner
from loopwright.specs import Repository

__all__ = [
    "CLASSIC_INDEX",
    "MODULAR_INDEX",
    "ComponentOwner",
    "ComponentsManager",
    "Origin",
    "PipelineIndex",
    "Repository",
    "code_files",
    "read_index",
    "save_blocks",
]
