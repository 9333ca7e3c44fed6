"""What a pipeline is made of: leaf blocks, sequences, conditionals and loops."""

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.conditional import AutoPipelineBlocks, ConditionalPipelineBlocks
from loopwright.blocks.facts import walk
from loopwright.blocks.iterative import IterativePipelineBlocks, ModularLoopPipelineBlocks
from loopwright.blocks.loop import LoopSequentialPipelineBlocks
from loopwright.blocks.sequential import SequentialPipelineBlocks
from loopwright.blocks.sub_blocks import InsertableDict

__all__ = [
    "AutoPipelineBlocks",
    "ConditionalPipelineBlocks",
    "InsertableDict",
    "IterativePipelineBlocks",
    "LoopSequentialPipelineBlocks",
    "ModularLoopPipelineBlocks",
    "ModularPipelineBlocks",
    "SequentialPipelineBlocks",
    "walk",
]
