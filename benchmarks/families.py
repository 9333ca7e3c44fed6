"""A family of diffusers, converted: what its call costs here, with models so small that the blocks are seen."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from loopwright.bridge import from_diffusers
from tests.bridge.families import flux

from .measure import Result, in_turns

STEPS = 4


def converted(repetitions: int) -> list[Result]:
    blocks = diffusers.FluxAutoBlocks().get_workflow("text2image")
    components = flux.components()
    ours, theirs = (with_components(each, components) for each in (from_diffusers(blocks), blocks))
    assert torch.equal(call(ours), call(theirs))
    times = in_turns(lambda: call(ours), lambda: call(theirs), calls=10, repetitions=repetitions)
    title = f"a call of diffusers' Flux, converted, {STEPS} steps with tiny models"
    return [Result(title, *times, bar=1.0)]


def with_components(blocks: Any, components: dict[str, Any]) -> Any:
    pipe = blocks.init_pipeline()
    pipe.update_components(**{name: value for name, value in components.items() if name in pipe._component_specs})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images: torch.Tensor = pipe(
        **flux.inputs(), prompt="red apple", num_inference_steps=STEPS, generator=generator, output="images"
    )
    return images
