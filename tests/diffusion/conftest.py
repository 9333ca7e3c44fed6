"""The embedded model, loaded once, with few steps and no progress bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from loopwright.diffusion import embedded_pipeline
from loopwright.modular_pipelines import ModularPipeline

Seeded = Callable[..., Any]


@pytest.fixture(scope="session")
def loaded() -> ModularPipeline:
    pipe = embedded_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded: ModularPipeline) -> Any:
    """The pipeline of the embedded model; components that a test replaces are put back."""
    before = loaded.components
    yield loaded
    loaded.register_components(**before)


@pytest.fixture
def seeded() -> Seeded:
    """One generator for one seed, a list of them for several."""

    def generators(*seeds: int) -> Any:
        made = [torch.Generator().manual_seed(seed) for seed in seeds]
        return made[0] if len(made) == 1 else made

    return generators


@pytest.fixture
def picture() -> Image.Image:
    """64x64: a red disc on white."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="red")
    return image


@pytest.fixture
def right_half() -> Image.Image:
    """A mask, white on the right half."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    return mask
