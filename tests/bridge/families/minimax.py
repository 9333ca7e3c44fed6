"""MiniMax H3, which makes videos with sound, and MiniMax Music 3."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLMiniMaxH3,
    AutoencoderKLMiniMaxH3Audio,
    FlowMatchEulerDiscreteScheduler,
    MiniMaxH3Scheduler,
    MiniMaxH3Transformer3DModel,
    MiniMaxMusic3ConditionEncoder,
    MiniMaxMusic3RVQDepthDecoder,
    MiniMaxMusic3Transformer1DModel,
    MiniMaxMusic3Vocoder,
)
from diffusers.modular_pipelines.minimax_h3.references import MiniMaxH3ImageReference
from transformers import Qwen3ForCausalLM

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.text import WIDTH, qwen3, qwen_tokenizer
from tests.bridge.families.vision import qwen3_vl, qwen3_vl_processor

__all__ = ["CASES"]


def h3() -> dict[str, Any]:
    def transformer(seed: int) -> MiniMaxH3Transformer3DModel:
        return seeded(
            MiniMaxH3Transformer3DModel,
            num_attention_heads=2,
            attention_head_dim=16,
            hidden_size=32,
            num_layers=1,
            num_refiner_layers=1,
            ffn_dim=32,
            in_channels=4,
            audio_in_channels=4,
            text_dim=WIDTH,
            freq_dim=16,
            time_embed_hidden_dim=16,
            time_embed_dim=16,
            rope_freq_dim=2,
            seed=seed,
        )

    return {
        # features are those of the 50th layer
        "text_encoder": qwen3_vl(num_hidden_layers=51),
        "tokenizer": qwen_tokenizer(),
        "processor": qwen3_vl_processor(),
        "transformer": transformer(0),
        "transformer_ref": transformer(1),
        "vae": seeded(
            AutoencoderKLMiniMaxH3,
            latent_channels=4,
            block_out_channels=(4, 4, 4, 4, 4, 4),
            layers_per_block=1,
            norm_num_groups=2,
            decoder_num_layers=1,
            decoder_num_attention_heads=2,
            decoder_attention_head_dim=16,
            latents_mean=(0.0,) * 4,
            latents_std=(1.0,) * 4,
        ),
        "audio_vae": seeded(
            AutoencoderKLMiniMaxH3Audio,
            encoder_dim=2,
            latent_dim=16,
            latent_channels=4,
            num_attention_heads=2,
            decoder_dim=128,
            resblock_kernel_sizes=(3,),
            resblock_dilation_sizes=((1, 3, 5),),
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "scheduler": MiniMaxH3Scheduler(),
        "audio_scheduler": MiniMaxH3Scheduler(),
        "reference_image_short_edge": 64,
    }


def of_h3() -> dict[str, Any]:
    # five seconds are the least
    return {"height": 32, "width": 32, "num_frames": 124, "output_type": "pt"}


def with_keyframe() -> dict[str, Any]:
    return {**of_h3(), "image": picture()}


def with_references() -> dict[str, Any]:
    return {**of_h3(), "references": [MiniMaxH3ImageReference(image=picture(80, 48))]}


_MUSIC_WIDTH = 16


def music3() -> dict[str, Any]:
    return {
        "tokenizer": qwen_tokenizer(),
        # codes of sounds are tokens beyond those of text
        "language_model": qwen3(Qwen3ForCausalLM, vocab_size=168_064, hidden_size=_MUSIC_WIDTH),
        "rvq_depth_decoder": seeded(
            MiniMaxMusic3RVQDepthDecoder,
            hidden_size=_MUSIC_WIDTH,
            num_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            audio_vocab_size=64,
        ),
        "condition_encoder": seeded(
            MiniMaxMusic3ConditionEncoder, condition_hidden_dim=_MUSIC_WIDTH, out_dim=_MUSIC_WIDTH
        ),
        "transformer": seeded(
            MiniMaxMusic3Transformer1DModel,
            in_channels=4,
            condition_dim=_MUSIC_WIDTH,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            ff_inner_dim=16,
            rotary_dim=4,
            fourier_embedding_dim=8,
        ),
        "vocoder": seeded(MiniMaxMusic3Vocoder, latent_channels=4, decoder_input_dim=16, decoder_hidden_dim=16),
        "scheduler": FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    }


def song() -> dict[str, Any]:
    return {"lyrics": "[verse]\nhello world", "audio_duration": 0.2, "output_type": "pt"}


def _frames(seed: int) -> torch.Tensor:
    """What the language model hands over for 350 frames, which are three chunks."""
    return torch.randn(1, 350, 8 * _MUSIC_WIDTH, generator=torch.Generator().manual_seed(seed))


CASES = [
    # the last of its steps is the end, at which nothing is left to be predicted
    Case("minimax-h3", "MiniMaxH3Blocks", "t2va", h3, of_h3, iterations=2),
    Case("minimax-h3", "MiniMaxH3Blocks", "fl2va", h3, with_keyframe, iterations=2),
    Case("minimax-h3", "MiniMaxH3Blocks", "ref2va", h3, with_references, iterations=2),
    # a chunk is denoised by a loop within a block
    Case("minimax-music3", "MiniMaxMusic3Blocks", None, music3, song, iterations=1),
    Case(
        "minimax-music3",
        "MiniMaxMusic3Blocks",
        None,
        music3,
        lambda: {"output_type": "pt"},
        iterations=3,
        remove=("semantic_generator",),
        why_removed="the frames of three chunks are given instead",
        prompt="frame_hiddens",
        prompts=(_frames(1), _frames(2)),
        hard=True,
        name="MiniMaxMusic3-chunks",
    ),
]
