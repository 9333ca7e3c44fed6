"""Flux 3, and its model that was distilled into few steps."""

from __future__ import annotations

from typing import Any

from diffusers import Flux3Transformer2DModel
from diffusers.modular_pipelines.flux3.image_processor import Flux3ImageProcessor

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.flux2 import flux2_autoencoder
from tests.bridge.families.text import WIDTH
from tests.bridge.families.vision import qwen3_5, qwen3_vl, qwen3_vl_processor

__all__ = ["CASES"]

_LAYERS = (1, 2)


def flux3(flow_map: bool = False) -> dict[str, Any]:
    return {
        "prompt_upsampler": qwen3_5(),
        "prompt_upsampler_processor": qwen3_vl_processor(),
        "text_encoder": qwen3_vl(),
        "tokenizer": qwen3_vl_processor(),
        "transformer": seeded(
            Flux3Transformer2DModel,
            in_channels=4,
            cond_in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=len(_LAYERS) * WIDTH,
            timestep_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            flow_map=flow_map,
        ),
        "vae": flux2_autoencoder(),
        "image_processor": Flux3ImageProcessor(vae_scale_factor=4),
    }


def distilled() -> dict[str, Any]:
    return flux3(flow_map=True)


def given(**more: Any) -> dict[str, Any]:
    # another language model rewrites the prompt first
    return {"max_new_tokens": 24, "text_encoder_out_layers": _LAYERS, "output_type": "pt", **more}


def inputs() -> dict[str, Any]:
    return given(height=32, width=32)


def with_image() -> dict[str, Any]:
    # of its own size, and cut back to it: the canvas is larger
    return given(image=picture(40, 56))


CASES = [
    Case(family, blocks, workflow, components, inputs_of_workflow)
    for family, blocks, components in [
        ("flux3", "Flux3AutoBlocks", flux3),
        ("flux3-distilled", "Flux3DistilledAutoBlocks", distilled),
    ]
    for workflow, inputs_of_workflow in [("text2image", inputs), ("image_conditioned", with_image)]
]
