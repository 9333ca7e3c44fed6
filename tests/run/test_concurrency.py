"""One pipeline serves many threads and tasks at once, and each run ends as it would alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from loopwright import ComponentSpec, ConfigSpec, InputParam, PipelineState
from tests.blocks.arithmetic import AddOne, Repeat
from tests.run.blocks import PATIENCE, Do, Turnstile, in_threads, pipeline
from tools.many_runs import ManyRuns, with_frames


class Counter:
    """A component that a run changes."""

    run_scoped = True

    def __init__(self) -> None:
        self.count = 0


class Count(Do):
    expected_components = [
        ComponentSpec("counter", Counter),
        ComponentSpec("scheduler", DDIMScheduler, default_creation_method="from_config"),
    ]
    expected_configs = [ConfigSpec("step", 1)]


def count(components: Any, x: int, **_: Any) -> int:
    components.counter.count += components.step
    return int(components.counter.count)


def counter_pipeline(function: Any = count) -> Any:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"count": Count(function)}))
    pipe.update_components(counter=Counter())
    return pipe


@pytest.fixture(scope="module", params=["plain", "guiders that hook the model, and a stateful one"])
def many(request: pytest.FixtureRequest, embedded: Any) -> ManyRuns:
    """Two dozen runs of one pipeline, with several schedulers and numbers of steps: `make many-runs` in short."""
    pipe = embedded.blocks.init_pipeline()
    pipe.update_components(**embedded.components)
    pipe.set_progress_bar_config(disable=True)
    return ManyRuns(pipe if request.param == "plain" else with_frames(pipe), 24)


def test_runs_in_threads_end_as_they_do_alone(many: ManyRuns) -> None:
    outcome = many.in_threads(8)
    assert (outcome.failed, outcome.different) == ({}, [])
    assert outcome.inside == 8


def test_runs_in_tasks_end_as_they_do_alone(many: ManyRuns) -> None:
    outcome = many.in_tasks(8)
    assert (outcome.failed, outcome.different) == ({}, [])
    assert outcome.inside == 8


def test_plain_calls_in_threads_end_as_one_after_the_other(embedded: Any, inputs: Any) -> None:
    expected = [embedded(**inputs(seed)) for seed in range(4)]
    results = in_threads(*[lambda seed=seed: embedded(**inputs(seed)) for seed in range(4)])
    assert all(np.array_equal(got, wanted) for got, wanted in zip(results, expected, strict=True))


def test_components_that_a_run_changes_are_copied_for_each_run() -> None:
    pipe = counter_pipeline()
    assert pipe(output="x") == pipe(output="x") == 3
    run = pipe.start(output="x")
    assert (run.result(), run.components.counter.count, pipe.counter.count) == (3, 3, 0)


def test_a_component_that_no_block_of_a_run_asks_for_is_not_copied() -> None:
    copies: list[Counter] = []

    class Counted(Counter):
        def __deepcopy__(self, memo: Any) -> Counter:
            copies.append(self)
            return Counter()

    pipe = counter_pipeline(lambda components, x, **_: components.device.type)
    pipe.update_components(counter=Counted())
    for call in (pipe, lambda: pipe.start().result(), lambda: list(pipe.stream())):
        call()
        assert copies == []


def test_a_run_keeps_the_components_that_the_pipeline_had_when_it_was_made() -> None:
    pipe = counter_pipeline()
    run = pipe.stream(output="x")
    other = Counter()
    other.count = 100
    pipe.update_components(counter=other, step=7)
    assert run.result() == 3
    assert pipe(output="x") == 121


def test_what_a_block_assigns_to_the_components_stays_in_the_run() -> None:
    def change(components: Any, x: int, **_: Any) -> int:
        components.note = getattr(components, "note", 0) + 1
        components.counter = Counter()
        components.update_components(scheduler=DDIMScheduler(num_train_timesteps=7), step=components.step + 1)
        return int(components.step)

    pipe = counter_pipeline(change)
    counter, scheduler = pipe.counter, pipe.scheduler
    spec = pipe.get_component_spec("scheduler")
    for call in (pipe, lambda: pipe.start().result()):
        assert call().x == 4
        assert not hasattr(pipe, "note")
        assert (pipe.counter is counter, pipe.scheduler is scheduler, pipe.step) == (True, True, 1)
        assert pipe.get_component_spec("scheduler").type_hint == spec.type_hint
        assert pipe._config_specs["step"].default == 1


def test_blocks_see_a_pipeline_of_the_same_class_with_the_same_models(embedded: Any) -> None:
    seen: list[Any] = []

    class Looks(Do):
        expected_components = [ComponentSpec("vae", torch.nn.Module)]

    pipe = pipeline(look=Looks(lambda components, *_: seen.append(components)))
    pipe.update_components(vae=embedded.vae)
    pipe()
    assert type(seen[0]) is type(pipe)
    assert seen[0] is not pipe
    assert seen[0].vae is embedded.vae


def test_a_state_that_is_passed_in_is_not_changed_by_a_run() -> None:
    class Writes(Do):
        inputs = [*Do.inputs, InputParam("values")]

    tensor, generator = torch.zeros(2), torch.Generator().manual_seed(1)
    position = generator.get_state()

    def write(components: Any, x: Any, **_: Any) -> None:
        x["tensor"].add_(1)
        x["list"].append(1)
        torch.rand(1, generator=x["generator"])

    state = PipelineState({"x": {"tensor": tensor, "list": [], "generator": generator}})
    pipe = pipeline(loop=Repeat.from_blocks_dict({"write": Writes(write)}))
    run = pipe.stream(state)
    for event in run:
        event.peek()
    assert run.result().x["tensor"].tolist() == [3, 3]
    assert (tensor.tolist(), state.x["list"], generator.get_state().equal(position)) == ([0, 0], [], True)


def test_one_run_that_stands_still_does_not_hold_the_others() -> None:
    turnstile = Turnstile()
    pipe = pipeline(
        loop=Repeat.from_blocks_dict({"stop": Do(lambda _, x, **__: turnstile() if x < 0 else None), "add": AddOne})
    )
    standing = pipe.start(x=-1, steps=1)
    turnstile.wait()
    assert in_threads(*[lambda: pipe(x=0, output="x")] * 4) == [3] * 4
    assert pipe.start(x=0, output="x").result(PATIENCE) == 3
    turnstile.let_go()
    assert standing.result().x == 0
