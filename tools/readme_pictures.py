"""Makes the pictures of README.md: `python -m tools.readme_pictures`.

In docs/pictures/:

- `forming.png`: a picture as it forms, seen by a block that is put into the denoising loop.
- `grid.png`: pictures by name; in the last two rows, pairs of colour and object that were held out of the training. The
  pairs are the first of the list in `training/results.json`, with one seed for all: nothing is picked.

In README.md itself, between its two marks: the blocks of text to image, described for Mermaid, which GitHub draws.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from loopwright import describe
from loopwright.diffusion import DecodeStep, TextToImageBlocks, embedded_pipeline
from loopwright.diffusion.loading import load_pipeline
from loopwright.diffusion.model_index import EMBEDDED_MODEL
from loopwright.modular_pipelines import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "pictures"
BEGIN, END = "<!-- blocks:begin -->\n", "<!-- blocks:end -->\n"
SIDE, GAP, SEED = 96, 8, 0
NAMES = [
    "red apple", "soccer ball", "unicorn", "house", "rocket", "octopus", "pizza", "sunflower",
    "guitar", "penguin", "castle", "hot air balloon", "strawberry", "robot", "sailboat", "cactus",
    "dog", "crown", "volcano", "butterfly", "teddy bear", "lemon", "turtle", "snowman",
]  # fmt: skip


class KeepPreview(ModularPipelineBlocks):
    """Loop block: what the latents look like after each step."""

    expected_components = [ComponentSpec("vae")]
    inputs = [InputParam("latents", required=True), InputParam("previews", default=())]
    intermediate_outputs = [OutputParam("previews", tuple, "A picture for each step.")]

    def __call__(self, components: Any, block_state: Any) -> tuple[Any, Any]:
        decoded = DecodeStep().decode(components, block_state)
        picture = components.image_processor.postprocess(decoded, "pil")[0]
        block_state.previews = (*(block_state.previews or ()), picture)
        return components, block_state


def forming(prompt: str) -> Image.Image:
    """Every second picture of twenty steps, in a row."""
    blocks = TextToImageBlocks()
    blocks.sub_blocks["denoise"].sub_blocks["loop"].sub_blocks["preview"] = KeepPreview()
    pipe = load_pipeline(blocks, EMBEDDED_MODEL)
    pipe.set_progress_bar_config(disable=True)
    previews = pipe(prompt=prompt, generator=torch.Generator().manual_seed(SEED), output="previews")
    return sheet(list(previews[1::2]), columns=10)


def grid() -> Image.Image:
    """Named pictures, then two rows of pairs that the model never saw."""
    results = json.loads((ROOT / "training" / "results.json").read_text(encoding="utf-8"))
    unseen = results["unseen"][:16]
    pipe = embedded_pipeline()
    pipe.set_progress_bar_config(disable=True)
    prompts = [*NAMES, *unseen]
    generators = [torch.Generator().manual_seed(SEED) for _ in prompts]
    return sheet(pipe(prompt=prompts, generator=generators, output="images"), columns=8)


def sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows on white."""
    rows = -(-len(pictures) // columns)
    step = SIDE + GAP
    whole = Image.new("RGB", (columns * step + GAP, rows * step + GAP), "white")
    for index, picture in enumerate(pictures):
        place = (GAP + index % columns * step, GAP + index // columns * step)
        whole.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), place)
    return whole


def draw_blocks() -> None:
    """Put the diagram of the blocks into README.md."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    diagram = describe(TextToImageBlocks(), format="mermaid")
    README.write_text(f"{before}{BEGIN}```mermaid\n{diagram}\n```\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Make all of them."""
    draw_blocks()
    PICTURES.mkdir(parents=True, exist_ok=True)
    forming("red apple").save(PICTURES / "forming.png", optimize=True)
    grid().save(PICTURES / "grid.png", optimize=True)
    print(f"wrote forming.png and grid.png to {PICTURES.relative_to(ROOT)}, and the blocks to {README.name}")


if __name__ == "__main__":
    main()
