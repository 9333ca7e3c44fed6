"""diffusers' own blocks and pipelines, run by this engine.

`from_diffusers` takes a block, a class of blocks or a pipeline of diffusers, and gives back one of ours. Wherever a
block is expected, one of diffusers may stand, and becomes one of ours.
"""

from loopwright.bridge.convert import bridged, from_diffusers

__all__ = ["bridged", "from_diffusers"]
