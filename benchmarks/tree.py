"""Reading the combined inputs of a large tree: diffusers' `QwenImageAutoBlocks`, and the same tree of our blocks."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline as there

import loopwright.modular_pipelines as here

from .measure import Result, in_turns

# the nearest base class first: an `AutoPipelineBlocks` is a `ConditionalPipelineBlocks` as well
BASES = [
    "LoopSequentialPipelineBlocks",
    "AutoPipelineBlocks",
    "ConditionalPipelineBlocks",
    "SequentialPipelineBlocks",
    "ModularPipelineBlocks",
]
DECLARATIONS = ["inputs", "intermediate_outputs"]
LOOP_DECLARATIONS = ["loop_inputs", "loop_intermediate_outputs"]


def rebuilt(source: Any) -> Any:
    """A block of ours that declares what a block of diffusers does, with its sub-blocks and its attributes."""
    base = getattr(here, next(name for name in BASES if isinstance(source, getattr(there, name))))
    if issubclass(base, here.LoopSequentialPipelineBlocks):
        declared = LOOP_DECLARATIONS
    else:
        declared = [] if source.sub_blocks else DECLARATIONS
    block = type(type(source).__name__, (base,), {name: _declaration(source, name) for name in declared})()
    for name, value in vars(source).items():
        if name != "sub_blocks":
            setattr(block, name, value)
    for name in ("block_trigger_inputs", "default_block_name"):
        if hasattr(source, name):
            setattr(block, name, getattr(source, name))
    block.sub_blocks = {name: rebuilt(child) for name, child in source.sub_blocks.items()}
    return block


def _declaration(source: Any, name: str) -> property:
    """A property that makes its list anew each time, as those of diffusers do."""
    cls = here.OutputParam if name.endswith("outputs") else here.InputParam
    return property(
        lambda block: [
            cls(**{field.name: getattr(param, field.name) for field in fields(cls)}) for param in getattr(source, name)
        ]
    )


def size(block: Any) -> int:
    return 1 + sum(size(child) for child in block.sub_blocks.values())


def inputs(repetitions: int) -> list[Result]:
    theirs = diffusers.QwenImageAutoBlocks()
    ours = rebuilt(theirs)
    assert ours.input_names == theirs.input_names
    times = in_turns(lambda: ours.inputs, lambda: theirs.inputs, calls=10, repetitions=repetitions)
    return [
        Result(
            "reading `.inputs` of a large tree, from the second time on",
            *times,
            bar=0.05,
            remark=f"`QwenImageAutoBlocks`: {size(theirs)} blocks, {len(theirs.inputs)} inputs",
        )
    ]
