"""Text encoding: prompts to embeddings."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from loopwright.modular_pipelines import (
    ComponentSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

__all__ = ["TextEncoderStep"]


class TextEncoderStep(ModularPipelineBlocks):
    """Encodes the prompts, and for guidance the negative prompts; without any these are empty.

    Outputs are [B, L, D] in the dtype of the text encoder, with masks [B, L] that are 0 at padding, for B prompts of L
    tokens.
    """

    model_name = "loopwright"
    description = "Encodes the prompts and the negative prompts."
    expected_components = [
        ComponentSpec("text_encoder", CLIPTextModel),
        ComponentSpec("tokenizer", PreTrainedTokenizerFast),
    ]
    inputs = [InputParam.template("prompt"), InputParam.template("negative_prompt")]
    intermediate_outputs = [
        OutputParam.template("prompt_embeds"),
        OutputParam.template("prompt_embeds_mask"),
        OutputParam.template("negative_prompt_embeds"),
        OutputParam.template("negative_prompt_embeds_mask"),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        prompts = _listed(block_state.prompt)
        negatives = _listed(block_state.negative_prompt or "")
        if len(negatives) == 1:
            negatives = negatives * len(prompts)
        embeds, mask = self.encode(components, prompts + negatives)
        block_state.prompt_embeds, block_state.negative_prompt_embeds = embeds.chunk(2)
        block_state.prompt_embeds_mask, block_state.negative_prompt_embeds_mask = mask.chunk(2)
        self.set_block_state(state, block_state)
        return components, state

    @staticmethod
    @torch.no_grad()
    def encode(components: ModularPipeline, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, L, D] and mask [B, L]; a prompt of more than L tokens is cut, with a warning."""
        tokenizer = components.tokenizer
        length = tokenizer.model_max_length
        tokens = tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_overflowing_tokens=True
        )
        source = tokens.get("overflow_to_sample_mapping", list(range(len(prompts))))
        first = [source.index(row) for row in range(len(prompts))]
        for row in sorted({row for row in source if source.count(row) > 1}):
            read = tokenizer.decode(tokens["input_ids"][first[row]], skip_special_tokens=True)
            warnings.warn(
                f"the prompt {prompts[row]!r} has more than {length} tokens; only {read!r} is read", stacklevel=2
            )
        device = components._execution_device
        input_ids, mask = (
            torch.tensor([tokens[name][index] for index in first], device=device)
            for name in ("input_ids", "attention_mask")
        )
        embeds: Tensor = components.text_encoder(input_ids, attention_mask=mask).last_hidden_state
        return embeds, mask


def _listed(prompt: str | list[str]) -> list[str]:
    return [prompt] if isinstance(prompt, str) else list(prompt)
