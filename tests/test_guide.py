"""The two examples of the users' guide to loops run as they stand there, but for the library that they import."""

from __future__ import annotations

import re
from typing import Any

import pytest

EXAMPLE = """
import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks, ModularPipelineBlocks, InputParam, OutputParam

class LoopWrapper(LoopSequentialPipelineBlocks):
    model_name = "test"
    @property
    def description(self):
        return "I'm a loop!!"
    @property
    def loop_inputs(self):
        return [InputParam(name="num_steps")]
    @torch.no_grad()
    def __call__(self, components, state):
        block_state = self.get_block_state(state)
        # Loop structure - can be customized to your needs
        for i in range(block_state.num_steps):
            # loop_step executes all registered blocks in sequence
            components, block_state = self.loop_step(components, block_state, i=i)
        self.set_block_state(state, block_state)
        return components, state

class LoopBlock(ModularPipelineBlocks):
    model_name = "test"
    @property
    def inputs(self):
        return [InputParam(name="x")]
    @property
    def intermediate_outputs(self):
        # outputs produced by this block
        return [OutputParam(name="x")]
    @property
    def description(self):
        return "I'm a block used inside the `LoopWrapper` class"
    def __call__(self, components, block_state, i: int):
        block_state.x += 1
        return components, block_state
"""
CLASS_ONLY = 'loop = LoopWrapper.from_blocks_dict({"block1": LoopBlock})'
MIXED = 'loop = LoopWrapper.from_blocks_dict({"block1": LoopBlock(), "block2": LoopBlock})'


def guide(library: str) -> dict[str, Any]:
    """The names that the guide defines, on the classes of a library."""
    source, replaced = re.subn(r"from diffusers\b", f"from {library}", EXAMPLE)
    assert replaced == 1
    names: dict[str, Any] = {}
    exec(source, names)
    return names


@pytest.mark.parametrize(("line", "x"), [(CLASS_ONLY, 3), (MIXED, 6)], ids=["class only", "instance and class"])
def test_the_example_runs(line: str, x: int) -> None:
    names = guide("loopwright")
    exec(line, names)
    pipe = names["loop"].init_pipeline()
    assert pipe(x=0, num_steps=3, output="x") == x


@pytest.mark.parametrize("line", [CLASS_ONLY, MIXED], ids=["class only", "instance and class"])
def test_the_example_raises_in_diffusers(line: str) -> None:
    # when this fails, diffusers has repaired its `from_blocks_dict`, and our documentation can say so
    names = guide("diffusers")
    with pytest.raises((AttributeError, TypeError)):
        exec(f"{line}\nloop.init_pipeline()(x=0, num_steps=3)", names)


def test_a_variant_that_diffusers_does_run_gives_the_same_in_both() -> None:
    results = []
    for library in ("loopwright", "diffusers"):
        names = guide(library)
        exec('loop = LoopWrapper.from_blocks_dict({"block1": LoopBlock(), "block2": LoopBlock()})', names)
        results.append(names["loop"].init_pipeline()(x=0, num_steps=3, output="x"))
    assert results == [6, 6]
