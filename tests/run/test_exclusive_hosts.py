"""A block that has a model alone may give work with it to pipelines and threads of its own, and wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import Any

import pytest
import torch

from loopwright import ComponentSpec
from loopwright.components import turns, waits
from loopwright.errors import RunTimeoutError
from tests.blocks.arithmetic import AddOne, Repeat
from tests.components.simulated import until_waiting
from tests.run.blocks import PATIENCE, Do, Turnstile, pipeline


class Adapted(torch.nn.Linear):
    """Doubles; has an adapter, so that a block that works with it has it alone."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.peft_config = {"default": "an adapter"}

    def forward(self, x: int) -> int:  # type: ignore[override]
        return 2 * x


class WithModel(Do):
    expected_components = [ComponentSpec("model", Adapted)]


def using(function: Callable[..., Any], model: Adapted | None = None) -> Any:
    """A pipeline of a block that has the model alone."""
    pipe = pipeline(use=WithModel(function))
    pipe.update_components(model=model or Adapted())
    assert pipe._needs_exclusive()
    return pipe


def inner(model: Adapted) -> Any:
    """A pipeline that shares the model, with a loop before its block."""
    pipe = pipeline(
        loop=Repeat.from_blocks_dict({"add": AddOne}), use=WithModel(lambda components, x: components.model(x))
    )
    pipe.update_components(model=model)
    return pipe


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    for left in (turns._hosts, turns._at_work, turns._waits, turns._passed, waits._awaited):
        assert not left


CALLS: dict[str, Callable[[Any, int], int]] = {
    "called": lambda pipe, x: pipe(x=x, output="x"),
    "called with options": lambda pipe, x: pipe(x=x, output="x", timeout=PATIENCE),
    "in a loop over events": lambda pipe, x: [event.peek("x") for event in pipe.stream(x=x, output="x")][-1],
    "started": lambda pipe, x: pipe.start(x=x, output="x").result(),
}


@pytest.mark.parametrize("way", CALLS)
def test_a_block_may_call_a_pipeline_that_shares_the_model(way: str) -> None:
    pipe = using(lambda components, x: CALLS[way](inner(components.model), x) + components.model(1))
    assert pipe.start(x=0, output="x").result(PATIENCE) == 8
    assert not turns.has_owner(pipe.model)


def with_map(model: Any) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(model, range(4)))


def with_the_last_first(model: Any) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(model, x) for x in range(4)]
        return [future.result() for future in reversed(futures)][::-1]


def with_wait(model: Any) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(model, x) for x in range(4)]
        wait(futures)
        return [future.result() for future in futures]


def with_as_completed(model: Any) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        return sorted(future.result() for future in as_completed([pool.submit(model, x) for x in range(4)]))


def with_leaving(model: Any) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(model, x) for x in range(4)]
    return [future.result() for future in futures]


def with_threads(model: Any) -> list[int]:
    made = [0] * 4
    threads = [threading.Thread(target=lambda x=x: made.__setitem__(x, model(x))) for x in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


@pytest.mark.parametrize(
    "call", [with_map, with_the_last_first, with_wait, with_as_completed, with_leaving, with_threads]
)
def test_a_block_may_call_the_model_from_threads_of_its_own(call: Callable[[Any], list[int]]) -> None:
    pipe = using(lambda components, x: call(components.model))
    assert pipe.start(output="x").result(PATIENCE) == [0, 2, 4, 6]


def test_a_pool_that_was_there_before_serves_several_runs() -> None:
    with ThreadPoolExecutor(1) as pool:
        model = Adapted()
        pipes = [using(lambda components, x: pool.submit(components.model, x).result(), model) for _ in range(2)]
        runs = [pipe.start(x=x, output="x") for x, pipe in enumerate(pipes)]
        assert [run.result(PATIENCE) for run in runs] == [0, 2]


def test_a_run_that_a_block_leaves_behind_waits_its_turn() -> None:
    turnstile, left = Turnstile(), []

    def use(components: Any, x: int) -> None:
        left.append(inner(components.model).start(x=x, output="x"))
        turnstile()

    run = using(use).start(x=1)
    turnstile.wait()
    until_waiting(1)
    turnstile.let_go()
    run.result()
    assert left[0].result(PATIENCE) == 8


def test_the_time_limit_of_a_run_holds_for_what_its_block_waits_for(clock: Any) -> None:
    """The inner pipeline waits for a model that another run has."""
    turnstile = Turnstile()
    other = using(lambda components, x: turnstile())

    def use(components: Any, x: int) -> int:
        clock.now += 10
        return int(inner(other.model)(x=x, output="x"))

    holding = other.start()
    turnstile.wait()
    with pytest.raises(RunTimeoutError, match="longer than its 5 seconds"):
        using(use).start(x=0, timeout=5).result(PATIENCE)
    turnstile.let_go()
    holding.result()
