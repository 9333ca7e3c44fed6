"""A server: a data folder, a pipeline and an address, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from loopwright.batching import batched
from loopwright.errors import InvalidInputError, StorageError
from loopwright.run.torch_threads import release_torch_threads
from loopwright.server.app import make_app
from loopwright.server.context import Context
from loopwright.server.events import Hub
from loopwright.server.folders import JobFolders
from loopwright.server.inputs import PipelineInputs
from loopwright.server.jobs import Status
from loopwright.server.keys import Keys
from loopwright.server.limits import Limits
from loopwright.server.logs import log
from loopwright.server.metrics import Metrics
from loopwright.server.runner import Runner
from loopwright.server.service import JobService, Keeping
from loopwright.server.store import Store

__all__ = ["Server", "ServerSettings"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# seconds after a signal: for the connections to be closed, and for the runs to leave
_CLOSING, _GRACE = 5, 10.0
# seconds for which a connection that nobody uses is kept: longer than clients and proxies keep theirs, as one that is
# closed while a request is on its way fails that request
_KEEP_ALIVE = 75


@dataclass(frozen=True)
class ServerSettings:
    """How a server is to be.

    Attributes:
        data_dir: the folder in which everything is kept; of one server at a time.
        model: the name under which the model is offered.
        host: the address to listen at.
        port: the port; 0 for any that is free.
        max_batch: how many runs share a call of a model at most.
        max_active: how many jobs run at a time; None for twice `max_batch`.
        deterministic: whether the bits of a result depend on its request alone, whatever else runs.
        checkpoint_seconds: a job is saved after an iteration if it was not for so long; what a crash costs is so much.
        timeout: seconds that the run of a job may take, None for no limit.
        limits: what a request may ask for.
        keeping: how long results are kept.
        origins: pages of other sites that may use the server, as `https://example.org`.
        hosts: names under which a server at loopback may be asked, beside those of this machine.
        is_open: whether everybody who reaches an address that is not loopback may use the server, without a key.
    """

    data_dir: Path
    model: str
    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 8
    max_active: int | None = None
    deterministic: bool = False
    checkpoint_seconds: float = 1.0
    timeout: float | None = None
    limits: Limits = field(default_factory=Limits)
    keeping: Keeping = field(default_factory=Keeping)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    is_open: bool = False

    @property
    def slots(self) -> int:
        """How many jobs run at a time."""
        return 2 * self.max_batch if self.max_active is None else self.max_active


class Server:
    """Serves a pipeline, from `run` to a signal or `stop`.

    Args:
        pipeline: the pipeline.
        settings: how.
        ready: called with the URL once requests are taken.
    """

    def __init__(self, pipeline: Any, settings: ServerSettings, ready: Callable[[str], None]) -> None:
        self._pipeline, self._settings, self._ready = pipeline, settings, ready
        self._http: _HttpServer | None = None

    def run(self) -> None:
        """Serve until a signal comes, if this is the main thread, or `stop` is called.

        Raises:
            InvalidInputError: it would be open to the network without a key, or the address cannot be listened at.
            StorageError: the data folder cannot be used.
        """
        settings = self._settings
        # the address first: a server that cannot have it leaves no folder behind
        with _listening(settings.host, settings.port) as listening, _own_folder(settings.data_dir):
            keys = Keys(settings.data_dir)
            if not (settings.host in _LOOPBACK or settings.is_open or keys.all()):
                raise InvalidInputError(
                    f"{settings.host} can be reached from other machines, and there is no API key: make one with "
                    f"`loopwright keys add NAME --data-dir {settings.data_dir}`, or let everybody in with --open"
                )
            with _batched(self._pipeline, settings) as runs:
                context, store = _context(runs, settings, keys)
                self._http = _HttpServer(context, settings, self._ready)
                # loading the models has used them; from now on this thread has no work for them
                release_torch_threads()
                self._http.run([listening])
                store.close()
        log("server ended")

    def stop(self) -> None:
        """End, as at a signal; from any thread."""
        if self._http is not None:
            self._http.should_exit = True


@contextmanager
def _own_folder(path: Path) -> Iterator[None]:
    """Have a data folder alone."""
    try:
        # prompts and pictures are for nobody else on this machine
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            # that of an operator may be so on purpose
            log("data folder is open to other users of this machine: chmod 700", logging.WARNING, folder=str(path))
    except OSError as error:
        raise StorageError(f"the data folder {path} cannot be used: {error.strerror}") from error
    try:
        with suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(f"another server uses the data folder {path}") from error
            except OSError as error:
                raise StorageError(f"the data folder {path} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(handle)


def _listening(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        InvalidInputError: there is no such address, or somebody else listens there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # named, as asyncio sends small packets at once only where it knows that it is TCP
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise InvalidInputError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return listening


def _batched(pipeline: Any, settings: ServerSettings) -> Any:
    if settings.max_batch == 1 and not settings.deterministic:
        return nullcontext(pipeline)
    return batched(
        pipeline, max_batch=settings.max_batch, max_active=settings.slots, deterministic=settings.deterministic
    )


def _context(pipeline: Any, settings: ServerSettings, keys: Keys) -> tuple[Context, Store]:
    metrics, hub, limits = Metrics(), Hub(), settings.limits
    store = Store(settings.data_dir / "jobs.db")
    if store.was_damaged is not None:
        log("database was damaged and is made again from the folders of the jobs", damaged=str(store.was_damaged))
    folders = JobFolders(settings.data_dir / "jobs")
    service = JobService(folders, store, hub, metrics, limits, settings.keeping, settings.slots)
    inputs = PipelineInputs(pipeline.blocks, limits, _side_multiple(pipeline))
    runner = Runner(
        service,
        pipeline,
        metrics,
        settings.slots,
        checkpoint_seconds=settings.checkpoint_seconds,
        timeout=settings.timeout,
    )
    context = Context(
        model=settings.model,
        started=int(time.time()),
        inputs=inputs,
        loops=pipeline._loop_paths(),
        service=service,
        runner=runner,
        keys=keys,
        limits=limits,
        metrics=metrics,
        origins=settings.origins,
        hosts=frozenset((*_LOOPBACK, *settings.hosts)) if settings.host in _LOOPBACK else None,
    )
    _show(context, pipeline, store)
    return context, store


def _side_multiple(pipeline: Any) -> int:
    """Of what a width or a height is a multiple, in pixels: the side of what one value of the latents stands for.

    Models of some families need a multiple of twice that, or more, which only their blocks know.
    """
    for name in ("vae_scale_factor", "vae_scale_factor_spatial"):
        factor = getattr(pipeline, name, None)
        if isinstance(factor, int) and factor > 0:
            return factor
    return 1


def _show(context: Context, pipeline: Any, store: Store) -> None:
    """The metrics that are asked for rather than counted."""
    metrics, service = context.metrics, context.service
    states = (Status.QUEUED, Status.RUNNING, Status.PAUSED)
    metrics.show(
        "jobs",
        "Jobs that have not ended.",
        {status.value: lambda status=status: service.count(status) for status in states},  # type: ignore[misc]
        "status",
    )
    metrics.show("event_streams", "Event streams that are open.", {"": lambda: context.open_streams})
    metrics.show("storage_ok", "1 if the data folder can be written to.", {"": lambda: float(service.is_writable)})
    report = getattr(pipeline, "report", None)
    if report is not None:
        shown = {
            "calls": "Calls of models that were made together with others, or could have been.",
            "forwards": "Forwards that served them.",
            "merged": "Calls that shared a forward.",
        }
        for name, text in shown.items():
            metrics.show(f"batch_{name}", text, {"": lambda name=name: getattr(report(), name)})  # type: ignore[misc]


class _HttpServer(uvicorn.Server):
    """Uvicorn, with the threads that run the jobs.

    At a signal the jobs begin to leave and the streams end, so that the connections can be closed.
    """

    def __init__(self, context: Context, settings: ServerSettings, ready: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(context),
                http="h11",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=_CLOSING,
                timeout_keep_alive=_KEEP_ALIVE,
            )
        )
        self._context, self._settings, self._ready = context, settings, ready

    async def startup(self, sockets: Any = None) -> None:
        self._context.runner.start()
        await super().startup(sockets)
        if self.started:
            assert sockets is not None
            port = sockets[0].getsockname()[1]
            host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
            log("server began", host=self._settings.host, port=port)
            self._ready(f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # that of uvicorn raises the signal again at the end, before the rest of this process is through
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:
        log("server ends", running=self._context.service.count(Status.RUNNING))
        await asyncio.to_thread(self._context.service.close)
        self._context.service.hub.close()
        try:
            await super().shutdown(sockets)
        finally:
            await asyncio.to_thread(self._context.runner.stop, _GRACE)
