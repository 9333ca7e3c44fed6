"""The denoising loop: at every timestep the model predicts, with guidance, and the scheduler takes a step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.guiders.guider_utils import BaseGuidance
from torch import Tensor

from loopwright.errors import InvalidInputError, did_you_mean
from loopwright.modular_pipelines import (
    BlockState,
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
)

from .noise import denoiser_input, noise_level, scheduler_prediction
from .timesteps import MODEL_PREDICTION

__all__ = ["DenoiseLoop", "GuideAndPredictStep", "InpaintDenoiseLoop", "KeepUnmaskedStep", "SchedulerStep"]

_LATENTS = InputParam("latents", Tensor, required=True, description="The noisy latents, [B, C, h, w].")
_TIMESTEPS = InputParam("timesteps", Tensor, required=True, description="The timesteps, [n].")


class GuideAndPredictStep(ModularPipelineBlocks):
    """Loop block: the transformer's prediction, guided by the guider, as the scheduler expects it."""

    model_name = "loopwright"
    description = "Predicts with the transformer, guided by the guider."
    expected_components = [
        ComponentSpec("transformer"),
        ComponentSpec("scheduler"),
        ComponentSpec(
            "guider",
            ClassifierFreeGuidance,
            config={"guidance_scale": 3.0},
            default_creation_method="from_config",
        ),
    ]
    expected_configs = [MODEL_PREDICTION]
    intermediate_outputs = [OutputParam("noise_pred", Tensor, "The guided prediction, [B, C, h, w].")]

    def __init__(self, guider_input_fields: dict[str, tuple[str, str]] | None = None) -> None:
        """Args: `guider_input_fields` maps arguments of the transformer to the values for the conditional and the
        unconditional prediction."""
        self.guider_input_fields = guider_input_fields or {
            "encoder_hidden_states": ("prompt_embeds", "negative_prompt_embeds"),
            "encoder_attention_mask": ("prompt_embeds_mask", "negative_prompt_embeds_mask"),
        }
        super().__init__()

    @property
    def inputs(self) -> list[InputParam]:
        names = self.guider_input_fields.values()
        return [
            _LATENTS,
            _TIMESTEPS,
            *(InputParam(name, Tensor, required=True, description="For the prediction.") for name, _ in names),
            *(InputParam(name, Tensor, description="For the unconditional prediction.") for _, name in names),
        ]

    @torch.no_grad()
    def __call__(
        self, components: ModularPipeline, block_state: BlockState, i: int, t: Tensor
    ) -> tuple[ModularPipeline, BlockState]:
        scheduler, guider, model_prediction = components.scheduler, block_state.guider, components.model_prediction
        latents, remaining = block_state.latents, block_state.timesteps[i:]
        model_input, timestep = denoiser_input(scheduler, latents, remaining, model_prediction)
        model_input = model_input.to(block_state.model_dtype)
        guider.set_state(step=i, num_inference_steps=len(block_state.timesteps), timestep=t)
        batches = guider.prepare_inputs_from_block_state(block_state, self.guider_input_fields)
        self.predict_batches(components.transformer, guider, batches, model_input, timestep)
        prediction = guider(batches)[0].float()
        block_state.noise_pred = scheduler_prediction(scheduler, prediction, latents, remaining, model_prediction)
        return components, block_state

    def predict_batches(
        self, transformer: Any, guider: Any, batches: list[Any], model_input: Tensor, timestep: Tensor
    ) -> None:
        """Set `noise_pred` of each of the guider's batches; in one forward if they differ in nothing but conditions."""
        conditions = [self._condition(batch, model_input.dtype) for batch in batches]
        if _changes_models(guider) or len({_shapes(condition) for condition in conditions}) > 1:
            for batch, condition in zip(batches, conditions, strict=True):
                guider.prepare_models(transformer)
                try:
                    batch.noise_pred = self.predict(transformer, model_input, timestep, condition)
                finally:
                    guider.cleanup_models(transformer)
            return
        count = len(batches)
        merged = {name: torch.cat([condition[name] for condition in conditions]) for name in self.guider_input_fields}
        predictions = self.predict(transformer, model_input.repeat(count, 1, 1, 1), timestep, merged)
        for batch, prediction in zip(batches, predictions.chunk(count), strict=True):
            batch.noise_pred = prediction

    def _condition(self, batch: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        condition = {}
        for name, (_, unconditional) in self.guider_input_fields.items():
            value: Tensor | None = getattr(batch, name)
            if value is None:
                raise InvalidInputError(
                    f"the guider needs an unconditional prediction, and there is no `{unconditional}`; give it, "
                    f"or call with `guidance_scale=1.0`"
                )
            condition[name] = value.to(dtype) if value.is_floating_point() else value
        return condition

    def predict(self, transformer: Any, model_input: Tensor, timestep: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """One forward of the transformer, [B, C, h, w]. A subclass for another architecture overrides this."""
        prediction: Tensor = transformer(
            hidden_states=model_input,
            timestep=timestep.to(model_input.device).expand(len(model_input)),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
            **condition,
        )[0]
        return prediction


class SchedulerStep(ModularPipelineBlocks):
    """Loop block: one step of the scheduler, in float32."""

    model_name = "loopwright"
    description = "Takes a step of the scheduler."
    expected_components = [ComponentSpec("scheduler")]
    inputs = [
        _LATENTS,
        InputParam("noise_pred", Tensor, required=True, description="The guided prediction, [B, C, h, w]."),
        InputParam.template("generator", note="for schedulers that add noise"),
    ]
    intermediate_outputs = [OutputParam("latents", Tensor, "The latents after the step, [B, C, h, w].")]

    @torch.no_grad()
    def __call__(
        self, components: ModularPipeline, block_state: BlockState, t: Tensor
    ) -> tuple[ModularPipeline, BlockState]:
        scheduler = components.scheduler
        options = {"generator": block_state.generator} if _takes_generator(type(scheduler).step) else {}
        taken = scheduler.step(block_state.noise_pred, t, block_state.latents, **options, return_dict=False)
        block_state.latents = taken[0].float()
        return components, block_state


class KeepUnmaskedStep(ModularPipelineBlocks):
    """Loop block: outside the mask, the image itself, as noisy as the latents now are.

    Blended latent diffusion, Avrahami et al. 2023, https://arxiv.org/abs/2206.02779, section 3.
    """

    model_name = "loopwright"
    description = "Puts the noised image back where the mask does not allow a change."
    expected_components = [ComponentSpec("scheduler")]
    inputs = [
        _LATENTS,
        _TIMESTEPS,
        InputParam.template("image_latents", note="[B, C, h, w]"),
        InputParam("latent_mask", Tensor, required=True, description="1 where the image may change, [B, 1, h, w]."),
        InputParam("noise", Tensor, required=True, description="The noise of the start, [B, C, h, w]."),
    ]
    intermediate_outputs = [OutputParam("latents", Tensor, "The latents, [B, C, h, w].")]

    @torch.no_grad()
    def __call__(
        self, components: ModularPipeline, block_state: BlockState, i: int
    ) -> tuple[ModularPipeline, BlockState]:
        level = noise_level(components.scheduler, block_state.timesteps[i + 1 :])
        known = level.mix(block_state.image_latents, block_state.noise)
        block_state.latents = torch.where(block_state.latent_mask > 0.5, block_state.latents, known)
        return components, block_state


class DenoiseLoop(LoopSequentialPipelineBlocks):
    """Denoises the latents over the timesteps."""

    model_name = "loopwright"
    description = "Denoises the latents over the timesteps."
    block_classes = [GuideAndPredictStep, SchedulerStep]
    block_names = ["denoiser", "scheduler_step"]
    loop_inputs = [
        _TIMESTEPS,
        InputParam("guidance_scale", float, description="Replaces the guider's `guidance_scale` in this call."),
    ]

    def iterate(self, components: ModularPipeline, block_state: BlockState) -> Iterator[dict[str, Any]]:
        block_state.guider = call_guider(components.guider, block_state.guidance_scale)
        # a model finds its dtype by going through all its modules: once for a loop, not at each step
        block_state.model_dtype = components.transformer.dtype
        with self.progress_bar(total=len(block_state.timesteps)) as progress_bar:
            for i, t in enumerate(block_state.timesteps):
                yield {"i": i, "t": t}
                progress_bar.update()


class InpaintDenoiseLoop(DenoiseLoop):
    """Denoises the latents inside a mask and keeps the image outside it."""

    description = "Denoises the latents inside the mask over the timesteps."
    block_classes = [GuideAndPredictStep, SchedulerStep, KeepUnmaskedStep]
    block_names = ["denoiser", "scheduler_step", "keep_unmasked"]


def call_guider(guider: Any, guidance_scale: float | None) -> Any:
    """The guider of one call: the component itself, or a copy with another scale, so that no other call sees it.

    Raises:
        InvalidInputError: a scale is given, and the guider has none.
    """
    if guidance_scale is None:
        return guider
    if "guidance_scale" not in guider.config:
        settings = [name for name in guider.config if not name.startswith("_")]
        raise InvalidInputError(
            f"`{type(guider).__name__}` has no `guidance_scale`{did_you_mean('guidance_scale', settings)}; "
            f"give the pipeline a guider that you configured: `pipe.update_components(guider=...)`"
        )
    copied = guider.new(guidance_scale=guidance_scale)
    if not guider.get_state()["enabled"]:
        copied.disable()
    return copied


@cache
def _takes_generator(step: Callable[..., Any]) -> bool:
    """Whether the `step` of a scheduler's class draws noise from a generator that it is given."""
    return "generator" in inspect.signature(step).parameters


def _changes_models(guider: Any) -> bool:
    """Whether the guider changes the transformer between its batches (skipped layers, perturbed attention)."""
    return type(guider).prepare_models is not BaseGuidance.prepare_models


def _shapes(condition: dict[str, Tensor]) -> tuple[torch.Size, ...]:
    return tuple(value.shape for value in condition.values())
