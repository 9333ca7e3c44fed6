"""Writes the trained model in diffusers' folder layout, its weights in 16 bits, and the model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import __version__ as diffusers_version

from .architecture import Denoiser, build_scheduler
from .autoencoder import load_average
from .card import write_card
from .denoiser import build, load_latents
from .workfolder import WorkFolder, argument_parser, open_work, read_json, write_json

MODEL = Path(__file__).parents[1] / "src" / "loopwright" / "diffusion" / "embedded" / "model"
# The weights lie within float16's range, and its longer mantissa keeps them eight times as precise as bfloat16 does.
STORED = torch.float16

_INDEX = {
    "_class_name": "ModularPipeline",
    "_diffusers_version": diffusers_version,
    "_name_or_path": "loopwright-embedded",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_model(work: WorkFolder, folder: Path) -> None:
    """All components into an empty folder: the averaged weights, or fresh ones where nothing is trained yet."""
    latents = load_latents(work)
    denoiser, tokenizer = build(read_json(work.captions))
    if work.denoiser.exists():
        denoiser.load_state_dict(torch.load(work.denoiser, weights_only=True)["average"])
    autoencoder = load_average(work)
    autoencoder.register_to_config(scaling_factor=latents.scale, shift_factor=latents.shift)
    largest = max(float(weight.abs().max()) for model in (denoiser, autoencoder) for weight in model.parameters())
    if largest > torch.finfo(STORED).max:
        raise ValueError(f"a weight of {largest} does not fit {STORED}")
    _save(denoiser, folder)
    autoencoder.to(STORED).save_pretrained(folder / "vae")
    build_scheduler().save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    write_json(folder / "model_index.json", _INDEX)


def _save(denoiser: Denoiser, folder: Path) -> None:
    denoiser.to(STORED)
    denoiser.transformer.save_pretrained(folder / "transformer")
    denoiser.text_encoder.save_pretrained(folder / "text_encoder")


def replace_model(fresh: Path, folder: Path) -> None:
    """Moves each file over its predecessor, so that nobody reads half a file; then drops those left over."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for path in sorted(wanted, key=lambda path: (path.name == "model_index.json", path)):
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        (fresh / path).chmod(0o644)
        os.replace(fresh / path, folder / path)
    for old in [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder) not in wanted]:
        old.unlink()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder to write")
    options = parser.parse_args()
    options.model.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=options.work))
    write_model(open_work(options.work), fresh)
    write_card(fresh, None)
    replace_model(fresh, options.model)
    shutil.rmtree(fresh)
    size = sum(path.stat().st_size for path in options.model.rglob("*") if path.is_file())
    print(f"{options.model}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
