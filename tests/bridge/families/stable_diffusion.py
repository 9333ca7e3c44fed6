"""Stable Diffusion 3 and XL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.bridge.families.case import Case, mask, picture, seeded
from tests.bridge.families.flux import kl_autoencoder
from tests.bridge.families.text import WIDTH, clip, clip_tokenizer, t5, t5_tokenizer

__all__ = ["CASES"]


def stable_diffusion_3() -> dict[str, Any]:
    return {
        "text_encoder": clip(projection=True),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=True, seed=4),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": t5(d_model=2 * WIDTH),
        "tokenizer_3": t5_tokenizer(),
        "transformer": seeded(
            SD3Transformer2DModel,
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            caption_projection_dim=WIDTH,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH,
        ),
        "vae": kl_autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=1.5),
        "image_processor": VaeImageProcessor(vae_scale_factor=2),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def inputs() -> dict[str, Any]:
    return {"height": 32, "width": 32, "output_type": "pt"}


def with_image() -> dict[str, Any]:
    return {**inputs(), "image": picture(), "strength": 0.8}


def with_mask() -> dict[str, Any]:
    return {**with_image(), "mask_image": mask()}


_UNET = {
    "in_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (4, 8),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    "cross_attention_dim": 2 * WIDTH,
    "norm_num_groups": 2,
}


def stable_diffusion_xl() -> dict[str, Any]:
    return {
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=True, seed=4),
        "tokenizer_2": clip_tokenizer(),
        "unet": seeded(
            UNet2DConditionModel,
            sample_size=16,
            out_channels=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **_UNET,
        ),
        "vae": kl_autoencoder(force_upcast=False),
        "image_processor": VaeImageProcessor(vae_scale_factor=2),
        "mask_processor": VaeImageProcessor(
            vae_scale_factor=2, do_normalize=False, do_binarize=True, do_convert_grayscale=True
        ),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
    }


def with_controlnet() -> dict[str, Any]:
    controlnet = seeded(ControlNetModel, conditioning_embedding_out_channels=(2, 4), seed=5, **_UNET)
    return {**stable_diffusion_xl(), "controlnet": controlnet, "control_image_processor": _control_image_processor()}


def with_controlnet_union() -> dict[str, Any]:
    controlnet = seeded(
        ControlNetUnionModel,
        conditioning_embedding_out_channels=(2, 4),
        seed=5,
        num_control_type=6,
        num_trans_channel=4,
        num_trans_head=2,
        num_proj_channel=4,
        **_UNET,
    )
    return {**stable_diffusion_xl(), "controlnet": controlnet, "control_image_processor": _control_image_processor()}


def _control_image_processor() -> VaeImageProcessor:
    return VaeImageProcessor(vae_scale_factor=2, do_convert_rgb=True, do_normalize=False)


def with_ip_adapter(components: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The same components, with an adapter for pictures in the U-Net."""
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        # that of the pictures which the blocks make for it
        image_size=224,
        patch_size=56,
        projection_dim=WIDTH,
    )

    def made() -> dict[str, Any]:
        found = components()
        found["unet"]._load_ip_adapter_weights([_ip_adapter(found["unet"])], low_cpu_mem_usage=False)
        return {**found, "image_encoder": seeded(CLIPVisionModelWithProjection, vision)}

    return made


def _ip_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of an adapter that makes four tokens of a picture."""
    generator = torch.Generator().manual_seed(6)
    across = unet.config.cross_attention_dim

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    attention = {}
    names = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    for number, name in enumerate(names):
        width = unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for part in ("k", "v"):
            attention[f"{2 * number + 1}.to_{part}_ip.weight"] = random(width, across)
    projection = {"proj.weight": random(4 * across, WIDTH), "proj.bias": random(4 * across)}
    norm = {"norm.weight": torch.ones(across), "norm.bias": torch.zeros(across)}
    return {"image_proj": {**projection, **norm}, "ip_adapter": attention}


def sdxl_cases() -> list[Case]:
    found = []
    for control, plain, controls in [
        ("", stable_diffusion_xl, {}),
        ("controlnet_", with_controlnet, {"control_image": picture(seed=3)}),
        ("controlnet_union_", with_controlnet_union, {"control_image": [picture(seed=3)], "control_mode": [1]}),
    ]:
        for adapter, components, adapted in [
            ("", plain, {}),
            ("ip_adapter_", with_ip_adapter(plain), {"ip_adapter_image": picture(seed=9)}),
        ]:
            for workflow, given in [("text2image", inputs), ("image2image", with_image), ("inpainting", with_mask)]:
                more: dict[str, Any] = {**controls, **adapted}
                found.append(
                    Case(
                        "stable-diffusion-xl",
                        "StableDiffusionXLAutoBlocks",
                        f"{adapter}{control}{workflow}",
                        components,
                        lambda given=given, more=more: {**given(), **more},
                        steps=3 if workflow == "text2image" else 5,
                        iterations=3 if workflow == "text2image" else 4,
                    )
                )
    return found


CASES = [
    Case("stable-diffusion-3", "StableDiffusion3AutoBlocks", "text2image", stable_diffusion_3, inputs),
    Case(
        "stable-diffusion-3",
        "StableDiffusion3AutoBlocks",
        "image2image",
        stable_diffusion_3,
        with_image,
        steps=5,
        iterations=4,
    ),
    *sdxl_cases(),
]
