"""Families that make images: Anima, Ernie-Image, Ideogram 4, Krea 2, Z-Image."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnimaTextConditioner,
    CosmosTransformer3DModel,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Transformer2DModel,
    Krea2Transformer2DModel,
    ZImageTransformer2DModel,
)
from diffusers.image_processor import VaeImageProcessor
from transformers import Mistral3Model, Qwen3VLModel

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.flux import kl_autoencoder
from tests.bridge.families.flux2 import flux2_autoencoder, mistral3
from tests.bridge.families.qwen_image import qwen_autoencoder
from tests.bridge.families.text import WIDTH, qwen3, qwen_tokenizer, t5_tokenizer
from tests.bridge.families.vision import qwen3_vl

__all__ = ["CASES"]


def z_image() -> dict[str, Any]:
    return {
        "text_encoder": qwen3(),
        "tokenizer": qwen_tokenizer(),
        "transformer": seeded(
            ZImageTransformer2DModel,
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4],
            axes_lens=[512, 32, 32],
        ),
        "vae": kl_autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.4),
        "image_processor": VaeImageProcessor(vae_scale_factor=4),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def anima() -> dict[str, Any]:
    return {
        "text_encoder": qwen3(),
        "tokenizer": qwen_tokenizer(),
        "t5_tokenizer": t5_tokenizer(),
        "text_conditioner": seeded(
            AnimaTextConditioner,
            source_dim=WIDTH,
            target_dim=WIDTH,
            model_dim=WIDTH,
            num_layers=1,
            num_attention_heads=2,
            target_vocab_size=100,
            min_sequence_length=16,
        ),
        "transformer": seeded(
            CosmosTransformer3DModel,
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            mlp_ratio=2.0,
            text_embed_dim=WIDTH,
            adaln_lora_dim=4,
            max_size=(4, 32, 32),
            extra_pos_embed_type=None,
            # the padding mask is resized with torchvision, which the tests do without
            concat_padding_mask=False,
        ),
        "vae": qwen_autoencoder(),
        "image_processor": VaeImageProcessor(vae_scale_factor=4),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def ernie_image() -> dict[str, Any]:
    return {
        "text_encoder": mistral3(Mistral3Model),
        "tokenizer": qwen_tokenizer(),
        "transformer": seeded(
            ErnieImageTransformer2DModel,
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=32,
            in_channels=4,
            out_channels=4,
            text_in_dim=WIDTH,
            rope_axes_dim=(4, 6, 6),
        ),
        "vae": flux2_autoencoder(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def krea2() -> dict[str, Any]:
    return {
        # features are taken from layers up to the 35th
        "text_encoder": qwen3_vl(Qwen3VLModel, num_hidden_layers=36),
        "tokenizer": qwen_tokenizer(),
        "transformer": seeded(
            Krea2Transformer2DModel,
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=8,
            text_hidden_dim=WIDTH,
            num_text_layers=12,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=32,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        ),
        "vae": qwen_autoencoder(),
        "image_processor": VaeImageProcessor(vae_scale_factor=8),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def ideogram4() -> dict[str, Any]:
    def transformer(seed: int) -> Ideogram4Transformer2DModel:
        return seeded(
            Ideogram4Transformer2DModel,
            in_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            intermediate_size=32,
            adaln_dim=16,
            llm_features_dim=13 * WIDTH,
            mrope_section=(4, 2, 2),
            seed=seed,
        )

    return {
        "text_encoder": qwen3_vl(Qwen3VLModel, num_hidden_layers=36),
        "tokenizer": qwen_tokenizer(),
        "transformer": transformer(0),
        "unconditional_transformer": transformer(1),
        "vae": flux2_autoencoder(),
        "image_processor": VaeImageProcessor(vae_scale_factor=4),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def inputs() -> dict[str, Any]:
    return {"height": 32, "width": 32, "output_type": "pt"}


def short() -> dict[str, Any]:
    return {**inputs(), "max_sequence_length": 64}


def with_image() -> dict[str, Any]:
    return {**short(), "image": picture(), "strength": 0.5}


CASES = [
    Case("z-image", "ZImageAutoBlocks", "text2image", z_image, short),
    Case("z-image", "ZImageAutoBlocks", "image2image", z_image, with_image, steps=4, iterations=2),
    Case("anima", "AnimaAutoBlocks", "text2image", anima, lambda: {**short(), "negative_prompt": "grey"}),
    Case("anima", "AnimaAutoBlocks", "img2img", anima, with_image, steps=4, iterations=2),
    Case("ernie-image", "ErnieImageAutoBlocks", "text2image", ernie_image, inputs),
    Case("krea2", "Krea2AutoBlocks", "text2image", krea2, lambda: {**inputs(), "max_sequence_length": 512}),
    Case("krea2", "Krea2TurboAutoBlocks", "text2image", krea2, lambda: {**inputs(), "max_sequence_length": 512}),
    Case(
        "ideogram4",
        "Ideogram4AutoBlocks",
        "text2image",
        ideogram4,
        lambda: {**short(), "guidance_schedule": (7.0, 5.0, 3.0)},
        fewer={"guidance_schedule": (7.0, 3.0)},
    ),
]
