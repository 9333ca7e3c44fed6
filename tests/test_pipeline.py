"""A pipeline is called with inputs, refuses what it does not know, and says where an exception was raised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from loopwright import (
    ComponentSpec,
    ConfigSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
    SequentialPipelineBlocks,
)
from loopwright.errors import MissingInputError, UnknownComponentError, UnknownInputError, UnknownValueError


class Scale(ModularPipelineBlocks):
    expected_components = [
        ComponentSpec("model", torch.nn.Linear),
        ComponentSpec("scheduler", EulerDiscreteScheduler, default_creation_method="from_config"),
    ]
    expected_configs = [ConfigSpec("factor", 2)]
    inputs = [InputParam("image", required=True), InputParam("seen", default=())]
    intermediate_outputs = [OutputParam("image")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.image = block_state.image * components.factor
        self.set_block_state(state, block_state)
        return components, state


class Fail(ModularPipelineBlocks):
    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        if i == 1:
            raise RuntimeError("boom")
        return components, block_state


class Twice(LoopSequentialPipelineBlocks):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(2):
            yield {"i": i}


@pytest.fixture
def pipe() -> ModularPipeline:
    made: ModularPipeline = SequentialPipelineBlocks.from_blocks_dict({"scale": Scale}).init_pipeline()
    return made


def test_a_call_returns_the_state_a_value_or_a_dict_of_values(pipe: ModularPipeline) -> None:
    assert pipe(image=3).image == 6
    assert pipe(image=3, output="image") == 6
    assert pipe(image=3, output=["image", "seen"]) == {"image": 6, "seen": ()}


def test_an_unknown_input_names_the_nearest(pipe: ModularPipeline) -> None:
    with pytest.raises(UnknownInputError) as caught:
        pipe(imgae=3)
    assert str(caught.value) == "unknown input `imgae`, did you mean `image`?; this pipeline takes `image`, `seen`"


def test_a_missing_input_names_the_block_that_needs_it(pipe: ModularPipeline) -> None:
    with pytest.raises(MissingInputError) as caught:
        pipe()
    assert str(caught.value) == "missing the required input `image`, which block `scale` needs; no value was given"


def test_an_input_that_one_block_requires_may_be_set_by_an_earlier_one_that_does_not() -> None:
    class SetImage(ModularPipelineBlocks):
        inputs = [InputParam("image")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            if block_state.image is None:
                block_state.image = 7
            self.set_block_state(state, block_state)
            return components, state

    pipe = SequentialPipelineBlocks.from_blocks_dict({"set": SetImage, "scale": Scale}).init_pipeline()
    assert (pipe(output="image"), pipe(image=None, output="image"), pipe(image=1, output="image")) == (14, 14, 2)


def test_an_unknown_output_is_refused_before_the_blocks_run(pipe: ModularPipeline) -> None:
    with pytest.raises(UnknownValueError, match="did you mean `image`"):
        pipe(image=3, output="imgae")


def test_the_returned_state_is_strict_and_a_default_lifts_that(pipe: ModularPipeline) -> None:
    state = pipe(image=3)
    with pytest.raises(UnknownValueError, match="did you mean `image`"):
        state.get("imgae")
    assert state.get("imgae", None) is None


def test_a_state_that_is_passed_in_is_not_changed(pipe: ModularPipeline) -> None:
    tensor, generator = torch.ones(2), torch.Generator().manual_seed(1)
    state = PipelineState({"image": tensor, "noise": generator})
    assert pipe(state=state, output="image").tolist() == [2, 2]
    assert state.values == {"image": tensor, "noise": generator}
    assert tensor.tolist() == [1, 1]


def test_components_and_configuration_are_attributes_and_can_be_replaced(pipe: ModularPipeline) -> None:
    assert isinstance(pipe.scheduler, EulerDiscreteScheduler)
    assert pipe.null_component_names == ["model"]
    model = torch.nn.Linear(1, 1)
    spec = ComponentSpec("scheduler", DDIMScheduler, config={}, default_creation_method="from_config")
    pipe.update_components(model=model, scheduler=spec, factor=5)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    assert pipe.model is model
    assert (pipe.factor, pipe.config["factor"], pipe(image=1, output="image")) == (5, 5, 5)
    assert (pipe.device, pipe.dtype) == (torch.device("cpu"), torch.float32)
    assert pipe.to(torch.float64).model.weight.dtype == torch.float64


def test_an_unknown_component_is_refused(pipe: ModularPipeline) -> None:
    with pytest.raises(UnknownComponentError, match="did you mean `scheduler`"):
        pipe.update_components(sheduler=None)


def test_blocks_is_a_copy(pipe: ModularPipeline) -> None:
    pipe.blocks.sub_blocks.clear()
    assert pipe(image=1, output="image") == 2


def test_an_exception_in_a_block_is_the_original_with_a_note_of_the_place() -> None:
    loop = Twice.from_blocks_dict({"fail": Fail})
    failing = SequentialPipelineBlocks.from_blocks_dict({"denoise": loop}).init_pipeline()
    with pytest.raises(RuntimeError, match="boom") as caught:
        failing()
    assert caught.value.__notes__ == ["in block `denoise.fail`, iteration 1 of loop `denoise` (i=1)"]
    location: Any = caught.value.loopwright  # type: ignore[attr-defined]
    assert (location.path, location.iterations) == ("denoise.fail", [("denoise", 1, {"i": 1})])
