"""Wan-Animate 2: a picture that moves as a video does, segment by segment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from diffusers import ClassifierFreeGuidance, FlowMatchEulerDiscreteScheduler, WanAnimate2Transformer3DModel
from torch.nn.attention.flex_attention import create_block_mask
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.bridge.families.case import Case, picture, seeded, video
from tests.bridge.families.text import WIDTH, t5_tokenizer, umt5
from tests.bridge.families.wan import wan_autoencoder

__all__ = ["CASES"]

_TEXT_LENGTH = 16


def transformer() -> WanAnimate2Transformer3DModel:
    module: Any = import_module("diffusers.models.transformers.transformer_wan_animate_2")
    # it compiles the making of its masks, for which there need not be a compiler here
    module.create_block_mask = _uncompiled(create_block_mask)
    return seeded(
        WanAnimate2Transformer3DModel,
        text_len=_TEXT_LENGTH,
        dim=24,
        ffn_dim=32,
        freq_dim=32,
        text_dim=WIDTH,
        num_heads=2,
        num_layers=2,
    )


def _uncompiled(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, _compile: bool = False, **kwargs: Any) -> Any:
        return make(*args, **kwargs)

    return made


def clip_vision() -> CLIPVisionModel:
    # the sizes of the pictures and of their features are fixed
    config = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
    )
    return seeded(CLIPVisionModel, config)


def animate(**guidance: Any) -> dict[str, Any]:
    return {
        "text_encoder": umt5(),
        "tokenizer": t5_tokenizer(),
        "image_encoder": clip_vision(),
        "vae": wan_autoencoder(),
        "transformer": transformer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "guider": ClassifierFreeGuidance(guidance_scale=3.0, **guidance),
    }


def inputs() -> dict[str, Any]:
    # three segments of five frames, of which one is that of the segment before
    return {
        "image": picture(),
        "driving_video": video(13),
        "segment_frame_length": 5,
        "height": 32,
        "width": 32,
        "max_sequence_length": _TEXT_LENGTH,
        "prompt_ref": "a man who walks",
        "output_type": "pt",
    }


CASES = [
    # the steps of a segment are a loop within a block, the segments are iterations
    Case("wan-animate-2", "WanAnimate2Blocks", None, animate, inputs, steps=2, iterations=3),
    Case(
        "wan-animate-2-distilled",
        "WanAnimate2DistilledBlocks",
        None,
        partial(animate, enabled=False),
        inputs,
        steps=2,
        iterations=3,
    ),
]
