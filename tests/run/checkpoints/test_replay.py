"""Going on from a checkpoint: the same result as that of a run that was never broken, and nothing done twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopwright.modular_pipelines
from loopwright import (
    Checkpoint,
    ModularPipeline,
    SequentialPipelineBlocks,
)
from loopwright.errors import MissingInputError
from tests.blocks import interpreter
from tests.blocks.arithmetic import Repeat, RepeatByHand
from tests.blocks.trees import MODULUS, Composite, blocks_of, build, composites
from tests.run.checkpoints.storages import Memory, saved_run

EVERY_LOOP = pytest.mark.parametrize("loop", [Repeat, RepeatByHand])


def pipeline(blocks: dict[str, Any]) -> ModularPipeline:
    return SequentialPipelineBlocks.from_blocks_dict(blocks).init_pipeline()


def results(pipe: ModularPipeline, classes: Any = (), **inputs: Any) -> Iterator[tuple[int, Any, Any]]:
    """Each boundary, what a run resumed there leaves, and what the unbroken run left."""
    state, memory = saved_run(pipe, classes=classes, **inputs)
    for iteration in memory.iterations:
        yield iteration, pipe.resume(memory.until(iteration), classes=classes).result().values, state.values


# Any tree

CLASSES = blocks_of(loopwright.modular_pipelines)
CALLS: list[tuple[int, tuple[tuple[str, int], ...]]] = []


def count_calls(compute: Any) -> Any:
    def counted(block: Any, components: Any, state: Any, **variables: int) -> Any:
        CALLS.append((id(block), tuple(variables.items())))
        return compute(block, components, state, **variables)

    return counted


COMPUTE = CLASSES.leaves[()].__bases__[0]
COMPUTE.compute = count_calls(COMPUTE.compute)


@given(composites(), st.data())
def test_a_random_tree_resumed_anywhere_runs_what_was_left_to_the_same_end(
    tree: Composite, data: st.DataObject
) -> None:
    pipe = ModularPipeline(blocks=build(tree, CLASSES))
    names = [param.name for param in interpreter.inputs_of(tree)]
    values = st.none() | st.integers(0, MODULUS - 1)
    inputs = data.draw(st.dictionaries(st.sampled_from(names), values) if names else st.just({}))
    CALLS.clear()
    calls_at: list[int] = []
    memory = Memory()
    try:
        state = pipe(
            checkpoint=Checkpoint(memory, keep=None), callbacks=lambda event: calls_at.append(len(CALLS)), **inputs
        )
    except MissingInputError:
        return
    calls = list(CALLS)
    assert memory.iterations == list(range(1, len(calls_at) + 1))
    for iteration in data.draw(
        st.lists(st.sampled_from(memory.iterations), max_size=6, unique=True) if calls_at else st.just([])
    ):
        CALLS.clear()
        assert pipe.resume(memory.until(iteration)).result().values == state.values
        assert calls[calls_at[iteration - 1] :] == CALLS
