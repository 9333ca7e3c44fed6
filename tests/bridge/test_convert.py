"""Blocks and pipelines of diffusers become ours, and neither side changes with the other."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import diffusers
import diffusers.modular_pipelines as theirs
import pytest
import torch

import loopwright
from loopwright.bridge import from_diffusers
from loopwright.errors import BlockTypeError
from tests.blocks.arithmetic import AddOne


class Add(theirs.ModularPipelineBlocks):  # type: ignore[misc]
    """A leaf of diffusers that was made with an argument."""

    def __init__(self, amount: int = 1) -> None:
        self.amount = amount
        super().__init__()

    @property
    def description(self) -> str:
        return f"Adds {self.amount}."

    @property
    def inputs(self) -> list[Any]:
        return [theirs.InputParam("x", required=True)]

    @property
    def intermediate_outputs(self) -> list[Any]:
        return [theirs.OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x = block_state.x + self.amount
        self.set_block_state(state, block_state)
        return components, state


class AddInLoop(Add):
    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.x = block_state.x + self.amount * (i + 1)
        return components, block_state


class Loop(theirs.LoopSequentialPipelineBlocks):  # type: ignore[misc]
    block_classes = [AddInLoop, AddInLoop]
    block_names = ["first", "second"]

    @property
    def loop_inputs(self) -> list[Any]:
        return [theirs.InputParam("count", default=3)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        with self.progress_bar(total=block_state.count) as bar:
            for i in range(block_state.count):
                components, block_state = self.loop_step(components, block_state, i=i)
                bar.update()
        self.set_block_state(state, block_state)
        return components, state


class Both(theirs.SequentialPipelineBlocks):  # type: ignore[misc]
    """Overrides what it inherits, by `super()`."""

    block_classes = [Add, Loop]
    block_names = ["add", "loop"]

    @property
    def inputs(self) -> list[Any]:
        return [*super().inputs, theirs.InputParam("more", default=5)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        state.set("x", state.get("x") + state.get("more"))
        return super().__call__(components, state)


def test_a_tree_gives_what_it_gives_in_diffusers() -> None:
    pipe, peer = from_diffusers(Both).init_pipeline(), Both().init_pipeline()
    peer.blocks.sub_blocks["loop"].set_progress_bar_config(disable=True)
    pipe.set_progress_bar_config(disable=True)
    for inputs in ({"x": 1}, {"x": 2, "count": 4}, {"x": 3, "count": 1, "more": 0}):
        assert pipe(**inputs, output="x") == peer(**inputs, output="x")


def test_a_loop_of_diffusers_streams_and_its_total_is_that_of_its_progress_bar() -> None:
    pipe = from_diffusers(Both()).init_pipeline()
    events = [(event.path, event.index, event.total) for event in pipe.stream(x=1, progress=False)]
    assert events == [("loop", 0, 3), ("loop", 1, 3), ("loop", 2, 3)]


def test_the_result_is_an_instance_of_both_libraries_classes() -> None:
    block = from_diffusers(Both())
    assert isinstance(block, Both)
    assert isinstance(block, loopwright.SequentialPipelineBlocks)
    assert isinstance(block.sub_blocks["loop"], loopwright.LoopSequentialPipelineBlocks)
    assert type(block).__name__ == "Both"
    assert type(block) is type(from_diffusers(Both()))


def test_a_class_is_made_an_instance_and_what_is_ours_stays_as_it_is() -> None:
    assert from_diffusers(Add).amount == 1
    block = from_diffusers(Add(4))
    assert from_diffusers(block) is block


def test_what_a_block_was_made_with_is_kept() -> None:
    block = from_diffusers(Add(4))
    assert block.description == "Adds 4."
    assert block.init_pipeline()(x=1, output="x") == 5


def test_declarations_are_of_our_classes() -> None:
    block = from_diffusers(Both())
    assert all(isinstance(param, loopwright.InputParam) for param in block.inputs)
    assert all(isinstance(param, loopwright.OutputParam) for param in block.sub_blocks["add"].intermediate_outputs)


def test_a_default_lifts_a_requirement_as_in_diffusers() -> None:
    class Defaulted(Add):
        @property
        def inputs(self) -> list[Any]:
            return [theirs.InputParam("x", required=True, default=3)]

    assert Defaulted().init_pipeline()(output="x") == 4
    assert from_diffusers(Defaulted).init_pipeline()(output="x") == 4
    assert from_diffusers(Defaulted).required_inputs == ["x"]


def test_editing_either_side_does_not_change_the_other() -> None:
    original = Both()
    block = from_diffusers(original)
    block.sub_blocks["loop"].sub_blocks.pop("second")
    block.sub_blocks["add"].amount = 7
    original.sub_blocks["new"] = Add()
    assert list(original.sub_blocks["loop"].sub_blocks) == ["first", "second"]
    assert original.sub_blocks["add"].amount == 1
    assert list(block.sub_blocks) == ["add", "loop"]


def test_a_bridged_block_can_be_copied() -> None:
    block = copy.deepcopy(from_diffusers(Both()))
    assert block.init_pipeline()(x=1, output="x", progress=False) == 19


@pytest.mark.parametrize("block", [Add, Add(1)], ids=["class", "instance"])
def test_blocks_of_diffusers_stand_wherever_blocks_do(block: Any) -> None:
    sequence = loopwright.SequentialPipelineBlocks.from_blocks_dict({"ours": from_diffusers(Add), "theirs": block})
    sequence.sub_blocks.insert("inserted", block, 0)
    sequence.sub_blocks["set"] = block
    assert sequence.init_pipeline()(x=0, output="x") == 4
    assert loopwright.ModularPipeline(block)(x=0, output="x") == 1


def test_blocks_of_both_libraries_run_in_one_loop() -> None:
    loop = from_diffusers(Loop)
    loop.sub_blocks["ours"] = AddOne
    assert loop.init_pipeline()(x=0, count=2, output="x", progress=False) == 2 * (1 + 2) + 2


def test_a_leaf_of_diffusers_that_takes_the_pipeline_state_runs_inside_a_loop() -> None:
    loop = from_diffusers(Loop)
    loop.sub_blocks["leaf"] = Add(10)
    assert loop.init_pipeline()(x=0, count=2, output="x", progress=False) == 2 * (1 + 2) + 20


def test_a_description_can_be_replaced() -> None:
    block = from_diffusers(Both)
    block.description = "Another."
    assert block.description == "Another."


def test_blocks_of_a_family_get_the_pipeline_of_the_family() -> None:
    pipe = from_diffusers(diffusers.FluxAutoBlocks).init_pipeline()
    assert isinstance(pipe, diffusers.FluxModularPipeline)
    assert isinstance(pipe, loopwright.ModularPipeline)
    assert pipe.vae_scale_factor == 8
    decode = diffusers.FluxAutoBlocks().sub_blocks["decode"]
    mixed = loopwright.SequentialPipelineBlocks.from_blocks_dict({"decode": decode}).init_pipeline()
    assert isinstance(mixed, diffusers.FluxModularPipeline)


def test_a_pipeline_shares_its_components_and_keeps_its_configuration() -> None:
    original = diffusers.FluxAutoBlocks().init_pipeline()
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    original.update_components(vae=vae)
    pipe = from_diffusers(original)
    assert pipe.vae is vae
    assert pipe.vae_scale_factor == original.vae_scale_factor == 1
    assert pipe.null_component_names == original.null_component_names
    pipe.update_components(vae=None)
    assert original.vae is vae
    assert from_diffusers(pipe) is pipe


def test_a_classic_pipeline_gets_the_blocks_of_its_family_and_shares_its_components() -> None:
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    classic = diffusers.FluxImg2ImgPipeline(scheduler, vae, None, None, None, None, None)
    pipe = from_diffusers(classic)
    assert isinstance(pipe, diffusers.FluxModularPipeline)
    assert "image2image" in pipe.blocks.available_workflows
    assert pipe.vae is vae
    assert pipe.scheduler is scheduler


@pytest.mark.parametrize(
    ("ratio", "expected"), [(None, diffusers.WanModularPipeline), (0.9, diffusers.Wan22ModularPipeline)]
)
def test_variants_of_a_classic_pipeline_are_told_apart_by_its_configuration(ratio: Any, expected: type) -> None:
    scheduler = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    classic = diffusers.WanPipeline(None, None, None, scheduler, None, None, boundary_ratio=ratio)
    pipe = from_diffusers(classic)
    assert type(pipe).__name__ == expected.__name__
    assert isinstance(pipe, expected)
    assert getattr(pipe, "boundary_ratio", None) == ratio


def test_a_classic_pipeline_whose_family_has_no_blocks_is_refused() -> None:
    classic = diffusers.DDPMPipeline(None, diffusers.DDPMScheduler())
    with pytest.raises(BlockTypeError, match=r"`DDPMPipeline` has no blocks in diffusers .*; the families that have"):
        from_diffusers(classic)


def test_what_is_no_block_is_refused() -> None:
    with pytest.raises(BlockTypeError, match="what `from_diffusers` is given is a Linear, which is not a block"):
        from_diffusers(torch.nn.Linear(1, 1))


def test_a_class_that_needs_arguments_is_named() -> None:
    class Needs(Add):
        def __init__(self, amount: int) -> None:
            super().__init__(amount)

    with pytest.raises(BlockTypeError, match="needs the argument `amount`"):
        from_diffusers(Needs)


def test_a_class_that_does_not_call_the_init_of_its_base_is_converted() -> None:
    class Bare(Add):
        def __init__(self, amount: int = 2) -> None:
            self.amount = amount

    assert from_diffusers(Bare(3)).init_pipeline()(x=1, output="x") == 4


def test_what_stands_among_the_children_of_a_tree_of_diffusers_is_converted() -> None:
    """Loops there take a dict of classes as it is, and nobody looks at what is put into one."""
    assert from_diffusers(Loop.from_blocks_dict({"only": AddInLoop})).init_pipeline()(x=0, output="x") == 6
    tree, ours = Both(), AddOne()
    tree.sub_blocks["ours"] = ours
    tree.sub_blocks["class"] = Add
    block = from_diffusers(tree)
    assert block.sub_blocks["ours"] is not ours
    assert block.init_pipeline()(x=1, output="x", progress=False) == 21
    tree.sub_blocks["none"] = object()
    with pytest.raises(BlockTypeError, match="sub-block `none` is an object, which is not a block"):
        from_diffusers(tree)


class CallsOthers(theirs.SequentialPipelineBlocks):  # type: ignore[misc]
    """Calls its blocks, and a loop that it holds, with a state of its own making."""

    block_classes = [Add, Loop, Both]
    block_names = ["add", "loop", "both"]

    def __init__(self) -> None:
        super().__init__()
        self.held = Loop()

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        inner = theirs.PipelineState()
        for name, value in state.values.items():
            inner.set(name, value)
        for block in (*self.sub_blocks.values(), self.held):
            components, inner = block(components, inner)
        state.set("x", inner.get("x"))
        return components, state


@pytest.mark.parametrize("blocks", [CallsOthers, CallsOthers()], ids=["class", "instance"])
def test_blocks_are_called_with_states_of_diffusers(blocks: Any) -> None:
    expected = CallsOthers().init_pipeline()(x=1, output="x")
    run = from_diffusers(blocks).init_pipeline().stream(x=1, progress=False)
    assert len(list(run)) == 9
    assert run.result().get("x") == expected


def test_a_state_of_diffusers_is_gone_on_from() -> None:
    assert from_diffusers(Add).init_pipeline()(Add().init_pipeline()(x=1), output="x") == 3


def test_a_bridged_block_can_be_pickled() -> None:
    block = from_diffusers(Both())
    block.sub_blocks["add"].amount = 7
    again = pickle.loads(pickle.dumps(block))
    assert type(again) is type(block)
    assert again.init_pipeline()(x=1, output="x", progress=False) == block.init_pipeline()(x=1, output="x")
    assert type(pickle.loads(pickle.dumps(from_diffusers(diffusers.FluxAutoBlocks)))).__name__ == "FluxAutoBlocks"


def test_a_pipeline_keeps_the_places_that_its_components_come_from(tmp_path: Path) -> None:
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    saved = diffusers.FluxAutoBlocks().init_pipeline()
    saved.update_components(vae=vae)
    saved.save_pretrained(str(tmp_path), overwrite_modular_index=True)
    pipe = from_diffusers(diffusers.ModularPipeline.from_pretrained(str(tmp_path)))
    assert pipe.vae is None
    pipe.load_components()
    assert isinstance(pipe.vae, diffusers.AutoencoderKL)


def test_a_classic_pipeline_with_a_controlnet_needs_blocks_that_work_with_one() -> None:
    from loopwright.bridge.pipelines import modular_class_of

    assert modular_class_of(diffusers.StableDiffusionXLControlNetPipeline, {}).__name__.startswith("StableDiffusionXL")
    with pytest.raises(BlockTypeError, match="`FluxControlNetPipeline` has no blocks"):
        modular_class_of(diffusers.FluxControlNetPipeline, {})


def test_a_class_may_convert_blocks_while_a_subclass_is_made_of_it() -> None:
    class Converts(Add):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            from_diffusers(AddInLoop)

    assert from_diffusers(type("Inner", (Converts,), {})).amount == 1
