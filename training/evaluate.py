"""Measures the exported model with plain diffusers and transformers classes, and writes `results.json`.

- *names*: 100 originals drawn at random, each asked for by one of its names that no other original has.
- *keywords*: 100 originals, each asked for by three of its keywords instead. The three are drawn so that no other
  original has all of them among its names and keywords; originals without such a set are passed over. A keyword is
  never a whole name of the original, but may hold a word of it.
- *unseen pairs*: the colours and objects that the data step held out. The hue is right when, of the eight colours, the
  one whose hue is nearest to the picture's dominant hue is the one asked for. The shape is right when the object is
  among the five originals whose lightness is nearest: lightness is what turning the hue leaves as it is.

Nearest means the smallest L2 distance at 32x32 pixels.
"""

from __future__ import annotations

import itertools
import platform
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerFast

from .architecture import Denoiser, sample
from .autoencoder import load_pictures, measure
from .captions import TOKENS
from .card import write_card
from .colours import dominant_hue, grey_shape, nearest_colour
from .export import MODEL
from .workfolder import WorkFolder, argument_parser, open_work, read_json, write_json

RESULTS = Path(__file__).parent / "results.json"
SEED = 7
DRAWN = 100
STEPS = 20
GUIDANCE = 3.0

Pictures = NDArray[np.float32]


@dataclass
class Model:
    """The exported model's parts, in float32."""

    denoiser: Denoiser
    tokenizer: PreTrainedTokenizerFast
    scheduler: FlowMatchEulerDiscreteScheduler
    vae: AutoencoderKL

    @classmethod
    def load(cls, folder: Path) -> Model:
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        transformer = PixArtTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).eval()
        return cls(
            Denoiser(text_encoder, transformer),
            AutoTokenizer.from_pretrained(folder / "tokenizer"),
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval(),
        )

    @torch.no_grad()
    def draw(self, prompts: list[str]) -> Pictures:
        """Pictures [B, 64, 64, 3] in 0..1."""
        drawn = []
        for number, first in enumerate(range(0, len(prompts), 50)):
            latents = sample(
                self.denoiser,
                self.tokenizer,
                prompts[first : first + 50],
                seed=SEED + number,
                steps=STEPS,
                guidance=GUIDANCE,
                scheduler=self.scheduler,
            )
            latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
            drawn.append((self.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1))
        return torch.cat(drawn).permute(0, 2, 3, 1).numpy()


def halve(pictures: Pictures) -> Pictures:
    """[N, 64, 64, ...] to [N, 32 * 32 * ...], each pixel the mean of four."""
    return pictures.reshape(len(pictures), 32, 2, 32, 2, -1).mean((2, 4)).reshape(len(pictures), -1)


def ranks(drawn: Pictures, originals: Pictures, wanted: list[int]) -> list[int]:
    """How many originals lie nearer to each drawn picture than the wanted one: 0 is right."""
    first, second = torch.from_numpy(halve(drawn)), torch.from_numpy(halve(originals))
    distances = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    own = distances[range(len(wanted)), wanted]
    return (distances < own[:, None]).sum(1).tolist()


def within(found: list[int], most: int) -> int:
    return sum(rank < most for rank in found)


def draw_names(originals: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    chosen = random.Random(SEED)
    owners: dict[str, int] = {}
    for record in originals:
        for name in record["names"]:
            owners[name] = owners.get(name, 0) + 1
    indices, prompts = [], []
    for index in chosen.sample(range(len(originals)), len(originals)):
        names = [name for name in originals[index]["names"] if owners[name] == 1]
        if names and len(indices) < DRAWN:
            indices.append(index)
            prompts.append(chosen.choice(names))
    return indices, prompts


def draw_keywords(originals: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    chosen = random.Random(SEED + 1)
    said = [{*record["names"], *record["keywords"]} for record in originals]
    indices, prompts = [], []
    for index in chosen.sample(range(len(originals)), len(originals)):
        sets = list(itertools.combinations(originals[index]["keywords"], 3))
        chosen.shuffle(sets)
        for keywords in sets:
            prompt = " ".join(keywords)
            fits = len(prompt.split()) <= TOKENS - 2
            if fits and len(indices) < DRAWN and sum(set(keywords) <= words for words in said) == 1:
                indices.append(index)
                prompts.append(prompt)
                break
    return indices, prompts


def write_sheet(path: Path, drawn: Pictures, columns: int = 10) -> None:
    rows = [np.concatenate(list(row), 1) for row in np.split(drawn, range(columns, len(drawn), columns))]
    Image.fromarray(np.round(np.concatenate(rows) * 255).astype(np.uint8)).save(path)


def evaluate(work: WorkFolder, folder: Path) -> dict[str, Any]:
    described = read_json(work.captions)
    records, held_out = described["originals"], described["held_out"]
    pictures, _ = load_pictures(work.images)
    originals = pictures.permute(0, 2, 3, 1).numpy().astype(np.float32) / 255
    model = Model.load(folder)

    indices, prompts = draw_names(records)
    drawn = model.draw(prompts)
    by_name = ranks(drawn, originals, indices)
    write_sheet(work.sheet("names"), drawn)
    missed = [prompt for prompt, rank in zip(prompts, by_name, strict=True) if rank]

    indices, prompts = draw_keywords(records)
    drawn = model.draw(prompts)
    by_keywords = ranks(drawn, originals, indices)
    write_sheet(work.sheet("keywords"), drawn)
    missed_keywords = [prompt for prompt, rank in zip(prompts, by_keywords, strict=True) if rank >= 5]

    drawn = model.draw([pair["caption"] for pair in held_out])
    write_sheet(work.sheet("unseen"), drawn)
    hues = [nearest_colour(dominant_hue(picture)[0]) for picture in drawn]
    shapes = ranks(grey_shape(drawn), grey_shape(originals), [pair["original"] for pair in held_out])
    hue_right = [hue == pair["colour"] for hue, pair in zip(hues, held_out, strict=True)]
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    by_luma = ranks(drawn @ luma, originals @ luma, [pair["original"] for pair in held_out])

    pairs = f" of {len(held_out)}"
    figures = [
        figure("Images", len(pictures), 1200),
        figure("Autoencoder, mean PSNR over the originals, dB", round(measure(model.vae, pictures), 2), 30),
        figure("Asked for by name, the nearest original is it", within(by_name, 1), 96, f" of {DRAWN}"),
        figure("Asked for by name, it is among the nearest five", within(by_name, 5), 98, f" of {DRAWN}"),
        figure("Three keywords, it is among the nearest five", within(by_keywords, 5), 93, f" of {DRAWN}"),
        figure("Pair of colour and object never seen, the hue is right", sum(hue_right), 40, pairs),
        figure("Pair never seen, the object is among the nearest five grey shapes", within(shapes, 5), 35, pairs),
    ]
    return {
        "figures": figures,
        "beside": {
            "three keywords, the nearest original is it": within(by_keywords, 1),
            "pair never seen, hue and shape right": sum(
                right and rank < 5 for right, rank in zip(hue_right, shapes, strict=True)
            ),
            "pair never seen, among the nearest five by luma instead of lightness": within(by_luma, 5),
            "size in MB": round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1),
        },
        "missed": {
            "names": missed,
            "keywords": missed_keywords,
            "hues": [
                f"{pair['caption']}: {hue}" for pair, hue in zip(held_out, hues, strict=True) if hue != pair["colour"]
            ],
            "shapes": [pair["caption"] for pair, rank in zip(held_out, shapes, strict=True) if rank >= 5],
        },
        "unseen": [pair["caption"] for pair in held_out],
        "settings": {"seed": SEED, "steps": STEPS, "guidance": GUIDANCE, "dtype": "float32"},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "data": described["packages"],
        },
    }


def figure(what: str, value: float, bar: float, of: str = "") -> dict[str, Any]:
    return {"what": what, "value": value, "of": of, "bar": bar, "met": value >= bar}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the exported model")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the figures")
    options = parser.parse_args()
    results = evaluate(open_work(options.work), options.model)
    write_json(options.results, results)
    write_card(options.model, results)
    for one in results["figures"]:
        print(
            f"{one['what']:66} {one['value']:>7g}{one['of']:8} aim {one['bar']:<6g} {'met' if one['met'] else 'MISSED'}"
        )
    for what, value in results["beside"].items():
        print(f"{what:66} {value:>7g}")


if __name__ == "__main__":
    main()
