"""`check` finds what cannot work, and what is likely a mistake, without running anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loopwright import (
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
    check,
)
from loopwright.errors import BlockTypeError, CheckError, LoopVariableError


class Count(LoopSequentialPipelineBlocks):
    loop_inputs = [InputParam("steps", default=2)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.steps):
            yield {"i": i}


class CountUnseen(Count):
    """Its source does not tell the variables."""

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.steps):
            variables = {"i": i}
            yield variables


class Add(ModularPipelineBlocks):
    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.x = block_state.x + i
        return components, block_state


class NeedsTime(Add):
    def __call__(self, components: Any, block_state: Any, t: int) -> tuple[Any, Any]:
        raise AssertionError("no block may run")


class ReadsUndeclared(ModularPipelineBlocks):
    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.seen = block_state.noise
        return components, block_state


class ReadsIfLater(ModularPipelineBlocks):
    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        if i > 0:
            block_state.seen = block_state.noise
        block_state.noise = i
        return components, block_state


class TakesOutput(ModularPipelineBlocks):
    inputs = [InputParam("output")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        return components, state


def codes(blocks: Any, severity: str | None = None) -> list[str]:
    return [finding.code for finding in check(blocks) if severity in (None, finding.severity)]


def test_a_sound_loop_has_no_errors_and_says_what_it_carries() -> None:
    (carried,) = check(Count.from_blocks_dict({"add": Add}))
    assert (carried.code, carried.severity, carried.path) == ("loop-carried", "note", "")
    assert carried.message == "`x` goes from one iteration to the next: `add` writes it, `add` reads it"


def test_a_variable_that_the_loop_does_not_give_is_an_error_before_a_pipeline_is_made() -> None:
    loop = Count.from_blocks_dict({"add": Add, "time": NeedsTime})
    assert codes(loop, "error") == ["missing-loop-variable"]
    with pytest.raises(CheckError, match=r"`t`, which the loop `Count` does not give; it gives `i`"):
        loop.init_pipeline()


def test_where_the_source_does_not_tell_the_first_iteration_does_before_any_block_ran() -> None:
    loop = CountUnseen.from_blocks_dict({"time": NeedsTime})
    assert codes(loop, "error") == []
    with pytest.raises(LoopVariableError):
        loop.init_pipeline()()


def test_an_outer_loops_variable_satisfies_a_block_of_an_inner_loop() -> None:
    class Times(Count):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            for t in range(2):
                yield {"t": t}

    inner = Count.from_blocks_dict({"time": NeedsTime})
    assert codes(Times.from_blocks_dict({"inner": inner}), "error") == []


def test_a_block_that_takes_a_loop_variable_outside_any_loop_is_an_error() -> None:
    assert codes(SequentialPipelineBlocks.from_blocks_dict({"add": Add}), "error") == ["missing-loop-variable"]


def test_a_value_that_nobody_writes_and_that_is_no_input_is_an_error() -> None:
    (error,) = [
        f for f in check(Count.from_blocks_dict({"add": Add, "read": ReadsUndeclared})) if f.severity == "error"
    ]
    assert (error.code, error.path) == ("read-before-write", "read")
    assert error.message == "reads `block_state.noise`, which is not an input, and nobody writes it"


def test_a_read_that_may_not_happen_is_not_blamed() -> None:
    assert codes(Count.from_blocks_dict({"read": ReadsIfLater}), "error") == []


def test_an_input_with_the_name_of_a_call_option_is_an_error() -> None:
    with pytest.raises(CheckError, match="declares the input `output`, which is an option of every call"):
        TakesOutput().init_pipeline()


def test_what_is_not_blocks_is_refused() -> None:
    with pytest.raises(BlockTypeError, match="what was given is an int, which is not a block"):
        check(3)
