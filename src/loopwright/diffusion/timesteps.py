"""The timesteps of a call: the scheduler's, and for a given strength the last part of them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from loopwright.errors import InvalidInputError, brief
from loopwright.modular_pipelines import (
    ComponentSpec,
    ConfigSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

from .noise import check_scheduler

__all__ = ["MODEL_PREDICTION", "SetTimestepsStep", "StrengthStep"]

MODEL_PREDICTION = ConfigSpec(
    "model_prediction",
    "flow_prediction",
    "What the transformer predicts: `flow_prediction` (for any scheduler), `epsilon`, `v_prediction` or `sample`.",
)


class SetTimestepsStep(ModularPipelineBlocks):
    """Sets the scheduler's timesteps.

    Raises:
        InvalidInputError: the scheduler cannot work with the model, or takes no custom `sigmas`, or they are not
            numbers.
    """

    model_name = "loopwright"
    description = "Sets the timesteps of the scheduler."
    expected_components = [ComponentSpec("scheduler"), ComponentSpec("transformer")]
    expected_configs = [MODEL_PREDICTION]
    inputs = [
        InputParam.template("num_inference_steps", default=20),
        InputParam.template("sigmas"),
        InputParam("noise", Tensor, required=True, description="The noise to start from, [B, C, h, w]."),
    ]
    intermediate_outputs = [
        OutputParam("timesteps", Tensor, "The timesteps of the denoising loop, [n]."),
        OutputParam("num_inference_steps", int, "The number of denoising steps."),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        scheduler = components.scheduler
        check_scheduler(scheduler, components.model_prediction)
        accepted = inspect.signature(scheduler.set_timesteps).parameters
        options: dict[str, Any] = {"device": components._execution_device}
        if block_state.sigmas is None:
            options["num_inference_steps"] = block_state.num_inference_steps
        elif "sigmas" in accepted:
            options["sigmas"] = _numbers("sigmas", block_state.sigmas)
            block_state.num_inference_steps = len(options["sigmas"])
        else:
            raise InvalidInputError(
                f"`{type(scheduler).__name__}` takes no `sigmas`; give `num_inference_steps`, or use a scheduler that "
                f"takes them, such as `FlowMatchEulerDiscreteScheduler`"
            )
        if "mu" in accepted and scheduler.config.get("use_dynamic_shifting"):
            patch = components.transformer.config.patch_size
            height, width = block_state.noise.shape[-2:]
            options["mu"] = resolution_shift(scheduler.config, (height // patch) * (width // patch))
        scheduler.set_timesteps(**{name: value for name, value in options.items() if name in accepted})
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        block_state.timesteps = scheduler.timesteps
        self.set_block_state(state, block_state)
        return components, state


class StrengthStep(ModularPipelineBlocks):
    """Leaves out the first timesteps: of n steps, the last `strength * n` are taken, from an image that much noised.

    This is SDEdit (Meng et al. 2022, https://arxiv.org/abs/2108.01073): 0 returns the image, 1 forgets it.

    Raises:
        InvalidInputError: the strength does not lie between 0 and 1.
    """

    model_name = "loopwright"
    description = "Leaves out the first timesteps, by `strength`."
    expected_components = [ComponentSpec("scheduler")]
    intermediate_outputs = [
        OutputParam("timesteps", Tensor, "The timesteps of the denoising loop, [n]."),
        OutputParam("num_inference_steps", int, "The number of denoising steps that are taken."),
        OutputParam("strength", float, "The share of the steps that is taken."),
    ]

    def __init__(self, default: float = 0.6) -> None:
        """Args: `default` is the strength of a call that gives none."""
        self.default = default

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("timesteps", Tensor, required=True, description="The timesteps of the scheduler, [n]."),
            InputParam("num_inference_steps", int, required=True, description="The number of denoising steps."),
            InputParam("strength", float, description=f"0 keeps the image, 1 forgets it; {self.default} if not given."),
        ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        if block_state.strength is None:
            block_state.strength = self.default
        strength, scheduler = block_state.strength, components.scheduler
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 1:
            raise InvalidInputError(f"`strength` must be a number between 0 and 1, not {strength!r}")
        steps = block_state.num_inference_steps
        kept = min(round(steps * strength), steps)
        # a solver of second order has two timesteps for each step
        begin = (steps - kept) * scheduler.order if kept else len(block_state.timesteps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        block_state.timesteps = block_state.timesteps[begin:]
        block_state.num_inference_steps = kept
        self.set_block_state(state, block_state)
        return components, state


def _numbers(name: str, values: Any) -> list[float]:
    try:
        numbers = [float(value) for value in values if not isinstance(values, str)]
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{name}` must be a list of numbers, not {brief(values)}") from error
    if not numbers:
        raise InvalidInputError(f"`{name}` must be a list of at least one number, not {brief(values)}")
    return numbers


def resolution_shift(config: Any, image_tokens: int) -> float:
    """The shift `mu` of the timesteps, which grows with the number of tokens of the image.

    A larger image needs more noise to hide it: Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 5.3.2;
    linear in the tokens, between the two points that the scheduler's configuration names.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(low + (high - low) * (image_tokens - few) / (many - few))
