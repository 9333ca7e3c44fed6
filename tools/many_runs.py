"""Hundreds of runs of one pipeline, many at once, in threads and as tasks: each must end bit for bit as it does alone.

The runs differ in scheduler, number of steps and seed. In the second half they differ in their guiders as well, some of
which hook the model, and all of them decode with a model that keeps values on itself while it works.
Run by `make many-runs`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import guiders
from diffusers.hooks import LayerSkipConfig

from loopwright import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.diffusion import embedded_pipeline

PATIENCE = 60  # seconds after which runs that wait for each other have failed
INSIDE = 8  # how many runs must be inside their loops at once
# None stands for the scheduler that the pipeline has
SCHEDULERS = (
    None,
    diffusers.DDIMScheduler,
    diffusers.DPMSolverMultistepScheduler,
    diffusers.EulerAncestralDiscreteScheduler,
    diffusers.FlowMatchHeunDiscreteScheduler,
    diffusers.UniPCMultistepScheduler,
)
GUIDERS = (
    guiders.ClassifierFreeGuidance(3.0),
    guiders.SkipLayerGuidance(
        skip_layer_config=[LayerSkipConfig(indices=[4], fqn="transformer_blocks")],
        skip_layer_guidance_start=0.0,
        skip_layer_guidance_stop=1.0,
    ),
    guiders.PerturbedAttentionGuidance(
        perturbed_guidance_layers=[4], perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0
    ),
)
Values = Mapping[str, torch.Tensor]


class DecodeFrames(ModularPipelineBlocks):
    """Decodes a corner of the latents as if they were those of a video, with a model that keeps values on itself."""

    expected_components = [ComponentSpec("video_vae", diffusers.AutoencoderKLWan)]
    inputs = [InputParam("latents", required=True)]
    intermediate_outputs = [OutputParam("frames", torch.Tensor, "The frames, [B, 3, T, H, W].")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        corner = block_state.latents[:, :, :4, :4].unflatten(1, (4, -1))
        block_state.frames = components.video_vae.decode(corner, return_dict=False)[0]
        self.set_block_state(state, block_state)
        return components, state


class Case(NamedTuple):
    """What one run is: its number, which is its seed too, and the settings in which it differs from others."""

    number: int
    scheduler: Any
    guider: Any
    steps: int


def plain_pipeline() -> Any:
    """The embedded model."""
    pipe = embedded_pipeline(workflow="text2image")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_frames(plain: Any) -> Any:
    """A pipeline with a block after it whose model only one run at a time can use."""
    blocks = plain.blocks
    blocks.sub_blocks["frames"] = DecodeFrames()
    pipe = blocks.init_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
    pipe.update_components(**plain.components, video_vae=vae.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def cases(pipe: Any, count: int) -> list[Case]:
    """Runs that differ in scheduler, steps and seed; in the guider as well if the pipeline is the mixed one."""
    usual = pipe.scheduler
    # many runs are given the same object
    schedulers = [usual if cls is None else cls.from_config(usual.config) for cls in SCHEDULERS]
    mixed = GUIDERS if "video_vae" in pipe.component_names else (pipe.guider,)
    return [
        Case(n, schedulers[n % len(schedulers)], mixed[n // len(schedulers) % len(mixed)], 2 + n % 5)
        for n in range(count)
    ]


class Inside:
    """Counts the runs that are inside their loops; the first few wait there until all of them are.

    Args:
        wanted: how many that are.
    """

    def __init__(self, wanted: int) -> None:
        self.most = 0
        self._now = 0
        self._wanted = wanted
        self._lock = threading.Lock()
        self._together = threading.Barrier(wanted)

    def callback(self, number: int) -> Callable[[Any], None]:
        """What a run is to call after each of its iterations."""

        def on_event(event: Any) -> None:
            if event.index == 0:
                with self._lock:
                    self._now += 1
                    self.most = max(self.most, self._now)
                if number < self._wanted:
                    self._together.wait(PATIENCE)
            if event.index == event.total - 1:
                with self._lock:
                    self._now -= 1

        return on_event


class Outcome(NamedTuple):
    """What became of many runs.

    Attributes:
        different: the numbers of those that ended in other bits than alone.
        failed: what was raised, by number.
        inside: the most that were inside their loops at once.
        seconds: how long all of them took.
    """

    runs: int
    different: list[int]
    failed: dict[int, BaseException]
    inside: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return not self.different and not self.failed and self.inside >= min(INSIDE, self.runs)


class ManyRuns:
    """Runs of one pipeline.

    Args:
        pipe: the pipeline.
        count: how many runs.
    """

    def __init__(self, pipe: Any, count: int) -> None:
        self._pipe = pipe
        self._cases = cases(pipe, count)
        self._output = ["latents", "images", *(["frames"] if "video_vae" in pipe.component_names else [])]
        # components are exchanged for each run, and its run is made before others can exchange them again
        self._lock = threading.Lock()
        self._alone: list[Values] = []

    def alone(self) -> list[Values]:
        """The results of the runs one after the other, as plain calls.

        Raises:
            ValueError: two runs end alike, or one not in numbers; comparing with them would tell nothing.
        """
        if not self._alone:
            for case in self._cases:
                self._set(case)
                self._alone.append(self._pipe(**self._inputs(case)))
            pictures = {values["images"].numpy().tobytes() for values in self._alone}
            if len(pictures) < len(self._cases) or not all(values["images"].isfinite().all() for values in self._alone):
                raise ValueError("some of the pictures are the same, or are not numbers")
        return self._alone

    def in_threads(self, at_once: int) -> Outcome:
        """Run all of them, so many threads at once."""

        def run(case: Case) -> Values:
            with self._lock:
                self._set(case)
                make = self._pipe.stream if case.number % 2 else self._pipe.start
                made = make(**self._inputs(case), callbacks=inside.callback(case.number))
            if case.number % 2:
                for _ in made:
                    pass
            return made.result()  # type: ignore[no-any-return]

        inside = Inside(min(INSIDE, at_once))
        began = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            futures = [pool.submit(run, case) for case in self._cases]
        results = [future.exception() or future.result() for future in futures]
        return self._outcome(results, inside, time.perf_counter() - began)

    def in_tasks(self, at_once: int) -> Outcome:
        """Run all of them, so many asyncio tasks at once."""

        async def run(case: Case, places: asyncio.Semaphore) -> Values:
            async with places:
                self._set(case)
                inputs = {**self._inputs(case), "callbacks": inside.callback(case.number)}
                if case.number % 2:
                    return await self._pipe.acall(**inputs)  # type: ignore[no-any-return]
                return {"latents": [event.state.latents async for event in self._pipe.astream(**inputs)][-1]}

        async def main() -> list[Any]:
            places = asyncio.Semaphore(at_once)
            return await asyncio.gather(*[run(case, places) for case in self._cases], return_exceptions=True)

        inside = Inside(min(INSIDE, at_once))
        began = time.perf_counter()
        results = asyncio.run(main())
        return self._outcome(results, inside, time.perf_counter() - began)

    def _set(self, case: Case) -> None:
        self._pipe.update_components(scheduler=case.scheduler, guider=case.guider)

    def _inputs(self, case: Case) -> dict[str, Any]:
        return {
            "prompt": "red apple",
            "num_inference_steps": case.steps,
            "generator": torch.Generator().manual_seed(case.number),
            "output_type": "pt",
            "output": self._output,
        }

    def _outcome(self, results: Sequence[Any], inside: Inside, seconds: float) -> Outcome:
        failed = {number: result for number, result in enumerate(results) if isinstance(result, BaseException)}
        different = [
            number
            for number, expected in enumerate(self.alone())
            if number not in failed
            and not all(torch.equal(value, expected[name]) for name, value in results[number].items())
        ]
        return Outcome(len(results), different, failed, inside.most, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="of each kind and in each way")
    parser.add_argument("--at-once", type=int, default=16, help="how many threads, and how many tasks")
    given = parser.parse_args()
    # the pools of many threads would spend the time waiting for each other
    torch.set_num_threads(1)
    print(f"{'runs':34} {'number':>6} {'different':>9} {'failed':>6} {'inside at once':>14} {'time':>7}")
    good = True
    plain = plain_pipeline()
    for kind, pipe in {"plain": plain, "guiders, stateful model": with_frames(plain)}.items():
        runs = ManyRuns(pipe, given.runs)
        began = time.perf_counter()
        runs.alone()
        print(f"{kind}, alone".ljust(34), f"{given.runs:6} {'':>9} {'':>6} {1:14} {time.perf_counter() - began:6.1f}s")
        for way, run in {"threads": runs.in_threads, "tasks": runs.in_tasks}.items():
            outcome = run(given.at_once)
            good = good and outcome.is_good
            print(
                f"{kind}, {way}".ljust(34),
                f"{outcome.runs:6} {len(outcome.different):9} {len(outcome.failed):6} {outcome.inside:14} "
                f"{outcome.seconds:6.1f}s",
                flush=True,
            )
            for number, error in outcome.failed.items():
                print(f"  run {number}: {type(error).__name__}: {error}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
