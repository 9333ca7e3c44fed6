"""`loopwright jobs`: the jobs of a server, listed, shown, watched and cancelled."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopwright.errors import InvalidInputError

from .arguments import check_at_least, numbered, writable_path
from .client import Client
from .display import Display

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["jobs"]

jobs = typer.Typer(name="jobs", help="The jobs of a server: list, show, watch, cancel.", no_args_is_help=True)

_Server = Annotated[str, typer.Option(envvar="LOOPWRIGHT_SERVER", help="Where the server is.")]
_Key = Annotated[
    str | None, typer.Option("--api-key", envvar="LOOPWRIGHT_API_KEY", help="The API key.", show_default=False)
]
_Job = Annotated[str, typer.Argument(help="The id of the job, or the beginning of it.", show_default=False)]
_HERE = "http://127.0.0.1:8000"
_PICTURES = (".png",)


@jobs.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    number: Annotated[int, typer.Option("-n", "--number", help="At most so many.")] = 20,
    server: _Server = _HERE,
    api_key: _Key = None,
) -> None:
    """List the jobs, the newest first."""
    check_at_least("-n", number, 1)
    client = Client(server, api_key)
    wanted = "" if status is None else f"&status={status}"
    for job in client.ask(f"/v1/jobs?limit={min(number, 100)}{wanted}")["data"]:
        typer.echo(f"{job['id']}  {job['status']:9}  {_when(job['created_at'])}  {_how_far(job)}".rstrip())


@jobs.command("show")
def show_job(job: _Job, server: _Server = _HERE, api_key: _Key = None) -> None:
    """Show a job, and its picture if it has one."""
    client = Client(server, api_key)
    found = client.job(_whole_id(client, job))
    for name in ("id", "status", "seed", "inputs", "notes", "error"):
        if found[name] not in (None, [], {}):
            said = found[name]["message"] if name == "error" else found[name]
            typer.echo(f"{name:8}{said}")
    typer.echo(f"{'created':8}{_when(found['created_at'])}")
    if found["status"] == "succeeded":
        _show(_pictures(client, found["id"]))
    elif _how_far(found):
        typer.echo(f"{'so far':8}{_how_far(found)}")


@jobs.command("watch")
def watch_job(
    job: _Job,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write the picture: .png.")] = None,
    server: _Server = _HERE,
    api_key: _Key = None,
) -> None:
    """Watch a job to its end: its place in the queue, its progress, and its pictures as they form."""
    if output is not None:
        writable_path(output, _PICTURES)
    client = Client(server, api_key)
    job_id = _whole_id(client, job)
    display = Display(sys.stderr, pictures=True, label="denoising")
    pictures: list[Image.Image] = []
    last: dict[str, Any] = {}
    try:
        for event in client.events(job_id):
            if event.kind == "job":
                last = event.data
                display.say(_said(last))
            elif event.kind == "queue":
                display.say(f"waits in place {event.data['place']}")
            elif event.kind == "preview" and display.shows_pictures:
                pictures = [_opened(client.fetch(url)) for url in event.data["images"]]
            elif event.kind == "progress":
                data = event.data
                display.show(data["step"], data["total"], data["elapsed"], pictures)
    finally:
        display.clear()
    if last["status"] != "succeeded":
        why = "" if last["error"] is None else f": {last['error']['message']}"
        raise InvalidInputError(f"job {job_id} {last['status']}{why}")
    made = _pictures(client, job_id)
    _show(made)
    if output is not None and made:
        for path, picture in zip(numbered(output, len(made)), made, strict=True):
            path.write_bytes(picture)
            typer.echo(str(path))
    for note in last["notes"]:
        typer.echo(f"note: {note}", err=True)


@jobs.command("cancel")
def cancel_job(job: _Job, server: _Server = _HERE, api_key: _Key = None) -> None:
    """Cancel a job."""
    client = Client(server, api_key)
    typer.echo(_said(client.job(_whole_id(client, job), method="DELETE")))


def _whole_id(client: Client, given: str) -> str:
    """The id of the job that is meant; the beginning of it will do, for one of the last hundred."""
    name = given if given.startswith("job_") else f"job_{given}"
    if len(name) == len("job_") + 32:
        return name
    found = [job["id"] for job in client.ask("/v1/jobs?limit=100")["data"] if job["id"].startswith(name)]
    if len(found) != 1:
        many = f"{len(found)} jobs begin" if found else "no job begins"
        raise InvalidInputError(f"{many} with {given!r}; `loopwright jobs list` shows them")
    return str(found[0])


def _pictures(client: Client, job_id: str) -> list[bytes]:
    outputs = client.job(job_id, "/result")["outputs"]
    files = [file for output in outputs.values() for file in output["files"]]
    return [client.fetch(file["url"]) for file in files if file["type"] == "image/png"]


def _show(pictures: list[bytes]) -> None:
    from .terminal import can_show, half_blocks

    if can_show(sys.stdout):
        for picture in pictures:
            typer.echo(half_blocks(_opened(picture)))


def _opened(data: bytes) -> Image.Image:
    from PIL import Image

    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.load()
    return image


def _said(job: dict[str, Any]) -> str:
    place = job["queue_place"]
    return f"{job['id']} is {job['status']}" + ("" if place is None else f", in place {place}")


def _how_far(job: dict[str, Any]) -> str:
    if job["queue_place"] is not None:
        return f"place {job['queue_place']}"
    progress = job["progress"]
    if progress is None or job["status"] not in ("running", "paused"):
        return ""
    of = "" if progress["total"] is None else f" of {progress['total']}"
    return f"step {progress['step']}{of}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
