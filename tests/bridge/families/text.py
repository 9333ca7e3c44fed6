"""Tokenizers and text encoders, made here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.bridge.families.case import seeded

__all__ = [
    "WIDTH",
    "clip",
    "clip_tokenizer",
    "qwen3",
    "qwen_tokenizer",
    "stand_in_for_ftfy",
    "t5",
    "t5_tokenizer",
    "umt5",
]

WIDTH = 32
_MARKS = ("<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
_MARKS += ("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<think>", "</think>")


@cache
def _bytes() -> tuple[str, ...]:
    return tuple(sorted(ByteLevel.alphabet()))


def clip_tokenizer(length: int = 77) -> CLIPTokenizer:
    """Each byte is a token."""
    tokens = (*_MARKS[:2], *_bytes(), *(f"{byte}</w>" for byte in _bytes()))
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, model_max_length=length)


def qwen_tokenizer(**options: Any) -> Qwen2Tokenizer:
    """Each byte is a token, and so are the marks of a chat."""
    tokenizer = Qwen2Tokenizer(vocab={token: index for index, token in enumerate((*_bytes(), *_MARKS[1:]))}, **options)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_MARKS[2:])})
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
        "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def t5_tokenizer() -> T5Tokenizer:
    """Each letter is a token."""
    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()-"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -2.0) for letter in letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def clip(projection: bool = False, length: int = 77, seed: int = 1, **config: Any) -> Any:
    given = {
        "vocab_size": 600,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": length,
        "projection_dim": WIDTH,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        **config,
    }
    return seeded(CLIPTextModelWithProjection if projection else CLIPTextModel, CLIPTextConfig(**given), seed=seed)


_T5 = {
    "vocab_size": 100,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": WIDTH,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}


def t5(seed: int = 2, **config: Any) -> T5EncoderModel:
    return seeded(T5EncoderModel, T5Config(**{**_T5, **config}), seed=seed)


def umt5(seed: int = 2, **config: Any) -> UMT5EncoderModel:
    return seeded(UMT5EncoderModel, UMT5Config(**{**_T5, **config}), seed=seed)


QWEN = {
    "vocab_size": 300,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}


def qwen3(cls: Any = Qwen3Model, seed: int = 3, **config: Any) -> Any:
    return seeded(cls, Qwen3Config(**{**QWEN, **config}), seed=seed)


def stand_in_for_ftfy() -> None:
    """Where ftfy is not installed, blocks that repair prompts with it leave them as they are: these need no repair."""
    for family in ("helios", "wan", "wan_animate_2"):
        module: Any = import_module(f"diffusers.modular_pipelines.{family}.encoders")
        if not hasattr(module, "ftfy"):
            module.ftfy = SimpleNamespace(fix_text=lambda text: text)
