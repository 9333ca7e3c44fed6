"""What a pipeline is configured with, as it is declared, and how one component is loaded."""

from loopwright.specs.component import LOADING_FIELDS, ComponentSpec, ConfigSpec
from loopwright.specs.repository import Repository

__all__ = ["LOADING_FIELDS", "ComponentSpec", "ConfigSpec", "Repository"]
