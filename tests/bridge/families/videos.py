"""Families that make videos: Helios, HunyuanVideo 1.5, LTX."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    HeliosDMDScheduler,
    HeliosScheduler,
    HeliosTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    LTXVideoTransformer3DModel,
)
from transformers import (
    ByT5Tokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.bridge.families.case import Case, picture, seeded, video
from tests.bridge.families.text import QWEN, WIDTH, qwen_tokenizer, t5, t5_tokenizer, umt5
from tests.bridge.families.wan import wan_autoencoder

__all__ = ["CASES"]


def ltx() -> dict[str, Any]:
    vae = seeded(
        AutoencoderKLLTXVideo,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
    )
    return {
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "transformer": seeded(
            LTXVideoTransformer3DModel,
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            num_layers=2,
            caption_channels=WIDTH,
        ),
        "vae": vae,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def hunyuan(channels: int = 4, task: str = "t2v") -> dict[str, Any]:
    text = Qwen2_5_VLTextConfig(
        **{**QWEN, "max_position_embeddings": 4096},
        rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    )
    vision = SiglipVisionConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    return {
        "text_encoder": seeded(Qwen2_5_VLTextModel, text),
        "tokenizer": qwen_tokenizer(),
        "text_encoder_2": t5(vocab_size=400),
        "tokenizer_2": ByT5Tokenizer(),
        "image_encoder": seeded(SiglipVisionModel, vision),
        "feature_extractor": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        "transformer": seeded(
            HunyuanVideo15Transformer3DModel,
            in_channels=2 * channels + 1,
            out_channels=channels,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
            task_type=task,
        ),
        "vae": seeded(
            AutoencoderKLHunyuanVideo15,
            latent_channels=channels,
            block_out_channels=(16, 16),
            layers_per_block=1,
            spatial_compression_ratio=4,
            temporal_compression_ratio=2,
            downsample_match_channel=False,
            upsample_match_channel=False,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def helios(**scheduler: Any) -> dict[str, Any]:
    return {
        "text_encoder": umt5(),
        "tokenizer": t5_tokenizer(),
        "transformer": seeded(
            HeliosTransformer3DModel,
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=WIDTH,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
            rope_dim=(4, 4, 4),
        ),
        "vae": wan_autoencoder(),
        "scheduler": HeliosScheduler(**{"stage_range": [0, 1], "stages": 1, "use_dynamic_shifting": True, **scheduler}),
    }


def pyramid() -> dict[str, Any]:
    return helios(**_TWO_STAGES)


def distilled() -> dict[str, Any]:
    return {**helios(), "scheduler": HeliosDMDScheduler(**_TWO_STAGES)}


# with the default of a third, the covariance of the noise is singular, and on a CPU it has no Cholesky factor
_TWO_STAGES = {"stage_range": [0, 0.5, 1], "stages": 2, "gamma": 0.25}


def inputs() -> dict[str, Any]:
    return {"height": 16, "width": 16, "num_frames": 5, "output_type": "pt"}


def of_ltx() -> dict[str, Any]:
    return {**inputs(), "height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16, "frame_rate": 25}


def of_hunyuan() -> dict[str, Any]:
    return {**inputs(), "num_frames": 3}


def three_chunks() -> dict[str, Any]:
    # a chunk of two latent frames is five frames
    return {**inputs(), "num_frames": 15, "num_latent_frames_per_chunk": 2, "max_sequence_length": 16}


def three_pyramids() -> dict[str, Any]:
    return {**three_chunks(), "height": 32, "width": 32, "pyramid_num_inference_steps_list": [2, 2]}


def _helios_cases() -> list[Case]:
    found = []
    for workflow, given in [
        ("text2video", {}),
        ("image2video", {"image": picture(16, 16)}),
        ("video2video", {"video": video(5, 16, 16)}),
    ]:
        found.append(
            Case(
                "helios",
                "HeliosAutoBlocks",
                workflow,
                helios,
                lambda given=given: {**three_chunks(), **given},
                steps=2,
                iterations=3,
            )
        )
        for blocks, components in [
            ("HeliosPyramidAutoBlocks", pyramid),
            ("HeliosPyramidDistilledAutoBlocks", distilled),
        ]:
            found.append(
                Case(
                    "helios-pyramid",
                    blocks,
                    workflow,
                    components,
                    lambda given=given: {**three_pyramids(), **given},
                    steps_input=None,
                    fewer={"pyramid_num_inference_steps_list": [1, 2]},
                    iterations=3,
                )
            )
    return found


CASES = [
    Case("ltx", "LTXAutoBlocks", "text2video", ltx, of_ltx),
    Case("ltx", "LTXAutoBlocks", "image2video", ltx, lambda: {**of_ltx(), "image": picture()}),
    Case("hunyuan-video-1.5", "HunyuanVideo15AutoBlocks", "text2video", hunyuan, of_hunyuan),
    Case(
        "hunyuan-video-1.5",
        "HunyuanVideo15AutoBlocks",
        "image2video",
        lambda: hunyuan(task="i2v"),
        lambda: {**of_hunyuan(), "image": picture(16, 16)},
    ),
    *_helios_cases(),
]
