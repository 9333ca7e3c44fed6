"""Trees of diffusers' blocks and ours, of two families, and of loops of one library in loops of the other.

Each is streamed, and cancelled and resumed in the middle, with the calls of models that were left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.modular_pipelines import ModularPipelineBlocks as TheirBlocks

from loopwright import (
    Checkpoint,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
    check,
)
from loopwright.bridge import from_diffusers
from loopwright.errors import RunCancelledError
from tests.bridge.families import flux
from tests.bridge.families.case import picture
from tests.bridge.families.running import Calls, differing, made, same_bits

STEPS = 3


def text2image() -> Any:
    """The blocks of Flux for text to image, of diffusers: a sequence of leaves and a loop, `denoise.denoise`."""
    return diffusers.FluxAutoBlocks().get_workflow("text2image")


def given(seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        **flux.inputs(),
        "prompt": "red apple",
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(seed),
        **more,
    }


@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    return flux.components()


def pipeline(blocks: Any, components: dict[str, Any]) -> Any:
    assert [str(finding) for finding in check(blocks) if finding.severity == "error"] == []
    pipe = blocks.init_pipeline()
    pipe.update_components(**{name: value for name, value in components.items() if name in pipe._component_specs})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def alone(components: dict[str, Any]) -> Any:
    """What the blocks of diffusers make, run by diffusers."""
    return pipeline(text2image(), components)(**given())


def streams_and_resumes(pipe: Any, folder: Path, iterations: int, **more: Any) -> Any:
    """The state that a call leaves, after a check that a watched, and a resumed, run leave the same."""
    calls = Calls(pipe.components)
    state = pipe(**given(**more))
    expected, calls.names = calls.names, []
    run = pipe.stream(**given(**more))
    assert sum(1 for _ in run) == iterations
    assert differing(run.result(), state) == []
    calls.names = []
    cancelled = pipe.stream(**given(**more), checkpoint=Checkpoint(folder / "run"))
    for number, _ in enumerate(cancelled, 1):
        if number == (iterations + 1) // 2:
            cancelled.cancel()
            break
    with pytest.raises(RunCancelledError):
        cancelled.result()
    done, calls.names = calls.names, []
    resumed = pipe.resume(folder / "run").result()
    assert done
    assert calls.names == expected[len(done) :]
    assert differing(resumed, state) == []
    return state


class Means(ModularPipelineBlocks):
    """A block of ours that looks on, in a loop of diffusers."""

    inputs = [InputParam("latents", required=True), InputParam("means")]
    intermediate_outputs = [OutputParam("means")]

    def __call__(self, components: Any, block_state: Any, t: Any) -> tuple[Any, Any]:
        block_state.means = [*(block_state.means or []), (float(t), float(block_state.latents.mean()))]
        return components, block_state


class Shrink(ModularPipelineBlocks):
    """A leaf of ours that takes part, written for the top of a pipeline and put into a loop."""

    inputs = [InputParam("latents", required=True), InputParam("factor", default=0.9)]
    intermediate_outputs = [OutputParam("latents")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.latents = block_state.latents * block_state.factor
        self.set_block_state(state, block_state)
        return components, state


@pytest.mark.parametrize("position", range(3))
def test_a_loop_of_diffusers_with_a_block_of_ours_that_looks_on(
    position: int, components: dict[str, Any], alone: Any, tmp_path: Path
) -> None:
    blocks = from_diffusers(text2image())
    blocks.sub_blocks["denoise.denoise"].sub_blocks.insert("means", Means, position)
    state = streams_and_resumes(pipeline(blocks, components), tmp_path, STEPS)
    assert same_bits(state, alone)
    assert len(state.get("means")) == STEPS


@pytest.mark.parametrize("position", range(3))
def test_a_loop_of_diffusers_with_a_block_of_ours_that_takes_part(
    position: int, components: dict[str, Any], alone: Any, tmp_path: Path
) -> None:
    blocks = from_diffusers(text2image())
    blocks.sub_blocks["denoise.denoise"].sub_blocks.insert("shrink", Shrink, position)
    pipe = pipeline(blocks, components)
    assert not same_bits(streams_and_resumes(pipe, tmp_path, STEPS), alone)
    assert same_bits(pipe(**given(factor=1.0)), alone)


class OurLoop(LoopSequentialPipelineBlocks):
    """A loop of ours over timesteps that a leaf of diffusers sets."""

    loop_inputs = [InputParam("timesteps", required=True)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i, t in enumerate(block_state.timesteps):
            yield {"i": i, "t": t}


def test_a_loop_of_ours_with_leaves_of_diffusers(components: dict[str, Any], alone: Any, tmp_path: Path) -> None:
    blocks = text2image()
    leaves = dict(blocks.sub_blocks["denoise.denoise"].sub_blocks)
    assert all(isinstance(leaf, TheirBlocks) for leaf in leaves.values())
    blocks = from_diffusers(blocks)
    blocks.sub_blocks["denoise.denoise"] = OurLoop.from_blocks_dict(leaves)
    state = streams_and_resumes(pipeline(blocks, components), tmp_path, STEPS)
    assert same_bits(state, alone)


class Preview(SequentialPipelineBlocks):
    """Unpacks and decodes as the end of the pipeline does, and keeps the picture; the latents go on as they were."""

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        latents = state.get("latents")
        components, state = super().__call__(components, state)
        state.set("latents", latents)
        state.set("previews", [*(state.get("previews") or []), state.get("images")])
        return components, state


def test_a_leaf_of_diffusers_for_the_top_of_a_pipeline_in_a_loop(
    components: dict[str, Any], alone: Any, tmp_path: Path
) -> None:
    theirs = text2image()
    last = {name: theirs.sub_blocks[name] for name in ("denoise.unpack_latents", "decode")}
    blocks = from_diffusers(theirs)
    loop = blocks.sub_blocks["denoise.denoise"]
    loop.sub_blocks["preview"] = Preview.from_blocks_dict(
        {"unpack": last["denoise.unpack_latents"], "decode": last["decode"]}
    )
    loop.sub_blocks["collect"] = Collect
    state = streams_and_resumes(pipeline(blocks, components), tmp_path, STEPS)
    assert same_bits(state, alone)
    assert len(state.get("pictures")) == STEPS
    assert torch.equal(state.get("pictures")[-1], state.get("images"))


class Collect(ModularPipelineBlocks):
    """Collects the pictures that its loop makes."""

    inputs = [InputParam("images", required=True), InputParam("pictures")]
    intermediate_outputs = [OutputParam("pictures")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.pictures = [*(block_state.pictures or []), block_state.images]
        self.set_block_state(state, block_state)
        return components, state


class ImageForEditing(ModularPipelineBlocks):
    """Between two families: the picture that one made is what the other edits, from new noise."""

    inputs = [InputParam("images", required=True)]
    intermediate_outputs = [
        OutputParam(name) for name in ("image", "latents", "timesteps", "sigmas", "height", "width")
    ]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.image = block_state.images
        block_state.latents = block_state.timesteps = block_state.sigmas = None
        block_state.height = block_state.width = 32
        self.set_block_state(state, block_state)
        return components, state


def test_blocks_of_two_families_in_one_pipeline(components: dict[str, Any], tmp_path: Path) -> None:
    def edit() -> Any:
        return diffusers.FluxKontextAutoBlocks().get_workflow("image_conditioned")

    blocks = SequentialPipelineBlocks.from_blocks_dict(
        {"make": text2image(), "hand_over": ImageForEditing, "edit": edit()}
    )
    pipe = pipeline(blocks, components)
    # what is edited has to be a picture
    options = {"max_area": 32 * 32, "_auto_resize": False, "output_type": "pil"}
    state = streams_and_resumes(pipe, tmp_path, 2 * STEPS, **options)
    # one after the other, in diffusers
    generator = torch.Generator().manual_seed(0)
    first = pipeline(text2image(), components)(**given(generator=generator, output_type="pil"))
    second = pipeline(edit(), components)(**given(generator=generator, image=first.get("images"), **options))
    assert same_bits(state, second)


class Variations(LoopSequentialPipelineBlocks):
    """A loop of ours around the whole of a pipeline of diffusers, its loop included."""

    loop_inputs = [InputParam("num_variations", default=2)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, int]]:
        for variation in range(block_state.num_variations):
            yield {"variation": variation}


class Anew(ModularPipelineBlocks):
    """What the variation before left is no input of the next one."""

    intermediate_outputs = [OutputParam("latents"), OutputParam("timesteps")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.latents = block_state.timesteps = None
        self.set_block_state(state, block_state)
        return components, state


def test_a_loop_of_diffusers_in_a_loop_of_ours(components: dict[str, Any], alone: Any, tmp_path: Path) -> None:
    blocks = Variations.from_blocks_dict({"anew": Anew, **text2image().sub_blocks, "collect": Collect})
    pipe = pipeline(SequentialPipelineBlocks.from_blocks_dict({"variations": blocks}), components)
    state = streams_and_resumes(pipe, tmp_path, 2 * (STEPS + 1))
    generator = torch.Generator().manual_seed(0)
    peer = pipeline(text2image(), components)
    expected = [peer(**given(generator=generator)).get("images") for _ in range(2)]
    assert len(state.get("pictures")) == 2
    assert torch.equal(state.get("pictures")[0], made(alone)[0])
    assert all(map(torch.equal, state.get("pictures"), expected))
    assert not torch.equal(*expected)
    paths = {event.path for event in pipe.stream(**given())}
    assert paths == {"variations.denoise.denoise", "variations"}


def test_leaves_of_one_family_work_with_the_models_of_another(components: dict[str, Any]) -> None:
    encode = diffusers.StableDiffusion3AutoBlocks().get_workflow("image2image").sub_blocks
    names = [name for name in encode if "vae_encoder" in name]
    blocks = SequentialPipelineBlocks.from_blocks_dict({name: encode[name] for name in names})
    pipe = pipeline(blocks, components)
    state = pipe(image=picture(), height=32, width=32, generator=torch.Generator().manual_seed(0))
    assert state.get("image_latents").shape == (1, 4, 16, 16)
