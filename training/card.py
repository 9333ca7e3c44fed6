"""The model card: what the embedded model is, what it was trained on, what it can and cannot do, in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HEAD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# The embedded model

A text-to-image latent diffusion model for 64x64 pictures in the style of emoji. It comes with Loopwright, so that
pipelines can be tried, tested and taught on any machine, without a download. It was trained from nothing, on two CPU
cores in five hours, by the recipe in the repository's `training/` folder.

| Part | Class | Parameters |
| --- | --- | ---: |
| `vae` | `diffusers.AutoencoderKL`, 3x64x64 pixels to 8x16x16 latents | 0.66 M |
| `transformer` | `diffusers.PixArtTransformer2DModel`, patch 4, width 256, 8 layers | 9.2 M |
| `text_encoder` | `transformers.CLIPTextModel`, width 128, 2 layers, 12 tokens | 0.9 M |
| `tokenizer` | `transformers.PreTrainedTokenizerFast`, one token a word | |
| `scheduler` | `diffusers.FlowMatchEulerDiscreteScheduler`, no shift | |

Weights are stored as float16; use them in float32 on a CPU.

## Use

Latents: `(posterior mean - shift_factor) * scaling_factor`. Rectified flow: `x = (1 - sigma) * x0 + sigma * noise`, the
transformer is given `timestep = sigma * 1000` and predicts `noise - x0`. The unconditional prompt is the empty one.
Twenty steps and a guidance scale of 3 are a good start.

## What it can do

- Draw the pictures that it was trained on, by name ("hot air balloon") or by a few keywords ("crustacean ocean red").
- Draw objects in colours in which it never saw them ("purple dolphin"): red, orange, yellow, green, cyan, blue,
  purple, pink.

"""

_TAIL = """
## What it cannot do

- It knows some four thousand words. Any other is the unknown word; a sentence is at most ten words.
- It has one style and one size, and no photographs, no scenes, no writing.
- It repeats its training pictures on purpose: there are few of them, and being right is easy to check. Beyond their
  colours it composes little: "a dog on a bicycle" is a dog or a bicycle.
- Words that several pictures share give one of them, or a mixture.
- It knows people only as emoji show them, and inherits the names and keywords that others gave them.

## Data and licence

- Pictures: Noto Emoji, Copyright Google LLC, Apache License 2.0, as the npm package `emoji-datasource-google` 16.0.0
  carries them at 64x64, set on white; copies of objects of one hue with that hue turned.
- Names: `emoji-datasource-google` 16.0.0 (MIT). Keywords: `emojilib` 4.0.3 (MIT).
- The weights: Apache License 2.0.

Not for anything that matters: it is a teaching and testing model.
"""


def write_card(folder: Path, results: dict[str, Any] | None) -> None:
    """`README.md` in the model's folder, with the figures where they are measured."""
    (folder / "README.md").write_text(_HEAD + _figures(results) + _TAIL, encoding="utf-8")


def _figures(results: dict[str, Any] | None) -> str:
    if results is None:
        return "These weights are not measured yet: `python -m training.evaluate` does it.\n"
    rows = [
        f"| {figure['what']} | {figure['value']:g}{figure['of']} | {figure['bar']:g} | {_yes(figure['met'])} |"
        for figure in results["figures"]
    ]
    settings = results["settings"]
    return "\n".join(
        [
            f"Measured with {settings['steps']} steps, guidance {settings['guidance']:g}, seed {settings['seed']}:",
            "",
            "| Measure | Value | Aim | Met |",
            "| --- | ---: | ---: | --- |",
            *rows,
            "",
        ]
    )


def _yes(met: bool) -> str:
    return "yes" if met else "no"
