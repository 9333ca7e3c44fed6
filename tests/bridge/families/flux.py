"""Flux and Flux Kontext."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.image_processor import VaeImageProcessor

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.text import WIDTH, clip, clip_tokenizer, t5, t5_tokenizer

__all__ = ["CASES", "kl_autoencoder"]


def kl_autoencoder(channels: int = 4, **config: Any) -> AutoencoderKL:
    given = {
        "block_out_channels": (4, 8),
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "latent_channels": channels,
        "norm_num_groups": 2,
        "sample_size": 32,
        **config,
    }
    return seeded(AutoencoderKL, **given)


def components() -> dict[str, Any]:
    return {
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
        "transformer": seeded(
            FluxTransformer2DModel,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=[4, 4, 8],
            guidance_embeds=True,
        ),
        "vae": kl_autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=1.5),
        "image_processor": VaeImageProcessor(vae_scale_factor=4),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def inputs() -> dict[str, Any]:
    return {"height": 32, "width": 32, "max_sequence_length": 16, "guidance_scale": 3.5, "output_type": "pt"}


def with_image() -> dict[str, Any]:
    return {**inputs(), "image": picture()}


def kontext() -> dict[str, Any]:
    return {**with_image(), "max_area": 32 * 32, "_auto_resize": False}


CASES = [
    Case("flux", "FluxAutoBlocks", "text2image", components, inputs),
    Case("flux", "FluxAutoBlocks", "image2image", components, lambda: {**with_image(), "strength": 1.0}),
    Case("flux-kontext", "FluxKontextAutoBlocks", "text2image", components, inputs),
    Case("flux-kontext", "FluxKontextAutoBlocks", "image_conditioned", components, kontext),
]
