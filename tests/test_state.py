"""`PipelineState` and `BlockState`: the values of a request, and one block's view of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from loopwright import BlockState, InputParam, ModularPipelineBlocks, PipelineState, SequentialPipelineBlocks
from loopwright.errors import InvalidInputError, UnknownValueError
from tests.blocks.arithmetic import AddOne


@pytest.fixture
def state() -> PipelineState:
    state = PipelineState()
    state.set("steps", 3)
    state.set("embeds", "e", kwargs_type="fields")
    state.set("mask", "m", kwargs_type="fields")
    return state


@pytest.fixture
def returned() -> PipelineState:
    """A state as a pipeline returns it to its caller."""
    result: PipelineState = AddOne().init_pipeline()(x=1)
    return result


class TestPipelineState:
    def test_get_returns_the_value_of_a_name(self, state: PipelineState) -> None:
        assert state.get("steps") == 3

    def test_get_of_several_names_returns_a_dict(self, state: PipelineState) -> None:
        assert state.get(["steps", "mask"]) == {"steps": 3, "mask": "m"}
        assert state.get(("steps",)) == {"steps": 3}

    def test_get_of_an_absent_name_is_none_for_a_block(self, state: PipelineState) -> None:
        assert state.get("absent") is None
        assert state.get("absent", 7) == 7
        assert state.get(["absent"]) == {"absent": None}

    def test_values_are_attributes(self, state: PipelineState) -> None:
        assert state.steps == 3
        assert not hasattr(state, "absent")

    def test_values_are_items(self, state: PipelineState) -> None:
        assert state["steps"] == 3
        assert state["absent"] is None
        assert "steps" in state
        assert "absent" not in state

    def test_is_not_iterable(self, state: PipelineState) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            iter(state)

    def test_a_group_keeps_the_order_in_which_its_names_were_first_written(self, state: PipelineState) -> None:
        state.set("embeds", "again", kwargs_type="fields")
        assert list(state.get_by_kwargs("fields").items()) == [("embeds", "again"), ("mask", "m")]
        assert state.get_by_kwargs("other") == {}

    def test_to_dict_holds_the_values_and_the_groups(self, state: PipelineState) -> None:
        assert state.to_dict() == {
            "values": {"steps": 3, "embeds": "e", "mask": "m"},
            "kwargs_mapping": {"fields": ["embeds", "mask"]},
        }

    def test_can_be_copied_and_pickled(self, state: PipelineState) -> None:
        for copied in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
            assert copied == state
            assert copied is not state

    def test_the_repr_shows_tensors_by_shape(self, state: PipelineState) -> None:
        state.set("latents", torch.zeros(2, 3))
        state.set("steps", [torch.zeros(1)])
        assert repr(state) == (
            "PipelineState(\n  values={\n"
            "    steps: list[1] of tensors with shapes [(1,)]\n"
            "    embeds: 'e'\n    mask: 'm'\n"
            "    latents: Tensor(dtype=torch.float32, shape=(2, 3))\n"
            "  },\n  kwargs_mapping={\n    fields: ['embeds', 'mask']\n  }\n)"
        )


class TestReturnedState:
    def test_an_absent_name_is_an_error_that_names_the_nearest(self, returned: PipelineState) -> None:
        returned.set("image", 1)
        with pytest.raises(UnknownValueError) as raised:
            returned.get("imgae")
        assert str(raised.value) == (
            "the pipeline state has no value `imgae`, did you mean `image`?; it holds `image`, `x`"
        )
        assert isinstance(raised.value, KeyError)
        assert isinstance(raised.value, AttributeError)

    def test_an_explicit_default_is_returned_also_none(self, returned: PipelineState) -> None:
        assert returned.get("absent", None) is None
        assert returned.get("absent", 7) == 7
        assert returned.get(["x", "absent"], 0) == {"x": 2, "absent": 0}

    def test_one_absent_name_among_several_is_an_error_too(self, returned: PipelineState) -> None:
        with pytest.raises(UnknownValueError, match="has no value `absent`"):
            returned.get(["x", "absent"])

    def test_a_value_of_none_is_a_value(self, returned: PipelineState) -> None:
        returned.set("nothing", None)
        assert returned.get("nothing") is None


class TestFork:
    def test_containers_and_tensors_are_copied(self) -> None:
        original = {"tensor": torch.zeros(2), "list": [[1], {"k": torch.ones(1)}], "tuple": ([1],), "set": {1}}
        forked = PipelineState(original).fork()
        forked.values["tensor"] += 1
        forked.values["list"][0].append(2)
        forked.values["list"][1]["k"] += 1
        forked.values["tuple"][0].append(2)
        forked.values["set"].add(2)
        assert original["tensor"].tolist() == [0, 0]  # type: ignore[attr-defined]
        assert original["list"] == [[1], {"k": torch.ones(1)}]
        assert original["tuple"] == ([1],)
        assert original["set"] == {1}

    def test_a_module_is_shared(self) -> None:
        module = torch.nn.Linear(1, 1)
        assert PipelineState({"model": module}).fork().values["model"] is module

    def test_a_generator_is_copied_with_its_position(self) -> None:
        generator = torch.Generator().manual_seed(0)
        torch.rand(3, generator=generator)
        forked = PipelineState({"generator": generator}).fork().values["generator"]
        assert forked is not generator
        ahead = torch.rand(1, generator=forked)
        assert torch.equal(ahead, torch.rand(1, generator=generator))

    def test_names_that_share_a_value_share_its_copy(self) -> None:
        tensor, shared = torch.zeros(1), [1]
        forked = PipelineState({"a": tensor, "b": [tensor], "c": shared, "d": shared}).fork().values
        assert forked["a"] is forked["b"][0]
        assert forked["a"] is not tensor
        assert forked["c"] is forked["d"]

    def test_a_list_that_holds_itself_is_copied(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        forked = PipelineState({"loop": loop}).fork().values["loop"]
        assert forked is not loop
        assert forked[0] is forked

    def test_a_value_that_cannot_be_copied_is_named(self) -> None:
        with pytest.raises(InvalidInputError, match=r"the value `stream` \(generator\) cannot be copied"):
            PipelineState({"stream": (n for n in ())}).fork()

    def test_the_groups_are_copied(self, state: PipelineState) -> None:
        forked = state.fork()
        forked.set("more", 1, kwargs_type="fields")
        assert list(state.get_by_kwargs("fields")) == ["embeds", "mask"]


class TestBlockState:
    def test_values_are_attributes_and_items(self) -> None:
        block_state = BlockState(x=1)
        block_state.y = 2
        block_state["z"] = 3
        assert (block_state["x"], block_state["y"], block_state.z) == (1, 2, 3)
        assert block_state.as_dict() == {"x": 1, "y": 2, "z": 3}

    def test_an_absent_item_is_none(self) -> None:
        assert BlockState()["absent"] is None

    def test_says_what_it_holds_and_is_not_iterable(self) -> None:
        assert "x" in BlockState(x=None)
        assert "y" not in BlockState(x=None)
        with pytest.raises(TypeError, match="not iterable"):
            iter(BlockState(x=1))

    def test_an_absent_attribute_is_an_error_that_names_the_nearest_when_it_leaves_the_block(self) -> None:
        class Misspells(ModularPipelineBlocks):
            inputs = [InputParam("latents")]

            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                self.get_block_state(state).latent  # noqa: B018
                return components, state

        with pytest.raises(UnknownValueError) as raised:
            SequentialPipelineBlocks.from_blocks_dict({"misspells": Misspells})(None, PipelineState({"latents": 1}))
        assert str(raised.value) == (
            "the block state has no value `latent`, did you mean `latents`?; it holds `latents`"
        )

    def test_hasattr_and_getattr_with_a_default_work(self) -> None:
        assert not hasattr(BlockState(), "x")
        assert getattr(BlockState(), "x", 7) == 7

    def test_it_answers_what_a_pipeline_state_answers(self) -> None:
        block_state = BlockState(x=1)
        block_state.set("y", 2, kwargs_type="fields")
        assert block_state.get("x") == 1
        assert block_state.get("absent") is None
        assert block_state.get(["x", "absent"], 0) == {"x": 1, "absent": 0}
        assert block_state.get_by_kwargs("fields") == {"y": 2}
        assert block_state.get_by_kwargs("other") == {}

    def test_a_change_of_what_as_dict_returned_does_not_change_it(self) -> None:
        block_state = BlockState(x=1)
        block_state.as_dict()["x"] = 2
        assert block_state.x == 1

    def test_can_be_copied_and_pickled(self) -> None:
        block_state = BlockState(x=[1])
        block_state.set("y", 2, kwargs_type="fields")
        for copied in (copy.deepcopy(block_state), pickle.loads(pickle.dumps(block_state))):
            assert copied.as_dict() == {"x": [1], "y": 2}
            assert copied.get_by_kwargs("fields") == {"y": 2}
            assert copied.x is not block_state.x

    def test_the_repr_shows_tensors_by_shape_also_in_dicts(self) -> None:
        assert repr(BlockState(x=1, fields={"k": torch.zeros(2)})) == (
            "BlockState(\n    x: 1\n    fields: {'k': Tensor(dtype=torch.float32, shape=(2,))}\n)"
        )


def test_an_attribute_that_is_set_is_the_value_of_that_name() -> None:
    state = PipelineState({"x": 1})
    state.x = 2
    assert (state.x, state.get("x"), state.values) == (2, 2, {"x": 2})


def test_a_list_of_tensors_and_others_has_a_repr() -> None:
    state = PipelineState({"x": [torch.zeros(1), None], "y": (torch.zeros(2), 1)})
    assert "x: [Tensor(dtype=torch.float32, shape=(1,)), None]" in repr(state)
    assert "y: (Tensor(dtype=torch.float32, shape=(2,)), 1)" in repr(state)
