"""The blocks before the models: the inputs that all workflows share are checked, and brought to one batch size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import InvalidInputError, MissingComponentError, did_you_mean
from loopwright.modular_pipelines import (
    ComponentSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

from .sizes import check_size, default_size

__all__ = ["OUTPUT_TYPES", "CheckInputsStep", "ExpandBatchStep", "repeat_to_batch"]

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

_EMBEDS = ("prompt_embeds", "prompt_embeds_mask", "negative_prompt_embeds", "negative_prompt_embeds_mask")


class CheckInputsStep(ModularPipelineBlocks):
    """Checks what can be checked before any model runs, and fills in the size.

    Raises:
        InvalidInputError: an input cannot be used; the message says which, why, and the nearest value that can.
        MissingComponentError: the transformer or the autoencoder is not loaded.
    """

    model_name = "loopwright"
    description = "Checks the inputs before any model runs, and fills in the size of the images."
    expected_components = [ComponentSpec("transformer"), ComponentSpec("vae")]
    inputs = [
        InputParam.template("prompt"),
        InputParam.template("negative_prompt"),
        InputParam.template("num_images_per_prompt"),
        InputParam.template("num_inference_steps", default=20),
        InputParam("guidance_scale", float, description="Replaces the guider's `guidance_scale` in this call."),
        InputParam.template("height", note="the model's own if not given"),
        InputParam.template("width", note="the model's own if not given"),
        InputParam.template("output_type", note="or 'latent'"),
    ]
    intermediate_outputs = [
        OutputParam("height", int, "The height of the images in pixels."),
        OutputParam("width", int, "The width of the images in pixels."),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        _check_components(components)
        _check_prompts(block_state.prompt, block_state.negative_prompt)
        _check_count("num_images_per_prompt", block_state.num_images_per_prompt)
        _check_count("num_inference_steps", block_state.num_inference_steps)
        _check_number("guidance_scale", block_state.guidance_scale)
        _check_strength(state)
        if block_state.output_type not in OUTPUT_TYPES:
            raise InvalidInputError(
                f"`output_type` must be one of {', '.join(OUTPUT_TYPES)}, not {block_state.output_type!r}"
                f"{did_you_mean(str(block_state.output_type), OUTPUT_TYPES)}"
            )
        for side in ("height", "width"):
            if getattr(block_state, side) is None:
                setattr(block_state, side, default_size(components))
            check_size(components, side, getattr(block_state, side))
        self.set_block_state(state, block_state)
        return components, state


class ExpandBatchStep(ModularPipelineBlocks):
    """Repeats each prompt's embeddings for its images, so that every tensor after it has one row for each image."""

    model_name = "loopwright"
    description = "Repeats the embeddings of each prompt `num_images_per_prompt` times."
    inputs = [
        InputParam.template("prompt_embeds", note="[B, L, D]"),
        InputParam.template("prompt_embeds_mask", note="[B, L]"),
        InputParam.template("negative_prompt_embeds", note="[B, L, D]"),
        InputParam.template("negative_prompt_embeds_mask", note="[B, L]"),
        InputParam.template("num_images_per_prompt"),
    ]
    intermediate_outputs = [
        *(OutputParam.template(name) for name in _EMBEDS),
        OutputParam("num_images", int, "Prompts times images per prompt: the rows of every tensor that follows."),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        block_state.num_images = len(block_state.prompt_embeds) * block_state.num_images_per_prompt
        for name in _EMBEDS:
            embeds = getattr(block_state, name)
            if embeds is not None:
                setattr(block_state, name, repeat_to_batch(embeds, block_state.num_images, name))
        self.set_block_state(state, block_state)
        return components, state


def repeat_to_batch(rows: Tensor, num_images: int, name: str) -> Tensor:
    """Each row of [B, ...] as often as needed to make `num_images`; repeats stand next to each other.

    Raises:
        InvalidInputError: `num_images` is not a multiple of B.
    """
    if num_images % len(rows):
        raise InvalidInputError(
            f"`{name}` has {len(rows)} rows, and there are {num_images} images to make; give one row for all, "
            f"or one for each"
        )
    return torch.repeat_interleave(rows, num_images // len(rows), dim=0)


def _check_components(components: ModularPipeline) -> None:
    """The sizes are read from two models; without them, all that is missing is named at once."""
    if components.transformer is None or components.vae is None:
        missing = components.null_component_names
        raise MissingComponentError(
            f"these components are not loaded: {', '.join(f'`{name}`' for name in missing)}; load them with "
            f"`pipe.load_components()` if the pipeline was made with a folder or a repository, or give them to "
            f"`pipe.update_components`"
        )


def _check_prompts(prompt: Any, negative_prompt: Any) -> None:
    for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        fits = isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
        if not (fits or (name == "negative_prompt" and value is None)):
            raise InvalidInputError(f"`{name}` must be a string or a list of strings, not {value!r}")
    if prompt == []:
        raise InvalidInputError("`prompt` is an empty list; give at least one string")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if isinstance(negative_prompt, list) and len(negative_prompt) != len(prompts):
        raise InvalidInputError(
            f"`negative_prompt` has {len(negative_prompt)} entries, and `prompt` has {len(prompts)}; "
            f"give one string for all, or one for each prompt"
        )


def _check_strength(state: PipelineState) -> None:
    """Of the workflows only some have a strength and an image, so this block does not declare them."""
    if state.get("strength") is not None and state.get("image") is None and state.get("image_latents") is None:
        raise InvalidInputError(
            "`strength` says how far to go from an image, and no `image` was given; give one, or leave `strength` out"
        )


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"`{name}` must be a whole number of at least 1, not {value!r}")


def _check_number(name: str, value: Any) -> None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not fits:
        raise InvalidInputError(f"`{name}` must be a {'finite ' * isinstance(value, float)}number, not {value!r}")
