"""`ModularPipelineBlocks`: what a leaf takes from its state, what it gives back, and what a block is besides."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from loopwright import BlockState, InputParam, ModularPipelineBlocks, OutputParam, PipelineState
from loopwright.errors import MissingInputError, OutputNotSetError
from tests.blocks.arithmetic import Add, AddOne, Copy, Silent


class Reads(ModularPipelineBlocks):
    """Declares what it is given, and does nothing."""

    def __init__(self, *inputs: InputParam) -> None:
        super().__init__()
        self.params = inputs

    @property
    def inputs(self) -> list[InputParam]:
        return list(self.params)

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        return components, state


def view(state: PipelineState, *inputs: InputParam) -> BlockState:
    return Reads(*inputs).get_block_state(state)


# What it takes


def test_a_view_holds_the_declared_inputs_only() -> None:
    assert view(PipelineState({"x": 1, "y": 2}), InputParam("x")).as_dict() == {"x": 1}


def test_a_default_stands_for_a_value_that_is_absent_or_none() -> None:
    state = PipelineState({"x": None})
    assert view(state, InputParam("x", default=3), InputParam("y", default=4)).as_dict() == {"x": 3, "y": 4}


@pytest.mark.parametrize("value", [0, False, "", []])
def test_a_value_that_is_false_is_a_value(value: Any) -> None:
    assert view(PipelineState({"x": value}), InputParam("x", default=3, required=True)).x == value


def test_an_input_without_a_value_and_a_default_is_none() -> None:
    assert view(PipelineState(), InputParam("x")).x is None


def test_a_required_input_without_a_value_is_missing() -> None:
    with pytest.raises(MissingInputError, match="required input `x`"):
        view(PipelineState({"x": None}), InputParam("x", required=True))


def test_of_an_input_that_is_declared_twice_the_last_default_counts_and_a_requirement_holds() -> None:
    assert view(PipelineState(), InputParam("x", default=1), InputParam("x", default=2), InputParam("x")).x == 2
    with pytest.raises(MissingInputError):
        view(PipelineState(), InputParam("x", required=True), InputParam("x", default=2))


def test_a_group_is_taken_as_values_and_as_a_dict_without_those_that_are_none() -> None:
    state = PipelineState()
    for name, value in (("embeds", 1), ("mask", 2), ("nothing", None)):
        state.set(name, value, kwargs_type="fields")
    state.set("other", 3)
    assert view(state, InputParam(kwargs_type="fields")).as_dict() == {
        "embeds": 1,
        "mask": 2,
        "fields": {"embeds": 1, "mask": 2},
    }


def test_a_group_without_values_is_an_empty_dict() -> None:
    assert view(PipelineState(), InputParam(kwargs_type="fields")).fields == {}


# What it gives back


def test_outputs_and_changed_inputs_are_written_and_nothing_else() -> None:
    class Writes(ModularPipelineBlocks):
        inputs = [InputParam("x"), InputParam("same")]
        intermediate_outputs = [OutputParam("y")]

    state = PipelineState({"x": 1, "same": 2})
    block_state = Writes().get_block_state(state)
    block_state.x, block_state.y, block_state.note = 3, 4, "for itself"
    Writes().set_block_state(state, block_state)
    assert state.values == {"x": 3, "same": 2, "y": 4}


def test_an_output_joins_the_group_that_its_declaration_names() -> None:
    class Writes(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("embeds", kwargs_type="fields")]

    state = PipelineState()
    Writes().set_block_state(state, BlockState(embeds=1))
    assert state.get_by_kwargs("fields") == {"embeds": 1}


def test_a_changed_value_of_a_group_is_written() -> None:
    state = PipelineState()
    state.set("embeds", 1, kwargs_type="fields")
    block = Reads(InputParam(kwargs_type="fields"))
    block_state = block.get_block_state(state)
    block_state.embeds = 2
    block.set_block_state(state, block_state)
    assert state.get_by_kwargs("fields") == {"embeds": 2}


def test_an_output_that_is_none_is_set() -> None:
    assert Copy("x", "y").init_pipeline()(output="y") is None


def test_a_leaf_that_does_not_set_its_output_is_refused() -> None:
    with pytest.raises(OutputNotSetError, match="`Silent` declares the output `y`"):
        Silent().init_pipeline()()


def test_a_leaf_that_writes_no_block_state_back_is_refused_too() -> None:
    class Forgets(Silent):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            return components, state

    with pytest.raises(OutputNotSetError, match="`Forgets` declares the output `y`"):
        Forgets().init_pipeline()()


def test_a_leaf_gets_and_sets_a_block_state_as_it_does_a_pipeline_state() -> None:
    shared = BlockState(x=1)
    AddOne()(None, shared)
    assert shared.as_dict() == {"x": 2}


# What it is besides


def test_declarations_are_class_attributes_or_properties() -> None:
    class AsProperties(AddOne):
        @property
        def inputs(self) -> list[InputParam]:  # type: ignore[override]
            return [InputParam("x", int, required=True)]

        @property
        def intermediate_outputs(self) -> list[OutputParam]:  # type: ignore[override]
            return [OutputParam("x", int)]

    for block in (AddOne(), AsProperties()):
        assert (block.input_names, block.required_inputs, block.output_names) == (["x"], ["x"], ["x"])
        assert block.init_pipeline()(x=1, output="x") == 2


def test_a_description_is_that_of_the_class_until_an_instance_has_its_own() -> None:
    class Described(AddOne):
        @property
        def description(self) -> str:  # type: ignore[override]
            return "one more"

    block = Described()
    assert block.description == "one more"
    block.description = "another"
    assert (block.description, Described().description) == ("another", "one more")


def test_a_block_need_not_call_the_init_of_its_base() -> None:
    class OwnInit(AddOne):
        def __init__(self) -> None:
            self.amount = 1

    assert OwnInit().init_pipeline()(x=1, output="x") == 2


def test_a_declaration_follows_the_attributes_that_it_is_computed_from() -> None:
    block = Copy("x", "y")
    assert block.get_block_state(PipelineState({"x": 1, "z": 2})).as_dict() == {"x": 1}
    block.source = "z"
    assert block.get_block_state(PipelineState({"x": 1, "z": 2})).as_dict() == {"z": 2}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_a_copied_or_pickled_block_works_and_is_independent(copied: Any) -> None:
    block = Add(2)
    assert block.init_pipeline()(x=1, output="x") == 3  # what it remembers is there to be copied
    other = copied(block)
    other.amount = 5
    assert other.init_pipeline()(x=1, output="x") == 6
    assert block.init_pipeline()(x=1, output="x") == 3


def test_a_block_that_chooses_nothing_has_no_execution_blocks_and_no_workflows() -> None:
    for ask in (
        AddOne().get_execution_blocks,
        lambda: AddOne().available_workflows,
        lambda: AddOne().get_workflow("a"),
    ):
        with pytest.raises(NotImplementedError, match="`AddOne`"):
            ask()
