"""Blocks in the style of diffusers' proposal of `IterativePipelineBlocks` run here, with all that runs can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright import Checkpoint, ModularPipeline, PipelineState, SequentialPipelineBlocks, check, describe
from loopwright.errors import LoopVariableError, NotDefinedError, RunCancelledError
from loopwright.modular_pipelines import (
    InputParam,
    IterativePipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularLoopPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
)


class Halve(ModularLoopPipelineBlocks):
    inputs = [InputParam("x", required=True)]
    intermediate_outputs = [OutputParam("delta")]

    def __call__(self, components: Any, state: Any, i: int, t: float) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.delta = block_state.x / 2 + t
        self.set_block_state(state, block_state)
        return components, state


class Move(ModularLoopPipelineBlocks):
    inputs = [InputParam("x", required=True), InputParam("delta", required=True)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x = block_state.x - block_state.delta
        self.set_block_state(state, block_state)
        return components, state


class Denoise(IterativePipelineBlocks):
    block_classes = [Halve, Move]
    block_names = ["halve", "move"]

    @property
    def loop_variables(self) -> list[str]:  # type: ignore[override]
        return ["i", "t"]

    @property
    def loop_inputs(self) -> list[InputParam]:
        return [InputParam("timesteps", required=True)]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any, **outer: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for i, t in enumerate(block_state.timesteps):
            components, state = self.loop_step(components, state, i=i, t=t)
        return components, state


class Begin(ModularLoopPipelineBlocks):
    """Begins a chunk where the one before ended, and fails in one that it is told."""

    inputs = [InputParam("x", required=True), InputParam("broken")]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any, k: int) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        if block_state.broken == k:
            raise ZeroDivisionError
        block_state.x = block_state.x + k
        self.set_block_state(state, block_state)
        return components, state


class Collect(ModularLoopPipelineBlocks):
    inputs = [InputParam("x", required=True), InputParam("chunks")]
    intermediate_outputs = [OutputParam("chunks")]

    def __call__(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.chunks = [*(block_state.chunks or []), block_state.x]
        self.set_block_state(state, block_state)
        return components, state


class Chunks(IterativePipelineBlocks):
    block_classes = [Begin, Denoise, Collect]
    block_names = ["begin", "denoise", "collect"]
    loop_variables = ["k"]  # type: ignore[assignment]
    loop_inputs = [InputParam("num_chunks", required=True), InputParam("x", required=True)]
    loop_intermediate_outputs = [OutputParam("seen")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.seen = 0
        for k in range(block_state.num_chunks):
            components, state = self.loop_step(components, state, k=k)
            block_state.seen += 1
        self.set_block_state(state, block_state)
        return components, state


INPUTS: dict[str, Any] = {"x": 8.0, "timesteps": [1.0, 0.5], "num_chunks": 3}


def expected() -> list[float]:
    x, chunks = INPUTS["x"], []
    for k in range(INPUTS["num_chunks"]):
        x += k
        for t in INPUTS["timesteps"]:
            x -= x / 2 + t
        chunks.append(x)
    return chunks


def pipeline() -> ModularPipeline:
    pipe: ModularPipeline = SequentialPipelineBlocks.from_blocks_dict({"chunks": Chunks}).init_pipeline()
    return pipe


def test_nested_loops_work_on_the_state_of_the_pipeline() -> None:
    state = pipeline()(**INPUTS)
    assert state.get("chunks") == expected()
    assert state.get("x") == expected()[-1]
    assert state.get("delta") is not None


def test_loop_variables_are_neither_inputs_nor_values() -> None:
    pipe = pipeline()
    assert {"i", "t", "k"}.isdisjoint(pipe.blocks.input_names)
    assert {"timesteps", "num_chunks", "x", "chunks"} <= {*pipe.blocks.input_names}
    assert "delta" not in pipe.blocks.input_names
    assert {"i", "t", "k"}.isdisjoint(pipe(**INPUTS).values)


def test_the_block_state_of_a_wrapper_holds_its_own_inputs() -> None:
    state = pipeline()(**INPUTS)
    assert Denoise().get_block_state(state).as_dict().keys() == {"timesteps"}


def test_a_wrapper_writes_what_it_declares_and_not_what_its_blocks_wrote_meanwhile() -> None:
    state = pipeline()(**INPUTS)
    assert state.get("seen") == 3
    # the wrapper read `x` before its blocks changed it
    assert state.get("x") != INPUTS["x"]


def test_each_iteration_of_both_loops_is_an_event() -> None:
    run = pipeline().stream(**INPUTS)
    events = [(event.position, event.loop_kwargs, event.state.get("x")) for event in run]
    chunk = [("chunks", 0)]
    assert [position for position, _, _ in events[:3]] == [
        (*chunk, ("chunks.denoise", 0)),
        (*chunk, ("chunks.denoise", 1)),
        tuple(chunk),
    ]
    assert [variables for _, variables, _ in events[:3]] == [{"i": 0, "t": 1.0}, {"i": 1, "t": 0.5}, {"k": 0}]
    assert [x for position, _, x in events if len(position) == 1] == expected()


@pytest.mark.parametrize("iterations", range(1, 9))
def test_a_run_that_was_cancelled_anywhere_is_resumed(iterations: int, tmp_path: Path) -> None:
    pipe = pipeline()
    run = pipe.stream(**INPUTS, checkpoint=Checkpoint(tmp_path / "run"))
    for number, _ in enumerate(run, 1):
        if number == iterations:
            run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()
    events: list[Any] = []
    resumed = pipe.resume(tmp_path / "run", callbacks=events.append)
    assert resumed.result().get("chunks") == expected()
    assert len(events) == 9 - iterations


def test_a_loop_that_is_told_to_end_ends_and_the_loop_around_it_goes_on() -> None:
    run = pipeline().stream(**INPUTS)
    for number, event in enumerate(run):
        if number == 0:
            assert event.path == "chunks.denoise"
            run.stop_loop("chunks.denoise")
    x, chunks = INPUTS["x"], []
    for k in range(INPUTS["num_chunks"]):
        x += k
        for t in INPUTS["timesteps"][: 1 if k == 0 else 2]:
            x -= x / 2 + t
        chunks.append(x)
    assert run.result().get("chunks") == chunks


def test_without_iterations_the_inputs_pass_through() -> None:
    state = pipeline()(**{**INPUTS, "num_chunks": 0})
    assert state.get("x") == INPUTS["x"]
    assert state.get("seen") == 0


def test_an_error_is_located_in_the_loop_that_it_came_from() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pipeline()(**INPUTS, broken=2)
    assert caught.value.loopwright.path == "chunks.begin"  # type: ignore[attr-defined]
    assert "iteration 2 of loop `chunks` (k=2)" in caught.value.__notes__[0]


def test_a_step_that_takes_what_its_loop_does_not_give_is_an_error_before_it_runs() -> None:
    class Wants(ModularLoopPipelineBlocks):
        def __call__(self, components: Any, state: Any, k: int) -> tuple[Any, Any]:
            return components, state

    loop = Denoise.from_blocks_dict({"wants": Wants})
    assert [finding.code for finding in check(loop) if finding.severity == "error"] == ["missing-loop-variable"]
    with pytest.raises(LoopVariableError, match="takes the loop variable `k`"):
        loop(None, PipelineState(dict(INPUTS)))


def test_check_and_describe_know_the_loops() -> None:
    blocks = pipeline().blocks
    assert [str(finding) for finding in check(blocks) if finding.severity != "note"] == []
    text = describe(blocks)
    assert "↻ chunks  Chunks" in text
    assert "↻ denoise  Denoise" in text


def test_a_wrapper_without_a_call_is_told_to_define_one() -> None:
    class Nothing(IterativePipelineBlocks):
        block_classes = [Halve]
        block_names = ["halve"]

    with pytest.raises(NotDefinedError, match=r"calls `self\.loop_step"):
        Nothing().init_pipeline()(x=1)


class AddOuter(ModularPipelineBlocks):
    inputs = [InputParam("x", required=True)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x = block_state.x + 10 * state.get("k")
        self.set_block_state(state, block_state)
        return components, state


class Shared(LoopSequentialPipelineBlocks):
    """A loop in the style of today, whose blocks share one block state."""

    loop_inputs = [InputParam("num_chunks", required=True)]

    def iterate(self, components: Any, block_state: Any) -> Any:
        for k in range(block_state.num_chunks):
            yield {"k": k}


def test_loops_of_both_styles_nest_in_each_other(tmp_path: Path) -> None:
    pipe = Shared.from_blocks_dict({"add": AddOuter, "denoise": Denoise}).init_pipeline()
    x = INPUTS["x"]
    for k in range(3):
        x += 10 * k
        for t in INPUTS["timesteps"]:
            x -= x / 2 + t
    assert pipe(**INPUTS, output="x") == x
    run = pipe.stream(**INPUTS, checkpoint=Checkpoint(tmp_path / "run"))
    positions = []
    for event in run:
        positions.append(event.position)
        if len(positions) == 5:
            run.cancel()
    assert positions[:3] == [(("", 0), ("denoise", 0)), (("", 0), ("denoise", 1)), (("", 0),)]
    events: list[Any] = []
    assert pipe.resume(tmp_path / "run", callbacks=events.append).result().get("x") == x
    assert [event.position for event in events][:2] == [(("", 1),), (("", 2), ("denoise", 0))]
