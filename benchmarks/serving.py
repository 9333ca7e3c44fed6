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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

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
MAX_BATCH = 8
STEPS = (10, 30)
ROWS_PER_STEP = 2  # with guidance, a step calls the transformer for the prompt and without it
SHARES = (0.5, 0.8)
PROMPTS = ("red apple", "blue apple", "cat", "dog", "green pear", "house")


@dataclass
class Load:
    """What one server did under one load.

    Attributes:
        latencies: seconds from sending a request to its picture.
        first_steps: seconds to the first step.
        rate: steps per second, of all requests together.
        requests: requests per second.
    """

    latencies: list[float]
    first_steps: list[float]
    rate: float
    requests: float

    @classmethod
    def of(cls, results: Sequence[dict[str, Any]], skip: float = 0.0, until: float | None = None) -> Load:
        began = min(result["sent"] for result in results) + skip
        end = max(result["done"] for result in results) if until is None else began - skip + until
        counted = [result for result in results if began <= result["done"] <= end]
        seconds = end - began
        return cls(
            [result["done"] - result["sent"] for result in counted],
            [result["first"] - result["sent"] for result in counted],
            sum(result["steps"] for result in counted) / seconds,
            len(counted) / seconds,
        )


@dataclass
class Served:
    """What one server did.

    Attributes:
        saturated: under as many requests as it takes.
        arriving: when requests come by chance, by the share of our saturated throughput.
        alone: with one client, seconds of each request; empty if not measured.
        plain: seconds of the plain call of the same requests.
    """

    name: str
    saturated: Load | None = None
    arriving: dict[float, Load] = field(default_factory=dict)
    alone: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def against_plain(self) -> float:
        return median(self.alone) / median(self.plain)


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


def generate(url: str, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a load from a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plan, file)
        file.flush()
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", url, file.name], cwd=ROOT, capture_output=True, text=True
        )
    if ran.returncode != 0:
        raise RuntimeError(f"the load generator failed:\n{ran.stderr[-2000:]}")
    results: list[dict[str, Any]] = json.loads(ran.stdout)
    return results


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


def forward_rates() -> dict[int, float]:
    """Rows per second of the bare transformer, for a batch of one call and of the largest, in this process."""
    import torch

    from loopwright.diffusion import embedded_pipeline

    transformer = embedded_pipeline().transformer
    config = transformer.config
    rates = {}
    for calls in (1, MAX_BATCH):
        rows = calls * ROWS_PER_STEP
        arguments = {
            "hidden_states": torch.randn(rows, config.in_channels, config.sample_size, config.sample_size),
            "encoder_hidden_states": torch.randn(rows, 16, config.caption_channels),
            "encoder_attention_mask": torch.ones(rows, 16, dtype=torch.int64),
            "timestep": torch.full((rows,), 500.0),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
            "return_dict": False,
        }
        times = []
        with torch.no_grad():
            for _ in range(40):
                began = time.perf_counter()
                transformer(**arguments)
                times.append(time.perf_counter() - began)
        rates[calls] = rows / median(times[5:])
    return rates


def warm_up(url: str, seconds: float) -> None:
    """As many requests at a time as will come, so that what a server finds out once is found out."""
    plan = {
        "how": "saturate",
        "seconds": seconds / 8,
        "at_once": 2 * MAX_BATCH,
        "requests": list(requests_of(5_000, 9)),
    }
    generate(url, plan)


def plain_call() -> Callable[[dict[str, Any]], float]:
    """Takes the seconds of the plain call of a request, in this process."""
    import torch

    from loopwright.diffusion import embedded_pipeline

    pipe = embedded_pipeline()
    pipe.set_progress_bar_config(disable=True)

    def seconds(request: dict[str, Any]) -> float:
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(request["seed"])
        pipe(prompt=request["prompt"], num_inference_steps=request["steps"], generator=generator, output="images")
        return time.perf_counter() - began

    return seconds


def measure(names: Sequence[str], seconds: float, arrivals: int, alone: int) -> tuple[list[Served], dict[str, Any]]:
    """Measure servers: all under saturation first, as that says how fast requests arrive afterwards."""
    served = {name: Served(name) for name in names}
    single = [{**request, "steps": 20} for request in requests_of(alone, 5)]
    skip = min(seconds / 4, 10.0)
    facts: dict[str, Any] = {"rows": forward_rates()}
    plain = plain_call()
    for name in names:
        with server(name) as url:
            warm_up(url, seconds)
            if name in (OURS, LEAST):
                # in turns, so that whatever else the machine does meets both
                plain(single[0])
                for request in single:
                    served[name].plain.append(plain(request))
                    # the first warms the connection
                    twice = generate(url, {"how": "one by one", "requests": [{**request, "steps": 1}, request]})
                    served[name].alone.append(twice[1]["done"] - twice[1]["sent"])
            plan = {"how": "saturate", "seconds": seconds, "at_once": 4 * MAX_BATCH}
            results = generate(url, {**plan, "requests": list(requests_of(20_000, 1))})
            saturated = served[name].saturated = Load.of(results, skip, seconds)
        print(f"{name}: {saturated.requests:.2f} requests per second", flush=True)
    ours = served[OURS].saturated
    assert ours is not None
    for share in SHARES:
        plan = {"how": "arrive", "requests": poisson(share * ours.requests, arrivals, 2)}
        for name in names:
            with server(name) as url:
                warm_up(url, seconds)
                load = served[name].arriving[share] = Load.of(generate(url, plan))
            p50, p95 = (at(load.latencies, percent) for percent in (50, 95))
            print(f"{name} at {share}: p50 {p50:.2f} s, p95 {p95:.2f} s", flush=True)
    return list(served.values()), facts


def at(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def document(served: Sequence[Served], facts: dict[str, Any]) -> tuple[str, bool]:
    """The part of the page, and whether all bars are met."""
    ours, *others = served
    assert ours.saturated is not None
    ideal = facts["rows"][MAX_BATCH] / ROWS_PER_STEP
    share = ours.saturated.rate / ideal
    ratio = ours.against_plain
    verdicts = [
        (f"saturated throughput, share of the ideal: {share:.3f}", "≥ 0.9", share >= 0.9),
        (f"one client, against the plain call: {ratio:.3f}", "≤ 1.03", ratio <= 1.03),
    ]
    for other in others:
        assert other.saturated is not None
        gain = ours.saturated.rate / other.saturated.rate
        verdicts.append((f"saturated throughput, against {other.name}: {gain:.2f}", "> 1", gain > 1))
        for arriving, load in other.arriving.items():
            mine = ours.arriving[arriving]
            for what, theirs, here in (
                ("latency", load.latencies, mine.latencies),
                ("time to first step", load.first_steps, mine.first_steps),
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
        f"rows: {facts['rows'][MAX_BATCH]:.1f} rows per second, "
        f"{facts['rows'][MAX_BATCH] / facts['rows'][1]:.2f} times those of a batch of one request. Text "
        f"encoder and decoder are not in it.",
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
        for values in ("latencies", "first_steps"):
            for load in each.arriving.values():
                found = getattr(load, values)
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
    loads = [(each, share, load) for each in served for share, load in each.arriving.items()]
    largest = max(max(load.latencies) for *_, load in loads)
    least = min(min(load.latencies) for *_, load in loads)
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
    for number, (each, share, load) in enumerate(loads):
        colour = colours[[other.name for other in served].index(each.name) % len(colours)]
        dash = "" if share == max(SHARES) else ' stroke-dasharray="4 3"'
        values = sorted(load.latencies)
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
    served, facts = measure(names, *((12.0, 12, 3) if given.short else (90.0, 150, 30)))
    text, met = document(served, facts)
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
