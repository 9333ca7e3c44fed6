"""diffusers' own blocks and pipelines, run by this engine.

`from_diffusers` takes a block, a class of blocks or a pipeline of diffusers, and gives back one of ours. Wherever a
block is expected, one of diffusers may stand, and becomes one of ours.
"""

from loopwright.bridge.convert import bridged, from_diffusers
from loopwright.bridge.repositories import blocks_by_name, blocks_of_repository, config_of_blocks, load_blocks

__all__ = ["blocks_by_name", "blocks_of_repository", "bridged", "config_of_blocks", "from_diffusers", "load_blocks"]
