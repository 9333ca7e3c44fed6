"""Image to image and inpainting: how much of the given image stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loopwright.diffusion import embedded_pipeline
from loopwright.errors import InvalidInputError


def reconstruction(pipe: Any, image: Image.Image) -> torch.Tensor:
    """The image after the autoencoder alone, [1, 3, 64, 64] in 0..1."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        decoded = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode()).sample
    return (decoded / 2 + 0.5).clamp(0, 1)


def test_strength_0_gives_the_image_back(pipe: Any, picture: Image.Image) -> None:
    images = pipe(prompt="dog", image=picture, strength=0.0, output_type="pt", output="images")
    torch.testing.assert_close(images, reconstruction(pipe, picture), rtol=0, atol=1e-4)


def test_strength_1_forgets_the_image(pipe: Any, picture: Image.Image, seeded: Any) -> None:
    inputs = {"prompt": "dog", "num_inference_steps": 2, "output_type": "latent", "output": "images"}
    from_image = pipe(image=picture, strength=1.0, generator=seeded(1), **inputs)
    torch.testing.assert_close(from_image, pipe(generator=seeded(1), **inputs), rtol=0, atol=1e-3)


def test_the_last_steps_are_taken(pipe: Any, picture: Image.Image, seeded: Any) -> None:
    run = pipe.start(prompt="dog", image=picture, strength=0.5, num_inference_steps=4, generator=seeded(1))
    state = run.result()
    assert state.num_inference_steps == 2
    assert torch.equal(state.timesteps, run.components.scheduler.timesteps[2:])


def test_a_stronger_change_goes_farther_from_the_image(pipe: Any, picture: Image.Image, seeded: Any) -> None:
    def distance(strength: float) -> float:
        images = pipe(
            prompt="dog",
            image=picture,
            strength=strength,
            num_inference_steps=4,
            generator=seeded(1),
            output_type="pt",
            output="images",
        )
        return float((images - reconstruction(pipe, picture)).square().mean())

    assert distance(0.25) < distance(0.75)


def test_each_image_of_a_batch_has_its_own_start(pipe: Any, picture: Image.Image, seeded: Any) -> None:
    other = picture.rotate(90).resize((32, 32))
    inputs = {"num_inference_steps": 2, "strength": 0.5, "output_type": "pt", "output": "images"}
    together = pipe(prompt=["dog", "cat"], image=[picture, other], generator=seeded(1, 2), **inputs)
    alone = pipe(prompt="cat", image=other, generator=[seeded(2)], **inputs)
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


def test_latents_of_an_image_of_another_shape_are_an_error(pipe: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        pipe(prompt="dog", image_latents=torch.zeros(1), num_inference_steps=1)
    assert str(caught.value) == (
        "`image_latents` must have the shape (1, 8, 16, 16) (images, channels, height, width in latents), not (1,)"
    )


def test_a_transparent_image_is_seen_on_white(pipe: Any) -> None:
    clear, white = Image.new("RGBA", (64, 64), (0, 0, 0, 0)), Image.new("RGB", (64, 64), "white")
    on_clear, on_white = (
        pipe(prompt="dog", image=image, strength=0.0, output_type="latent", output="images") for image in (clear, white)
    )
    assert torch.equal(on_clear, on_white)


def test_pixels_outside_the_mask_stay_exactly_as_they_are(
    pipe: Any, picture: Image.Image, right_half: Image.Image, seeded: Any
) -> None:
    (image,) = pipe(
        prompt="dog",
        image=picture,
        mask_image=right_half,
        num_inference_steps=3,
        generator=seeded(1),
        output="images",
    )
    before, after = np.asarray(picture), np.asarray(image)
    np.testing.assert_array_equal(after[:, :32], before[:, :32])
    assert np.abs(after[:, 32:].astype(int) - before[:, 32:]).mean() > 5


def test_latents_outside_the_mask_stay_as_they_are(
    pipe: Any, picture: Image.Image, right_half: Image.Image, seeded: Any
) -> None:
    state = pipe(
        prompt="dog",
        image=picture,
        mask_image=right_half,
        num_inference_steps=3,
        generator=seeded(1),
        output_type="latent",
    )
    assert torch.equal(state.images[..., :8], state.image_latents[..., :8])
    assert not torch.allclose(state.images[..., 8:], state.image_latents[..., 8:], atol=0.1)


def test_what_is_outside_the_mask_counts_for_what_is_made_inside(
    pipe: Any, picture: Image.Image, right_half: Image.Image, seeded: Any
) -> None:
    inputs = {"prompt": "dog", "mask_image": right_half, "num_inference_steps": 3, "output_type": "latent"}
    on_disc, on_white = (
        pipe(image=image, generator=seeded(1), output="images", **inputs)
        for image in (picture, Image.new("RGB", (64, 64), "white"))
    )
    assert not torch.allclose(on_disc[..., 8:], on_white[..., 8:], atol=1e-4)


def test_an_empty_mask_changes_nothing(pipe: Any, picture: Image.Image, seeded: Any) -> None:
    nothing = Image.new("L", (64, 64), 0)
    (image,) = pipe(
        prompt="dog", image=picture, mask_image=nothing, num_inference_steps=1, generator=seeded(1), output="images"
    )
    np.testing.assert_array_equal(np.asarray(image), np.asarray(picture))


@pytest.mark.parametrize(
    ("workflow", "extra"),
    [("text2image", []), ("image2image", ["image"]), ("inpainting", ["image", "mask_image"])],
)
def test_a_single_workflow_gives_the_pictures_of_the_preset(
    pipe: Any, workflow: str, extra: list[str], picture: Image.Image, right_half: Image.Image, seeded: Any
) -> None:
    single = embedded_pipeline(workflow=workflow)
    single.set_progress_bar_config(disable=True)
    given = {"image": picture, "mask_image": right_half}
    inputs = {"prompt": "dog", "num_inference_steps": 2, "output_type": "pt"} | {name: given[name] for name in extra}
    from_single, from_preset = (one(generator=seeded(1), output="images", **inputs) for one in (single, pipe))
    assert torch.equal(from_single, from_preset)
