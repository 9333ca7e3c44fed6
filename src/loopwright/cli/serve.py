"""`loopwright serve`: a server for many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loopwright.errors import InvalidInputError

from .arguments import check_at_least
from .notices import silence_notices

__all__ = ["DATA_DIR", "DataDir", "needs_extra", "serve"]

DataDir = Annotated[Path, typer.Option("--data-dir", help="The folder of jobs, results and keys.")]
DATA_DIR = Path("loopwright-data")
_PORTS = 2**16 - 1


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model folder, a repository, or module:attribute with a pipeline; the embedded model if not given.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; other than loopback only with keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8000,
    data_dir: DataDir = DATA_DIR,
    max_batch: Annotated[int, typer.Option(help="How many jobs share a call of a model at most.")] = 8,
    max_active: Annotated[
        int | None, typer.Option(help="How many jobs run at a time; twice --max-batch if not given.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The bits of a result depend on its request alone.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Where the models go, such as cuda; the CPU if not given.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Save a job after a step if it was not for so long; 0: after every step.")
    ] = 1.0,
    timeout: Annotated[float | None, typer.Option(help="The seconds that a job may run.")] = None,
    max_queue: Annotated[int, typer.Option(help="How many jobs may wait.")] = 256,
    max_steps: Annotated[int, typer.Option(help="The most steps of a job.")] = 200,
    max_images: Annotated[int, typer.Option(help="The most images of a job.")] = 10,
    max_pixels: Annotated[int, typer.Option(help="The most pixels of an image, sent or made.")] = 2**24,
    max_body: Annotated[int, typer.Option(help="The most bytes of a request.")] = 32 * 2**20,
    max_text: Annotated[int, typer.Option(help="The most characters of a prompt.")] = 8000,
    keep_hours: Annotated[float, typer.Option(help="How long results are kept.")] = 24.0,
    keep_bytes: Annotated[int, typer.Option(help="How many bytes of results are kept.")] = 4 * 2**30,
    keep_jobs: Annotated[int, typer.Option(help="How many jobs with results are kept.")] = 10_000,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may use the server, as https://example.org.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name under which a server at loopback may be asked.")
    ] = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Let everybody in without a key, also from the network.")
    ] = False,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Log the messages of exceptions, which may quote prompts.")
    ] = False,
) -> None:
    """Serve a pipeline over HTTP: jobs that survive a crash, their events, and OpenAI's images API."""
    counts = {
        "--max-batch": max_batch,
        "--max-active": 1 if max_active is None else max_active,
        "--max-queue": max_queue,
        "--max-steps": max_steps,
        "--max-images": max_images,
        "--max-pixels": max_pixels,
        "--max-body": max_body,
        "--max-text": max_text,
        "--keep-bytes": keep_bytes,
        "--keep-jobs": keep_jobs,
    }
    for option, value in counts.items():
        check_at_least(option, value, 1)
    if not 0 <= port <= _PORTS:
        raise InvalidInputError(f"--port must lie between 0 and {_PORTS}, not {port}")
    if not checkpoint_seconds >= 0:
        raise InvalidInputError(f"--checkpoint-seconds must be at least 0, not {checkpoint_seconds:g}")
    for option, seconds in {"--timeout": timeout, "--keep-hours": keep_hours}.items():
        if seconds is not None and not seconds > 0:
            raise InvalidInputError(f"{option} must be more than 0, not {seconds:g}")
    with needs_extra():
        from loopwright.server import Keeping, Limits, Server, ServerSettings
        from loopwright.server.logs import set_up_logs

    set_up_logs(with_texts=log_texts)
    pipeline, name = _loaded(model, device, dtype)
    settings = ServerSettings(
        data_dir,
        name,
        host,
        port,
        max_batch,
        max_active,
        deterministic,
        checkpoint_seconds,
        timeout,
        Limits(
            body_bytes=max_body,
            image_pixels=max_pixels,
            images=max_images,
            steps=max_steps,
            text_characters=max_text,
            queue=max_queue,
        ),
        Keeping(keep_hours * 3600, keep_bytes, keep_jobs),
        tuple(allow_origin or ()),
        tuple(allow_host or ()),
        is_open,
    )
    Server(pipeline, settings, lambda url: typer.echo(f"{name} is served at {url}")).run()


def _loaded(model: str | None, device: str | None, dtype: str | None) -> tuple[Any, str]:
    """The pipeline that is served, and its name."""
    silence_notices()
    if model is not None and ":" in model and not Path(model).exists():
        from .inspection import import_target

        found = import_target(model)
        if not hasattr(found, "start") and callable(found):
            try:
                found = found()
            except TypeError as error:
                raise InvalidInputError(f"{model} is no pipeline, and makes none without arguments") from error
        if not hasattr(found, "start"):
            raise InvalidInputError(f"{model} is no pipeline, and makes none")
        return found, model.rpartition(":")[2]
    from loopwright.server.models import load_model

    return load_model(model, device, dtype)


@contextmanager
def needs_extra() -> Iterator[None]:
    """Say what to install if the libraries of the server are not there.

    Raises:
        InvalidInputError: one of them is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("loopwright"):
            raise
        raise InvalidInputError(
            f"the server needs {error.name}, which is not installed: pip install 'loopwright[server]'"
        ) from error
