"""`loopwright resume`: go on with a run that was paused, stopped or killed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopwright.errors import CheckpointDamagedError, CheckpointError, InvalidInputError

from .arguments import numbered, writable_path
from .pictures import ANIMATION_SUFFIXES, PICTURE_SUFFIXES, Begin, Preview, Show, carry_out, model_folder
from .request import Request, read_request, resume_command
from .run_folder import RunFolder, holds_checkpoint

if TYPE_CHECKING:
    from loopwright.pipeline import ModularPipeline
    from loopwright.run import Run

__all__ = ["resume"]


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of the run, as --checkpoint or Ctrl-C named it.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write instead.")] = None,
    animate: Annotated[Path | None, typer.Option(help="Where to write what --animate asked for instead.")] = None,
    fall_back: Annotated[
        bool, typer.Option("--fall-back", help="Go on from an earlier checkpoint if the last one is damaged.")
    ] = False,
    show: Show = True,
    preview: Preview = False,
) -> None:
    """Go on with a run that was paused, stopped or killed, and write its files."""
    request = _checked(folder, read_request(folder), output, animate)
    model_folder(request.model)
    carry_out(request, _go_on(folder, fall_back), folder, preview=preview, show=show)


def _checked(folder: Path, request: Request, output: Path | None, animate: Path | None) -> Request:
    """The request with the files that are to be written.

    Raises:
        CheckpointError: there is nothing to go on with.
        InvalidInputError: a file cannot be written, or nobody asked for it.
    """
    if request.is_finished:
        raise CheckpointError(f"the run in {folder} is finished: it wrote {', '.join(map(str, request.outputs))}")
    if not holds_checkpoint(folder):
        raise CheckpointError(f"{folder} holds no checkpoint: the run ended before its first step was done")
    if output is not None:
        request = replace(request, outputs=numbered(output, len(request.seeds)))
    if animate is not None:
        if not request.animations:
            raise InvalidInputError(
                f"the run in {folder} was begun without --animate, and did not keep its first steps"
            )
        request = replace(request, animations=numbered(animate, len(request.seeds)))
    for path in request.outputs:
        writable_path(path, PICTURE_SUFFIXES if request.frames is None else ANIMATION_SUFFIXES)
    for path in request.animations:
        writable_path(path, ANIMATION_SUFFIXES)
    return request


def _go_on(folder: Path, fall_back: bool) -> Begin:
    def begin(pipeline: ModularPipeline, kept: RunFolder, on_event: Callable[[Any], None]) -> Run:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                run = pipeline.resume(folder, fall_back=fall_back, callbacks=on_event, progress=False)
            except CheckpointDamagedError as error:
                # the hint for programs is not for the command line
                plain = str(error.__cause__ or error)
                hint = f"; `{resume_command(folder)} --fall-back` goes on from the one before"
                raise CheckpointDamagedError(plain + (hint if plain != str(error) else "")) from error
        for warning in caught:
            typer.echo(f"warning: {warning.message}", err=True)
        return run

    return begin
