"""Components of pipelines: what holds them, where they are kept, and how they are loaded."""

from loopwright.components.index import CLASSIC_INDEX, MODULAR_INDEX, PipelineIndex, read_index
from loopwright.components.owner import ComponentOwner
from loopwright.components.repository import Repository

__all__ = ["CLASSIC_INDEX", "MODULAR_INDEX", "ComponentOwner", "PipelineIndex", "Repository", "read_index"]
