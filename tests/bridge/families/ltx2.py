"""LTX 2, LTX 2.5 and Echo: videos with sound, and a scheduler for the sound that a block makes."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2VideoDiffusionDecoderModel,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from diffusers.pipelines.ltx2.duration_head import LTX2DurationHead
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from tests.bridge.families.case import Case, picture, seeded
from tests.bridge.families.text import QWEN, WIDTH, qwen_tokenizer

__all__ = ["CASES", "gemma3"]


def gemma3() -> Gemma3ForConditionalGeneration:
    config = Gemma3Config(
        text_config={**QWEN, "sliding_window": 64, "query_pre_attn_scalar": 16},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        mm_tokens_per_image=4,
    )
    return seeded(Gemma3ForConditionalGeneration, config, seed=3)


def ltx2() -> dict[str, Any]:
    return {
        "text_encoder": gemma3(),
        "tokenizer": qwen_tokenizer(padding_side="left"),
        "connectors": seeded(
            LTX2TextConnectors,
            caption_channels=WIDTH,
            text_proj_in_factor=3,
            video_connector_num_attention_heads=2,
            video_connector_attention_head_dim=16,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=2,
            audio_connector_attention_head_dim=16,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            connector_rope_base_seq_len=32,
            rope_double_precision=False,
            rope_type="split",
        ),
        "duration_head": seeded(
            LTX2DurationHead,
            video_cross_attention_dim=WIDTH,
            audio_cross_attention_dim=WIDTH,
            pooler_hidden_dim=16,
            num_pooler_heads=2,
            mlp_hidden_dim=16,
        ),
        "transformer": seeded(
            LTX2VideoTransformer3DModel,
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=2,
            caption_channels=WIDTH,
            rope_double_precision=False,
            rope_type="split",
        ),
        "vae": seeded(
            AutoencoderKLLTX2Video,
            latent_channels=4,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatial",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            patch_size=1,
            decoder_causal=False,
        ),
        "audio_vae": seeded(
            AutoencoderKLLTX2Audio,
            base_channels=4,
            ch_mult=(1,),
            num_res_blocks=1,
            resolution=32,
            latent_channels=2,
            mel_bins=8,
        ),
        "vocoder": seeded(
            LTX2Vocoder,
            in_channels=16,
            hidden_channels=32,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=16000,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def ltx2_5() -> dict[str, Any]:
    decoder = seeded(
        LTX2VideoDiffusionDecoderModel,
        latent_channels=4,
        # on a CPU its attention goes from each place to each: all upsampling is in the last layer
        patch_size=2,
        decoder_head_dim=8,
        decoder_stage_channels=(24, 24, 24, 24, 24),
        decoder_stage_depths=(1, 1, 1, 1, 1),
        decoder_stage_kernels=((1, 3, 3),) * 4,
        decoder_upsample_strides=((1, 1, 1),) * 4,
        decoder_upsample_channel_reductions=(1, 1, 1, 1),
        decoder_stage5_kernel=(1, 3, 3),
        decoder_t_emb_dim=8,
        spatial_compression_ratio=2,
        temporal_compression_ratio=1,
    )
    return {**ltx2(), "diffusion_decoder": decoder}


def inputs() -> dict[str, Any]:
    return {
        "negative_prompt": "grey",
        "height": 32,
        "width": 32,
        "frame_rate": 25.0,
        "max_sequence_length": 16,
        "output_type": "pt",
    }


def short() -> dict[str, Any]:
    # nine or ten frames, of which the autoencoder can make nine: whatever the model for the duration predicts
    return {**inputs(), "min_seconds": 0.36, "max_seconds": 0.4}


def without_autoencoder() -> dict[str, Any]:
    # the blocks then take its sizes for those of LTX 2: the decoder gets a 32nd of the pixels
    return {**short(), "height": 96, "width": 96}


def with_image() -> dict[str, Any]:
    # 0: the image is not compressed before, which PyAV would do
    return {**short(), "image": picture(), "image_crf": 0}


def with_condition() -> dict[str, Any]:
    image = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(7))
    return {**short(), "conditions": LTX2VideoCondition(frames=image, index=0, strength=1.0, crf=0)}


def with_reference() -> dict[str, Any]:
    frames = torch.rand((1, 5, 3, 32, 32), generator=torch.Generator().manual_seed(7))
    return {**inputs(), "num_frames": 5, "reference_conditions": LTX2ReferenceCondition(frames=frames, strength=1.0)}


def echo() -> dict[str, Any]:
    return {
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "max_sequence_length": 16,
        "sigmas": (1.0, 0.9, 0.5, 0.0),
        "output_type": "pt",
    }


def echo_with_memory() -> dict[str, Any]:
    return {**echo(), "image": picture(), "memory_images": [picture(seed=1), picture(seed=2)]}


CASES = [
    Case("ltx2", "LTX2AutoBlocks", "text2video", ltx2, short),
    Case("ltx2", "LTX2AutoBlocks", "image2video", ltx2, with_image),
    Case("ltx2", "LTX2AutoBlocks", "condition", ltx2, with_condition),
    Case("ltx2", "LTX2AutoBlocks", "in_context", ltx2, with_reference),
    Case("ltx2.5", "LTX25AutoBlocks", "text2video", ltx2_5, without_autoencoder),
    Case("ltx2.5", "LTX25AutoBlocks", "image2video", ltx2_5, with_image),
    Case("ltx2.5", "LTX25AutoBlocks", "condition", ltx2_5, with_condition),
    Case("ltx2.5", "LTX25AutoBlocks", "in_context", ltx2_5, with_reference),
    Case("echo", "EchoBlocks", None, ltx2, echo, steps_input=None, fewer={"sigmas": (1.0, 0.5, 0.0)}),
    Case(
        "echo",
        "EchoBlocks",
        None,
        ltx2,
        echo_with_memory,
        steps_input=None,
        fewer={"sigmas": (1.0, 0.5, 0.0)},
        name="Echo-image-memory",
    ),
]
