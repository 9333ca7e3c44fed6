"""`loopwright keys`: who may use a server."""

from __future__ import annotations

from typing import Annotated

import typer

from .serve import DATA_DIR, DataDir, needs_extra

__all__ = ["keys"]

keys = typer.Typer(
    name="keys",
    help="The API keys of a server: add, list, remove. A running server takes notice.",
    no_args_is_help=True,
)

_Name = Annotated[str, typer.Argument(help="Whose key.", show_default=False)]


@keys.command("add")
def add_key(
    name: _Name,
    role: Annotated[str, typer.Option(help="user, or monitor: may look at everything, and change nothing.")] = "user",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Make a key and show it: this once, as only its hash is kept."""
    with needs_extra():
        from loopwright.server.keys import Keys
    typer.echo(Keys(data_dir).add(name, role))


@keys.command("list")
def list_keys(data_dir: DataDir = DATA_DIR) -> None:
    """List whose keys there are."""
    with needs_extra():
        from loopwright.server.keys import Keys
    for key in Keys(data_dir).all():
        typer.echo(f"{key.name}  {key.role}")


@keys.command("remove")
def remove_key(name: _Name, data_dir: DataDir = DATA_DIR) -> None:
    """Make a key useless."""
    with needs_extra():
        from loopwright.server.keys import Keys
    keys = Keys(data_dir)
    keys.remove(name)
    if not keys.all():
        typer.echo("no key is left: nobody is let in until there is one again", err=True)
