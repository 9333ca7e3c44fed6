"""Calls of pipelines whose blocks do next to nothing, so that what is left is the price of the blocks themselves.

Each pipeline is made twice from the same code, once from each library.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from statistics import mean
from typing import Any

import diffusers
import diffusers.modular_pipelines as their_library
import diffusers.modular_pipelines.modular_pipeline as their_module
import torch

import loopwright.modular_pipelines as our_library

from .measure import Result, in_turns

ITERATIONS = 20_000


def loop_class(library: Any) -> Any:
    """A loop wrapper with a `__call__` of its own, as the guide of diffusers writes it."""

    class Loop(library.LoopSequentialPipelineBlocks):
        model_name = "benchmark"

        @property
        def description(self) -> str:
            return "A loop with a counter."

        @property
        def loop_inputs(self) -> list[Any]:
            return [library.InputParam(name="num_steps")]

        @torch.no_grad()
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for i in range(block_state.num_steps):
                components, block_state = self.loop_step(components, block_state, i=i)
            self.set_block_state(state, block_state)
            return components, state

    return Loop


class IteratedLoop(our_library.LoopSequentialPipelineBlocks):
    """The same loop, as one writes it here."""

    loop_inputs = [our_library.InputParam("num_steps")]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, int]]:
        for i in range(block_state.num_steps):
            yield {"i": i}


def loop_block(library: Any) -> Any:
    class Increment(library.ModularPipelineBlocks):
        @property
        def inputs(self) -> list[Any]:
            return [library.InputParam(name="x")]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [library.OutputParam(name="x")]

        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            block_state.x += 1
            return components, block_state

    return Increment()


def loop(library: Any, wrapper: Any) -> Any:
    """A pipeline of a loop of three blocks."""
    return wrapper.from_blocks_dict({f"block_{n}": loop_block(library) for n in range(3)}).init_pipeline()


def leaf(library: Any, declared_inputs: list[dict[str, Any]], declared_outputs: list[str]) -> Any:
    """A leaf that increments `x` and sets its other outputs to it."""

    class Leaf(library.ModularPipelineBlocks):
        @property
        def inputs(self) -> list[Any]:
            return [library.InputParam(**declared) for declared in declared_inputs]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [library.OutputParam(name) for name in declared_outputs]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for name in declared_outputs:
                setattr(block_state, name, block_state.x + 1)
            self.set_block_state(state, block_state)
            return components, state

    return Leaf()


def sequence(library: Any, leaves: list[Any]) -> Any:
    blocks = {f"block_{n}": block for n, block in enumerate(leaves)}
    return library.SequentialPipelineBlocks.from_blocks_dict(blocks).init_pipeline()


def single_leaf(library: Any) -> Any:
    return leaf(library, [{"name": "x"}], ["x"])


def typical_leaf(library: Any, number: int) -> Any:
    """A leaf that declares what those of diffusers' presets do on average: see `declarations_of_presets`."""
    inputs = [
        {"name": "x", "required": True},
        {"name": f"y{number - 1}", "required": True},
        {"name": "num_inference_steps", "default": 50},
        {"name": "generator"},
    ]
    return leaf(library, inputs, ["x", f"y{number}"])


def declarations_of_presets() -> tuple[int, float, float]:
    """How many presets diffusers has, and how many inputs and outputs their leaves declare on average."""
    names = [name for name in dir(diffusers) if name.endswith("Blocks") and not hasattr(their_module, name)]
    leaves = [block for name in names for block in _leaves(getattr(diffusers, name)())]
    return (
        len(names),
        mean(len(block.inputs) for block in leaves),
        mean(len(block.intermediate_outputs) for block in leaves),
    )


def _leaves(block: Any) -> Iterator[Any]:
    if not block.sub_blocks:
        yield block
    for child in block.sub_blocks.values():
        yield from _leaves(child)


def iterations(repetitions: int) -> list[Result]:
    theirs = loop(their_library, loop_class(their_library))
    wrappers = {"a hand-written `__call__`": loop_class(our_library), "`iterate`": IteratedLoop}
    results = []
    for name, wrapper in wrappers.items():
        ours = loop(our_library, wrapper)
        assert ours(num_steps=5, x=0, output="x") == theirs(num_steps=5, x=0, output="x") == 15
        times = in_turns(
            lambda ours=ours: ours(num_steps=ITERATIONS, x=0),
            lambda: theirs(num_steps=ITERATIONS, x=0),
            calls=1,
            repetitions=repetitions,
            per=ITERATIONS,
        )
        remark = "" if wrapper is not IteratedLoop else "against a hand-written `__call__` there"
        results.append(Result(f"an iteration of a loop of 3 blocks, with {name}", *times, bar=1.0, remark=remark))
    return results


def empty_loop(repetitions: int) -> list[Result]:
    # zero iterations leave the outputs of the blocks unset, which diffusers accepts of those that are inputs as well
    ours, theirs = (loop(library, loop_class(library)) for library in (our_library, their_library))
    times = in_turns(
        lambda: ours(num_steps=0, x=0), lambda: theirs(num_steps=0, x=0), calls=500, repetitions=repetitions
    )
    return [Result("a call of a loop of no iterations", *times, bar=0.25)]


def sequences(repetitions: int) -> list[Result]:
    logging.disable(logging.WARNING)  # some presets warn when they are made
    count, inputs, outputs = declarations_of_presets()
    logging.disable(logging.NOTSET)
    typical = [
        sequence(library, [typical_leaf(library, n) for n in range(10)]) for library in (our_library, their_library)
    ]
    given = {"x": 0, "y-1": 0}
    assert typical[0](**given, output="x") == typical[1](**given, output="x") == 10
    times = in_turns(lambda: typical[0](**given), lambda: typical[1](**given), calls=200, repetitions=repetitions)
    results = [
        Result(
            "a call of a sequence of 10 blocks of 4 inputs and 2 outputs",
            *times,
            bar=0.25,
            remark=f"the leaves of diffusers' {count} presets declare {inputs:.1f} and {outputs:.1f} on average",
        )
    ]
    single = [sequence(library, [single_leaf(library) for _ in range(10)]) for library in (our_library, their_library)]
    assert single[0](x=0, output="x") == single[1](x=0, output="x") == 10
    times = in_turns(lambda: single[0](x=0), lambda: single[1](x=0), calls=200, repetitions=repetitions)
    results.append(Result("a call of a sequence of 10 blocks of 1 input and 1 output", *times, bar=0.25))
    return results
