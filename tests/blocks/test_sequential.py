"""`SequentialPipelineBlocks`: blocks one after the other, the groups of values that they hand on, and workflows."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import diffusers.modular_pipelines
import pytest

import loopwright.modular_pipelines
from loopwright import InputParam, ModularPipeline, ModularPipelineBlocks, OutputParam, SequentialPipelineBlocks
from loopwright.errors import OutputNotSetError, UnknownNameError
from tests.blocks.arithmetic import Add, AddOne, Copy, DoubleIfAsked, DoubleOrAddOne, Repeat, Silent

sequence = SequentialPipelineBlocks.from_blocks_dict


# Inputs and outputs


def test_what_an_earlier_block_writes_is_no_input() -> None:
    blocks = sequence({"first": Copy("x", "y"), "second": Copy("y", "z")})
    assert (blocks.input_names, blocks.output_names) == (["x"], ["y", "z"])


def test_what_a_block_writes_that_may_be_skipped_is_an_input_of_a_later_one() -> None:
    class Maybe(DoubleIfAsked):
        block_classes = [Copy("x", "y")]

    assert sequence({"maybe": Maybe, "reads": Copy("y", "z")}).input_names == ["x", "y"]


def test_an_input_is_as_its_first_reader_declares_it() -> None:
    (param,) = sequence({"first": Copy("x", "y", default=1), "second": Copy("x", "z", default=2)}).inputs
    assert param.default == 1


def test_only_what_comes_from_outside_is_required() -> None:
    blocks = sequence({"copy": Copy("a", "x"), "needs": AddOne})
    assert (blocks.input_names, blocks.required_inputs) == (["a"], [])


def test_an_output_that_a_leaf_does_not_set_is_named_with_its_path() -> None:
    tree = sequence({"outer": sequence({"copy": Copy("a", "x"), "silent": Silent})})
    with pytest.raises(OutputNotSetError, match="`Silent` declares the output `y`") as caught:
        tree.init_pipeline()()
    assert caught.value.__notes__ == ["in block `outer.silent`"]


# Groups of values


class Embed(ModularPipelineBlocks):
    """Writes a value of the group `fields`, and one of the group `control`."""

    inputs = [InputParam("prompt")]
    intermediate_outputs = [OutputParam("embeds", kwargs_type="fields"), OutputParam("scale", kwargs_type="control")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.embeds, block_state.scale = f"embedded {block_state.prompt}", 1
        self.set_block_state(state, block_state)
        return components, state


class Collect(ModularPipelineBlocks):
    """Adds what it gets of its groups to `seen`."""

    intermediate_outputs = [OutputParam("seen")]

    def __init__(self, *groups: str) -> None:
        super().__init__()
        self.groups = groups

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("seen", default=()), *(InputParam(kwargs_type=group) for group in self.groups)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.seen = (*block_state.seen, *(dict(block_state[group]) for group in self.groups))
        self.set_block_state(state, block_state)
        return components, state


FIELDS, CONTROL = {"embeds": "embedded p"}, {"scale": 1}


def test_a_block_gets_what_earlier_blocks_wrote_of_its_group() -> None:
    pipe = sequence({"embed": Embed, "collect": Collect("fields")}).init_pipeline()
    assert pipe(prompt="p", output="seen") == (FIELDS,)


def test_several_groups_are_kept_apart() -> None:
    pipe = sequence({"embed": Embed, "collect": Collect("control", "fields")}).init_pipeline()
    assert pipe(prompt="p", output="seen") == (CONTROL, FIELDS)


def test_a_group_goes_through_nested_sequences() -> None:
    collect = sequence({"inner": sequence({"collect": Collect("fields", "control")})})
    pipe = sequence({"first": sequence({"embed": Embed}), "second": collect}).init_pipeline()
    assert pipe(prompt="p", output="seen") == (FIELDS, CONTROL)


def test_a_group_goes_into_a_loop_and_into_a_loop_in_it() -> None:
    inner = Repeat.from_blocks_dict({"collect": Collect("fields", "control")})
    outer = Repeat.from_blocks_dict({"inner": inner, "collect": Collect("control")})
    pipe = sequence({"embed": Embed, "outer": outer}).init_pipeline()
    assert pipe(prompt="p", steps=2, output="seen") == (FIELDS, CONTROL, FIELDS, CONTROL, CONTROL) * 2


def test_what_a_block_of_a_loop_writes_of_a_group_is_in_it_for_later_blocks_in_and_after_the_loop() -> None:
    loop = Repeat.from_blocks_dict({"before": Collect("fields"), "embed": Embed, "after": Collect("fields")})
    pipe = sequence({"loop": loop, "collect": Collect("control")}).init_pipeline()
    assert pipe(prompt="p", steps=2, output="seen") == ({}, FIELDS, FIELDS, FIELDS, CONTROL)


def test_a_group_is_given_in_a_call_by_its_name() -> None:
    pipe = sequence({"collect": Collect("fields", "control")}).init_pipeline()
    assert pipe(fields={"embeds": 1, "mask": None}, output="seen") == ({"embeds": 1}, {})


def test_a_named_input_of_a_group_is_given_by_its_own_name() -> None:
    class Reads(Copy):
        @property
        def inputs(self) -> list[InputParam]:
            return [InputParam("embeds", kwargs_type="fields")]

    pipe = sequence({"reads": Reads("embeds", "y"), "collect": Collect("fields")}).init_pipeline()
    assert pipe(embeds=1, output=["y", "seen"]) == {"y": 1, "seen": ({"embeds": 1},)}


# Workflows


def painting(library: ModuleType) -> Any:
    """Blocks with workflows, on the classes of a library."""

    class Step(library.ModularPipelineBlocks):  # type: ignore[misc, name-defined]
        description = "a step"
        reads, writes = ("x",), ("x",)

        @property
        def inputs(self) -> list[Any]:
            return [library.InputParam(name) for name in self.reads]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [library.OutputParam(name) for name in self.writes]

    def step(name: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> Any:
        return type(name, (Step,), {"reads": reads, "writes": writes})

    class Loop(library.LoopSequentialPipelineBlocks):  # type: ignore[misc, name-defined]
        description = "a loop"
        block_classes = [step("Denoise", ("latents",), ("latents",))]
        block_names = ["denoise"]

    class Encode(library.AutoPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [
            step("EncodeMask", ("mask", "image"), ("mask_latents", "image_latents")),
            step("Encode", ("image",), ("image_latents",)),
        ]
        block_names = ["mask", "image"]
        block_trigger_inputs = ["mask", "image"]

    class FromImage(library.SequentialPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [step("Strength", ("strength",), ("start",)), Loop]
        block_names = ["strength", "loop"]

    class Core(library.AutoPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [FromImage, Loop]
        block_names = ["from_image", "from_noise"]
        block_trigger_inputs = ["image_latents", None]

    class Control(library.ConditionalPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [step("One", ("pose",), ("control",)), step("Both", ("pose", "depth"), ("control",))]
        block_names = ["one", "both"]
        block_trigger_inputs = ["pose", "depth"]

        def select_block(self, pose: Any = None, depth: Any = None) -> str | None:
            if pose is None and depth is None:
                return None
            return "one" if pose is None or depth is None else "both"

    class Painting(library.SequentialPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [Encode, sequence_of(library, Control), Core]
        block_names = ["encode", "control", "core"]
        _workflow_map = {
            "text2image": {"prompt": True},
            "image2image": ({"image": True}, {"photo": True}),
            "inpainting": {"mask": True, "image": True, "pose": True},
        }

    return Painting()


def sequence_of(library: ModuleType, block: Any) -> Any:
    return library.SequentialPipelineBlocks.from_blocks_dict({"inner": block()})


OURS, THEIRS = painting(loopwright.modular_pipelines), painting(diffusers.modular_pipelines)


def shape(blocks: Any) -> list[tuple[str, str, list[str]]]:
    return [(name, type(block).__name__, block.input_names) for name, block in blocks.sub_blocks.items()]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"image": 1},
        {"image": None, "mask": None},
        {"mask": 1, "pose": 1},
        {"pose": 1, "depth": 1},
        {"image_latents": 1},
        {"image": 0, "strength": 0.5},
    ],
    ids=lambda given: "+".join(given) or "nothing",
)
def test_the_blocks_that_would_run_are_those_of_diffusers(given: dict[str, Any]) -> None:
    assert shape(OURS.get_execution_blocks(**given)) == shape(THEIRS.get_execution_blocks(**given))


def test_the_blocks_that_would_run_are_flat_without_those_that_are_skipped_and_loops_stay_whole() -> None:
    assert shape(OURS.get_execution_blocks(image=1)) == [
        ("encode", "Encode", ["image"]),
        ("core.strength", "Strength", ["strength"]),
        ("core.loop", "Loop", ["latents"]),
    ]


def test_the_workflows_are_those_of_diffusers() -> None:
    assert OURS.available_workflows == THEIRS.available_workflows == ["text2image", "image2image", "inpainting"]
    for name in OURS.available_workflows:
        assert shape(OURS.get_workflow(name)) == shape(THEIRS.get_workflow(name))


def test_an_unknown_workflow_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no workflow `text2img`, did you mean `text2image`"):
        OURS.get_workflow("text2img")
    with pytest.raises(ValueError, match="not found"):
        THEIRS.get_workflow("text2img")


def test_a_sequence_without_a_map_has_no_workflows() -> None:
    for library in (loopwright.modular_pipelines, diffusers.modular_pipelines):
        blocks = library.SequentialPipelineBlocks()
        with pytest.raises(NotImplementedError):
            blocks.available_workflows  # noqa: B018
        with pytest.raises(NotImplementedError):
            blocks.get_workflow("text2image")


def test_the_blocks_of_a_workflow_are_shared_with_the_whole() -> None:
    assert OURS.get_workflow("image2image").sub_blocks["encode"] is OURS.sub_blocks["encode"].sub_blocks["image"]


class Workflows(SequentialPipelineBlocks):
    block_classes = [DoubleOrAddOne, DoubleIfAsked, Add(10)]
    block_names = ["first", "second", "third"]
    _workflow_map = {"plain": {"x": True}, "twice": {"x": True, "twice": True}}


@pytest.mark.parametrize(("workflow", "x"), [("plain", 14), ("twice", 22)])
def test_a_pipeline_of_a_workflow_runs_its_blocks_whatever_is_given(workflow: str, x: int) -> None:
    pipe = ModularPipeline(blocks=Workflows(), workflow=workflow)
    assert pipe(x=3, output="x") == x
    assert pipe.blocks.input_names == ["x"]
