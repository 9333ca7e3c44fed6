"""Flux 2 and Flux 2 Klein."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Qwen3ForCausalLM

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.text import QWEN, WIDTH, qwen3, qwen_tokenizer

__all__ = ["CASES", "flux2_autoencoder", "mistral3"]


def flux2_autoencoder(channels: int = 1, **config: Any) -> AutoencoderKLFlux2:
    given = {"block_out_channels": (4, 4), "layers_per_block": 1, "norm_num_groups": 2, "sample_size": 32, **config}
    blocks = len(given["block_out_channels"])
    return seeded(
        AutoencoderKLFlux2,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **given,
    )


def mistral3(cls: Any = Mistral3ForConditionalGeneration, **text: Any) -> Any:
    config = Mistral3Config(
        text_config={"model_type": "mistral", **QWEN, "sliding_window": None, **text},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        image_token_index=262,
    )
    return seeded(cls, config, seed=3)


def _transformer(**config: Any) -> Flux2Transformer2DModel:
    return seeded(
        Flux2Transformer2DModel,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        timestep_guidance_channels=32,
        axes_dims_rope=[4, 4, 4, 4],
        **config,
    )


def flux2() -> dict[str, Any]:
    return {
        "text_encoder": mistral3(),
        "tokenizer": qwen_tokenizer(),
        "transformer": _transformer(joint_attention_dim=WIDTH),
        "vae": flux2_autoencoder(),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def klein() -> dict[str, Any]:
    return {
        **flux2(),
        "text_encoder": qwen3(Qwen3ForCausalLM),
        "transformer": _transformer(joint_attention_dim=WIDTH, guidance_embeds=False),
    }


def inputs() -> dict[str, Any]:
    # the system message alone is two hundred bytes
    return {
        "height": 32,
        "width": 32,
        "max_sequence_length": 256,
        "text_encoder_out_layers": (1,),
        "output_type": "pt",
    }


def with_image() -> dict[str, Any]:
    return {**inputs(), "image": picture(64, 64)}


CASES = [
    Case(family, blocks, workflow, components, given)
    for family, blocks, components in [
        ("flux2", "Flux2AutoBlocks", flux2),
        ("flux2-klein", "Flux2KleinAutoBlocks", klein),
        ("flux2-klein", "Flux2KleinBaseAutoBlocks", klein),
    ]
    for workflow, given in [("text2image", inputs), ("image_conditioned", with_image)]
]
