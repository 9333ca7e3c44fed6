"""The denoiser and the text encoder that trains with it, in the classes of diffusers and transformers."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from .autoencoder import LATENT_CHANNELS
from .captions import TOKENS

TEXT_WIDTH = 128
NO_SIZE = {"resolution": None, "aspect_ratio": None}


def build_transformer() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=8,
        attention_head_dim=32,
        num_layers=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        sample_size=16,
        patch_size=4,
        cross_attention_dim=256,
        caption_channels=TEXT_WIDTH,
        interpolation_scale=1,
        use_additional_conditions=False,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            hidden_act="gelu",
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


class Denoiser(nn.Module):
    """Text encoder and transformer as one module: tokens and noisy latents to a velocity."""

    def __init__(self, text_encoder: CLIPTextModel, transformer: PixArtTransformer2DModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.transformer = transformer

    def forward(self, latents: Tensor, sigma: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
        """latents [B, 8, 16, 16], sigma [B] in 0..1, input_ids and mask [B, 12]; returns noise - x0, as latents."""
        embeds = self.text_encoder(input_ids, attention_mask=mask).last_hidden_state
        return self.transformer(
            hidden_states=latents,
            encoder_hidden_states=embeds,
            encoder_attention_mask=mask,
            timestep=sigma * 1000,
            added_cond_kwargs=NO_SIZE,
            return_dict=False,
        )[0]


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    *,
    seed: int,
    steps: int = 20,
    guidance: float = 3.0,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
) -> Tensor:
    """Latents [B, 8, 16, 16] for prompts, on the CPU, by classifier-free guidance (https://arxiv.org/abs/2207.12598)."""
    tokens = tokenizer(
        [*prompts, *([""] * len(prompts))],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    scheduler = scheduler or build_scheduler()
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(prompts), LATENT_CHANNELS, 16, 16, generator=generator)
    for timestep in scheduler.timesteps:
        sigma = (timestep / 1000).expand(2 * len(prompts))
        velocity = denoiser(torch.cat([latents, latents]), sigma, tokens["input_ids"], tokens["attention_mask"])
        told, untold = velocity.chunk(2)
        latents = scheduler.step(untold + guidance * (told - untold), timestep, latents, return_dict=False)[0]
    return latents
