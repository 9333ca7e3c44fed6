"""`loopwright generate` and `loopwright morph`: prompts to pictures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopwright.errors import InvalidInputError, did_you_mean

from .arguments import check_at_least, check_strength, chosen_seed, numbered, open_image, writable_path
from .interruption import interruptible

if TYPE_CHECKING:
    from loopwright.diffusion.metadata import ImageMetadata
    from loopwright.pipeline import ModularPipeline

__all__ = ["generate", "morph"]

_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")

_Negative = Annotated[str | None, typer.Option(help="What the picture should not show.")]
_Steps = Annotated[int, typer.Option(help="The number of denoising steps.")]
_Seed = Annotated[int | None, typer.Option(help="The seed of the noise; a random one is printed if not given.")]
_Guidance = Annotated[float | None, typer.Option(help="How strongly the prompt guides; the model's own if not given.")]
_Model = Annotated[Path | None, typer.Option(help="A model folder in diffusers' layout; else the embedded model.")]
_Height = Annotated[int | None, typer.Option(help="Height in pixels; the model's own if not given.")]
_Width = Annotated[int | None, typer.Option(help="Width in pixels; the model's own if not given.")]


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture should show, such as 'red apple'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=f"Where to write: {', '.join(_SUFFIXES)}.")] = Path(
        "loopwright.png"
    ),
    number: Annotated[int, typer.Option("-n", "--number", help="How many: picture-1.png, picture-2.png, ...")] = 1,
    negative: _Negative = None,
    steps: _Steps = 20,
    seed: _Seed = None,
    guidance: _Guidance = None,
    image: Annotated[Path | None, typer.Option(help="A picture to start from.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far from --image: 0 keeps it, 1 forgets it; 0.6, or 1 with --mask.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="White where --image may change, black where it stays.")] = None,
    model: _Model = None,
    height: _Height = None,
    width: _Width = None,
    show: Annotated[bool, typer.Option(help="Show the picture, if this is a terminal.")] = True,
) -> None:
    """Make a picture from a prompt."""
    paths = [writable_path(path, _SUFFIXES) for path in numbered(output, max(number, 1))]
    check_at_least("-n", number, 1)
    check_at_least("--steps", steps, 1)
    check_strength(strength)
    if image is None and mask is not None:
        raise InvalidInputError("--mask needs --image: the picture to change where the mask is white")
    if image is None and strength is not None:
        raise InvalidInputError("--strength needs --image: the picture to start from")
    first_seed = chosen_seed(seed)
    inputs: dict[str, Any] = {}
    if image is not None:
        inputs["image"] = open_image(image, "--image")
    if mask is not None:
        inputs["mask_image"] = open_image(mask, "--mask")
        if inputs["mask_image"].size != inputs["image"].size:
            sizes = ["x".join(map(str, inputs[name].size)) for name in ("mask_image", "image")]
            raise InvalidInputError(f"--mask is {sizes[0]} pixels, and --image is {sizes[1]}; they must be alike")
    if strength is not None:
        inputs["strength"] = strength
    folder = _model_folder(model)
    seeds = [first_seed + index for index in range(number)]
    if seed is None:
        typer.echo(f"seed {first_seed}", err=True)

    pipeline = _pipeline(folder, morphing=False)
    _note_unknown_words(pipeline.tokenizer, [prompt])
    with interruptible() as check:
        result = pipeline(
            prompt=prompt,
            negative_prompt=negative,
            num_images_per_prompt=number,
            num_inference_steps=steps,
            generator=_generators(seeds),
            guidance_scale=guidance,
            height=height,
            width=width,
            callbacks=check,
            **inputs,
        )
    from loopwright.diffusion.metadata import save_image

    metadata = _metadata(pipeline, folder, prompt, result.images[0], result)
    for path, picture, used in zip(paths, result.images, seeds, strict=True):
        _save(save_image, picture, path, replace(metadata, seed=used))
        if show:
            _show(picture)
        typer.echo(f"{path}  seed {used}")


def morph(
    prompts: Annotated[list[str], typer.Argument(help="Two prompts or more, such as 'cat' 'dog'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the animation: .webp.")] = Path(
        "morph.webp"
    ),
    frames: Annotated[int, typer.Option(help="The number of frames.")] = 16,
    bounce: Annotated[bool, typer.Option(help="Go back to the first prompt at the end.")] = True,
    negative: _Negative = None,
    steps: _Steps = 20,
    seed: _Seed = None,
    guidance: _Guidance = None,
    model: _Model = None,
    height: _Height = None,
    width: _Width = None,
) -> None:
    """Make an animation that morphs from prompt to prompt."""
    writable_path(output, (".webp",))
    check_at_least("--steps", steps, 1)
    if len(prompts) < 2:
        raise InvalidInputError(f"morph needs at least two prompts, such as: loopwright morph {prompts[0]!r} 'dog'")
    check_at_least("--frames", frames, len(prompts))
    used = chosen_seed(seed)
    folder = _model_folder(model)
    if seed is None:
        typer.echo(f"seed {used}", err=True)

    pipeline = _pipeline(folder, morphing=True)
    _note_unknown_words(pipeline.tokenizer, prompts)
    with interruptible() as check:
        result = pipeline(
            prompt=prompts,
            negative_prompt=negative,
            num_frames=frames,
            num_inference_steps=steps,
            generator=_generators([used]),
            guidance_scale=guidance,
            height=height,
            width=width,
            callbacks=check,
        )
    from loopwright.diffusion.metadata import save_animation

    pictures = result.frames
    metadata = replace(_metadata(pipeline, folder, " -> ".join(prompts), pictures[0], result), seed=used)
    _save(save_animation, pictures + pictures[-2:0:-1] if bounce else pictures, output, metadata)
    typer.echo(f"{output}  seed {used}")


def _model_folder(model: Path | None) -> Path:
    from loopwright.diffusion.model_index import EMBEDDED_MODEL, read_model_index

    folder = EMBEDDED_MODEL if model is None else model
    read_model_index(folder)
    return folder


def _pipeline(folder: Path, *, morphing: bool) -> ModularPipeline:
    import diffusers
    import transformers

    # their notices and bars while loading are not for the reader of this command's output
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    from loopwright.diffusion.loading import load_pipeline
    from loopwright.diffusion.morph import MorphBlocks
    from loopwright.diffusion.workflows import AutoImageBlocks

    pipeline = load_pipeline(MorphBlocks() if morphing else AutoImageBlocks(), folder)
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), leave=False, desc="denoising")
    return pipeline


def _generators(seeds: list[int]) -> list[Any]:
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _note_unknown_words(tokenizer: Any, prompts: list[str]) -> None:
    """Say which words a word-level vocabulary does not have: the model cannot draw what it never read."""
    unknown = tokenizer.unk_token_id
    for word in dict.fromkeys(word for prompt in prompts for word in prompt.split()):
        if unknown is not None and unknown in tokenizer(word, add_special_tokens=False)["input_ids"]:
            hint = did_you_mean(word, tokenizer.get_vocab())
            typer.echo(f"note: the model does not know the word `{word}`{hint}", err=True)


def _metadata(pipeline: ModularPipeline, folder: Path, prompt: str, picture: Any, result: Any) -> ImageMetadata:
    """What all pictures of a call have in common; `result` is the state that the call returned."""
    from loopwright.diffusion.metadata import ImageMetadata

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    scale = result.guidance_scale
    return ImageMetadata(
        prompt=prompt,
        negative_prompt=result.negative_prompt,
        num_inference_steps=result.num_inference_steps,
        guidance_scale=pipeline.guider.config.get("guidance_scale") if scale is None else scale,
        scheduler=type(pipeline.scheduler).__name__,
        model=index.get("_name_or_path") or folder.resolve().name,
        width=picture.width,
        height=picture.height,
        strength=result.get("strength", None) if result.get("image", None) is not None else None,
    )


def _save(save: Any, pictures: Any, path: Path, metadata: Any) -> None:
    try:
        save(pictures, path, metadata)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error


def _show(picture: Any) -> None:
    from .terminal import can_show, half_blocks

    if can_show(sys.stdout):
        typer.echo(half_blocks(picture))
