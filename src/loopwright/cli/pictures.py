"""From a request to files: what `generate`, `morph` and `resume` have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopwright.errors import InvalidInputError, did_you_mean

from .display import Display
from .interruption import CtrlC
from .notices import silence_notices
from .request import Request
from .run_folder import RunFolder
from .session import Session

if TYPE_CHECKING:
    from loopwright.diffusion.metadata import ImageMetadata
    from loopwright.pipeline import ModularPipeline
    from loopwright.run import Run

__all__ = ["ANIMATION_SUFFIXES", "PICTURE_SUFFIXES", "Preview", "Show", "carry_out", "model_folder", "start"]

# those of `loopwright.diffusion.metadata`, which imports more than `--help` needs
PICTURE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
ANIMATION_SUFFIXES = (".webp", ".gif", ".png")
# how long the last frame of an animation of a forming picture is shown
_LAST_MS = 1500

Preview = Annotated[bool, typer.Option("--preview", help="Show the pictures in the terminal while they form.")]
Show = Annotated[bool, typer.Option(help="Show the picture, if this is a terminal.")]

Begin = Callable[["ModularPipeline", "RunFolder", Callable[[Any], None]], "Run"]


def start(inputs: dict[str, Any], request: Request) -> Begin:
    """What begins a new run, for `carry_out`."""

    def begin(pipeline: ModularPipeline, folder: RunFolder, on_event: Callable[[Any], None]) -> Run:
        import torch

        _note_unknown_words(pipeline.tokenizer, request.prompts)
        generators = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        return pipeline.start(
            generator=generators, checkpoint=folder.checkpoint, callbacks=on_event, progress=False, **inputs
        )

    return begin


def carry_out(
    request: Request,
    begin: Begin,
    folder: Path | None,
    *,
    preview: bool,
    show: bool = False,
    trace: Path | None = None,
) -> None:
    """Load the model, run it, and write the files.

    Args:
        request: what is asked for.
        begin: begins the run, or goes on with it.
        folder: where the run is saved after each step; None for nowhere.
        preview: whether to show the pictures while they form.
        show: whether to show them when they are written.
        trace: where to write how long everything took; None for nowhere.
    """
    is_morph = request.frames is not None
    display = Display(sys.stderr, pictures=preview, label="morphing" if is_morph else "denoising")
    if preview and not display.shows_pictures:
        typer.echo("note: --preview needs a terminal that shows colours, and stderr is none", err=True)
    model = model_folder(request.model)
    with CtrlC() as ctrl_c:
        pipeline = _pipeline(model, is_morph)
        kept = RunFolder(request, folder)
        session = Session(kept, display, ctrl_c, request.frames)
        run = begin(pipeline, kept, session.on_event)
        result = session.result(run)
        _write(request, result, _metadata(pipeline, model, request, result), kept, show)
        kept.finish()
        if trace is not None:
            _save_trace(run, trace)


def model_folder(model: Path | None) -> Path:
    """The folder of a model, that of the embedded one if None.

    Raises:
        InvalidInputError: it is not a model folder.
    """
    from loopwright.diffusion.model_index import EMBEDDED_MODEL, read_model_index

    folder = EMBEDDED_MODEL if model is None else model
    read_model_index(folder)
    return folder


def _pipeline(folder: Path, is_morph: bool) -> ModularPipeline:
    silence_notices()
    from loopwright.diffusion.loading import load_pipeline
    from loopwright.diffusion.morph import MorphBlocks
    from loopwright.diffusion.workflows import AutoImageBlocks

    return load_pipeline(MorphBlocks() if is_morph else AutoImageBlocks(), folder)


def _note_unknown_words(tokenizer: Any, prompts: Sequence[str]) -> None:
    """Say which words a word-level vocabulary does not have: the model cannot draw what it never read."""
    unknown = tokenizer.unk_token_id
    for word in dict.fromkeys(word for prompt in prompts for word in prompt.split()):
        if unknown is not None and unknown in tokenizer(word, add_special_tokens=False)["input_ids"]:
            hint = did_you_mean(word, tokenizer.get_vocab())
            typer.echo(f"note: the model does not know the word `{word}`{hint}", err=True)


def _metadata(pipeline: ModularPipeline, model: Path, request: Request, result: Any) -> ImageMetadata:
    """What all files of a request have in common; `result` is the state that the run left."""
    from loopwright.diffusion.metadata import ImageMetadata

    index = json.loads((model / "model_index.json").read_text(encoding="utf-8"))
    scale, picture = result.guidance_scale, result.images[0]
    return ImageMetadata(
        prompt=" -> ".join(request.prompts),
        negative_prompt=result.negative_prompt,
        num_inference_steps=result.num_inference_steps,
        guidance_scale=pipeline.guider.config.get("guidance_scale") if scale is None else scale,
        scheduler=type(pipeline.scheduler).__name__,
        model=index.get("_name_or_path") or model.resolve().name,
        width=picture.width,
        height=picture.height,
        strength=result.get("strength", None) if result.get("image", None) is not None else None,
    )


def _write(request: Request, result: Any, metadata: ImageMetadata, kept: RunFolder, show: bool) -> None:
    """Write the files, and say so."""
    from loopwright.diffusion.metadata import save_animation, save_image

    if request.frames is not None:
        pictures, (seed,), (path,) = result.frames, request.seeds, request.outputs
        pictures = pictures + pictures[-2:0:-1] if request.bounce else pictures
        _save(save_animation, pictures, path, replace(metadata, seed=seed))
        typer.echo(f"{path}  seed {seed}")
        return
    for number, (path, picture, seed) in enumerate(zip(request.outputs, result.images, request.seeds, strict=True)):
        _save(save_image, picture, path, replace(metadata, seed=seed))
        if request.animations:
            frames = kept.frames_of(number)
            if frames and frames[-1].tobytes() == picture.tobytes():
                frames.pop()
            animation = request.animations[number]
            _save(save_animation, [*frames, picture], animation, replace(metadata, seed=seed), last_ms=_LAST_MS)
        if show:
            _show(picture)
        typer.echo(f"{path}  seed {seed}")
        if request.animations:
            typer.echo(str(request.animations[number]))


def _save(save: Any, pictures: Any, path: Path, metadata: Any, **options: Any) -> None:
    try:
        save(pictures, path, metadata, **options)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error


def _save_trace(run: Run, path: Path) -> None:
    try:
        run.trace.save(path)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error
    typer.echo(str(path))


def _show(picture: Any) -> None:
    from .terminal import can_show, half_blocks

    if can_show(sys.stdout):
        typer.echo(half_blocks(picture))
