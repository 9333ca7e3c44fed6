"""Random schedules of requests to a batch, and whether each ends as it does alone.

Eight requests at a time arrive at random moments, counted in iterations of those before them, so that every schedule
can be made again from its number. `bits` lets them share forwards in deterministic mode: each result must have the bits
that it has alone. `faults` adds requests that fail, are cancelled or are paused, and a model that runs out of memory:
the result of every other request must be what it is alone, within the stated tolerance. Run by
`make batching-schedules`.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from loopwright import (
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from loopwright.batching import batched
from loopwright.errors import RunCancelledError
from tools.progress import progress

PATIENCE = 60  # seconds after which runs that wait for each other have failed
AT_ONCE = 8
REQUESTS = 32  # how many different ones there are
TOLERANCE = 1e-4  # of a result in float32, relative to its largest value
WIDTH, TOKENS, SIZE = 16, 6, 8
POISON = 1e20


class TinyDenoiser(torch.nn.Module):
    """A denoiser that sees latents [B, 4, 8, 8], timesteps and texts [B, 6, 16].

    Attributes:
        room: how many rows fit into its memory.
        forwards: how many rows each of its forwards had.
    """

    def __init__(self) -> None:
        super().__init__()
        self.into = torch.nn.Conv2d(4, WIDTH, 3, padding=1)
        self.time = torch.nn.Linear(WIDTH, WIDTH)
        self.text = torch.nn.Linear(WIDTH, WIDTH)
        self.attention = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.out = torch.nn.Conv2d(WIDTH, 4, 3, padding=1)
        self.room = sys.maxsize
        self.forwards: list[int] = []

    def forward(self, hidden_states: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        rows = len(hidden_states)
        self.forwards.append(rows)
        if rows > self.room:
            raise torch.OutOfMemoryError("the device is out of memory")
        if hidden_states.abs().max() > POISON:
            raise ValueError("a latent is not a latent")
        waves = torch.as_tensor(timestep).float().reshape(-1, 1) / 2.0 ** torch.arange(WIDTH)
        text = torch.nn.functional.silu(self.text(encoder_hidden_states))
        hidden = self.into(hidden_states) + self.time(waves.sin())[:, :, None, None]
        tokens = hidden.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, text, text, need_weights=False)[0]
        hidden = torch.nn.functional.silu(tokens.transpose(1, 2).unflatten(2, (SIZE, SIZE)))
        return self.out(hidden)


class TinyDecoder(torch.nn.Module):
    """Decodes latents [B, 4, 8, 8] to pictures [B, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(4, 3, 2, stride=2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.up(latents)


class Prepare(ModularPipelineBlocks):
    """Noise, timesteps, and a text that is made from a number."""

    inputs = [InputParam("text", required=True), InputParam("steps", required=True), InputParam("generator")]
    intermediate_outputs = [OutputParam("latents"), OutputParam("timesteps"), OutputParam("embeds")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        values = self.get_block_state(state)
        values.latents = torch.randn(1, 4, SIZE, SIZE, generator=values.generator)
        values.timesteps = torch.linspace(999, 0, values.steps)
        values.embeds = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(values.text))
        self.set_block_state(state, values)
        return components, state


class Predict(ModularPipelineBlocks):
    """The prediction, conditional and not, and a step that draws noise."""

    expected_components = [ComponentSpec("denoiser", TinyDenoiser)]
    inputs = [
        InputParam("latents", required=True),
        InputParam("embeds", required=True),
        InputParam("generator"),
        InputParam("poisoned_at", default=None),
    ]
    intermediate_outputs = [OutputParam("latents")]

    def __call__(self, components: Any, block_state: Any, i: int, t: torch.Tensor) -> tuple[Any, Any]:
        latents = block_state.latents
        if i == block_state.poisoned_at:
            latents = latents + 10 * POISON
        text = components.denoiser(latents, t, encoder_hidden_states=block_state.embeds)
        plain = components.denoiser(latents, t, encoder_hidden_states=torch.zeros_like(block_state.embeds))
        noise = torch.randn(latents.shape, generator=block_state.generator)
        block_state.latents = 0.9 * latents + 0.1 * (plain + 2 * (text - plain)).tanh() + 0.01 * noise
        return components, block_state


class Denoise(LoopSequentialPipelineBlocks):
    """A loop over the timesteps."""

    block_classes = [Predict]
    block_names = ["predict"]
    loop_inputs = [InputParam("timesteps", required=True)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i, t in enumerate(block_state.timesteps):
            yield {"i": i, "t": t}


class Decode(ModularPipelineBlocks):
    """The picture."""

    expected_components = [ComponentSpec("decoder", TinyDecoder)]
    inputs = [InputParam("latents", required=True)]
    intermediate_outputs = [OutputParam("images")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        values = self.get_block_state(state)
        values.images = components.decoder.decode(values.latents)
        self.set_block_state(state, values)
        return components, state


def tiny_pipeline() -> Any:
    """A pipeline whose forwards take less than a millisecond."""
    blocks = SequentialPipelineBlocks.from_blocks_dict({"prepare": Prepare, "denoise": Denoise, "decode": Decode})
    pipe = blocks.init_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {"denoiser": TinyDenoiser(), "decoder": TinyDecoder()}
    pipe.update_components(**{name: model.eval().requires_grad_(False) for name, model in models.items()})
    return pipe


class Request(NamedTuple):
    """What is asked for, and what happens to it.

    Attributes:
        number: which request it is; its seed.
        arrives: after how many iterations of all those before.
        fate: `served`, `fails`, `is cancelled` or `is paused`.
        at: in which iteration that happens.
    """

    number: int
    arrives: int
    fate: str
    at: int

    @property
    def steps(self) -> int:
        return 8 + self.number % 9

    def inputs(self) -> dict[str, Any]:
        return {
            "text": self.number % 5,
            "steps": self.steps,
            "generator": torch.Generator().manual_seed(self.number),
            "output": "images",
            "poisoned_at": self.at if self.fate == "fails" else None,
        }


def schedule(number: int, faults: bool) -> tuple[list[Request], int]:
    """The requests of a schedule, and how many rows fit into the memory of its model."""
    rng = random.Random(number)
    arrivals = sorted(rng.randrange(0, 3 * AT_ONCE) for _ in range(AT_ONCE))
    requests = []
    for arrives, name in zip(arrivals, rng.sample(range(REQUESTS), AT_ONCE), strict=True):
        fate = rng.choices(["served", "fails", "is cancelled", "is paused"], [5, 1, 1, 1])[0] if faults else "served"
        requests.append(Request(name, arrives, fate, rng.randrange(1, 8)))
    rng.shuffle(requests)
    requests.sort(key=lambda request: request.arrives)
    return requests, rng.choice([3, 5, 5, *[sys.maxsize] * 5]) if faults else sys.maxsize


class Outcome:
    """What became of schedules.

    Attributes:
        schedules: how many there were.
        different: the number of the schedule and of the request of results that are not those that they are alone.
        wrong: what else should not be, in words.
        largest: the largest difference between a result and the one alone, relative to its largest value.
        sizes: how many forwards served how many calls, without those of the decoder.
        fates: what happened to how many requests.
    """

    def __init__(self) -> None:
        self.schedules = 0
        self.different: list[tuple[int, int]] = []
        self.wrong: list[str] = []
        self.largest = 0.0
        self.sizes: Counter[int] = Counter()
        self.fates: Counter[str] = Counter()

    @property
    def occupancy(self) -> float:
        """How many calls shared a forward on average, where any did."""
        shared = {size: count for size, count in self.sizes.items() if size > 1}
        return sum(size * count for size, count in shared.items()) / max(1, sum(shared.values()))

    @property
    def is_good(self) -> bool:
        return not self.different and not self.wrong


class Schedules:
    """Runs schedules of a pipeline, all with the same results to compare with."""

    def __init__(self) -> None:
        self.pipe = tiny_pipeline()
        self._alone: dict[tuple[bool, int], torch.Tensor] = {}

    def alone(self, request: Request, deterministic: bool) -> torch.Tensor:
        """The result of a request that has the pipeline for itself."""
        key = deterministic, request.number
        if key not in self._alone:
            inputs = request._replace(fate="served").inputs()
            if deterministic:
                with batched(self.pipe, AT_ONCE, deterministic=True) as b:
                    self._alone[key] = b(**inputs)
            else:
                self._alone[key] = self.pipe(**inputs)
        return self._alone[key]

    def run(self, numbers: Iterable[int], faults: bool, deterministic: bool) -> Outcome:
        """Run schedules, one after the other."""
        outcome = Outcome()
        for number in numbers:
            requests, room = schedule(number, faults)
            for request in requests:
                self.alone(request, deterministic)
            self.pipe.denoiser.room = room
            self._run(number, requests, deterministic, outcome)
            self.pipe.denoiser.room = sys.maxsize
            outcome.schedules += 1
        return outcome

    def _run(self, number: int, requests: list[Request], deterministic: bool, outcome: Outcome) -> None:
        changed, iterations, ended = threading.Condition(), [0], [0]
        runs: list[Any] = []

        def callback(place: int, request: Request) -> Any:
            def on_event(event: Any) -> None:
                # the first may come before it is in its place
                with changed:
                    if event.index == request.at and request.fate == "is cancelled":
                        runs[place].cancel()
                    if event.index == request.at and request.fate == "is paused":
                        runs[place].pause()
                    iterations[0] += 1
                    changed.notify_all()

            return on_event

        def end(run: Any) -> None:
            with suppress(BaseException):
                run.result(PATIENCE)
            with changed:
                ended[0] += 1
                changed.notify_all()

        def stand_still() -> bool:
            return ended[0] + sum(run.status == "paused" for run in runs) >= len(runs)

        threads = []
        before = set(threading.enumerate())
        with batched(self.pipe, AT_ONCE, deterministic=deterministic) as b:
            for place, request in enumerate(requests):
                with changed:
                    came = changed.wait_for(lambda due=request.arrives: iterations[0] >= due or stand_still(), PATIENCE)
                if not came:
                    outcome.wrong.append(f"schedule {number} came to a halt")
                # whoever is paused goes on when somebody else comes
                for run in runs:
                    run.go_on()
                with changed:
                    runs.append(b.start(**request.inputs(), callbacks=callback(place, request)))
                threads.append(threading.Thread(target=end, args=(runs[-1],)))
                threads[-1].start()
            while any(thread.is_alive() for thread in threads):
                for run in runs:
                    run.go_on()
                with changed:
                    changed.wait_for(lambda: ended[0] >= len(runs), 0.02)
            for thread in threads:
                thread.join()
            for run, request in zip(runs, requests, strict=True):
                self._judge(number, run, request, deterministic, outcome)
            outcome.sizes += b.report().models["denoiser"].sizes
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            if thread.is_alive():
                outcome.wrong.append(f"schedule {number} left the thread {thread.name}")
        if vars(self.pipe.denoiser).keys() & {"forward"}:
            outcome.wrong.append(f"schedule {number} left the model wrapped")

    def _judge(self, number: int, run: Any, request: Request, deterministic: bool, outcome: Outcome) -> None:
        expected = {"fails": "failed", "is cancelled": "cancelled"}.get(request.fate, "succeeded")
        outcome.fates[request.fate] += 1
        if run.status != expected:
            outcome.wrong.append(f"schedule {number}, request {request.number} {request.fate}: its run is {run.status}")
            return
        try:
            result = run.result()
        except RunCancelledError:
            return
        except ValueError as error:
            if str(error) != "a latent is not a latent":
                outcome.wrong.append(f"schedule {number}, request {request.number}: {error}")
            return
        alone = self.alone(request, deterministic)
        apart = ((result - alone).abs().max() / alone.abs().max()).item()
        outcome.largest = max(outcome.largest, apart)
        if not torch.equal(result, alone) if deterministic else not apart <= TOLERANCE:
            outcome.different.append((number, request.number))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, default=200, help="schedules in deterministic mode")
    parser.add_argument("--plain", type=int, default=50, help="schedules by default")
    parser.add_argument(
        "--faults", type=int, default=500, help="schedules with failures, cancels, pauses, little memory"
    )
    parser.add_argument("--first", type=int, default=0, help="the number of the first schedule")
    given = parser.parse_args()
    # the pools of many threads would spend the time waiting for each other
    torch.set_num_threads(1)
    schedules = Schedules()
    good = True
    for name, count, faults, deterministic, least in [
        ("deterministic: the same bits", given.bits, False, True, 4.0),
        ("by default: within the tolerance", given.plain, False, False, 4.0),
        ("failures, cancels, pauses, little memory", given.faults, True, False, 3.0),
    ]:
        if not count:
            continue
        began = time.perf_counter()
        outcome = schedules.run(progress(range(given.first, given.first + count), desc=name), faults, deterministic)
        good = good and outcome.is_good and outcome.occupancy >= least
        print(f"{name}: {outcome.schedules} schedules, {time.perf_counter() - began:.0f} s")
        print(f"  {len(outcome.different)} results differ; the largest difference is {outcome.largest:.2g}")
        print(f"  {outcome.occupancy:.2f} calls in a shared forward, at least {least} wanted")
        print("  " + ", ".join(f"{count} {fate}" for fate, count in sorted(outcome.fates.items())))
        for wrong in [*outcome.wrong, *(f"schedule {s}: request {r} differs" for s, r in outcome.different)][:20]:
            print(f"  {wrong}")
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
