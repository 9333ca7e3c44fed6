"""A server in a thread of the tests, on a port of its own, and what talks to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from loopwright.server import Server, ServerSettings
from tests.server.pipelines import PATIENCE


class LiveServer:
    """A server that runs until `stop`.

    Args:
        pipeline: what it serves.
        data_dir: its folder.
        **settings: as for `ServerSettings`.
    """

    def __init__(self, pipeline: Any, data_dir: Path, **settings: Any) -> None:
        given = {"model": "painting", "port": 0, "max_batch": 1, "max_active": 1, "checkpoint_seconds": 0.0, **settings}
        self.data_dir = data_dir
        self.url = ""
        self._error: BaseException | None = None
        self._is_ready = threading.Event()
        self._server = Server(pipeline, ServerSettings(data_dir, **given), self._ready)
        self._thread = threading.Thread(target=self._run, name="live-server")
        self._thread.start()
        assert self._is_ready.wait(PATIENCE)
        if self._error is not None:
            raise self._error
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def _run(self) -> None:
        try:
            self._server.run()
        except BaseException as error:
            self._error = error
        finally:
            self._is_ready.set()

    def _ready(self, url: str) -> None:
        self.url = url
        self._is_ready.set()

    @property
    def service(self) -> Any:
        """The jobs, as the server itself sees them."""
        assert self._server._http is not None
        return self._server._http._context.service

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self.http.close()
        self._server.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def submit(self, **inputs: Any) -> str:
        """Submit a job, and return its id."""
        fields = {name: inputs.pop(name) for name in ("seed", "previews", "priority", "output") if name in inputs}
        answer = self.http.post("/v1/jobs", json={"inputs": {"prompt": "red", **inputs}, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def events(self, job_id: str, last_id: str | None = None) -> Iterator[ServerEvent]:
        """The events of a job, from one connection."""
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            assert answer.status_code == 200
            yield from read_events(answer.iter_lines())

    def wait(self, job_id: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Follow a job until it has ended, or until it is as a test wants it."""
        for event in self.events(job_id):
            if event.kind == "job" and until is not None and until(event.data):
                return event.data
        return self.job(job_id)

    def wait_for_step(self, job_id: str, step: int) -> None:
        """Follow a job until so many of its steps are done."""
        done = self.job(job_id)["progress"]
        if done is not None and done["step"] >= step:
            return
        for event in self.events(job_id):
            done = event.data if event.kind == "progress" else (event.data.get("progress") or {})
            if done.get("step", 0) >= step:
                return
        raise AssertionError(f"the job ended before step {step}")

    def picture(self, job_id: str) -> bytes:
        """The pixels of a result, as the file that holds them."""
        files = self.http.get(f"/v1/jobs/{job_id}/result").json()["outputs"]["images"]["files"]
        return b"".join(self.http.get(file["url"]).content for file in files)


class ServerEvent(NamedTuple):
    id: str
    kind: str
    data: dict[str, Any]


def read_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield ServerEvent(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
            fields = {}
