"""`verify_resume`: whether a loop resumes bit for bit, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from loopwright import InputParam, OutputParam
from loopwright.errors import CheckpointMismatchError
from loopwright.run import verify_resume
from tests.blocks.arithmetic import Double, Repeat
from tests.run.blocks import Do, counting, nested, pipeline
from tests.run.checkpoints.blocks import Draw


class Remembers(Repeat):
    """Keeps in a local variable what moves from one iteration to the next; it is too large for the history."""

    loop_inputs = [*Repeat.loop_inputs, InputParam("x", required=True)]
    loop_intermediate_outputs = [OutputParam("x")]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        last = block_state.x
        for i in range(block_state.steps):
            yield {"i": i}
            last, block_state.x = block_state.x, block_state.x + last


def test_loops_that_resume_bit_for_bit_pass() -> None:
    verify_resume(counting(), {"x": 1, "steps": 4})
    verify_resume(nested(), {"x": 1})
    noise = pipeline(loop=Repeat.from_blocks_dict({"noise": Draw}))
    verify_resume(noise, {"x": 0.0, "generator": torch.Generator().manual_seed(1)})


def test_a_local_variable_that_a_loop_depends_on_is_named() -> None:
    pipe = pipeline(loop=Remembers.from_blocks_dict({"double": Double}))
    with pytest.raises(CheckpointMismatchError) as raised:
        verify_resume(pipe, {"x": torch.arange(20.0), "steps": 4})
    assert str(raised.value) == (
        "resumed after iteration 1 of loop `loop`, the run has x=<Tensor of shape (20,)> of other elements after "
        "iteration 2 of loop `loop`, and it was <Tensor of shape (20,)>; when the run was resumed, `last` in "
        "`Remembers.iterate` was not as before: what moves from one iteration to the next must be in the block state"
    )


def test_a_loop_that_depends_on_something_else_is_noticed() -> None:
    calls: list[int] = []
    pipe = pipeline(
        loop=Repeat.from_blocks_dict({"do": Do(lambda components, x, i: calls.append(1) or x + len(calls))})
    )
    with pytest.raises(CheckpointMismatchError) as raised:
        verify_resume(pipe, {"x": 0})
    assert str(raised.value) == (
        "resumed after iteration 0 of loop `loop`, the run has x=5 after iteration 1 of loop `loop`, and it was 3; "
        "what it depends on is kept outside the state, or in a part of it that a resumed run has only as it was when "
        "it was saved: a large tensor that is changed in place, or memory that arrays share"
    )
