"""Each input of each preset and workflow, left out: the call fails here if, and only if, it fails in diffusers.

No model takes part: leaves and loops read their inputs, as they do before they work, and set outputs to an object.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import diffusers.modular_pipelines as theirs
import pytest

from loopwright.errors import MissingInputError
from tests.bridge.test_presets import PRESETS, with_workflows


class Something:
    """A value that is not None."""


SOMETHING = Something()


@cache
def idle(cls: type) -> type:
    """A class of leaves or loops that do no work."""

    def call(self: Any, components: Any, state: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for output in self.intermediate_outputs:
            setattr(block_state, output.name, SOMETHING)
        self.set_block_state(state, block_state)
        return components, state

    return type(cls.__name__, (cls,), {"__call__": call})


def idle_pipeline(blocks: Any) -> Any:
    def visit(block: Any) -> None:
        if isinstance(block, theirs.LoopSequentialPipelineBlocks) or not block.sub_blocks:
            block.__class__ = idle(type(block))
        else:
            for child in block.sub_blocks.values():
                visit(child)

    blocks = copy.deepcopy(blocks)
    visit(blocks)
    return blocks.init_pipeline()


def misses(pipe: Any, inputs: dict[str, Any]) -> bool | str:
    """Whether a call fails for want of an input; what else is wrong with it, if something is."""
    try:
        pipe(**inputs)
    except MissingInputError:
        return True
    except Exception as error:
        return str(error).startswith("Required input") or str(error)
    return False


def cases(name: str) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    for _, their, our in with_workflows(name):
        peer, pipe = idle_pipeline(their), idle_pipeline(our)
        given = {param.name: SOMETHING for param in their.inputs if param.name is not None}
        yield peer, pipe, given
        for left_out in given:
            yield peer, pipe, {key: value for key, value in given.items() if key != left_out}


@pytest.mark.parametrize("name", PRESETS)
def test_an_input_that_is_left_out_gets_the_same_verdict(name: str) -> None:
    for peer, pipe, inputs in cases(name):
        assert misses(pipe, inputs) == misses(peer, inputs)
