"""Morphing: frames outside, timesteps inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from loopwright.diffusion import embedded_pipeline, save_animation


@pytest.fixture(scope="module")
def morph() -> Any:
    pipe = embedded_pipeline(workflow="morph")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_first_and_last_frames_are_the_pictures_of_the_prompts(morph: Any, pipe: Any, seeded: Any) -> None:
    inputs = {"num_inference_steps": 2, "output_type": "pt"}
    frames = morph(prompt=["cat", "dog"], num_frames=3, generator=seeded(1), output="frames", **inputs)
    assert len(frames) == 3
    for prompt, frame in (("cat", frames[0]), ("dog", frames[-1])):
        (image,) = pipe(prompt=prompt, generator=seeded(1), output="images", **inputs)
        torch.testing.assert_close(frame, image, rtol=0, atol=1e-4)
    assert not torch.allclose(frames[1], frames[0], atol=1e-3)
    assert not torch.allclose(frames[1], frames[2], atol=1e-3)


def test_every_prompt_is_passed(morph: Any, pipe: Any, seeded: Any) -> None:
    inputs = {"num_inference_steps": 1, "output_type": "latent"}
    frames = morph(prompt=["cat", "dog", "apple"], num_frames=5, generator=seeded(1), output="frames", **inputs)
    middle = pipe(prompt="dog", generator=seeded(1), output="images", **inputs)
    torch.testing.assert_close(frames[2], middle[0], rtol=0, atol=1e-4)


def test_the_timesteps_run_inside_the_frames(morph: Any) -> None:
    frames = morph.blocks.sub_blocks["frames"]
    assert list(frames.sub_blocks) == ["interpolate", "set_timesteps", "prepare_latents", "denoise", "decode"]
    assert list(frames.sub_blocks["denoise"].sub_blocks) == ["denoiser", "scheduler_step"]


def test_an_animation_is_written(morph: Any, seeded: Any, tmp_path: Any) -> None:
    frames = morph(prompt=["cat", "dog"], num_frames=3, num_inference_steps=1, generator=seeded(1), output="frames")
    save_animation(frames, tmp_path / "morph.webp", frame_ms=50)
    with Image.open(tmp_path / "morph.webp") as animation:
        assert (animation.n_frames, animation.size) == (3, (64, 64))  # type: ignore[attr-defined]
