"""`loopwright trace`: where the time of a run went, from the file that `run.trace.save` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopwright.errors import InvalidInputError

from .arguments import writable_path

if TYPE_CHECKING:
    from loopwright.describe.trace import Recording

__all__ = ["trace"]


def trace(
    file: Annotated[Path, typer.Argument(help="A Chrome trace, such as `run.trace.save` writes.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write a page with a timeline: .html.")
    ] = None,
) -> None:
    """Show where the time of a run went: a table, or with -o a page with a timeline."""
    if output is not None:
        writable_path(output, (".html",))
    recording = _read(file)
    from loopwright.describe.trace import plot, table

    if output is None:
        typer.echo(table(recording))
        return
    try:
        output.write_text(f"{plot(recording, file.name)}\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot write {output}: {error.strerror or error}") from error
    typer.echo(str(output))


def _read(file: Path) -> Recording:
    """The recording in a file.

    Raises:
        InvalidInputError: it cannot be read, or is not a Chrome trace.
    """
    from loopwright.describe.trace import read_trace

    if file.is_dir():
        raise InvalidInputError(f"{file} is a folder; name a trace in it")
    if not file.is_file():
        raise InvalidInputError(f"there is no file {file}")
    try:
        loaded = json.loads(file.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{file} is not a Chrome trace: it is not JSON") from error
    try:
        return read_trace(loaded)
    except InvalidInputError as error:
        raise InvalidInputError(f"{file} is {error}") from error
