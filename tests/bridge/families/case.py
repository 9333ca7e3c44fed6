"""What a case of a family is, and how its tiny components are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
import torch

__all__ = ["Case", "mask", "picture", "seeded", "video"]


@dataclass(frozen=True)
class Case:
    """A workflow of a family of diffusers, with tiny components.

    Attributes:
        family: the family, as diffusers names it.
        blocks: the name of the class of blocks.
        workflow: the name of the workflow; None for all the blocks.
        components: makes the components, and values of the configuration.
        inputs: makes the inputs of a call other than `prompt`, `generator` and the number of steps.
        steps: the number of steps.
        steps_input: the name of the input that says how many steps; None where the family has no such input.
        fewer: the inputs of a call with fewer steps, where `steps_input` does not say it.
        iterations: how many iterations there are, of any loop; None for as many as steps.
        remove: names of blocks that are taken out.
        why_removed: why they are.
        prompt: the name of the input that says what is to be made; its values for two requests.
        together: makes the inputs of a call of so many requests that are not those of a call of one.
        not_resumed: why a run cannot be saved and resumed; empty if it can.
        hard: whether it is tested always, though it is not the first of its family.
        name: how it is called; what it is made of if that is not given.
    """

    family: str
    blocks: str
    workflow: str | None
    components: Callable[[], dict[str, Any]]
    inputs: Callable[[], dict[str, Any]]
    steps: int = 3
    steps_input: str | None = "num_inference_steps"
    fewer: dict[str, Any] = field(default_factory=dict)
    iterations: int | None = None
    remove: tuple[str, ...] = ()
    why_removed: str = ""
    prompt: str = "prompt"
    prompts: tuple[Any, Any] = ("red apple", "two blue birds")
    together: Callable[[int], dict[str, Any]] = lambda count: {}
    not_resumed: str = ""
    hard: bool = False
    name: str = ""

    def __str__(self) -> str:
        return self.name or "-".join(filter(None, (self.blocks.removesuffix("Blocks"), self.workflow)))

    @property
    def total(self) -> int:
        """How many iterations there are."""
        return self.steps if self.iterations is None else self.iterations

    def call(self, prompt: int = 0, seed: int = 0, steps: int | None = None) -> dict[str, Any]:
        """The inputs of a call.

        Args:
            prompt: which of the two prompts.
            seed: the seed of the generator.
            steps: the number of steps, if it is not that of the case.
        """
        inputs: dict[str, Any] = {self.prompt: self.prompts[prompt], "generator": torch.Generator().manual_seed(seed)}
        if self.steps_input is not None:
            inputs[self.steps_input] = self.steps if steps is None else steps
        return {**inputs, **self.inputs(), **(self.fewer if steps is not None else {})}


def seeded(cls: Any, *args: Any, gain: float = 1.0, seed: int = 0, **config: Any) -> Any:
    """A model whose weights are large enough for every input to matter.

    Args:
        cls: its class, or what makes it.
        *args, **config: what it is made with.
        gain: how much larger than its input the output of a layer is.
        seed: the seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(*args, **config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim < 2:
            # weights of norms are near one, biases near zero
            weight.data = (0.1 * noise + (0.0 if name.endswith("bias") else 1.0)).to(weight.dtype)
        else:
            weight.data = (noise * gain / math.sqrt(math.prod(weight.shape[1:]))).to(weight.dtype)
    return model.eval()


def picture(height: int = 32, width: int = 32, seed: int = 0) -> PIL.Image.Image:
    """A picture of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def mask(height: int = 32, width: int = 32) -> PIL.Image.Image:
    """A mask whose right half is to be painted."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[:, width // 2 :] = 255
    return PIL.Image.fromarray(pixels)


def video(frames: int, height: int = 32, width: int = 32, seed: int = 0) -> list[PIL.Image.Image]:
    """Pictures of random colours."""
    return [picture(height, width, seed + index) for index in range(frames)]
