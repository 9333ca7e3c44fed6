"""One picture, with the classes of diffusers and transformers alone: what a pipeline is measured against.

python benchmarks/handwritten.py MODEL_FOLDER "red apple" SEED picture.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from transformers import CLIPTextModel, PreTrainedTokenizerFast

STEPS = 20
GUIDANCE = 3.0
NO_SIZE = {"resolution": None, "aspect_ratio": None}


class Models(NamedTuple):
    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    transformer: PixArtTransformer2DModel
    scheduler: FlowMatchEulerDiscreteScheduler
    vae: AutoencoderKL


def load(folder: str | Path) -> Models:
    return Models(
        PreTrainedTokenizerFast.from_pretrained(f"{folder}/tokenizer"),
        CLIPTextModel.from_pretrained(f"{folder}/text_encoder", dtype=torch.float32),
        PixArtTransformer2DModel.from_pretrained(f"{folder}/transformer", torch_dtype=torch.float32),
        FlowMatchEulerDiscreteScheduler.from_pretrained(f"{folder}/scheduler"),
        AutoencoderKL.from_pretrained(f"{folder}/vae", torch_dtype=torch.float32),
    )


@torch.no_grad()
def paint(models: Models, prompt: str, seed: int) -> Image.Image:
    tokenizer, text_encoder, transformer, scheduler, vae = models
    tokens = tokenizer(
        [prompt, ""],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    embeds = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    config = transformer.config
    latents = torch.randn(
        (1, config.in_channels, config.sample_size, config.sample_size), generator=torch.Generator().manual_seed(seed)
    )
    scheduler.set_timesteps(STEPS)
    for timestep in scheduler.timesteps:
        prediction = transformer(
            hidden_states=torch.cat([latents, latents]),
            encoder_hidden_states=embeds,
            encoder_attention_mask=tokens.attention_mask,
            timestep=timestep.expand(2),
            added_cond_kwargs=NO_SIZE,
            return_dict=False,
        )[0]
        told, untold = prediction.chunk(2)
        guided = untold + GUIDANCE * (told - untold)
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    pixels = vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0), return_dict=False)[0]
    image: Image.Image = VaeImageProcessor(vae_scale_factor=1).postprocess(pixels)[0]
    return image


if __name__ == "__main__":
    model_folder, text, number, output = sys.argv[1:]
    paint(load(model_folder), text, int(number)).save(output)
