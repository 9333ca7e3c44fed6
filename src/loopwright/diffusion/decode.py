"""Decoding: latents to images."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from loopwright.modular_pipelines import (
    BlockState,
    ComponentSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

from .image import IMAGE_PROCESSOR

__all__ = ["DecodeInpaintedStep", "DecodeStep"]


class DecodeStep(ModularPipelineBlocks):
    """Decodes the latents to images: a list of PIL images, an array [B, H, W, 3], a tensor [B, 3, H, W], both in 0..1,
    or for `latent` the latents themselves."""

    model_name = "loopwright"
    description = "Decodes the latents to images."
    expected_components = [ComponentSpec("vae", AutoencoderKL), IMAGE_PROCESSOR]
    inputs = [
        InputParam("latents", Tensor, required=True, description="The denoised latents, [B, C, h, w]."),
        InputParam.template("output_type", note="or 'latent'"),
    ]
    intermediate_outputs = [OutputParam.template("images")]

    @torch.no_grad()
    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        if block_state.output_type == "latent":
            block_state.images = block_state.latents
        else:
            pixels = self.decode(components, block_state)
            block_state.images = components.image_processor.postprocess(pixels, block_state.output_type)
        self.set_block_state(state, block_state)
        return components, state

    def decode(self, components: ModularPipeline, block_state: BlockState) -> Tensor:
        """Pixels [B, 3, H, W], float32, in about -1..1."""
        vae = components.vae
        latents = block_state.latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        pixels: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0].float()
        return pixels


class DecodeInpaintedStep(DecodeStep):
    """Decodes the latents, and outside the mask puts the pixels of the image in their place."""

    description = "Decodes the latents inside the mask; outside it are the pixels of the image."
    inputs = [
        *DecodeStep.inputs,
        InputParam("pixels", Tensor, required=True, description="The image, [B, 3, H, W] in -1..1."),
        InputParam("mask", Tensor, required=True, description="1 where the image may change, [B, 1, H, W]."),
    ]

    def decode(self, components: ModularPipeline, block_state: BlockState) -> Tensor:
        """Pixels [B, 3, H, W]; those outside the mask are exactly those of the image."""
        return torch.where(block_state.mask > 0.5, super().decode(components, block_state), block_state.pixels)
