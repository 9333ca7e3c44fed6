"""`doc` and `repr` of blocks: the text of diffusers for the same definitions, and what a reader needs on one screen."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import diffusers.modular_pipelines
import pytest

import loopwright.modular_pipelines
from loopwright import SequentialPipelineBlocks
from tests.blocks.arithmetic import AddOne, DoubleOrAddOne, Repeat


def defined(library: ModuleType) -> dict[str, Any]:
    """Blocks of all kinds, on the classes of a library."""
    InputParam, OutputParam = library.InputParam, library.OutputParam

    class Bare(library.ModularPipelineBlocks):  # type: ignore[misc, name-defined]
        pass

    class Encode(library.ModularPipelineBlocks):  # type: ignore[misc, name-defined]
        @property
        def description(self) -> str:
            return "Encodes a prompt.\n\n  - with an indented line   \nand a last one"

        @property
        def expected_components(self) -> list[Any]:
            return [
                library.ComponentSpec("text_encoder", dict, description="a text encoder"),
                library.ComponentSpec("vae", list, repo="a/repository", subfolder="vae", revision="main"),
                library.ComponentSpec("anything"),
            ]

        @property
        def expected_configs(self) -> list[Any]:
            return [library.ConfigSpec("is_distilled", True, "whether it is"), library.ConfigSpec("other", None)]

        @property
        def inputs(self) -> list[Any]:
            return [
                InputParam.template("prompt"),
                InputParam.template("image", note="of any size"),
                InputParam("strength", float, default=0.3, description="how much. " + "Very long " * 20),
                InputParam("mode", str | None, default="fast"),
                InputParam("anything", Any),
                InputParam(kwargs_type="denoiser_input_fields", description="the group"),
            ]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [OutputParam.template("prompt_embeds"), OutputParam("mask"), OutputParam("count", int, "how many")]

    class EncodeOtherwise(Encode):
        @property
        def inputs(self) -> list[Any]:
            return [InputParam.template("prompt"), InputParam("strength", float, default=0.9)]

    class Denoise(library.LoopSequentialPipelineBlocks):  # type: ignore[misc, name-defined]
        description = "Removes noise."
        block_classes = [Encode]
        block_names = ["encode"]

        @property
        def loop_inputs(self) -> list[Any]:
            return [InputParam.template("num_inference_steps"), InputParam("prompt_embeds", required=True)]

        @property
        def loop_expected_components(self) -> list[Any]:
            return [library.ComponentSpec("scheduler", int, config={"a": 1}, default_creation_method="from_config")]

        @property
        def loop_expected_configs(self) -> list[Any]:
            return [library.ConfigSpec("patch_size", 2)]

    class Choice(library.ConditionalPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [Encode, EncodeOtherwise]
        block_names = ["one", "other"]
        block_trigger_inputs = ["image", "mask"]
        default_block_name = "one"

        @property
        def description(self) -> str:
            return "One or the other."

    class Auto(library.AutoPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [Choice, EncodeOtherwise]
        block_names = ["choice", "other"]
        block_trigger_inputs = ["image", None]

    class Whole(library.SequentialPipelineBlocks):  # type: ignore[misc, name-defined]
        block_classes = [Auto, Denoise]
        block_names = ["encode", "denoise"]

    class WithWorkflows(Whole):
        _workflow_map = {"text": {"prompt": True}, "edit": ({"image": True}, {"mask": True, "prompt": True}), "any": {}}

        @property
        def description(self) -> str:
            return "All of it."

    kinds = [Bare, Encode, Denoise, Choice, Auto, Whole, WithWorkflows]
    return {kind.__name__: kind() for kind in kinds}


OURS, THEIRS = defined(loopwright.modular_pipelines), defined(diffusers.modular_pipelines)


# a loop of diffusers documents the outputs of its last block only, which is the same for a loop of one block
@pytest.mark.parametrize("kind", OURS)
def test_the_documentation_is_the_text_of_diffusers(kind: str) -> None:
    assert OURS[kind].doc == THEIRS[kind].doc


def test_the_documentation_of_a_pipeline_is_that_of_its_blocks() -> None:
    blocks = OURS["Choice"]
    assert blocks.init_pipeline().doc == blocks.doc


def test_the_documentation_has_class_description_components_configurations_inputs_and_outputs() -> None:
    assert OURS["Denoise"].doc.splitlines()[:12] == [
        "class Denoise",
        "",
        "  Removes noise.",
        "",
        "  Components:",
        "      text_encoder (`dict`): a text encoder",
        "      vae (`list`) [pretrained_model_name_or_path=a/repository, subfolder=vae, revision=main]",
        "      anything (`None`)",
        "      scheduler (`int`)",
        "",
        "  Configs:",
        "      is_distilled (default: True): whether it is",
    ]


@pytest.mark.parametrize("kind", OURS)
def test_the_repr_names_class_base_and_what_the_repr_of_diffusers_lists(kind: str) -> None:
    text = repr(OURS[kind])
    base = "Whole" if kind == "WithWorkflows" else next(cls.__name__ for cls in type(OURS[kind]).__mro__[1:])
    assert text.startswith(f"{kind}(\n  Class: {base}\n")
    for name, block in THEIRS[kind].sub_blocks.items():
        assert any(name in line and f"({type(block).__name__})" in line for line in text.splitlines())
    for name in THEIRS[kind].component_names:
        assert f"      {name} (`" in text


def test_the_repr_of_a_leaf_lists_what_it_reads_and_writes() -> None:
    assert repr(AddOne()) == (
        "AddOne(\n  Class: ModularPipelineBlocks\n\n  Description: \n\n"
        "  Inputs:\n      x (`int`):\n          TODO: Add description.\n\n"
        "  Outputs:\n      x (`int`):\n          TODO: Add description.\n)"
    )


def test_the_repr_of_a_composite_lists_its_blocks_the_default_and_the_triggers() -> None:
    choice = repr(DoubleOrAddOne())
    assert "[0] double (Double)" in choice
    assert "[1] add_one [default] (AddOne)" in choice
    whole = SequentialPipelineBlocks.from_blocks_dict({"loop": Repeat.from_blocks_dict({"choice": DoubleOrAddOne})})
    assert "Chosen at run time by the inputs: twice" in repr(whole)


def test_the_repr_of_a_composite_with_workflows_lists_them() -> None:
    assert "    - `edit`: requires `image` or `mask`, `prompt`\n" in repr(OURS["WithWorkflows"])
    assert "    - `any`: default (no additional inputs required)\n" in repr(OURS["WithWorkflows"])


def test_a_description_of_several_lines_is_indented_in_the_repr() -> None:
    assert "  Description: Encodes a prompt.\n" in repr(OURS["Encode"])
    assert "\n      and a last one\n" in repr(OURS["Encode"])
