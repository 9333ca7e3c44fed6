"""A pipeline whose iterations tests let through one by one: a picture of one colour, by a loop that counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image

from loopwright import (
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from loopwright.errors import InvalidInputError

PATIENCE = 60  # seconds after which a test that waits has failed
SIDE = 8


class Turnstile:
    """Lets iterations through: all of them, or so many as a test says."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left: int | None = None
        self._waiting = 0
        self.passed = 0

    def close(self) -> None:
        """From now on only those pass that `let` lets."""
        with self._changed:
            self._left = 0

    def let(self, count: int) -> None:
        """Let so many more through."""
        with self._changed:
            self._left = (self._left or 0) + count
            self._changed.notify_all()

    def open(self) -> None:
        """Let all through."""
        with self._changed:
            self._left = None
            self._changed.notify_all()

    def wait(self) -> None:
        """Until somebody waits."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting > 0, PATIENCE)

    def go_through(self) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._left is None or self._left > 0, PATIENCE)
            self._waiting -= 1
            if self._left is not None:
                self._left -= 1
            self.passed += 1


TURNSTILE = Turnstile()


class Begin(ModularPipelineBlocks):
    description = "Draws the first value."
    inputs = [
        InputParam("prompt", str, required=True, description="What the picture should show."),
        InputParam("generator", torch.Generator),
        InputParam("image", Image.Image | list[Image.Image], description="What to begin with."),
        InputParam("mask_image", Image.Image, description="Where it may change."),
        InputParam("tint", torch.Tensor, description="What is added to the colour, [3]."),
        InputParam("callback", type(print), description="What no request can carry."),
        InputParam("trouble", str, description="What goes wrong: `input`, `crash` or `memory`."),
        InputParam("width", int, default=SIDE),
        InputParam("height", int, default=SIDE),
        InputParam("num_images_per_prompt", int, default=1),
    ]
    intermediate_outputs = [OutputParam("value", torch.Tensor)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        if block_state.trouble == "input":
            raise InvalidInputError("`trouble` is not wanted here")
        if block_state.trouble == "crash":
            raise ValueError("a secret of the server")
        if block_state.trouble == "memory":
            raise MemoryError
        block_state.value = torch.rand(3, generator=first_of(block_state.generator))
        if block_state.tint is not None and tuple(block_state.tint.shape) != (3,):
            raise InvalidInputError(f"`tint` has the shape {tuple(block_state.tint.shape)}; it must be (3,)")
        if block_state.tint is not None:
            block_state.value = block_state.value + block_state.tint
        self.set_block_state(state, block_state)
        return components, state


class Step(ModularPipelineBlocks):
    inputs = [InputParam("value", required=True), InputParam("generator")]
    intermediate_outputs = [OutputParam("value", torch.Tensor)]

    def __call__(self, components: Any, block_state: Any) -> tuple[Any, Any]:
        TURNSTILE.go_through()
        noise = torch.rand(3, generator=first_of(block_state.generator))
        block_state.value = 0.5 * block_state.value + 0.5 * noise
        return components, block_state


class Count(LoopSequentialPipelineBlocks):
    loop_inputs = [InputParam("num_inference_steps", int, default=4)]
    block_classes = [Step]
    block_names = ["step"]

    def loop_total(self, components: Any, block_state: Any) -> int:
        return int(block_state.num_inference_steps)

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.num_inference_steps):
            yield {"i": i}


class Paint(ModularPipelineBlocks):
    inputs = [
        InputParam("value", required=True),
        InputParam("width", int, default=SIDE),
        InputParam("height", int, default=SIDE),
        InputParam("num_images_per_prompt", int, default=1),
    ]
    intermediate_outputs = [OutputParam("images", list[Image.Image])]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        colour = tuple(int(255 * part) % 256 for part in block_state.value.tolist())
        size = (block_state.width, block_state.height)
        block_state.images = [Image.new("RGB", size, colour) for _ in range(block_state.num_images_per_prompt)]
        self.set_block_state(state, block_state)
        return components, state


class Painting(SequentialPipelineBlocks):
    block_classes = [Begin, Count, Paint]
    block_names = ["begin", "count", "paint"]

    @property
    def outputs(self) -> list[OutputParam]:
        return [OutputParam.template("images")]


def first_of(generator: Any) -> Any:
    return generator[0] if isinstance(generator, list) else generator


def painting() -> ModularPipeline:
    return Painting().init_pipeline()
