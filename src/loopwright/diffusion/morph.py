"""Morphing from prompt to prompt: frames outside, timesteps inside, a loop in a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from loopwright.errors import InvalidInputError
from loopwright.modular_pipelines import (
    BlockState,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)

from .decode import DecodeStep
from .denoise import DenoiseLoop, GuideAndPredictStep, SchedulerStep
from .inputs import CheckInputsStep
from .latents import PrepareLatentsStep, SampleNoiseStep
from .text import TextEncoderStep
from .timesteps import SetTimestepsStep

__all__ = ["InterpolatePromptsStep", "MorphBlocks", "MorphLoop"]


class CheckKeyframesStep(ModularPipelineBlocks):
    """Checks that there is something to morph between.

    Raises:
        InvalidInputError: fewer than two prompts, or fewer frames than prompts.
    """

    model_name = "loopwright"
    description = "Checks the prompts and the number of frames."
    inputs = [
        InputParam.template("prompt", note="a list of at least two, morphed from one to the next"),
        InputParam("num_frames", int, default=16, description="The number of frames."),
    ]
    intermediate_outputs = [OutputParam("num_images", int, "Images per frame: one.")]

    def __call__(self, components: ModularPipeline, state: Any) -> tuple[ModularPipeline, Any]:
        block_state = self.get_block_state(state)
        prompts, frames = block_state.prompt, block_state.num_frames
        if isinstance(prompts, str) or len(prompts) < 2:
            raise InvalidInputError(f"`prompt` must be a list of at least two prompts, not {prompts!r}")
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < len(prompts):
            raise InvalidInputError(
                f"`num_frames` must be a whole number of at least {len(prompts)}, one for each prompt, not {frames!r}"
            )
        block_state.num_images = 1
        self.set_block_state(state, block_state)
        return components, state


class InterpolatePromptsStep(ModularPipelineBlocks):
    """Loop block: the embeddings between two neighbouring prompts, linearly; a token counts if either has it."""

    model_name = "loopwright"
    description = "Interpolates the embeddings of neighbouring prompts."
    inputs = [
        InputParam.template("prompt_embeds", note="one row for each prompt, [B, L, D]"),
        InputParam.template("prompt_embeds_mask", note="[B, L]"),
        InputParam.template("negative_prompt_embeds", required=True, note="[B, L, D]"),
        InputParam.template("negative_prompt_embeds_mask", required=True, note="[B, L]"),
    ]
    intermediate_outputs = [
        OutputParam("frame_embeds", Tensor, "The embeddings of the frame, [1, L, D]."),
        OutputParam("frame_embeds_mask", Tensor, "Their mask, [1, L]."),
        OutputParam("negative_frame_embeds", Tensor, "The negative embeddings of the frame, [1, L, D]."),
        OutputParam("negative_frame_embeds_mask", Tensor, "Their mask, [1, L]."),
    ]

    def __call__(
        self, components: ModularPipeline, block_state: BlockState, position: float
    ) -> tuple[ModularPipeline, BlockState]:
        first = min(int(position), len(block_state.prompt_embeds) - 2)
        for sign in ("", "negative_"):
            embeds = getattr(block_state, f"{sign}prompt_embeds")[first : first + 2]
            mask = getattr(block_state, f"{sign}prompt_embeds_mask")[first : first + 2]
            block_state.set(f"{sign}frame_embeds", torch.lerp(embeds[:1], embeds[1:], position - first))
            block_state.set(f"{sign}frame_embeds_mask", mask.amax(dim=0, keepdim=True))
        return components, block_state


class FrameDenoiseLoop(DenoiseLoop):
    """Denoises the latents of one frame."""

    block_classes = [
        GuideAndPredictStep(
            {
                "encoder_hidden_states": ("frame_embeds", "negative_frame_embeds"),
                "encoder_attention_mask": ("frame_embeds_mask", "negative_frame_embeds_mask"),
            }
        ),
        SchedulerStep,
    ]


class MorphLoop(LoopSequentialPipelineBlocks):
    """Makes the frames one by one, all from the same noise.

    The loop variable `position` goes from 0, the first prompt, to K - 1, the last of K.
    """

    model_name = "loopwright"
    description = "Makes the frames one by one, all from the same noise."
    block_classes = [InterpolatePromptsStep, SetTimestepsStep, PrepareLatentsStep, FrameDenoiseLoop, DecodeStep]
    block_names = ["interpolate", "set_timesteps", "prepare_latents", "denoise", "decode"]
    loop_inputs = [
        InputParam("num_frames", int, required=True, description="The number of frames."),
        InputParam.template("prompt_embeds", note="one row for each prompt, [B, L, D]"),
    ]
    loop_intermediate_outputs = [OutputParam("frames", list, "The frames, each as `output_type` says.")]

    def iterate(self, components: ModularPipeline, block_state: BlockState) -> Iterator[dict[str, Any]]:
        block_state.frames = []
        last_prompt, last_frame = len(block_state.prompt_embeds) - 1, block_state.num_frames - 1
        with self.progress_bar(total=block_state.num_frames) as progress_bar:
            for frame in range(block_state.num_frames):
                yield {"frame": frame, "position": last_prompt * frame / last_frame}
                block_state.frames.append(block_state.images[0])
                progress_bar.update()


class MorphBlocks(SequentialPipelineBlocks):
    """An animation from prompt to prompt: `pipe(prompt=["cat", "dog"], num_frames=16, output="frames")`."""

    model_name = "loopwright"
    description = "Makes an animation that morphs from prompt to prompt."
    block_classes = [CheckInputsStep, CheckKeyframesStep, TextEncoderStep, SampleNoiseStep, MorphLoop]
    block_names = ["check_inputs", "check_keyframes", "text_encoder", "sample_noise", "frames"]

    @property
    def outputs(self) -> list[OutputParam]:
        return [OutputParam("frames", list, "The frames, each as `output_type` says.")]
