"""Latents to start from: noise for each image, and that noise alone or mixed with an image."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from loopwright.errors import InvalidInputError, kind_of
from loopwright.modular_pipelines import (
    ComponentSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

from .noise import noise_level
from .sizes import latent_size

__all__ = ["PrepareImageLatentsStep", "PrepareLatentsStep", "SampleNoiseStep"]

_NOISE = InputParam("noise", Tensor, required=True, description="Noise of unit variance, [B, C, h, w].")


class SampleNoiseStep(ModularPipelineBlocks):
    """Draws the noise of each image in float32, from its own generator if a list of them is given.

    Raises:
        InvalidInputError: the number of generators, or the shape of the given `latents`, does not fit the images.
    """

    model_name = "loopwright"
    description = "Draws noise for each image, or takes the given `latents`."
    expected_components = [ComponentSpec("transformer"), ComponentSpec("vae")]
    inputs = [
        InputParam("num_images", int, required=True, description="The number of images to make."),
        InputParam("height", int, required=True, description="The height of the images in pixels."),
        InputParam("width", int, required=True, description="The width of the images in pixels."),
        InputParam.template("generator", note="or a list, one for each image"),
        InputParam.template("latents", note="noise of unit variance, [B, C, h, w]"),
    ]
    intermediate_outputs = [OutputParam("noise", Tensor, "Noise of unit variance, [B, C, h, w].")]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        generator, num_images = block_state.generator, block_state.num_images
        if isinstance(generator, (list, tuple)):
            generator = list(generator)
            if len(generator) != num_images:
                raise InvalidInputError(
                    f"`generator` is a list of {len(generator)}, and there are {num_images} images to make; "
                    f"give one for each image, or a single one"
                )
        for entry in generator if isinstance(generator, list) else [generator]:
            if not isinstance(entry, torch.Generator) and (entry is not None or isinstance(generator, list)):
                raise InvalidInputError(
                    f"`generator` must be a `torch.Generator` or a list of them, not {entry!r}; for a seed, write "
                    f"`generator=torch.Generator().manual_seed(seed)`"
                )
        shape = (
            num_images,
            components.transformer.config.in_channels,
            *latent_size(components, block_state.height, block_state.width),
        )
        device = components._execution_device
        if block_state.latents is None:
            block_state.noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif not isinstance(block_state.latents, Tensor):
            raise InvalidInputError(f"`latents` must be a tensor, not {kind_of(block_state.latents)}")
        elif tuple(block_state.latents.shape) == shape:
            block_state.noise = block_state.latents.to(device=device, dtype=torch.float32)
        else:
            raise InvalidInputError(
                f"`latents` must have the shape {shape} (images, channels, height, width in latents), "
                f"not {tuple(block_state.latents.shape)}"
            )
        self.set_block_state(state, block_state)
        return components, state


class PrepareLatentsStep(ModularPipelineBlocks):
    """Scales the noise to what the scheduler starts from."""

    model_name = "loopwright"
    description = "Scales the noise to what the scheduler starts from."
    expected_components = [ComponentSpec("scheduler")]
    inputs = [_NOISE]
    intermediate_outputs = [OutputParam("latents", Tensor, "The latents to denoise, [B, C, h, w], float32.")]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        block_state.latents = block_state.noise * getattr(components.scheduler, "init_noise_sigma", 1.0)
        self.set_block_state(state, block_state)
        return components, state


class PrepareImageLatentsStep(ModularPipelineBlocks):
    """Noises the image's latents as much as the first timestep asks.

    Raises:
        InvalidInputError: the shape of the given `image_latents` does not fit the images.
    """

    model_name = "loopwright"
    description = "Noises the latents of the image as much as the first timestep asks."
    expected_components = [ComponentSpec("scheduler")]
    inputs = [
        _NOISE,
        InputParam.template("image_latents", note="[B, C, h, w]"),
        InputParam("timesteps", Tensor, required=True, description="The timesteps of the denoising loop, [n]."),
    ]
    intermediate_outputs = PrepareLatentsStep.intermediate_outputs

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        given, shape = tuple(block_state.image_latents.shape), tuple(block_state.noise.shape)
        # those of one image are those of all
        if given not in (shape, (1, *shape[1:])):
            raise InvalidInputError(
                f"`image_latents` must have the shape {shape} (images, channels, height, width in latents), not {given}"
            )
        level = noise_level(components.scheduler, block_state.timesteps)
        block_state.latents = level.mix(block_state.image_latents, block_state.noise)
        self.set_block_state(state, block_state)
        return components, state
