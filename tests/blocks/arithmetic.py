"""Small blocks that compute on integers, which the tests of blocks, states and pipelines share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loopwright.modular_pipelines import (
    AutoPipelineBlocks,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
)


class AddOne(ModularPipelineBlocks):
    """`x + 1`, at the top of a pipeline and in a loop alike."""

    inputs = [InputParam("x", int, required=True)]
    intermediate_outputs = [OutputParam("x", int)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x += 1
        self.set_block_state(state, block_state)
        return components, state


class Double(ModularPipelineBlocks):
    inputs = [InputParam("x", int, required=True)]
    intermediate_outputs = [OutputParam("x", int)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x *= 2
        self.set_block_state(state, block_state)
        return components, state


class Add(ModularPipelineBlocks):
    """Adds an amount that is an argument of the block."""

    inputs = [InputParam("x", int, required=True)]
    intermediate_outputs = [OutputParam("x", int)]

    def __init__(self, amount: int) -> None:
        super().__init__()
        self.amount = amount

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x += self.amount
        self.set_block_state(state, block_state)
        return components, state


class Copy(ModularPipelineBlocks):
    """Copies the value of one name to another."""

    def __init__(self, source: str, target: str, default: Any = None) -> None:
        super().__init__()
        self.source = source
        self.target = target
        self.default = default

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam(self.source, default=self.default)]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam(self.target)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state[self.target] = block_state[self.source]
        self.set_block_state(state, block_state)
        return components, state


class Silent(ModularPipelineBlocks):
    """Declares the output `y` and does not set it."""

    intermediate_outputs = [OutputParam("y")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        self.set_block_state(state, self.get_block_state(state))
        return components, state


class Divide(ModularPipelineBlocks):
    """`12 // x`, which raises for zero."""

    inputs = [InputParam("x", int, required=True)]
    intermediate_outputs = [OutputParam("y", int)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.y = 12 // block_state.x
        self.set_block_state(state, block_state)
        return components, state


class AddIndex(ModularPipelineBlocks):
    """A loop block that works on the `BlockState` itself: `x + i`."""

    inputs = [InputParam("x", int, required=True)]
    intermediate_outputs = [OutputParam("x", int)]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.x += i
        return components, block_state


class AppendVariables(ModularPipelineBlocks):
    """A loop block that notes all loop variables that it is given."""

    inputs = [InputParam("seen", list)]
    intermediate_outputs = [OutputParam("seen", list)]

    def __call__(self, components: Any, block_state: Any, **variables: Any) -> tuple[Any, Any]:
        block_state.seen = [*(block_state.seen or ()), variables]
        return components, block_state


class Repeat(LoopSequentialPipelineBlocks):
    """`steps` iterations, with the variable `i`."""

    loop_inputs = [InputParam("steps", int, default=3)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.steps):
            yield {"i": i}


class RepeatByHand(LoopSequentialPipelineBlocks):
    """The same, with a `__call__` of its own."""

    loop_inputs = [InputParam("steps", int, default=3)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for i in range(block_state.steps):
            components, block_state = self.loop_step(components, block_state, i=i)
        self.set_block_state(state, block_state)
        return components, state


class RepeatRows(LoopSequentialPipelineBlocks):
    """`rows` iterations, with the variable `row`; the outer of two loops."""

    loop_inputs = [InputParam("rows", int, default=2)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for row in range(block_state.rows):
            yield {"row": row}


class DoubleOrAddOne(AutoPipelineBlocks):
    """Doubles if `twice` is given, adds one otherwise."""

    block_classes = [Double, AddOne]
    block_names = ["double", "add_one"]
    block_trigger_inputs = ["twice", None]


class DoubleIfAsked(AutoPipelineBlocks):
    """Doubles if `twice` is given, does nothing otherwise."""

    block_classes = [Double]
    block_names = ["double"]
    block_trigger_inputs = ["twice"]
