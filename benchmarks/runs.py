"""What it costs to watch a run, to save it and to have many at once; and that nothing is left of runs that are over."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import loopwright.modular_pipelines as our_library
from loopwright import Checkpoint
from loopwright.diffusion import TextToImageBlocks, load_pipeline
from loopwright.run.checkpoints import LocalFolder, Recorder
from tools.many_runs import Case, cases, with_frames

from .calls import IteratedLoop, loop
from .handwritten import GUIDANCE, STEPS
from .measure import Amount, Result, in_turns
from .peer import OWN, clone, peer_of
from .processes import PROMPT, SEED

EVENTS = 10_000
MANY_EVENTS = 100_000
STREAMS = 1_000
THREADS = 16
RUNS = 200


def picture_pipeline(model: Path) -> Any:
    pipeline = load_pipeline(TextToImageBlocks(), model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture_inputs() -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "generator": torch.Generator().manual_seed(SEED),
        "output": "images",
    }


def streams(repetitions: int, model: Path) -> list[Result]:
    pipeline = picture_pipeline(model)

    def streamed() -> object:
        run = pipeline.stream(**picture_inputs())
        for _ in run:
            pass
        return run.result()

    times = in_turns(streamed, lambda: pipeline(**picture_inputs()), calls=1, repetitions=repetitions)
    title = f"a picture of {STEPS} steps, streamed"
    return [Result(title, *times, bar=1.03, remark="against a call of the same pipeline")]


def checkpoints(repetitions: int, model: Path) -> list[Result]:
    pipeline = picture_pipeline(model)
    with TemporaryDirectory(dir=model) as folder:
        count = 0

        def saved() -> object:
            nonlocal count
            count += 1
            return pipeline(**picture_inputs(), checkpoint=Checkpoint(Path(folder, str(count))))

        times = in_turns(saved, lambda: pipeline(**picture_inputs()), calls=1, repetitions=repetitions)
        with timed_parts() as parts:
            for _ in range(repetitions):
                saved()
    remark = "against a call of the same pipeline; for one checkpoint, in µs: " + ", ".join(
        f"{part} {1e6 * median(seconds):.0f}" for part, seconds in parts.items()
    )
    return [Result(f"a picture of {STEPS} steps, saved after each", *times, bar=1.1, remark=remark)]


@contextmanager
def timed_parts() -> Iterator[dict[str, list[float]]]:
    """The seconds of the parts of each checkpoint that is written meanwhile."""
    parts: dict[str, list[float]] = {}
    patched = {
        "all of it": (Recorder, "record"),
        "writing the file": (LocalFolder, "write"),
        "removing an older one": (LocalFolder, "remove"),
        "fsync": (os, "fsync"),
    }
    originals = {part: getattr(*place) for part, place in patched.items()}

    def timed(part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return originals[part](*args, **kwargs)
            finally:
                name = part
                if part == "fsync":
                    name = f"fsync of the {'folder' if os.path.isdir(f'/proc/self/fd/{args[0]}') else 'file'}"
                parts.setdefault(name, []).append(time.perf_counter() - start)

        return call

    for part, place in patched.items():
        setattr(*place, timed(part))
    try:
        yield parts
    finally:
        for part, place in patched.items():
            setattr(*place, originals[part])


def trivial_pipeline() -> Any:
    """A loop of three blocks that do next to nothing."""
    return loop(our_library, IteratedLoop)


def events(repetitions: int) -> list[Result]:
    pipeline = trivial_pipeline()

    def streamed() -> None:
        for _ in pipeline.stream(num_steps=EVENTS, x=0):
            pass

    times = in_turns(streamed, lambda: pipeline(num_steps=EVENTS, x=0), calls=1, repetitions=repetitions, per=EVENTS)
    title = f"an iteration of a loop of 3 blocks, streamed, {EVENTS:,} of them"
    return [Result(title, *times, bar_seconds=100e-6, remark="against a call of the same pipeline")]


def memory(repetitions: int) -> list[Amount]:
    # the first events fill what a run keeps of its last ones
    run = iter(trivial_pipeline().stream(num_steps=EVENTS + MANY_EVENTS, x=0))
    tracemalloc.start()
    try:
        for _ in range(EVENTS):
            next(run)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(MANY_EVENTS):
            next(run)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    title = f"memory that {MANY_EVENTS:,} events of one run leave"
    remark = f"{grown:+,} bytes in all, as `tracemalloc` counts them, after {EVENTS:,} events that do not count"
    return [Amount(title, grown / MANY_EVENTS, "bytes for each", bar=1, remark=remark)]


def abandoned(repetitions: int) -> list[Amount]:
    pipeline, before = trivial_pipeline(), threading.active_count()
    for _ in range(STREAMS):
        for _ in pipeline.stream(num_steps=10, x=0):
            break
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "loopwright-run":
            thread.join(10)
    return [Amount(f"threads that {STREAMS:,} abandoned streams leave", threading.active_count() - before, "", bar=0)]


@contextmanager
def one_thread_each() -> Iterator[None]:
    """As many threads at work as there are runs: the pools of each would spend the time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def case_inputs(case: Case) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "num_inference_steps": case.steps,
        "generator": torch.Generator().manual_seed(case.number),
        "output_type": "pt",
        "output": "images",
    }


class ManyThreads:
    """The same runs, in many threads, on one pipeline of ours and on a clone for each thread of one of diffusers.

    A thread has a scheduler and a guider, with which it makes its runs.

    Args:
        pipeline: ours.
        own: the components that a clone has for itself.
        runs: how many runs.
    """

    def __init__(self, pipeline: Any, own: tuple[str, ...], runs: int) -> None:
        made = cases(pipeline, runs)
        self.pipeline = pipeline
        self.shares = [
            [case._replace(scheduler=made[n].scheduler, guider=made[n].guider) for case in made[n::THREADS]]
            for n in range(THREADS)
        ]
        self.peer = peer_of(pipeline)
        self.clones = []
        for share in self.shares:
            self.peer.update_components(scheduler=share[0].scheduler, guider=share[0].guider)
            self.clones.append(clone(self.peer, own))
        self._lock = threading.Lock()

    def ours(self) -> list[Any]:
        def work(share: list[Case]) -> list[Any]:
            results = []
            for case in share:
                with self._lock:
                    self.pipeline.update_components(scheduler=case.scheduler, guider=case.guider)
                    run = self.pipeline.stream(**case_inputs(case))
                results.append(run.result())
            return results

        with ThreadPoolExecutor(THREADS) as pool:
            return [result for results in pool.map(work, self.shares) for result in results]

    def theirs(self) -> list[Any]:
        def work(n: int) -> list[Any]:
            return [self.clones[n](**case_inputs(case)) for case in self.shares[n]]

        with ThreadPoolExecutor(THREADS) as pool:
            return [result for results in pool.map(work, range(THREADS)) for result in results]


def threads(repetitions: int, model: Path) -> list[Result]:
    pipeline = picture_pipeline(model)
    kinds: dict[str, tuple[Any, tuple[str, ...]]] = {
        "with a guider that leaves the model as it is": (pipeline, OWN),
        "with guiders that hook the model, and a stateful one": (
            with_frames(pipeline),
            (*OWN, "transformer", "video_vae"),
        ),
    }
    results = []
    with one_thread_each():
        for kind, (ours, own) in kinds.items():
            many = ManyThreads(ours, own, 3 * THREADS)
            same = all(map(torch.equal, many.ours(), many.theirs()))
            times = in_turns(many.ours, many.theirs, calls=1, repetitions=repetitions)
            remark = (
                f"one pipeline here, there a clone for each thread, with copies of {', '.join(own)}; "
                f"{'the same pictures' if same else 'OTHER PICTURES'}"
            )
            title = f"{3 * THREADS} pictures in {THREADS} threads, {kind}"
            results.append(Result(title, *times, bar=1.1, remark=remark))
    return results


def shared(repetitions: int, model: Path) -> list[Amount]:
    """How many runs end otherwise than alone, if all threads share one pipeline."""
    pipeline = picture_pipeline(model)
    peer, runs = peer_of(pipeline), cases(pipeline, RUNS)

    def wrong(call: Callable[..., Any]) -> int:
        def tried(case: Case) -> bool:
            try:
                return torch.equal(call(**case_inputs(case)), alone[case.number])
            except Exception:
                return False

        with ThreadPoolExecutor(THREADS) as pool:
            return len(runs) - sum(pool.map(tried, runs))

    with one_thread_each():
        alone = [pipeline(**case_inputs(case)) for case in runs]
        assert all(torch.equal(peer(**case_inputs(case)), alone[case.number]) for case in runs[:8])
        logging.disable()  # each run that fails there is logged by every block around it
        try:
            counts = wrong(pipeline), wrong(peer)
        finally:
            logging.disable(logging.NOTSET)
    title = f"of {RUNS} pictures in {THREADS} threads on one pipeline, those that are not as alone or failed"
    return [
        Amount(f"{title}, here", counts[0], "", bar=0),
        Amount(f"{title}, in diffusers", counts[1], "", remark="its pipelines are not made for that"),
    ]
