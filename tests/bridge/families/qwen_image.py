"""Qwen-Image, its variants for editing and layers, and Qwen-Image 2.1 with its cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Transformer2DModel,
    QwenImageControlNetModel,
    QwenImageTransformer2DModel,
)
from diffusers.image_processor import InpaintProcessor, VaeImageProcessor

from tests.bridge.families.case import Case, mask, picture, seeded
from tests.bridge.families.text import WIDTH, qwen_tokenizer
from tests.bridge.families.vision import qwen2_5_vl, qwen2_vl_processor, qwen3_vl, qwen3_vl_processor

__all__ = ["CASES", "qwen_autoencoder"]

_TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "axes_dims_rope": (8, 4, 4),
}


def qwen_autoencoder(channels: int = 4, **config: Any) -> AutoencoderKLQwenImage:
    given = {"base_dim": 8, "dim_mult": [1, 2, 4], "num_res_blocks": 1, "temperal_downsample": [False, True], **config}
    return seeded(
        AutoencoderKLQwenImage,
        z_dim=channels,
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
        **given,
    )


class SmallImages(VaeImageProcessor):
    """Makes images 32 pixels wide where the blocks ask for a thousand."""

    def resize(self, image: Any, height: int, width: int = 0, **options: Any) -> Any:
        return super().resize(image, 32, 32, **options)


def qwen_image() -> dict[str, Any]:
    return {
        "text_encoder": qwen2_5_vl(),
        "tokenizer": qwen_tokenizer(),
        "processor": qwen2_vl_processor(),
        "transformer": seeded(QwenImageTransformer2DModel, **_TRANSFORMER),
        "vae": qwen_autoencoder(),
        "image_processor": VaeImageProcessor(vae_scale_factor=8),
        "image_resize_processor": SmallImages(vae_scale_factor=8),
        "image_mask_processor": InpaintProcessor(vae_scale_factor=8),
        "control_image_processor": VaeImageProcessor(vae_scale_factor=8),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def with_controlnet() -> dict[str, Any]:
    return {**qwen_image(), "controlnet": seeded(QwenImageControlNetModel, seed=5, **_TRANSFORMER)}


def layered() -> dict[str, Any]:
    transformer = seeded(QwenImageTransformer2DModel, use_additional_t_cond=True, use_layer3d_rope=True, **_TRANSFORMER)
    return {
        **qwen_image(),
        "transformer": transformer,
        "vae": qwen_autoencoder(input_channels=4),
        "image_processor": VaeImageProcessor(vae_scale_factor=8, do_convert_rgb=False),
    }


def qwen_image_21() -> dict[str, Any]:
    return {
        "text_encoder": qwen3_vl(),
        "processor": qwen3_vl_processor(),
        "transformer": seeded(
            QwenImage21Transformer2DModel,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
        "vae": seeded(
            AutoencoderKLQwenImage21,
            base_dim=4,
            decoder_base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def turbo() -> dict[str, Any]:
    return {**qwen_image_21(), "sample_sigmas": [1.0, 0.75, 0.5, 0.25]}


def inputs() -> dict[str, Any]:
    return {"negative_prompt": "grey", "height": 32, "width": 32, "output_type": "pt"}


def with_image() -> dict[str, Any]:
    return {**inputs(), "image": picture()}


def from_image() -> dict[str, Any]:
    return {**with_image(), "strength": 0.75}


def with_mask() -> dict[str, Any]:
    # what is around the mask is taken from the picture, which must be one then
    return {**from_image(), "mask_image": mask(), "output_type": "pil"}


def of_text() -> dict[str, Any]:
    return {"output_resolution": 32, "height": 32, "width": 32, "output_type": "pt"}


def of_image() -> dict[str, Any]:
    return {**of_text(), "image": picture()}


def _qwen_cases() -> list[Case]:
    found = []
    for control, components in [("", qwen_image), ("controlnet_", with_controlnet)]:
        controls: dict[str, Any] = {"control_image": picture(seed=3)} if control else {}
        for workflow, given in [("text2image", inputs), ("image2image", from_image), ("inpainting", with_mask)]:
            steps = 3 if workflow == "text2image" else 4
            found.append(
                Case(
                    "qwenimage",
                    "QwenImageAutoBlocks",
                    f"{control}{workflow}",
                    components,
                    lambda given=given, controls=controls: {**given(), **controls},
                    steps=steps,
                    iterations=3,
                    together=lambda count: {"negative_prompt": ["grey"] * count},
                )
            )
    return found


def _turbo(workflow: str, given: Callable[[], dict[str, Any]]) -> Case:
    return Case(
        "qwenimage21-turbo",
        "QwenImage21TurboAutoBlocks",
        workflow,
        turbo,
        given,
        steps=4,
        steps_input=None,
        fewer={"sigmas": [1.0, 0.6, 0.2]},
    )


CASES = [
    *_qwen_cases(),
    Case("qwenimage-edit", "QwenImageEditAutoBlocks", "image_conditioned", qwen_image, with_image),
    Case(
        "qwenimage-edit",
        "QwenImageEditAutoBlocks",
        "image_conditioned_inpainting",
        qwen_image,
        with_mask,
        steps=4,
        iterations=3,
    ),
    Case("qwenimage-edit-plus", "QwenImageEditPlusAutoBlocks", None, qwen_image, with_image),
    Case(
        "qwenimage-layered",
        "QwenImageLayeredAutoBlocks",
        None,
        layered,
        lambda: {"image": picture().convert("RGBA"), "layers": 2, "output_type": "pt"},
    ),
    Case("qwenimage21", "QwenImage21AutoBlocks", "text2image", qwen_image_21, of_text),
    Case("qwenimage21", "QwenImage21AutoBlocks", "image_conditioned", qwen_image_21, of_image, hard=True),
    _turbo("text2image", of_text),
    _turbo("image_conditioned", of_image),
]
