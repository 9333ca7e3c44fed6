"""Clients that connect, watch, cancel and vanish, for minutes: memory, open files and threads of the server stay flat.

Run by `make soak`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tools.progress import progress
from tools.server_crash_loop import ServerProcess

# what may be more in the second half than in the first: of memory in bytes and as a share, of files, and of threads
MORE_BYTES, MORE_SHARE, MORE_FILES, MORE_THREADS = 24 * 2**20, 0.05, 12, 6


@dataclass
class Sample:
    """What the process of the server holds at a moment."""

    bytes: int
    files: int
    threads: int


class Clients:
    """Clients, each of which does one thing after the other, chosen at random.

    Args:
        url: the server.
        until: when to stop, by `time.monotonic`.
    """

    def __init__(self, url: str, until: float) -> None:
        self._url, self._until = url, until
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, count: int) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self._url, timeout=120, limits=limits) as http:
            await asyncio.gather(*(self._client(http, random.Random(number)) for number in range(count)))

    async def _client(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        ways = (self._watch, self._vanish, self._cancel, self._wait, self._leave_waiting, self._mistake, self._look)
        while time.monotonic() < self._until:
            way = rng.choice(ways)
            try:
                await way(http, rng)
                self.done[way.__name__] += 1
            except (httpx.HTTPError, AssertionError, KeyError) as error:
                self.wrong.append(f"{way.__name__}: {type(error).__name__}: {error}")
                await asyncio.sleep(1)

    async def _submitted(self, http: httpx.AsyncClient, rng: random.Random) -> str | None:
        body = {
            "inputs": {"prompt": "red apple", "num_inference_steps": rng.randint(1, 6)},
            "previews": rng.randint(0, 2),
        }
        answer = await http.post("/v1/jobs", json=body)
        if answer.status_code == 429:
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            return None
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def _watch(self, http: httpx.AsyncClient, rng: random.Random, events: int | None = None) -> None:
        job = await self._submitted(http, rng)
        if job is None:
            return
        async with http.stream("GET", f"/v1/jobs/{job}/events") as answer:
            async for line in answer.aiter_lines():
                if events is not None and line.startswith("event"):
                    events -= 1
                    if events == 0:
                        return

    async def _vanish(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        await self._watch(http, rng, events=rng.randint(1, 4))

    async def _cancel(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        job = await self._submitted(http, rng)
        if job is not None:
            answer = await http.delete(f"/v1/jobs/{job}")
            assert answer.status_code in (200, 409), answer.text

    async def _wait(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        body = {"prompt": "cat", "num_inference_steps": rng.randint(1, 4), "stream": rng.random() < 0.5}
        answer = await http.post("/v1/images/generations", json=body)
        assert answer.status_code in (200, 429), answer.text

    async def _leave_waiting(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        body = {"prompt": "dog", "num_inference_steps": 6, "stream": rng.random() < 0.5}
        with suppress(httpx.TimeoutException):
            await http.post("/v1/images/generations", json=body, timeout=rng.uniform(0.05, 0.5))

    async def _mistake(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        answer = await http.post("/v1/jobs", json={"inputs": {"promt": "x" * rng.randint(0, 100_000)}})
        assert answer.status_code == 400, answer.text

    async def _look(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        for path in ("/v1/jobs?limit=50", "/metrics", "/readyz"):
            answer = await http.get(path)
            assert answer.status_code == 200, answer.text


def sample(process: psutil.Process) -> Sample:
    return Sample(process.memory_info().rss, process.num_fds(), process.num_threads())


def verdict(samples: list[Sample], more_bytes: int = MORE_BYTES) -> tuple[list[str], bool]:
    """What the last quarter of the time held more than the second, and whether that is little enough."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    lines, flat = [], True
    for what, most in (("bytes", more_bytes), ("files", MORE_FILES), ("threads", MORE_THREADS)):
        before = sorted(getattr(each, what) for each in early)[len(early) // 2]
        after = sorted(getattr(each, what) for each in late)[len(late) // 2]
        allowed = max(most, MORE_SHARE * before) if what == "bytes" else most
        flat = flat and after - before <= allowed
        course = [getattr(samples[len(samples) * part // 8], what) for part in range(8)]
        lines.append(f"{what}: {before} in the second quarter, {after} in the last; at each eighth {course}")
    return lines, flat


async def observed(clients: Clients, count: int, process: psutil.Process, seconds: float) -> list[Sample]:
    samples: list[Sample] = []
    began = time.monotonic()
    running = asyncio.ensure_future(clients.run(count))
    with progress(desc="seconds", total=round(seconds)) as shown:
        while not running.done():
            samples.append(sample(process))
            shown.update(min(round(time.monotonic() - began), shown.total) - shown.n)
            await asyncio.wait({running}, timeout=max(seconds / 400, 0.2))
    await running
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--short", action="store_true", help="half a minute, 16 clients")
    given = parser.parse_args()
    seconds, count = (30.0, 16) if given.short else (60 * given.minutes, given.clients)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        # few are kept, so that keeping is in a steady state soon
        server = ServerProcess(folder / "data", None, ["--keep-jobs", "200", "--max-queue", "64"])
        with server:
            clients = Clients(str(server.http.base_url), time.monotonic() + seconds)
            process = psutil.Process(server.id)
            samples = asyncio.run(observed(clients, count, process, seconds))
            counts: Any = server.http.get("/metrics").text
            code = server.stop()
        failed = [line for line in (folder / "data.log").read_text().splitlines() if '"level": "error"' in line]
    # half a minute is over before a server that has just begun holds as much as it will
    lines, flat = verdict(samples, 5 * MORE_BYTES if given.short else MORE_BYTES)
    ended = [line for line in counts.splitlines() if line.startswith("loopwright_jobs_ended_total")]
    print("\n".join([str(dict(clients.done)), *ended, *lines, *clients.wrong[:10], *failed[:10]]))
    good = flat and not clients.wrong and not failed and code == 0
    print("flat" if good else "not as it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
