"""The names of `diffusers.modular_pipelines.mellon_node_utils`: nodes of a graphical editor, made from blocks."""

from diffusers.modular_pipelines.mellon_node_utils import MellonParam, MellonPipelineConfig

__all__ = ["MellonParam", "MellonPipelineConfig"]
