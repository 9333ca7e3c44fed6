"""What batching gains and what determinism costs, with the embedded model. Run by `make batching-costs`.

Many requests of 10 to 30 steps in as many threads as a batch holds, and a single client that asks for one after the
other. The ideal is that of the bare transformer: all rows of all steps at the speed of its forward with a full batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch

from loopwright.batching import batched
from loopwright.diffusion import embedded_pipeline

ROWS = 2  # of a call: with the prompt and without


def inputs(number: int) -> dict[str, Any]:
    return {
        "prompt": "red apple",
        "num_inference_steps": 10 + (7 * number) % 21,
        "generator": torch.Generator().manual_seed(number),
        "output": "images",
        "output_type": "pt",
    }


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def bare_forward(pipe: Any, calls: int, repeats: int) -> float:
    """Seconds of a forward of the transformer with the rows of so many calls: the median."""
    rows = ROWS * calls
    arguments = {
        "hidden_states": torch.randn(rows, 8, 16, 16),
        "timestep": torch.linspace(1, 999, rows),
        "encoder_hidden_states": torch.randn(rows, 12, 128),
        "encoder_attention_mask": torch.ones(rows, 12, dtype=torch.long),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    with torch.no_grad():
        pipe.transformer(**arguments)
        return statistics.median(seconds(lambda: pipe.transformer(**arguments)) for _ in range(repeats))


def saturated(pipe: Any, requests: int, at_once: int, context: Any) -> float:
    """Seconds for all requests, so many at once."""
    with context as b:
        used = pipe if b is None else b
        used(**inputs(0))

        def work() -> None:
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(lambda number: used(**inputs(number)), range(requests)))

        return seconds(work)


def single(pipe: Any, repeats: int, context: Any) -> float:
    """Seconds of a request that has the pipeline for itself: the median."""
    with context as b:
        used = pipe if b is None else b
        used(**inputs(0))
        return statistics.median(seconds(lambda: used(**inputs(0))) for _ in range(repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7, help="of a single request and of the bare forward")
    given = parser.parse_args()
    pipe = embedded_pipeline(workflow="text2image")
    pipe.set_progress_bar_config(disable=True)
    steps = sum(inputs(number)["num_inference_steps"] for number in range(given.requests))
    one = bare_forward(pipe, 1, given.repeats * 5)
    full = bare_forward(pipe, given.max_batch, given.repeats * 5)
    ideal = steps / given.max_batch * full
    print(f"a forward with 1 call: {1e3 * one:.1f} ms; with {given.max_batch}: {1e3 * full:.1f} ms, ", end="")
    print(f"{one * given.max_batch / full:.2f} times as many rows per second")
    print(f"{'':28} {'requests/s':>10} {'of the ideal':>12} {'one alone, ms':>13} {'of plain':>8}")
    print(f"{'ideal':28} {given.requests / ideal:10.2f} {1:12.2f}")
    plain = None
    for name, context in [
        ("plain calls", nullcontext),
        ("batched", lambda: batched(pipe, given.max_batch)),
        ("batched, deterministic", lambda: batched(pipe, given.max_batch, deterministic=True)),
    ]:
        at_once = 1 if name == "plain calls" else 2 * given.max_batch
        took = saturated(pipe, given.requests, at_once, context())
        alone = single(pipe, given.repeats, context())
        plain = plain or alone
        print(f"{name:28} {given.requests / took:10.2f} {ideal / took:12.2f} {1e3 * alone:13.1f} {alone / plain:8.2f}")


if __name__ == "__main__":
    main()
