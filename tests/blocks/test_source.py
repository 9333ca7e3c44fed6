"""What the source of a loop says: the variables that it gives, and the values that it and its blocks read and write.

Seen through the inputs of a loop, from which the variables that it always gives are left out, and through `check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from loopwright import InputParam, LoopSequentialPipelineBlocks, ModularPipelineBlocks, OutputParam, check


class TakesBoth(ModularPipelineBlocks):
    """Reads `i` and `t` as values, and requires none of them as a variable."""

    inputs = [InputParam("i"), InputParam("t")]

    def __call__(self, components: Any, block_state: Any, **variables: Any) -> tuple[Any, Any]:
        return components, block_state


class RequiresT(ModularPipelineBlocks):
    def __call__(self, components: Any, block_state: Any, t: int) -> tuple[Any, Any]:
        return components, block_state


def always(loop: Any) -> set[str]:
    """The variables that a loop is known to give in every iteration."""
    return {"i", "t"} - set(loop.from_blocks_dict({"both": TakesBoth}).input_names)


def refuses(loop: Any) -> bool:
    """Whether `check` says that a loop never gives `t`."""
    findings = check(loop.from_blocks_dict({"requires": RequiresT}))
    return [finding.code for finding in findings if finding.severity == "error"] == ["missing-loop-variable"]


# The variables of `iterate`


class YieldsDict(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i, t in enumerate((1, 2)):
            yield {"i": i, "t": t}


class YieldsCall(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield dict(i=1, t=2)  # noqa: C408


class YieldsInDecorated(LoopSequentialPipelineBlocks):
    @torch.no_grad()
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield {"i": 1, "t": 2}


class YieldsTSometimes(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield {"i": 1}
        yield {"i": 1, "t": 2}


class YieldsIOnly(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield {"i": 1}


class YieldsNothingByName(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield {}


class YieldsVariable(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        variables = {"i": 1}
        yield variables


class YieldsFrom(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield from [{"i": 1}]


class YieldsUnpacked(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield {"i": 1, **{}}


class InheritsIterate(YieldsDict):
    pass


# The variables of `loop_step`


class StepsTwice(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        components, block_state = self.loop_step(components, block_state, i=0)
        components, block_state = self.loop_step(components, block_state, i=0, t=1)
        self.set_block_state(state, block_state)
        return components, state


class StepsByKeyword(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        components, block_state = self.loop_step(components=components, state=block_state, t=1)
        self.set_block_state(state, block_state)
        return components, state


class StepsInHelper(LoopSequentialPipelineBlocks):
    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        with nullcontext():
            components, block_state = self.step(components, block_state, 1)
        self.set_block_state(state, block_state)
        return components, state

    def step(self, components: Any, block_state: Any, t: int) -> Any:
        return self.loop_step(components, block_state, i=0, t=t)


class StepsUnpacked(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        variables = {"t": 1}
        components, block_state = self.loop_step(components, block_state, **variables)
        self.set_block_state(state, block_state)
        return components, state


def without_source() -> Any:
    names: dict[str, Any] = {"Base": LoopSequentialPipelineBlocks}
    exec("class Loop(Base):\n    def iterate(self, components, block_state):\n        yield {'i': 1}\n", names)
    return names["Loop"]


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        (YieldsDict, {"i", "t"}),
        (YieldsCall, {"i", "t"}),
        (YieldsInDecorated, {"i", "t"}),
        (InheritsIterate, {"i", "t"}),
        (YieldsTSometimes, {"i"}),
        (YieldsIOnly, {"i"}),
        (StepsTwice, {"i"}),
        (StepsByKeyword, {"t"}),
        (StepsInHelper, {"i", "t"}),
        *[(loop, set()) for loop in (YieldsVariable, YieldsFrom, YieldsUnpacked, StepsUnpacked, without_source())],
    ],
)
def test_the_variables_that_a_loop_always_gives_are_no_inputs_of_it(loop: Any, expected: set[str]) -> None:
    assert always(loop) == expected


@pytest.mark.parametrize("loop", [YieldsIOnly, YieldsNothingByName])
def test_a_variable_that_a_loop_never_gives_is_found(loop: Any) -> None:
    assert refuses(loop)


@pytest.mark.parametrize(
    "loop",
    [
        YieldsDict,
        YieldsTSometimes,
        StepsTwice,
        StepsInHelper,
        YieldsVariable,
        YieldsFrom,
        YieldsUnpacked,
        StepsUnpacked,
        without_source(),
    ],
)
def test_a_variable_that_a_loop_may_give_is_not_blamed(loop: Any) -> None:
    assert not refuses(loop)


# Values


def undeclared(body: Callable[..., None], loop: Any = YieldsDict) -> list[str]:
    """The values that a block with this body reads although nobody has written them, as `check` finds them."""

    class Block(ModularPipelineBlocks):
        inputs = [InputParam("x")]
        intermediate_outputs = [OutputParam("y")]
        __call__ = body  # type: ignore[assignment]

    findings = check(loop.from_blocks_dict({"block": Block}))
    found = [finding for finding in findings if finding.severity == "error"]
    assert {finding.code for finding in found} <= {"read-before-write"}
    return [finding.message.split("`")[1] for finding in found]


def reads_plainly(self: Any, components: Any, block_state: Any) -> Any:
    block_state.y = block_state.noise + block_state.x
    return components, block_state


def reads_to_add(self: Any, components: Any, block_state: Any) -> Any:
    block_state.noise += 1
    return components, block_state


def reads_in_a_call(self: Any, components: Any, state: Any) -> Any:
    print(max(state.noise, 1))
    return components, state


def reads_in_a_with(self: Any, components: Any, block_state: Any) -> Any:
    with nullcontext(block_state.noise):
        block_state.y = 1
    return components, block_state


def reads_before_it_writes(self: Any, components: Any, block_state: Any) -> Any:
    block_state.y = block_state.noise
    block_state.noise = 1
    return components, block_state


@pytest.mark.parametrize(
    "body", [reads_plainly, reads_to_add, reads_in_a_call, reads_in_a_with, reads_before_it_writes]
)
def test_a_value_that_is_certainly_read_and_never_written_is_found(body: Callable[..., None]) -> None:
    assert undeclared(body) == ["block_state.noise"]


def writes_first(self: Any, components: Any, block_state: Any) -> Any:
    block_state.noise = 1
    block_state.y = block_state.noise
    return components, block_state


def writes_in_a_branch(self: Any, components: Any, block_state: Any) -> Any:
    if block_state.x:
        block_state.noise = 1
    block_state.y = block_state.noise
    return components, block_state


def reads_in_a_branch(self: Any, components: Any, block_state: Any) -> Any:
    if block_state.x:
        block_state.y = block_state.noise
    return components, block_state


def reads_in_an_expression_that_may_stop(self: Any, components: Any, block_state: Any) -> Any:
    block_state.y = block_state.x and block_state.noise
    block_state.y = block_state.noise if block_state.x else 0
    block_state.y = [block_state.noise for _ in ()]
    return components, block_state


def reads_after_it_may_have_returned(self: Any, components: Any, block_state: Any) -> Any:
    if block_state.x:
        return components, block_state
    block_state.y = block_state.noise
    return components, block_state


def asks_whether_it_is_there(self: Any, components: Any, block_state: Any) -> Any:
    block_state.y = (getattr(block_state, "noise", None), block_state["noise"], block_state.get("noise"))
    return components, block_state


def hands_its_state_to_others(self: Any, components: Any, block_state: Any) -> Any:
    vars(block_state).update(noise=1)
    block_state.y = block_state.noise
    return components, block_state


def takes_a_view_of_its_own(self: Any, components: Any, state: Any) -> Any:
    block_state = self.get_block_state(state)
    block_state.y = block_state.noise
    self.set_block_state(state, block_state)
    return components, state


@pytest.mark.parametrize(
    "body",
    [
        writes_first,
        writes_in_a_branch,
        reads_in_a_branch,
        reads_in_an_expression_that_may_stop,
        reads_after_it_may_have_returned,
        asks_whether_it_is_there,
        hands_its_state_to_others,
        takes_a_view_of_its_own,
    ],
)
def test_a_read_that_may_be_in_order_is_not_blamed(body: Callable[..., None]) -> None:
    assert undeclared(body) == []


def test_what_the_wrapper_writes_is_there_for_its_blocks() -> None:
    class Writes(LoopSequentialPipelineBlocks):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            block_state.noise = 1
            yield {"i": 1}

    assert undeclared(reads_plainly, Writes) == []


def test_what_the_wrapper_hands_to_others_may_be_anything() -> None:
    class Prepares(LoopSequentialPipelineBlocks):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            components.prepare(block_state)
            yield {"i": 1}

    assert undeclared(reads_plainly, Prepares) == []
