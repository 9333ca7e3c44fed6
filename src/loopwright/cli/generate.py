"""`loopwright generate` and `loopwright morph`: prompts to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loopwright.errors import InvalidInputError

from .arguments import check_at_least, check_strength, chosen_seed, numbered, open_image, writable_path
from .pictures import ANIMATION_SUFFIXES, PICTURE_SUFFIXES, Preview, Show, carry_out, model_folder, start
from .request import Request
from .run_folder import new_folder

__all__ = ["generate", "morph"]

_Negative = Annotated[str | None, typer.Option(help="What the picture should not show.")]
_Steps = Annotated[int, typer.Option(help="The number of denoising steps.")]
_Seed = Annotated[int | None, typer.Option(help="The seed of the noise; a random one is printed if not given.")]
_Guidance = Annotated[float | None, typer.Option(help="How strongly the prompt guides; the model's own if not given.")]
_Model = Annotated[Path | None, typer.Option(help="A model folder in diffusers' layout; else the embedded model.")]
_Height = Annotated[int | None, typer.Option(help="Height in pixels; the model's own if not given.")]
_Width = Annotated[int | None, typer.Option(help="Width in pixels; the model's own if not given.")]
_Checkpoint = Annotated[
    Path | None, typer.Option(help="A folder to save the run in after each step, for `loopwright resume`.")
]

_Trace = Annotated[Path | None, typer.Option(help="Write where the time went: .json, for `loopwright trace`.")]
_TRACE_SUFFIXES = (".json",)


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture should show, such as 'red apple'.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=f"Where to write: {', '.join(PICTURE_SUFFIXES)}.")
    ] = Path("loopwright.png"),
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
    show: Show = True,
    preview: Preview = False,
    animate: Annotated[
        Path | None,
        typer.Option(help=f"Also write how it formed, in at most 100 steps: {', '.join(ANIMATION_SUFFIXES)}."),
    ] = None,
    checkpoint: _Checkpoint = None,
    trace: _Trace = None,
) -> None:
    """Make a picture from a prompt."""
    paths = [writable_path(path, PICTURE_SUFFIXES) for path in numbered(output, max(number, 1))]
    check_at_least("-n", number, 1)
    check_at_least("--steps", steps, 1)
    check_strength(strength)
    animations = []
    if animate is not None:
        animations = [writable_path(path, ANIMATION_SUFFIXES) for path in numbered(animate, number)]
        if animate.absolute() == output.absolute():
            raise InvalidInputError(f"--animate and -o are the same file, {output}")
    if trace is not None:
        writable_path(trace, _TRACE_SUFFIXES)
    if image is None and mask is not None:
        raise InvalidInputError("--mask needs --image: the picture to change where the mask is white")
    if image is None and strength is not None:
        raise InvalidInputError("--strength needs --image: the picture to start from")
    first_seed = chosen_seed(seed)
    inputs: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "num_images_per_prompt": number,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "height": height,
        "width": width,
    }
    if image is not None:
        inputs["image"] = open_image(image, "--image")
    if mask is not None:
        inputs["mask_image"] = open_image(mask, "--mask")
        if inputs["mask_image"].size != inputs["image"].size:
            sizes = ["x".join(map(str, inputs[name].size)) for name in ("mask_image", "image")]
            raise InvalidInputError(f"--mask is {sizes[0]} pixels, and --image is {sizes[1]}; they must be alike")
    if strength is not None:
        inputs["strength"] = strength
    folder = None if checkpoint is None else new_folder(checkpoint)
    model_folder(model)
    if seed is None:
        typer.echo(f"seed {first_seed}", err=True)
    request = Request([prompt], [first_seed + index for index in range(number)], paths, animations, model)
    carry_out(request, start(inputs, request), folder, preview=preview, show=show, trace=trace)


def morph(
    prompts: Annotated[list[str], typer.Argument(help="Two prompts or more, such as 'cat' 'dog'.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help=f"Where to write the animation: {', '.join(ANIMATION_SUFFIXES)}."),
    ] = Path("morph.webp"),
    frames: Annotated[int, typer.Option(help="The number of frames.")] = 16,
    bounce: Annotated[bool, typer.Option(help="Go back to the first prompt at the end.")] = True,
    negative: _Negative = None,
    steps: _Steps = 20,
    seed: _Seed = None,
    guidance: _Guidance = None,
    model: _Model = None,
    height: _Height = None,
    width: _Width = None,
    preview: Preview = False,
    checkpoint: _Checkpoint = None,
    trace: _Trace = None,
) -> None:
    """Make an animation that morphs from prompt to prompt."""
    writable_path(output, ANIMATION_SUFFIXES)
    if trace is not None:
        writable_path(trace, _TRACE_SUFFIXES)
    check_at_least("--steps", steps, 1)
    if len(prompts) < 2:
        raise InvalidInputError(f"morph needs at least two prompts, such as: loopwright morph {prompts[0]!r} 'dog'")
    check_at_least("--frames", frames, len(prompts))
    used = chosen_seed(seed)
    folder = None if checkpoint is None else new_folder(checkpoint)
    model_folder(model)
    if seed is None:
        typer.echo(f"seed {used}", err=True)
    inputs = {
        "prompt": prompts,
        "negative_prompt": negative,
        "num_frames": frames,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "height": height,
        "width": width,
    }
    request = Request(prompts, [used], [output], model=model, frames=frames, bounce=bounce)
    carry_out(request, start(inputs, request), folder, preview=preview, trace=trace)
