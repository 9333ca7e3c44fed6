"""Reading the combined inputs of a large tree: diffusers' `QwenImageAutoBlocks`, and the same tree here."""

from __future__ import annotations

from typing import Any

import diffusers

from loopwright.bridge import from_diffusers

from .measure import Result, in_turns


def size(block: Any) -> int:
    return 1 + sum(size(child) for child in block.sub_blocks.values())


def inputs(repetitions: int) -> list[Result]:
    theirs = diffusers.QwenImageAutoBlocks()
    ours = from_diffusers(theirs)
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
