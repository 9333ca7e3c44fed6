"""Before each call of a model a run can be paused, cancelled or ended, also in a loop that is hidden in a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from loopwright import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.errors import RunCancelledError, RunTimeoutError
from tests.run.blocks import Turnstile, in_threads, pipeline


class Hidden(ModularPipelineBlocks):
    """Calls a model three times, in a loop that nobody can look into."""

    expected_components = [ComponentSpec("model", torch.nn.Module)]
    inputs = [InputParam("between", default=None)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x = 0
        for _ in range(3):
            block_state.x += components.model(torch.ones(1, 1)).item()
            if block_state.between is not None:
                block_state.between(block_state.x)
        self.set_block_state(state, block_state)
        return components, state


class Counted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x


def hidden() -> Any:
    pipe = pipeline(hidden=Hidden)
    pipe.update_components(model=Counted())
    return pipe


def at_second(action: Callable[[], Any]) -> Callable[[float], None]:
    return lambda x: action() if x == 2 else None


def test_a_run_is_cancelled_before_the_next_call() -> None:
    pipe, turnstile = hidden(), Turnstile()
    run = pipe.start(between=turnstile)
    turnstile.wait()
    run.cancel()
    turnstile.let_go(3)
    with pytest.raises(RunCancelledError):
        run.result()
    assert pipe.model.calls == 1


def test_a_run_is_paused_before_the_next_call() -> None:
    pipe, turnstile = hidden(), Turnstile()
    run = pipe.start(between=turnstile, output="x")
    turnstile.wait()
    run.pause()
    turnstile.let_go(3)
    with pytest.raises(TimeoutError):
        run.result(timeout=0.01)
    assert pipe.model.calls == 1
    run.go_on()
    assert run.result() == 3


def test_a_time_limit_ends_a_run_before_the_next_call(clock: Any) -> None:
    def tick(x: float) -> None:
        clock.now += 1

    pipe = hidden()
    with pytest.raises(RunTimeoutError):
        pipe(between=tick, timeout=1.5)
    assert pipe.model.calls == 2


def test_calls_of_other_runs_are_not_concerned() -> None:
    pipe = hidden()
    run = pipe.stream(between=at_second(lambda: run.pause()), output="x")
    turnstile = Turnstile()
    other = pipe.start(between=turnstile, output="x")
    turnstile.wait()
    other.pause()
    turnstile.let_go(3)
    assert pipe(output="x") == 3
    other.go_on()
    assert other.result() == 3


def test_the_model_is_left_as_it_was_when_no_run_is_active() -> None:
    pipe = hidden()
    before = dict(vars(pipe.model))
    in_threads(*[lambda: pipe.start().result() for _ in range(4)])
    with pytest.raises(ZeroDivisionError):
        pipe.start(between=lambda x: 1 / 0).result()
    assert vars(pipe.model).keys() == before.keys()
    assert not pipe.model._forward_pre_hooks


def test_a_model_that_compiled_itself_is_left_alone() -> None:
    pipe = hidden()
    hooks: list[int] = []
    pipe.model._compiled_call_impl = pipe.model._call_impl
    pipe.start(between=lambda x: hooks.append(len(pipe.model._forward_pre_hooks))).result()
    assert hooks == [0, 0, 0]
