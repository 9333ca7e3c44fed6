"""Cosmos 3: pictures, videos, sound and actions by one transformer, and videos that follow other videos."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    Cosmos3AVAEAudioTokenizer,
    Cosmos3OmniTransformer,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import CosmosActionCondition

from tests.bridge.families.case import Case, picture, seeded, video
from tests.bridge.families.text import WIDTH, qwen_tokenizer
from tests.bridge.families.wan import scheduler, wan_autoencoder

__all__ = ["CASES"]

_CHANNELS = 16
_SOUND_CHANNELS = 4
_ACTION_CHANNELS = 12


def transformer() -> Cosmos3OmniTransformer:
    return seeded(
        Cosmos3OmniTransformer,
        head_dim=16,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        latent_channel=_CHANNELS,
        patch_latent_dim=4 * _CHANNELS,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_key_value_heads=1,
        rope_axes_dim=(4, 2, 2),
        vocab_size=300,
        sound_gen=True,
        sound_dim=_SOUND_CHANNELS,
        action_gen=True,
        action_dim=_ACTION_CHANNELS,
    )


def sound_tokenizer() -> Cosmos3AVAEAudioTokenizer:
    return seeded(
        Cosmos3AVAEAudioTokenizer,
        sampling_rate=800,
        vocoder_input_dim=_SOUND_CHANNELS,
        dec_dim=2,
        dec_c_mults=(1, 2),
        dec_strides=(4, 8),
        encoder_enabled=False,
    )


def omni() -> dict[str, Any]:
    return {
        "text_tokenizer": qwen_tokenizer(),
        "transformer": transformer(),
        "vae": wan_autoencoder(),
        "scheduler": scheduler(),
        "sound_tokenizer": sound_tokenizer(),
        # its models come from a repository
        "enable_safety_checker": False,
    }


def distilled() -> dict[str, Any]:
    return {
        **omni(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "distilled_sigmas": [1.0, 0.75, 0.5],
    }


def inputs() -> dict[str, Any]:
    return {"height": 32, "width": 32, "num_frames": 5, "output_type": "pt"}


def of_picture() -> dict[str, Any]:
    return {**inputs(), "num_frames": 1}


def with_image() -> dict[str, Any]:
    return {**inputs(), "image": picture()}


def with_video() -> dict[str, Any]:
    # of three latent frames two are those of the video
    return {**inputs(), "num_frames": 9, "video": video(5)}


def with_controls() -> dict[str, Any]:
    # three chunks of five frames, of which one is that of the chunk before
    return {
        "height": 32,
        "width": 32,
        "control_videos": {"edge": video(13), "depth": video(13, seed=20)},
        "num_video_frames_per_chunk": 5,
        "output_type": "pt",
    }


def action(mode: str) -> dict[str, Any]:
    given: dict[str, Any] = {"image": picture(64, 64)}
    if mode == "forward_dynamics":
        given["raw_actions"] = torch.rand((4, 10), generator=torch.Generator().manual_seed(3))
    if mode == "inverse_dynamics":
        given = {"video": video(5, 64, 64)}
    condition = CosmosActionCondition(mode=mode, chunk_size=4, domain_name="umi", resolution_tier=256, **given)
    return {"action": condition, "output_type": "pt"}


def _omni_cases() -> list[Case]:
    found = [
        Case("cosmos3-omni", "Cosmos3OmniBlocks", workflow, omni, given)
        for workflow, given in [
            ("text2image", of_picture),
            ("text2video", inputs),
            ("image2video", with_image),
            ("video2video", with_video),
        ]
    ]
    for workflow, given in [("text2video", inputs), ("image2video", with_image), ("video2video", with_video)]:
        found.append(
            Case(
                "cosmos3-omni",
                "Cosmos3OmniBlocks",
                f"{workflow}_with_sound",
                omni,
                given,
            )
        )
    for mode in ("policy", "forward_dynamics", "inverse_dynamics"):
        found.append(
            Case("cosmos3-omni", "Cosmos3OmniBlocks", f"action_{mode}", omni, lambda mode=mode: action(mode), steps=2)
        )
    return found


CASES = [
    *_omni_cases(),
    # each chunk is denoised by a loop of its own, the loop over the chunks is within a composite
    Case(
        "cosmos3-omni",
        "Cosmos3OmniBlocks",
        None,
        omni,
        with_controls,
        steps=2,
        iterations=6,
        not_resumed="the loop over its chunks is hidden in a composite, and what it keeps meanwhile cannot be saved",
        hard=True,
        name="Cosmos3Omni-transfer",
    ),
    *(
        Case(
            "cosmos3-omni",
            "Cosmos3DistilledBlocks",
            workflow,
            distilled,
            given,
            steps_input=None,
            fewer={"num_frames": 13},
        )
        for workflow, given in [
            ("text2image", of_picture),
            ("text2video", inputs),
            ("image2video", with_image),
            ("video2video", with_video),
        ]
    ),
]
