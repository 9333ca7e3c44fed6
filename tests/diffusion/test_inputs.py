"""Inputs that cannot be used: each with the whole text that its user reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loopwright.diffusion import embedded_pipeline
from loopwright.errors import InvalidInputError

IMAGE = Image.new("RGB", (64, 64), "red")

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"prompt": 3}, "`prompt` must be a string or a list of strings, not 3"),
    ({"prompt": []}, "`prompt` is an empty list; give at least one string"),
    ({"prompt": ["dog", None]}, "`prompt` must be a string or a list of strings, not ['dog', None]"),
    (
        {"prompt": ["dog", "cat"], "negative_prompt": ["a", "b", "c"]},
        "`negative_prompt` has 3 entries, and `prompt` has 2; give one string for all, or one for each prompt",
    ),
    ({"num_images_per_prompt": 0}, "`num_images_per_prompt` must be a whole number of at least 1, not 0"),
    ({"num_inference_steps": 2.5}, "`num_inference_steps` must be a whole number of at least 1, not 2.5"),
    ({"guidance_scale": "high"}, "`guidance_scale` must be a number, not 'high'"),
    (
        {"output_type": "pill"},
        "`output_type` must be one of pil, np, pt, latent, not 'pill', did you mean `pil`?",
    ),
    ({"height": 70}, "`height` must be a multiple of 16 pixels, not 70; the nearest is 64"),
    ({"width": 64.0}, "`width` must be a whole number of pixels, not 64.0"),
    (
        {"generator": [torch.Generator()] * 3, "num_images_per_prompt": 2},
        "`generator` is a list of 3, and there are 2 images to make; give one for each image, or a single one",
    ),
    (
        {"generator": 7},
        "`generator` must be a `torch.Generator` or a list of them, not 7; for a seed, write "
        "`generator=torch.Generator().manual_seed(seed)`",
    ),
    (
        {"latents": torch.zeros(1, 4, 16, 16)},
        "`latents` must have the shape (1, 8, 16, 16) (images, channels, height, width in latents), not (1, 4, 16, 16)",
    ),
    (
        {"strength": 0.5},
        "`strength` says how far to go from an image, and no `image` was given; give one, or leave `strength` out",
    ),
    ({"image": IMAGE, "strength": 2}, "`strength` must be a number between 0 and 1, not 2"),
    (
        {"image": "apple.png"},
        "`image` must be a PIL image, an array, a tensor, or a list of those, not 'apple.png'; open it with "
        "`PIL.Image.open(path)`",
    ),
    ({"image": []}, "`image` is an empty list; give at least one image"),
    (
        {"image": [IMAGE] * 3, "prompt": ["dog", "cat"]},
        "`image` has 3 rows, and there are 2 images to make; give one row for all, or one for each",
    ),
    (
        {"image": IMAGE, "mask_image": Image.new("L", (32, 48))},
        "`mask_image` is 32x48 pixels, and `image` is 64x64; give a mask of the same size: white where the image may "
        "change",
    ),
]


@pytest.mark.parametrize(("inputs", "message"), MISTAKES, ids=[message[:45] for _, message in MISTAKES])
def test_a_mistake_is_explained_before_the_denoising(pipe: Any, inputs: dict[str, Any], message: str) -> None:
    denoised = []
    handle = pipe.transformer.register_forward_hook(lambda *_: denoised.append(True))
    try:
        with pytest.raises(InvalidInputError) as raised:
            pipe(**{"prompt": "dog", "num_inference_steps": 1, **inputs})
    finally:
        handle.remove()
    assert str(raised.value) == message
    assert not denoised


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": "dog"}, "`prompt` must be a list of at least two prompts, not 'dog'"),
        ({"prompt": ["dog"]}, "`prompt` must be a list of at least two prompts, not ['dog']"),
        (
            {"prompt": ["dog", "cat", "apple"], "num_frames": 2},
            "`num_frames` must be a whole number of at least 3, one for each prompt, not 2",
        ),
    ],
)
def test_a_mistake_of_a_morph(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        embedded_pipeline(workflow="morph")(**inputs)
    assert str(raised.value) == message


def test_a_strength_may_come_with_latents_in_place_of_an_image(pipe: Any) -> None:
    latents = pipe(prompt="dog", image=IMAGE, num_inference_steps=1, output="image_latents")
    inputs = {"prompt": "dog", "strength": 0.0, "output_type": "latent", "output": "images"}
    assert torch.equal(pipe(image_latents=latents, **inputs), pipe(image=IMAGE, **inputs))


def test_images_may_be_pictures_arrays_or_tensors(pipe: Any) -> None:
    values = np.asarray(IMAGE, dtype=np.float32) / 255
    tensor = torch.from_numpy(values).permute(2, 0, 1)
    expected = pipe(prompt="dog", image=IMAGE, strength=0.0, output_type="latent", output="images")
    for image in (values, tensor, tensor[None], [IMAGE]):
        latents = pipe(prompt="dog", image=image, strength=0.0, output_type="latent", output="images")
        assert torch.equal(latents, expected)
