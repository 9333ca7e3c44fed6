"""Text to image: the same pictures as a loop written by hand, one generator for each image, and all output types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loopwright.diffusion import embedded_pipeline

STEPS = 3


def by_hand(pipe: Any, prompt: str, generator: torch.Generator, guidance_scale: float = 3.0) -> torch.Tensor:
    """What the blocks do, as one function: latents after `STEPS` steps of Euler with classifier-free guidance."""
    tokens = pipe.tokenizer(
        [prompt, ""], padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
    )
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    config = pipe.transformer.config
    shape = (1, config.in_channels, config.sample_size, config.sample_size)
    latents = torch.randn(shape, generator=generator)
    with torch.no_grad():
        embeds = pipe.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        for t in scheduler.timesteps:
            told, untold = pipe.transformer(
                hidden_states=torch.cat([latents, latents]),
                encoder_hidden_states=embeds,
                encoder_attention_mask=tokens.attention_mask,
                timestep=t.expand(2),
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                return_dict=False,
            )[0].chunk(2)
            velocity = untold + guidance_scale * (told - untold)
            latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
    return latents


def test_the_latents_are_those_of_a_loop_written_by_hand(pipe: Any, seeded: Any) -> None:
    latents = pipe(
        prompt="red apple", num_inference_steps=STEPS, generator=seeded(1), output_type="latent", output="images"
    )
    assert torch.equal(latents, by_hand(pipe, "red apple", seeded(1)))


def test_an_image_depends_on_its_own_prompt_and_generator_only(pipe: Any, seeded: Any) -> None:
    together = pipe(
        prompt=["red apple", "dog"],
        num_images_per_prompt=2,
        num_inference_steps=STEPS,
        generator=seeded(1, 2, 3, 4),
        output_type="pt",
        output="images",
    )
    for index, (prompt, seed) in enumerate([("red apple", 1), ("red apple", 2), ("dog", 3), ("dog", 4)]):
        alone = pipe(
            prompt=prompt, num_inference_steps=STEPS, generator=[seeded(seed)], output_type="pt", output="images"
        )
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-4)


def test_a_call_can_be_repeated(pipe: Any, seeded: Any) -> None:
    first, second = (
        pipe(prompt="dog", num_inference_steps=STEPS, generator=seeded(5), output_type="pt", output="images")
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "change",
    [{"prompt": "dog"}, {"seed": 6}, {"num_inference_steps": 4}, {"negative_prompt": "dog"}, {"guidance_scale": 1.0}],
    ids=lambda change: next(iter(change)),
)
def test_every_input_matters(pipe: Any, seeded: Any, change: dict[str, Any]) -> None:
    def latents(prompt: str = "red apple", seed: int = 5, **inputs: Any) -> torch.Tensor:
        inputs = {"num_inference_steps": STEPS, **inputs}
        found: torch.Tensor = pipe(
            prompt=prompt, generator=seeded(seed), output_type="latent", output="images", **inputs
        )
        return found

    assert not torch.allclose(latents(), latents(**change), atol=1e-3)


def test_the_output_types(pipe: Any, seeded: Any) -> None:
    def images(output_type: str) -> Any:
        return pipe(prompt="dog", num_inference_steps=1, generator=seeded(1), output_type=output_type, output="images")

    (pil,) = images("pil")
    assert isinstance(pil, Image.Image)
    assert pil.size == (64, 64)
    array, tensor, latents = images("np"), images("pt"), images("latent")
    assert array.shape == (1, 64, 64, 3)
    assert tensor.shape == (1, 3, 64, 64)
    assert latents.shape == (1, pipe.vae.config.latent_channels, 16, 16)
    assert 0 <= array.min() <= array.max() <= 1
    np.testing.assert_array_equal(np.asarray(pil), (array[0] * 255).round().astype("uint8"))
    np.testing.assert_allclose(array[0], tensor[0].permute(1, 2, 0).numpy())


def test_own_latents_replace_the_noise(pipe: Any, seeded: Any) -> None:
    config = pipe.transformer.config
    noise = torch.randn(1, config.in_channels, 16, 16, generator=seeded(1))
    given = pipe(prompt="dog", num_inference_steps=STEPS, latents=noise, output_type="latent", output="images")
    drawn = pipe(prompt="dog", num_inference_steps=STEPS, generator=seeded(1), output_type="latent", output="images")
    assert torch.equal(given, drawn)


def test_own_sigmas_replace_the_number_of_steps(pipe: Any, seeded: Any) -> None:
    state = pipe(prompt="dog", sigmas=[1.0, 0.5], generator=seeded(1), output_type="latent")
    assert state.num_inference_steps == 2
    assert state.timesteps.tolist() == [1000, 500]


def test_a_height_and_width_of_its_own(pipe: Any, seeded: Any) -> None:
    (image,) = pipe(prompt="dog", height=32, width=96, num_inference_steps=1, generator=seeded(1), output="images")
    assert image.size == (96, 32)


def test_the_guidance_scale_of_a_call_stays_in_the_call(pipe: Any, seeded: Any) -> None:
    latents = pipe(
        prompt="dog",
        num_inference_steps=STEPS,
        generator=seeded(1),
        guidance_scale=5.0,
        output_type="latent",
        output="images",
    )
    assert torch.equal(latents, by_hand(pipe, "dog", seeded(1), guidance_scale=5.0))
    assert pipe.guider.guidance_scale == 3.0


def test_a_prompt_longer_than_the_model_reads_is_cut_with_a_warning(pipe: Any, seeded: Any) -> None:
    with pytest.warns(UserWarning, match="has more than 12 tokens; only '.*' is read"):
        pipe(prompt=" ".join(["apple"] * 20), num_inference_steps=1, generator=seeded(1))


def test_half_precision_draws_the_same_noise(pipe: Any, seeded: Any) -> None:
    half_pipe = embedded_pipeline(dtype=torch.bfloat16, workflow="text2image")
    half_pipe.set_progress_bar_config(disable=True)
    half, full = (one(prompt="dog", num_inference_steps=1, generator=seeded(1)) for one in (half_pipe, pipe))
    assert half_pipe.transformer.dtype == torch.bfloat16
    assert torch.equal(full.noise, half.noise)
    assert (half.latents - full.latents).abs().mean() < 0.05
