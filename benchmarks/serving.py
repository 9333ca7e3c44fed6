"""Many at once, over HTTP: `loopwright serve` against other ways to serve the same model.

python -m benchmarks.serving writes a part of docs/performance.md, and its plot. The load comes from a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from .bare import MAX_BATCH, ROWS_PER_STEP, STEPS, Bare, Machine
from .measure import ROOT
from .report import SERVER_BEGINS, SERVER_ENDS, machine, server_section

DOCUMENT = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "pictures" / "serving.svg"
OURS = "loopwright serve"
LEAST = "diffusers, one by one"  # nothing but the call behind HTTP
PEERS = {
    LEAST: "one by one",
    "diffusers, threads": "threads",
    "LitServe, dynamic batching": "litserve",
}
SHARES = (0.5, 0.8)
ROUNDS = 3  # requests arrive at the servers in turns, so that whatever else the machine does meets all
PROMPTS = ("red apple", "blue apple", "cat", "dog", "green pear", "house")


@dataclass
class Load:
    """What one server did under one load.

    Attributes:
        latencies: seconds from sending a request to its picture.
        first_steps: seconds to the first step.
        rate: steps per second, of all requests together.
        requests: requests per second.
        generator: seconds of a processor that the load generator takes for a request.
    """

    latencies: list[float]
    first_steps: list[float]
    rate: float
    requests: float
    generator: float

    @classmethod
    def of(cls, got: dict[str, Any], skip: float = 0.0, until: float | None = None) -> Load:
        results = got["results"]
        began = min(result["sent"] for result in results) + skip
        end = max(result["done"] for result in results) if until is None else began - skip + until
        counted = [result for result in results if began <= result["done"] <= end]
        seconds = end - began
        return cls(
            [result["done"] - result["sent"] for result in counted],
            [result["first"] - result["sent"] for result in counted],
            sum(result["steps"] for result in counted) / seconds,
            len(counted) / seconds,
            got["cpu"] / len(results),
        )


@dataclass
class Served:
    """What one server did.

    Attributes:
        saturated: under as many requests as it takes.
        arriving: when requests come by chance, by the share of our saturated throughput; in each round.
        alone: with one client, seconds of each request; empty if not measured.
        plain: seconds of the plain call of the same requests.
    """

    name: str
    saturated: Load | None = None
    arriving: dict[float, list[Load]] = field(default_factory=dict)
    alone: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def against_plain(self) -> float:
        return median(self.alone) / median(self.plain)

    def latencies(self, share: float) -> list[float]:
        """Of all rounds."""
        return [seconds for load in self.arriving[share] for seconds in load.latencies]

    def first_steps(self, share: float) -> list[float]:
        """Of all rounds."""
        return [seconds for load in self.arriving[share] for seconds in load.first_steps]


def requests_of(count: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    for number in range(count):
        yield {"prompt": rng.choice(PROMPTS), "steps": rng.randint(*STEPS), "seed": number}


def poisson(rate: float, count: int, seed: int) -> list[dict[str, Any]]:
    """Requests with times of arrival, so many per second on average."""
    rng, at, arriving = random.Random(seed), 0.0, []
    for request in requests_of(count, seed):
        at += rng.expovariate(rate)
        arriving.append({**request, "at": at})
    return arriving


def generate(url: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Send a load from a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plan, file)
        file.flush()
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", url, file.name], cwd=ROOT, capture_output=True, text=True
        )
    if ran.returncode != 0:
        raise RuntimeError(f"the load generator failed:\n{ran.stderr[-2000:]}")
    got: dict[str, Any] = json.loads(ran.stdout)
    return got


@contextmanager
def server(name: str) -> Iterator[str]:
    """A server in a process of its own; its URL."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        if name == OURS:
            code = "import sys; from loopwright.cli import main; sys.exit(main())"
            options = ["--data-dir", f"{folder}/data", "--max-batch", str(MAX_BATCH), "--max-queue", "10000"]
            command = [sys.executable, "-c", code, "serve", "--port", str(port), *options]
        else:
            module = "peer_litserve" if PEERS[name] == "litserve" else "peer_servers"
            command = [sys.executable, "-m", f"benchmarks.{module}", PEERS[name], str(port)]
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
            url = f"http://127.0.0.1:{port}"
            try:
                _wait_for(url, process, log)
                yield url
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Any) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"the server did not begin:\n{log.read()[-3000:]}")


def warm_up(url: str, seconds: float) -> None:
    """As many requests at a time as will come, so that what a server finds out once is found out."""
    plan = {
        "how": "saturate",
        "seconds": seconds / 8,
        "at_once": 2 * MAX_BATCH,
        "requests": list(requests_of(5_000, 9)),
    }
    generate(url, plan)


def measure(
    names: Sequence[str], seconds: float, arrivals: int, alone: int, rounds: int
) -> tuple[list[Served], Machine]:
    """Measure servers: all under saturation first, as that says how fast requests arrive afterwards."""
    served = {name: Served(name) for name in names}
    single = [{**request, "steps": 20} for request in requests_of(alone, 5)]
    skip = min(seconds / 4, 10.0)
    bare = Bare()
    # before and after, as a machine is not always equally fast
    rates = [bare.rates()]
    for name in names:
        with server(name) as url:
            warm_up(url, seconds)
            if name in (OURS, LEAST):
                # in turns, so that whatever else the machine does meets both
                bare.plain_call(single[0])
                for request in single:
                    served[name].plain.append(bare.plain_call(request))
                    # the first warms the connection
                    plan = {"how": "one by one", "requests": [{**request, "steps": 1}, request]}
                    _, result = generate(url, plan)["results"]
                    served[name].alone.append(result["done"] - result["sent"])
            plan = {"how": "saturate", "seconds": seconds, "at_once": 4 * MAX_BATCH}
            got = generate(url, {**plan, "requests": list(requests_of(20_000, 1))})
            saturated = served[name].saturated = Load.of(got, skip, seconds)
        print(f"{name}: {saturated.requests:.2f} requests per second", flush=True)
        if name == OURS:
            rates.append(bare.rates())
    ours = served[OURS].saturated
    assert ours is not None
    for share in SHARES:
        for number in range(rounds):
            plan = {"how": "arrive", "requests": poisson(share * ours.requests, arrivals // rounds, 2 + number)}
            for name in names:
                with server(name) as url:
                    warm_up(url, seconds)
                    load = Load.of(generate(url, plan))
                served[name].arriving.setdefault(share, []).append(load)
                p50, p95 = (at(load.latencies, percent) for percent in (50, 95))
                print(f"{name} at {share}, round {number + 1}: p50 {p50:.2f} s, p95 {p95:.2f} s", flush=True)
    mean = {calls: sum(each[calls] for each in rates) / len(rates) for calls in rates[0]}
    return list(served.values()), Machine(mean, bare.other_models(), bare.blocks(), os.cpu_count() or 1)


def at(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def document(served: Sequence[Served], bare: Machine) -> tuple[str, bool]:
    """The part of the page, and whether all bars are met."""
    ours, *others = served
    assert ours.saturated is not None
    share = ours.saturated.rate / bare.ideal
    ceiling = bare.ceiling(ours.saturated.generator)
    ratio = ours.against_plain
    verdicts = [
        (f"saturated throughput, share of the ideal: {share:.3f}", "≥ 0.9", share >= 0.9),
        (f"one client, against the plain call: {ratio:.3f}", "≤ 1.03", ratio <= 1.03),
    ]
    for other in others:
        assert other.saturated is not None
        gain = ours.saturated.rate / other.saturated.rate
        verdicts.append((f"saturated throughput, against {other.name}: {gain:.2f}", "> 1", gain > 1))
        for arriving in other.arriving:
            for what, theirs, here in (
                ("latency", other.latencies(arriving), ours.latencies(arriving)),
                ("time to first step", other.first_steps(arriving), ours.first_steps(arriving)),
            ):
                for percent in (50, 95):
                    below = at(here, percent) / at(theirs, percent)
                    text = f"p{percent} {what} at {arriving:g} of saturation, against {other.name}: {below:.2f}"
                    verdicts.append((text, "< 1", below < 1))
    lines = [
        "## The server",
        "",
        "<!-- Written by `python -m benchmarks.serving`, which measures. Do not edit by hand. -->",
        "",
        f"The embedded model, {STEPS[0]} to {STEPS[1]} steps, guidance, pictures of 64x64. All servers have the same "
        f"models and number of threads, and take at most {MAX_BATCH} requests into one forward, or {MAX_BATCH} "
        f"threads. The load comes from another process. {machine()}",
        "",
        f"The ideal is all row-steps over the rows per second of the bare transformer at {MAX_BATCH * ROWS_PER_STEP} "
        f"rows: {bare.rates[MAX_BATCH]:.1f} rows per second, "
        f"{bare.rates[MAX_BATCH] / bare.rates[1]:.2f} times those of a batch of one request. Not in it is what these "
        f"cores do beside: for a picture, text encoder and decoder take {1e3 * bare.models:.1f} ms of all cores in "
        f"the largest batch, the blocks (schedulers, guidance) {1e3 * bare.blocks:.1f} ms of one core, and the load "
        f"generator {1e3 * ours.saturated.generator:.1f} ms. That leaves {ceiling:.3f} of the ideal to a server that "
        f"takes no time itself and keeps each core at work all the time.",
        "",
        "![Latencies](pictures/serving.svg)",
        "",
        "| server | steps per second | requests per second | "
        + " | ".join(f"p50, p95 at {each:g}" for each in SHARES)
        + " | "
        + " | ".join(f"first step, p50, p95 at {each:g}" for each in SHARES)
        + " |",
        "| --- |" + " ---: |" * (2 + 2 * len(SHARES)),
    ]
    for each in served:
        assert each.saturated is not None
        cells = [each.name, f"{each.saturated.rate:.1f}", f"{each.saturated.requests:.2f}"]
        for values in (each.latencies, each.first_steps):
            for arriving in each.arriving:
                found = values(arriving)
                cells.append(f"{at(found, 50):.2f} s, {at(found, 95):.2f} s")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        f"\nOne client that waits for each picture: {1e3 * median(each.alone):.0f} ms with {each.name}, "
        f"{each.against_plain:.3f} of the plain call in a process of its own."
        for each in served
        if each.alone
    ]
    lines += ["", "| bar | | |", "| --- | --- | --- |"]
    lines += [f"| {text} | {bar} | {'met' if met else '**missed**'} |" for text, bar, met in verdicts]
    return "\n".join(lines) + "\n", all(met for *_, met in verdicts)


def plot(served: Sequence[Served]) -> str:
    """Latencies by percentile, a line for each server and load, as SVG; the axis of seconds is logarithmic."""
    import math

    width, height, left, bottom = 720, 360, 60, 40
    colours = ("#8957e5", "#2f81f7", "#2da44e", "#bf8700")
    loads = [(each, share, each.latencies(share)) for each in served for share in each.arriving]
    largest = max(max(latencies) for *_, latencies in loads)
    least = min(min(latencies) for *_, latencies in loads)
    span = math.log(largest / least) or 1.0

    def point(percent: float, seconds: float) -> str:
        x = left + (width - left - 180) * percent / 100
        y = height - bottom - (height - bottom - 20) * math.log(seconds / least) / span
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="{height - 8}">percentile of the requests, 0 to 100</text>',
        '<text x="4" y="14">seconds to the picture</text>',
    ]
    for seconds in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100):
        if least <= seconds <= largest:
            x, y = point(0, seconds).split(",")
            parts.append(f'<line x1="{x}" x2="{width - 180}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 36}" y="{y}">{seconds:g}</text>')
    for number, (each, share, latencies) in enumerate(loads):
        colour = colours[[other.name for other in served].index(each.name) % len(colours)]
        dash = "" if share == max(SHARES) else ' stroke-dasharray="4 3"'
        values = sorted(latencies)
        points = " ".join(point(100 * index / max(len(values) - 1, 1), value) for index, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{width - 172}" y="{30 + 18 * number}" fill="{colour}">{each.name}, {share:g}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes, and nothing is written")
    parser.add_argument("--only", nargs="*", choices=sorted(PEERS), help="which others to measure; all if not given")
    given = parser.parse_args()
    names = [OURS, *(PEERS if given.only is None else given.only)]
    served, bare = measure(names, *((12.0, 12, 3, 1) if given.short else (90.0, 180, 30, ROUNDS)))
    text, met = document(served, bare)
    print(text)
    if not given.short and given.only is None:
        page = DOCUMENT.read_text(encoding="utf-8")
        section = f"{SERVER_BEGINS}{text}{SERVER_ENDS}"
        before = server_section(page)
        DOCUMENT.write_text(page.replace(before, section) if before else f"{page}\n{section}", encoding="utf-8")
        PLOT.write_text(plot(served), encoding="utf-8")
        print(f"{DOCUMENT.relative_to(ROOT)} and {PLOT.relative_to(ROOT)} are written")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
