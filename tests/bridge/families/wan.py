"""Wan: a multistep scheduler, two transformers with a boundary, pictures and videos to start from."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AdaptiveProjectedGuidance,
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.text import WIDTH, t5_tokenizer, umt5

__all__ = ["CASES", "clip_vision", "transformer", "wan_autoencoder"]


def wan_autoencoder(**config: Any) -> AutoencoderKLWan:
    given = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, **config}
    return seeded(AutoencoderKLWan, temperal_downsample=[False, True, True], **given)


def transformer(cls: Any = WanTransformer3DModel, seed: int = 0, **config: Any) -> Any:
    given = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": WIDTH,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
        **config,
    }
    return seeded(cls, seed=seed, **given)


def scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def wan() -> dict[str, Any]:
    return {
        "text_encoder": umt5(),
        "tokenizer": t5_tokenizer(),
        "transformer": transformer(),
        "vae": wan_autoencoder(),
        "scheduler": scheduler(),
    }


def apg() -> AdaptiveProjectedGuidance:
    return AdaptiveProjectedGuidance(guidance_scale=4.0, adaptive_projected_guidance_momentum=-0.5)


def wan_with_apg() -> dict[str, Any]:
    return {**wan(), "guider": apg()}


def wan22() -> dict[str, Any]:
    # of five steps, two are above the boundary
    return {**wan(), "transformer_2": transformer(seed=1), "boundary_ratio": 0.875}


def clip_vision() -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    return seeded(CLIPVisionModel, config)


def wan_i2v() -> dict[str, Any]:
    return {
        **wan(),
        "transformer": transformer(in_channels=36, image_dim=8),
        "image_encoder": clip_vision(),
        "image_processor": CLIPImageProcessorPil(crop_size=32, size=32),
    }


def wan_flf2v() -> dict[str, Any]:
    # the encoded pictures are those of the first and the last frame
    return {**wan_i2v(), "transformer": transformer(in_channels=36, image_dim=8, pos_embed_seq_len=2 * 5)}


def wan22_i2v() -> dict[str, Any]:
    return {
        **wan(),
        "transformer": transformer(in_channels=36),
        "transformer_2": transformer(in_channels=36, seed=1),
        "boundary_ratio": 0.875,
    }


def wan22_vace() -> dict[str, Any]:
    config = {"vace_layers": [0, 1], "vace_in_channels": 96}
    return {
        **wan(),
        "transformer": transformer(WanVACETransformer3DModel, **config),
        "transformer_2": transformer(WanVACETransformer3DModel, seed=1, **config),
        "boundary_ratio": 0.875,
    }


def inputs() -> dict[str, Any]:
    return {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16, "output_type": "pt"}


def with_image() -> dict[str, Any]:
    return {**inputs(), "image": picture(16, 16)}


def with_both() -> dict[str, Any]:
    return {**with_image(), "resized_last_image": picture(16, 16, seed=1)}


_LAST_IMAGE_RESIZE: dict[str, Any] = {
    "remove": ("image_encoder.last_image_resize", "vae_encoder.last_image_resize"),
    "why_removed": "these crop the last picture with torchvision, which the tests do without",
}

CASES = [
    Case("wan", "WanBlocks", None, wan, inputs, steps=5),
    Case("wan", "WanBlocks", None, wan_with_apg, inputs, steps=5, hard=True, name="Wan-apg"),
    Case("wan", "Wan22Blocks", None, wan22, inputs, steps=5, hard=True),
    Case("wan-i2v", "WanImage2VideoAutoBlocks", "image2video", wan_i2v, with_image, steps=4),
    Case("wan-i2v", "WanImage2VideoAutoBlocks", "flf2v", wan_flf2v, with_both, steps=4, **_LAST_IMAGE_RESIZE),
    Case("wan-i2v", "Wan22Image2VideoBlocks", None, wan22_i2v, with_image, steps=5),
    Case("wan-vace", "Wan22VaceBlocks", None, wan22_vace, inputs, steps=5),
]
