"""What the source of a loop says: the variables that it gives, and the values that it and its blocks read and write.

Seen through the inputs of a loop, from which the variables that it always gives are left out, and through `check`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
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


# What writes in a way that is not followed


class Reads(ModularPipelineBlocks):
    """Reads `noise` in the first iteration, which a part of the loop has to write before."""

    intermediate_outputs = [OutputParam("z")]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.z = block_state.noise + 1
        return components, block_state


class SetsByMethod(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        block_state.set("noise", 1)
        yield {"i": 0}


class SetsByAnotherName(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        state = block_state
        state.noise = 1
        yield {"i": 0}


class CallsItOtherwise(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, values: Any) -> Iterator[dict[str, Any]]:
        values.noise = 1
        yield {"i": 0}


class Annotates(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        values: Any = self.get_block_state(state)
        values.noise = 1
        components, values = self.loop_step(components, values, i=0)
        self.set_block_state(state, values)
        return components, state


class NamesWithin(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        (values := self.get_block_state(state)).noise = 1
        components, values = self.loop_step(components, values, i=0)
        self.set_block_state(state, values)
        return components, state


class Shares(LoopSequentialPipelineBlocks):
    """Its blocks find what earlier blocks of the pipeline have written."""

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        state.set("noise", 1)
        components, state = self.loop_step(components, state, i=0)
        return components, state


@pytest.mark.parametrize(
    "loop",
    [SetsByMethod, SetsByAnotherName, CallsItOtherwise, Annotates, NamesWithin, Shares],
    ids=lambda c: c.__name__,
)
def test_a_value_that_the_wrapper_writes_in_any_way_is_not_blamed(loop: Any) -> None:
    assert loop.from_blocks_dict({"reads": Reads}).init_pipeline()(output="z") == 2


def sets_by_method(self: Any, components: Any, block_state: Any, i: int) -> Any:
    block_state.set("noise", 1)
    return components, block_state


def sets_by_another_name(self: Any, components: Any, block_state: Any, i: int) -> Any:
    state = block_state
    state.noise = 1
    return components, block_state


def sets_in_its_dict(self: Any, components: Any, block_state: Any, i: int) -> Any:
    block_state.__dict__["noise"] = 1
    return components, block_state


def sets_in_a_list(self: Any, components: Any, block_state: Any, i: int) -> Any:
    for state in [block_state]:
        state.noise = 1
    return components, block_state


def sets_within(self: Any, components: Any, block_state: Any, i: int) -> Any:
    def put() -> None:
        block_state.noise = 1

    put()
    return components, block_state


def sets_by_with(self: Any, components: Any, block_state: Any, i: int) -> Any:
    with nullcontext(1) as block_state.noise:
        block_state.more = block_state.noise
    return components, block_state


@pytest.mark.parametrize(
    "body",
    [sets_by_method, sets_by_another_name, sets_in_its_dict, sets_in_a_list, sets_within, sets_by_with],
    ids=lambda body: body.__name__,
)
def test_a_value_that_an_earlier_block_writes_in_any_way_is_not_blamed(body: Any) -> None:
    class Writes(ModularPipelineBlocks):
        __call__ = body

    assert YieldsDict.from_blocks_dict({"writes": Writes, "reads": Reads}).init_pipeline()(output="z") == 2


class StepsOfAnother(LoopSequentialPipelineBlocks):
    """Calls the `loop_step` of a loop that it holds, with other variables than its own."""

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        self.other.loop_step(components, block_state, t=1)  # type: ignore[attr-defined]
        components, block_state = self.loop_step(components, block_state, i=0)
        return components, state


class StepsByAnotherName(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state, step = self.get_block_state(state), self.loop_step
        components, block_state = step(components, block_state, i=0, t=1)
        return components, state


def test_what_is_given_to_the_step_of_another_loop_is_not_what_a_loop_gives() -> None:
    assert always(StepsOfAnother) == {"i"}
    assert refuses(StepsOfAnother)


def test_of_a_step_that_is_called_by_another_name_nothing_is_known() -> None:
    assert always(StepsByAnotherName) == set()
    assert not refuses(StepsByAnotherName)


def test_a_source_that_was_edited_since_it_was_loaded_tells_nothing(tmp_path: Path) -> None:
    text = """
from loopwright import InputParam, LoopSequentialPipelineBlocks, ModularPipelineBlocks, OutputParam
class AddOne(ModularPipelineBlocks):
    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]
    def __call__(self, components, block_state, i):
        block_state.x += 1
        return components, block_state
class Twice(LoopSequentialPipelineBlocks):
    def iterate(self, components, block_state):
        for i in range(2):
            yield {"i": i}
"""
    added = """
class New(ModularPipelineBlocks):
    def __call__(self, components, block_state, i):
        block_state.x = block_state.absent
        return components, block_state
"""
    file = tmp_path / "edited_blocks.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("edited_blocks", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first, rest = text.lstrip().split("\n", 1)
    # where the source of `AddOne` was, that of another block is now
    file.write_text(f"{first}{added}{rest}")
    os.utime(file, (2e9, 2e9))
    assert module.Twice.from_blocks_dict({"add": module.AddOne}).init_pipeline()(output="x") == 2


# Values that are lost


class PutsBackTheOld(LoopSequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for i in range(3):
            components, state = self.loop_step(components, state, i=i)
        self.set_block_state(state, block_state)
        return components, state


class Doubles(ModularPipelineBlocks):
    inputs = [InputParam("x", required=True)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.x = block_state.x * 2
        return components, block_state


class PutsBackANewOne(PutsBackTheOld):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        components, state = self.loop_step(components, state, i=0)
        block_state.x = state.x + 1
        self.set_block_state(state, block_state)
        return components, state


def test_a_wrapper_that_writes_old_values_over_those_of_its_blocks_is_told_so() -> None:
    (error,) = [f for f in check(PutsBackTheOld.from_blocks_dict({"double": Doubles})) if f.severity == "error"]
    assert (error.code, error.message) == (
        "undone-value",
        "`PutsBackTheOld` gives `state` to `loop_step`, and then writes `block_state` over it, which still has `x` "
        "from before the loop",
    )
    assert error.suggestion == "write `components, block_state = self.loop_step(components, block_state, ...)`"


def test_a_wrapper_that_sets_the_value_itself_is_not_blamed() -> None:
    assert PutsBackANewOne.from_blocks_dict({"double": Doubles}).init_pipeline()(x=2, output="x") == 5
