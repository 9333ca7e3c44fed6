"""Going another way from a checkpoint: with other inputs from there on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loopwright import Checkpoint, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.errors import CheckpointError, CheckpointMismatchError, UnknownInputError
from tests.blocks.arithmetic import AddOne, Repeat
from tests.run.blocks import pipeline
from tests.run.checkpoints.blocks import Draw
from tests.run.checkpoints.storages import Memory, saved_run


class AddInput(ModularPipelineBlocks):
    """Adds what an earlier block made of the input `amount`."""

    inputs = [InputParam("x", required=True), InputParam("encoded", required=True)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        state.set("x", state.get("x") + state.get("encoded"))
        return components, state


class Encode(ModularPipelineBlocks):
    inputs = [InputParam("amount", default=1)]
    intermediate_outputs = [OutputParam("encoded")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        state.set("encoded", 100 * state.get("amount"))
        return components, state


def encoding(**more: Any) -> Any:
    return pipeline(encode=Encode, loop=Repeat.from_blocks_dict({"add": AddInput, **more}), end=AddOne)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_branch_goes_on_with_what_the_loop_had_made_and_with_the_changed_input(at: int) -> None:
    pipe = encoding()
    _, memory = saved_run(pipe, x=0, steps=4, amount=1)
    files, other = dict(memory.files), Memory()
    state = pipe.branch(memory, at=at, amount=3, checkpoint=Checkpoint(other, keep=None)).result()
    assert state.x == 100 * at + 300 * (4 - at) + 1
    assert memory.files == files
    assert other.iterations == list(range(at + 1, 5))
    if other.iterations:
        assert pipe.resume(other).result().x == state.x


def test_a_branch_without_changes_is_the_same_run() -> None:
    pipe = pipeline(noise=Draw, loop=Repeat.from_blocks_dict({"noise": Draw}), end=Draw)
    state, memory = saved_run(pipe, x=0.0, generator=torch.Generator().manual_seed(1))
    for at in memory.iterations:
        assert pipe.branch(memory, at=at).result().x == state.x


def test_a_branch_with_another_seed_draws_other_numbers_from_there_on() -> None:
    pipe = pipeline(noise=Draw, loop=Repeat.from_blocks_dict({"noise": Draw}))
    _, memory = saved_run(pipe, x=0.0, generator=torch.Generator().manual_seed(1))
    events = []
    run = pipe.branch(memory, at=2, generator=torch.Generator().manual_seed(2), callbacks=events.append)
    branched = run.result().x
    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    before = sum(torch.rand(1, generator=first).item() for _ in range(3))
    torch.rand(1, generator=second)
    assert branched == before + torch.rand(1, generator=second).item()
    assert [event.index for event in events] == [2]


def test_a_branch_is_refused_where_there_is_no_checkpoint_or_the_iterations_would_be_others() -> None:
    pipe = encoding()
    _, memory = saved_run(pipe, x=0, steps=4)
    with pytest.raises(CheckpointError, match="the memory holds no checkpoint after iteration 9; it has 1, 2, 3, 4"):
        pipe.branch(memory, at=9)
    with pytest.raises(UnknownInputError):
        pipe.branch(memory, at=2, colour="red")
    with pytest.raises(CheckpointMismatchError, match="the run ended before it came to where it was saved"):
        pipe.branch(memory, at=3, steps=1).result()
