"""Makes the checkpoints in the work folder out of an exported model, where they are lost, so that training can go on.

The weights come back as they were stored, in 16 bits; the optimizers' running averages begin anew. `--minutes` and
`--steps` say how far the denoiser had been trained: learning rates go on from there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel

from .architecture import Denoiser
from .captions import build_tokenizer
from .denoiser import build_optimizers
from .export import MODEL
from .workfolder import WorkFolder, argument_parser, open_work, read_json


def restart(work: WorkFolder, model: Path, minutes: float, steps: int) -> None:
    """Writes the checkpoints of the autoencoder and the denoiser. Raises `ValueError` where the words have changed."""
    for checkpoint in (work.autoencoder, work.denoiser):
        if checkpoint.exists():
            raise SystemExit(f"{checkpoint} is there: training goes on from it")
    stored = AutoTokenizer.from_pretrained(model / "tokenizer")
    if stored.get_vocab() != build_tokenizer(read_json(work.captions)).get_vocab():
        raise ValueError(f"the words of {model} are not those of {work.captions}: its text encoder cannot be used")
    vae = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32)
    torch.save(_checkpoint(vae, [], 0.0, 0), work.autoencoder)
    denoiser = Denoiser(
        CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32),
        PixArtTransformer2DModel.from_pretrained(model / "transformer", torch_dtype=torch.float32),
    )
    optimizers = build_optimizers(denoiser, os.cpu_count() or 1)
    torch.save(_checkpoint(denoiser, optimizers, minutes * 60, steps), work.denoiser)


def _checkpoint(model: nn.Module, optimizers: list[torch.optim.Optimizer], elapsed: float, step: int) -> dict[str, Any]:
    """As `training.running` reads it: the model is its own average."""
    weights = model.state_dict()
    return {
        "model": weights,
        "average": weights,
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "elapsed": elapsed,
        "step": step,
        "random": torch.get_rng_state(),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the exported model")
    parser.add_argument("--minutes", type=float, required=True, help="minutes that its denoiser was trained for")
    parser.add_argument("--steps", type=int, required=True, help="steps that its denoiser was trained for")
    options = parser.parse_args()
    restart(open_work(options.work), options.model, options.minutes, options.steps)


if __name__ == "__main__":
    main()
