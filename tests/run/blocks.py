"""Small blocks and pipelines that the tests of runs share, and what they wait with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from loopwright import (
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
    SequentialPipelineBlocks,
)
from tests.blocks.arithmetic import AddOne, Double, Repeat, RepeatRows

PATIENCE = 60  # seconds after which a test that waits has failed


class Do(ModularPipelineBlocks):
    """Sets `x` to what a function makes of the components, `x` and the loop variables; None leaves it."""

    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def __call__(self, components: Any, state: Any, **variables: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        made = self.function(components, block_state.x, **variables)
        if made is not None:
            block_state.x = made
        self.set_block_state(state, block_state)
        return components, state


class Steps(LoopSequentialPipelineBlocks):
    """The loop of a diffusion pipeline in small: `i` and `t`, and a progress bar."""

    loop_inputs = [InputParam("steps", int, default=3)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        with self.progress_bar(total=block_state.steps) as bar:
            for i in range(block_state.steps):
                yield {"i": i, "t": 10 * i}
                bar.update()


class HoldsLoop(ModularPipelineBlocks):
    """Calls a loop by itself, several times, each time with a state of its own."""

    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __init__(self, *loops: Any) -> None:
        super().__init__()
        self.loops = loops

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for loop in self.loops:
            _, inner = loop(components, PipelineState({"x": block_state.x, "steps": 2}))
            block_state.x = inner.get("x")
        self.set_block_state(state, block_state)
        return components, state


def pipeline(**blocks: Any) -> ModularPipeline:
    made = SequentialPipelineBlocks.from_blocks_dict(blocks).init_pipeline()
    made.set_progress_bar_config(disable=True)
    return made


def counting() -> ModularPipeline:
    """`x + 1` in each of `steps` iterations, then doubled."""
    return pipeline(count=Repeat.from_blocks_dict({"add": AddOne}), double=Double)


def nested() -> ModularPipeline:
    """For each of `rows`: `steps` times `x + 1`, then doubled; in the end one more is added."""
    inner = Repeat.from_blocks_dict({"add": AddOne})
    return pipeline(rows=RepeatRows.from_blocks_dict({"count": inner, "double": Double}), add=AddOne)


class Turnstile:
    """Stops whoever comes through until it is let go, and tells when somebody has come."""

    def __init__(self) -> None:
        self._arrived, self._open = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, *_: Any, **__: Any) -> None:
        self._arrived.release()
        assert self._open.acquire(timeout=PATIENCE)

    def __deepcopy__(self, memo: Any) -> Turnstile:
        return self  # pipelines copy their blocks

    def wait(self) -> None:
        """Until somebody has come."""
        assert self._arrived.acquire(timeout=PATIENCE)

    def let_go(self, count: int = 1) -> None:
        self._open.release(count)


def run_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loopwright-run"]


def join_run_threads() -> None:
    """Wait for the threads of all runs, none of which may stay."""
    for thread in run_threads():
        thread.join(PATIENCE)
    assert run_threads() == []


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """The results of functions that run at the same time."""
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []
    together = threading.Barrier(len(functions))

    def work(position: int, function: Callable[[], Any]) -> None:
        try:
            together.wait(PATIENCE)
            results[position] = function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results
