"""Models of the Qwen line that read text and pictures, and their processors."""

from __future__ import annotations

from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from tests.bridge.families.case import seeded
from tests.bridge.families.text import QWEN, WIDTH, qwen_tokenizer

__all__ = ["qwen2_5_vl", "qwen2_vl_processor", "qwen3_5", "qwen3_vl", "qwen3_vl_processor"]

_TOKENS = {"vision_start_token_id": 259, "vision_end_token_id": 260, "image_token_id": 262, "video_token_id": 263}
_ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
_VISION = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}


def qwen2_5_vl(cls: Any = Qwen2_5_VLForConditionalGeneration, seed: int = 3, **text: Any) -> Any:
    config = Qwen2_5_VLConfig(
        text_config={**QWEN, "rope_parameters": _ROPE, **text},
        vision_config={**_VISION, "patch_size": 14, "fullatt_block_indexes": [1]},
        **_TOKENS,
    )
    return seeded(cls, config, seed=seed)


def qwen3_vl(cls: Any = Qwen3VLForConditionalGeneration, seed: int = 3, **text: Any) -> Any:
    config = Qwen3VLConfig(
        text_config={**QWEN, "rope_parameters": {**_ROPE, "mrope_interleaved": True}, **text},
        vision_config={**_VISION, "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **_TOKENS,
    )
    return seeded(cls, config, seed=seed)


def qwen3_5(seed: int = 3) -> Qwen3_5ForConditionalGeneration:
    """One layer of linear attention, one of full attention."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}
    config = Qwen3_5Config(
        text_config={
            **QWEN,
            "max_position_embeddings": 8192,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "rope_parameters": {**rope, "mrope_interleaved": True},
        },
        vision_config={**_VISION, "patch_size": 16, "num_position_embeddings": 16},
        **_TOKENS,
    )
    return seeded(Qwen3_5ForConditionalGeneration, config, seed=seed)


class _WithoutVideos:
    """A processor without one for videos, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        known: Any = super()
        return argument is None or known.check_argument_for_proper_class(argument_name, argument)


class _Qwen2VLProcessor(_WithoutVideos, Qwen2VLProcessor):
    pass


class _Qwen3VLProcessor(_WithoutVideos, Qwen3VLProcessor):
    pass


def qwen2_vl_processor() -> Qwen2VLProcessor:
    tokenizer = qwen_tokenizer()
    images = Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    )
    return _Qwen2VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=tokenizer.chat_template)


def qwen3_vl_processor() -> Qwen3VLProcessor:
    tokenizer = qwen_tokenizer()
    images = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return _Qwen3VLProcessor(image_processor=images, tokenizer=tokenizer, chat_template=tokenizer.chat_template)
