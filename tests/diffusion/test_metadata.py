"""Metadata: what a file says about how its image was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from loopwright.diffusion import ImageMetadata, read_metadata, save_animation, save_image
from loopwright.errors import InvalidInputError

RED = Image.new("RGB", (64, 64), "red")
METADATA = ImageMetadata(
    prompt="red apple",
    negative_prompt="leaf",
    seed=7,
    num_inference_steps=20,
    guidance_scale=3.0,
    scheduler="FlowMatchEulerDiscreteScheduler",
    model="emoji",
    width=64,
    height=64,
    version="loopwright 0.1.0",
)
PARAMETERS = (
    "red apple\n"
    "Negative prompt: leaf\n"
    "Steps: 20, Sampler: FlowMatchEulerDiscreteScheduler, CFG scale: 3, Seed: 7, Size: 64x64, Model: emoji, "
    "Version: loopwright 0.1.0"
)


def test_a_png_has_the_text_that_tools_of_this_field_read(tmp_path: Path) -> None:
    save_image(RED, tmp_path / "apple.png", METADATA)
    with Image.open(tmp_path / "apple.png") as image:
        assert image.info["parameters"] == PARAMETERS


def test_a_png_has_the_same_as_json(tmp_path: Path) -> None:
    save_image(RED, tmp_path / "apple.png", METADATA)
    with Image.open(tmp_path / "apple.png") as image:
        chunk = json.loads(image.info["loopwright"])
    assert (chunk["prompt"], chunk["seed"], chunk["version"]) == ("red apple", 7, "loopwright 0.1.0")


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "jpeg", "PNG"])
@pytest.mark.parametrize(
    "metadata",
    [
        METADATA,
        ImageMetadata(prompt="dog"),
        ImageMetadata(prompt='two\nlines: a, "b"', seed=0, strength=0.6, num_inference_steps=1),
        ImageMetadata(prompt="Äpfel 🍎", model="a, b: c", num_inference_steps=20, guidance_scale=2.5),
    ],
    ids=lambda metadata: ascii(metadata.prompt),
)
def test_metadata_comes_back_as_it_was(tmp_path: Path, suffix: str, metadata: ImageMetadata) -> None:
    save_image(RED, tmp_path / f"picture.{suffix}", metadata)
    found = read_metadata(tmp_path / f"picture.{suffix}")
    assert found == metadata


def test_an_animation_has_metadata_too(tmp_path: Path) -> None:
    save_animation([RED, RED.rotate(10, fillcolor="white")], tmp_path / "morph.webp", METADATA)
    assert read_metadata(tmp_path / "morph.webp") == METADATA


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_the_last_frame_of_an_animation_can_be_held(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"forming{suffix}"
    save_animation([RED, Image.new("RGB", (64, 64), "blue")], path, METADATA, frame_ms=50, last_ms=900)
    assert read_metadata(path) == METADATA
    shown = []
    with Image.open(path) as animation:
        for number in range(animation.n_frames):  # type: ignore[attr-defined]
            animation.seek(number)
            animation.load()
            shown.append(animation.info["duration"])
    assert shown == [50, 900]


def test_the_text_of_another_tool_is_read() -> None:
    text = "a cat, best quality\nNegative prompt: dog\nblurry\nSteps: 28, Sampler: Euler a, Schedule type: Automatic, "
    text += 'CFG scale: 7, Seed: 42, Size: 512x768, Model hash: abc, Model: "a, b", Version: v1.10'
    assert ImageMetadata.from_parameters(text) == ImageMetadata(
        prompt="a cat, best quality",
        negative_prompt="dog\nblurry",
        seed=42,
        num_inference_steps=28,
        guidance_scale=7.0,
        scheduler="Euler a",
        model="a, b",
        width=512,
        height=768,
        version="v1.10",
    )


def test_an_image_without_metadata_has_none(tmp_path: Path) -> None:
    save_image(RED, tmp_path / "plain.png")
    assert read_metadata(tmp_path / "plain.png") is None


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "apple.png"
    save_image(RED, path, METADATA)

    class Broken(Image.Image):
        def save(self, file: Any, *_: Any, **__: Any) -> None:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_image(Broken(), path, METADATA)
    assert read_metadata(path) == METADATA
    assert list(tmp_path.iterdir()) == [path]


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for wrong, message in [
        (
            lambda: save_image(RED, "apple.pgn"),
            "apple.pgn: images are written as .png, .webp, .jpg, .jpeg, did you mean `.png`?",
        ),
        (
            lambda: save_animation([RED], "morph.wepb"),
            "morph.wepb: animations are written as .webp, .gif, .png, did you mean `.webp`?",
        ),
        (lambda: save_animation([], "morph.webp"), "`frames` is empty; give at least one"),
        (lambda: read_metadata(tmp_path / "text.png"), f"{tmp_path / 'text.png'} is not an image"),
    ]:
        with pytest.raises(InvalidInputError) as raised:
            wrong()
        assert str(raised.value) == message
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "absent.png")
