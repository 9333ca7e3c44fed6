"""A loop around one model, and what the tests say about its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from loopwright import (
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from tests.run.blocks import PATIENCE


class Model(torch.nn.Module):
    """Calls a function in its forward, and notes how many rows there were."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.rows.append(len(x))
        return self.function(x, *args, **kwargs)


class Predict(ModularPipelineBlocks):
    """`x` becomes what the model makes of it, of the number of the iteration, and of `extra`."""

    expected_components = [ComponentSpec("model", torch.nn.Module)]
    inputs = [InputParam("x", required=True), InputParam("extra", default=None), InputParam("around", default=None)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        if block_state.around is not None:
            block_state.around(i)
        arguments = block_state.extra(i) if callable(block_state.extra) else block_state.extra or {}
        made = components.model(block_state.x, **arguments)
        block_state.x = made if isinstance(made, torch.Tensor) else made[0]
        return components, block_state


class Times(LoopSequentialPipelineBlocks):
    """A loop of `steps` iterations."""

    block_classes = [Predict]
    block_names = ["predict"]
    loop_inputs = [InputParam("steps", default=3)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.steps):
            yield {"i": i}


def pipeline(function: Callable[..., Any]) -> Any:
    """A pipeline of a loop around a model that calls a function."""
    pipe = SequentialPipelineBlocks.from_blocks_dict({"loop": Times}).init_pipeline()
    pipe.update_components(model=Model(function).eval())
    return pipe


def row(value: float, rows: int = 1, width: int = 4) -> torch.Tensor:
    """Rows [rows, width] of different values."""
    return value + torch.arange(rows * width, dtype=torch.float32).reshape(rows, width) / 10


class Gathered:
    """Makes runs wait before their calls, in their first iteration, until all of them are in their loops."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def __call__(self, i: int) -> None:
        if i == 0:
            self._barrier.wait(PATIENCE)

    def __deepcopy__(self, memo: Any) -> Gathered:
        return self
