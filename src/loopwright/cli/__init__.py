"""The command line: `loopwright generate`, `morph`, `resume`, `serve`, `jobs`, `keys`, `trace`, `describe` and `check`.

A user's mistake is one line on stderr and exit code 2; Ctrl-C is exit code 130. Torch, diffusers and transformers are
imported by the commands that need them, after the arguments were checked.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import Annotated, Any

import typer
from typer.main import get_command

from loopwright.errors import LoopwrightError, nearest

from .generate import generate, morph
from .inspection import check, describe
from .jobs import jobs
from .keys import keys
from .resume import resume
from .serve import serve
from .trace import trace

__all__ = ["app", "main"]

app = typer.Typer(
    name="loopwright",
    help="Pipelines made of blocks, in which the loop is a block too.",
    add_completion=False,
    rich_markup_mode="rich",
)
for command in (generate, morph, resume, serve, trace, describe, check):
    app.command()(command)
for group in (jobs, keys):
    app.add_typer(group, name=str(group.info.name))


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"loopwright {version('loopwright')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Pipelines made of blocks, in which the loop is a block too."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: what stands after `loopwright`, that of the process if None. Without any, the help is shown.
    """
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = get_command(app).main(args=arguments, prog_name="loopwright", standalone_mode=False)
    except LoopwrightError as error:
        return _mistake(str(error))
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # the exceptions of wrong usage; typer has brought its own classes of them only since it left click
        if not hasattr(error, "format_message"):
            raise
        return _mistake(_usage_message(error, arguments))
    if code == 130:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _mistake(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _usage_message(error: Any, arguments: list[str]) -> str:
    """The message of an exception of wrong usage; for an unknown option with the nearest one."""
    unknown = getattr(error, "option_name", None)
    message = str(error.format_message())
    more = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message)
    if more and error.ctx is not None and error.ctx.command.name == "generate":
        quoted = shlex.quote(f"{error.ctx.params['prompt']} {more[1]}")
        return (
            f"generate takes one prompt: put its words into quotes, as in loopwright generate {quoted}; several "
            f"prompts make an animation: loopwright morph"
        )
    if not unknown or error.ctx is None or not message.startswith("No such option"):
        return message
    context = error.ctx
    known = [option for param in context.command.params for option in param.opts if option.startswith("-")]
    match = nearest(unknown, [*known, "--help"])
    hint = f", did you mean {match}?" if match else f"; see {context.command_path} --help"
    return f"No such option: {unknown}{hint}"
