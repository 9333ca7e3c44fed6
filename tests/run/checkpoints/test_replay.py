"""Going on from a checkpoint: the same result as that of a run that was never broken, and nothing done twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import loopwright.modular_pipelines
from loopwright import (
    Checkpoint,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from loopwright.errors import CheckpointMismatchError, MissingInputError, UnsavableValueError
from tests.blocks import interpreter
from tests.blocks.arithmetic import AddIndex, AddOne, Double, DoubleIfAsked, Repeat, RepeatByHand, RepeatRows
from tests.blocks.trees import MODULUS, Composite, blocks_of, build, composites
from tests.run.checkpoints.storages import Memory, saved_run

EVERY_LOOP = pytest.mark.parametrize("loop", [Repeat, RepeatByHand])


def pipeline(blocks: dict[str, Any]) -> ModularPipeline:
    made: ModularPipeline = SequentialPipelineBlocks.from_blocks_dict(blocks).init_pipeline()
    return made


def results(pipe: ModularPipeline, classes: Any = (), **inputs: Any) -> Iterator[tuple[int, Any, Any]]:
    """Each boundary, what a run resumed there leaves, and what the unbroken run left."""
    state, memory = saved_run(pipe, classes=classes, **inputs)
    for iteration in memory.iterations:
        yield iteration, pipe.resume(memory.until(iteration), classes=classes).result().values, state.values


# Any tree

CLASSES = blocks_of(loopwright.modular_pipelines)
CALLS: list[tuple[int, tuple[tuple[str, int], ...]]] = []


def count_calls(compute: Any) -> Any:
    def counted(block: Any, components: Any, state: Any, **variables: int) -> Any:
        CALLS.append((id(block), tuple(variables.items())))
        return compute(block, components, state, **variables)

    return counted


COMPUTE = CLASSES.leaves[()].__bases__[0]
COMPUTE.compute = count_calls(COMPUTE.compute)


@given(composites(), st.data())
def test_a_random_tree_resumed_anywhere_runs_what_was_left_to_the_same_end(tree: Composite, data: Any) -> None:
    pipe = ModularPipeline(blocks=build(tree, CLASSES))
    names = [param.name for param in interpreter.inputs_of(tree)]
    values = st.none() | st.integers(0, MODULUS - 1)
    inputs = data.draw(st.dictionaries(st.sampled_from(names), values) if names else st.just({}))
    CALLS.clear()
    calls_at: list[int] = []
    memory = Memory()

    def on_event(event: Any) -> None:
        calls_at.append(len(CALLS))

    try:
        state = pipe(checkpoint=Checkpoint(memory, keep=None), callbacks=on_event, **inputs)
    except MissingInputError:
        return
    calls = list(CALLS)
    assert memory.iterations == list(range(1, len(calls_at) + 1))
    some = st.lists(st.sampled_from(memory.iterations), max_size=6, unique=True) if calls_at else st.just([])
    for iteration in data.draw(some):
        CALLS.clear()
        assert pipe.resume(memory.until(iteration)).result().values == state.values
        assert calls[calls_at[iteration - 1] :] == CALLS


# Loops


@EVERY_LOOP
def test_a_loop_is_resumed_after_each_of_its_iterations(loop: type) -> None:
    body = loop.from_blocks_dict({"double": Double, "add": AddIndex})
    pipe = pipeline({"before": AddOne, "loop": body, "end": AddOne})
    found = list(results(pipe, x=1, steps=4))
    assert len(found) == 4
    for _, resumed, whole in found:
        assert resumed == whole


class DoubleTwice(Double):
    inputs = [*Double.inputs, InputParam("twice")]


class MaybeDouble(DoubleIfAsked):
    block_classes = [DoubleTwice]


class RowsByHand(RepeatRows):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for row in range(block_state.rows):
            components, block_state = self.loop_step(components, block_state, row=row)
        self.set_block_state(state, block_state)
        return components, state


@EVERY_LOOP
@pytest.mark.parametrize("outer", [RepeatRows, RowsByHand])
def test_loops_in_loops_are_resumed_at_every_position(loop: type, outer: type) -> None:
    inner = loop.from_blocks_dict({"double": Double, "add": AddIndex})
    again = loop.from_blocks_dict({"add": AddOne})
    rows = outer.from_blocks_dict({"before": AddOne, "inner": inner, "maybe": MaybeDouble, "again": again})
    pipe = pipeline({"before": AddOne, "rows": rows, "end": AddOne})
    found = list(results(pipe, x=1, rows=3, steps=2, twice=True))
    # in each row twice two inner iterations, and its own
    assert len(found) == 15
    for _, resumed, whole in found:
        assert resumed == whole


def test_the_loop_may_be_the_whole_pipeline() -> None:
    pipe = Repeat.from_blocks_dict({"double": Double}).init_pipeline()
    assert [resumed == whole for _, resumed, whole in results(pipe, x=1)] == [True, True, True]


def test_a_run_without_iterations_saves_nothing() -> None:
    pipe = pipeline({"loop": Repeat.from_blocks_dict({"double": Double}), "end": AddOne})
    state, memory = saved_run(pipe, x=1, steps=0)
    assert (state.x, memory.names()) == (2, [])


class Sum(LoopSequentialPipelineBlocks):
    """Adds up `x` between the iterations, and ends when the sum reaches `bound`."""

    loop_inputs = [InputParam("bound", default=50), InputParam("total", default=0), InputParam("x", required=True)]
    loop_intermediate_outputs = [OutputParam("total")]
    block_classes = [Double]
    block_names = ["double"]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        i = 0
        while block_state.total < block_state.bound:
            yield {"i": i}
            block_state.total += block_state.x
            i += 1


class SumByHand(Sum):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        i = 0
        while True:
            components, block_state = self.loop_step(components, block_state, i=i)
            block_state.total += block_state.x
            i += 1
            if block_state.total >= block_state.bound:
                break
        self.set_block_state(state, block_state)
        return components, state


class SumInLocalVariable(Sum):
    """Adds up in a local variable what the block state holds after each iteration."""

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        total, i = 0, 0
        while total < block_state.bound:
            yield {"i": i}
            total += block_state.x
            i += 1
        block_state.total = total


@pytest.mark.parametrize("loop", [Sum, SumByHand, SumInLocalVariable])
def test_code_between_iterations_finds_the_numbers_that_it_found_before(loop: type) -> None:
    pipe = pipeline({"sum": loop, "end": AddOne})
    found = list(results(pipe, x=1))
    assert len(found) == 5
    for _, resumed, whole in found:
        assert resumed == whole
        assert whole["total"] == 62


def test_a_conditional_runs_the_block_that_it_had_chosen_whatever_it_would_choose_now() -> None:
    class Forget(ModularPipelineBlocks):
        """Takes back the input by which it was chosen."""

        inputs = [InputParam("twice")]
        intermediate_outputs = [OutputParam("twice")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("twice", None)
            return components, state

    loop = Repeat.from_blocks_dict({"double": Double})

    class Chosen(DoubleIfAsked):
        block_classes = [SequentialPipelineBlocks.from_blocks_dict({"forget": Forget, "loop": loop})]

    pipe = pipeline({"chosen": Chosen, "end": AddOne})
    assert [(resumed["x"], whole["x"]) for _, resumed, whole in results(pipe, x=1, twice=True)] == [(9, 9)] * 3


class Holder(ModularPipelineBlocks):
    """Calls a loop by itself."""

    inputs = [InputParam("x", required=True), InputParam("steps", default=3)]
    intermediate_outputs = [OutputParam("x")]

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.loop = Repeat.from_blocks_dict({"double": Double})

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        for _ in range(self.times):
            self.loop(components, state)
        return components, state


def test_a_loop_that_a_block_holds_is_resumed() -> None:
    pipe = pipeline({"before": AddOne, "holder": Holder, "end": AddOne})
    assert [(resumed["x"], whole["x"]) for _, resumed, whole in results(pipe, x=1)] == [(17, 17)] * 3


def test_a_loop_that_a_block_runs_a_second_time_cannot_be_saved() -> None:
    with pytest.raises(UnsavableValueError) as raised:
        saved_run(pipeline({"twice": Holder(2)}), x=1)
    assert str(raised.value) == (
        "the loop `twice.Repeat` runs for the 2th time within one call of the block that holds it, and what that "
        "block keeps meanwhile cannot be saved; make the loop a sub-block"
    )


# Random numbers


class Noise(ModularPipelineBlocks):
    """Adds a random number, from a generator or from where torch, numpy and Python have theirs."""

    inputs = [InputParam("x", required=True), InputParam("generator")]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        if block_state.generator is not None:
            block_state.x = block_state.x + torch.rand(1, generator=block_state.generator).item()
        else:
            block_state.x = block_state.x + torch.rand(1).item() + numpy.random.rand() + random.random()
        self.set_block_state(state, block_state)
        return components, state


class Preamble(Repeat):
    """Draws a random number before its first iteration, and one after each."""

    loop_inputs = [*Repeat.loop_inputs, InputParam("generator"), InputParam("x", required=True)]
    loop_intermediate_outputs = [OutputParam("x")]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        generator = block_state.generator
        block_state.x += torch.rand(1, generator=generator).item()
        for i in range(block_state.steps):
            yield {"i": i}
            block_state.x += torch.rand(1, generator=generator).item()


@pytest.mark.parametrize("loop", [Repeat, RepeatByHand, Preamble])
@pytest.mark.parametrize("with_generator", [True, False])
def test_random_numbers_go_on_where_they_were(loop: type, with_generator: bool) -> None:
    pipe = pipeline({"before": Noise, "loop": loop.from_blocks_dict({"noise": Noise}), "end": Noise})
    generator = torch.Generator().manual_seed(3) if with_generator else None
    found = list(results(pipe, x=0.0, generator=generator))
    assert len(found) == 3
    for _, resumed, whole in found:
        assert resumed["x"] == whole["x"]
        if with_generator:
            assert torch.equal(resumed["generator"].get_state(), whole["generator"].get_state())


def test_global_random_numbers_that_are_first_used_after_the_loop_are_the_same() -> None:
    pipe = pipeline({"loop": Repeat.from_blocks_dict({"double": Double}), "end": Noise})
    for _, resumed, whole in results(pipe, x=1.0):
        assert resumed["x"] == whole["x"]
        torch.rand(5)


# What blocks do to their pipeline


def test_what_a_block_assigns_to_its_components_is_there_again() -> None:
    class Assign(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            components.factor = 3
            return components, state

    class Multiply(ModularPipelineBlocks):
        inputs = [InputParam("x", required=True)]
        intermediate_outputs = [OutputParam("x")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("x", state.get("x") * components.factor)
            return components, state

    pipe = pipeline({"assign": Assign, "loop": Repeat.from_blocks_dict({"multiply": Multiply})})
    assert [resumed["x"] for _, resumed, _ in results(pipe, x=1)] == [27, 27, 27]


# Steering


@EVERY_LOOP
def test_a_loop_that_was_told_to_end_is_not_taken_up_again(loop: type) -> None:
    memory = Memory()
    pipe = pipeline({"loop": loop.from_blocks_dict({"double": Double}), "end": AddOne})
    run = pipe.stream(x=1, steps=5, checkpoint=Checkpoint(memory, every=4, keep=None))
    for event in run:
        if event.index == 1:
            run.stop_loop()
    assert run.result().x == 5
    # saved out of turn, as a resumed run would not know
    assert memory.iterations == [2]
    assert pipe.resume(memory).result().x == 5


# Loops that cannot be resumed


def test_other_variables_than_before_are_an_error_that_names_them() -> None:
    rates = iter([0.5, 0.25])

    class Unsteady(Repeat):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            for i in range(block_state.steps):
                yield {"i": i, "rate": next(rates)}

    pipe = pipeline({"loop": Unsteady.from_blocks_dict({"double": Double})})
    _, memory = saved_run(pipe, x=1, steps=1)
    with pytest.raises(CheckpointMismatchError) as raised:
        pipe.resume(memory).result()
    assert str(raised.value) == (
        "iteration 0 of loop `loop` had rate=0.5 when it was saved, and now has rate=0.25: its iterations depend on "
        "something that is not saved"
    )


def test_fewer_iterations_than_before_are_an_error() -> None:
    steps = iter([3, 1])

    class Unsteady(Repeat):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            for i in range(next(steps)):
                yield {"i": i}

    pipe = pipeline({"loop": Unsteady.from_blocks_dict({"double": Double}), "end": AddOne})
    _, memory = saved_run(pipe, x=1)
    with pytest.raises(CheckpointMismatchError) as raised:
        pipe.resume(memory).result()
    assert str(raised.value) == (
        "the run ended before it came to where it was saved, in loop `loop` after iteration 2: its iterations depend "
        "on something that is not saved"
    )


# In a value


def test_what_is_one_object_in_several_places_is_one_again() -> None:
    class Append(ModularPipelineBlocks):
        """Notes `x` in a list, in place; the state holds it under two names."""

        inputs = [InputParam("x", required=True), InputParam("notes"), InputParam("same_notes")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.get("notes").append(state.get("x"))
            assert state.get("same_notes") is state.get("notes")
            return components, state

    notes: list[int] = []
    pipe = pipeline({"loop": Repeat.from_blocks_dict({"double": Double, "append": Append})})
    for _, resumed, _ in results(pipe, x=1, notes=notes, same_notes=notes):
        assert resumed["notes"] == [2, 4, 8]
        assert resumed["same_notes"] is resumed["notes"]


class MovesBar(ModularPipelineBlocks):
    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.bar.update()
        block_state.x += 1
        return components, block_state


class BarAmongTheValues(LoopSequentialPipelineBlocks):
    """Hands its blocks its progress bar, as a loop of diffusers does."""

    block_classes = [MovesBar]
    block_names = ["moves"]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        with self.progress_bar(total=3) as bar:
            block_state.bar = bar
            for i in range(3):
                components, block_state = self.loop_step(components, block_state, i=i)
        block_state.bar = None
        self.set_block_state(state, block_state)
        return components, state


def test_a_progress_bar_among_the_values_is_made_anew() -> None:
    pipe = pipeline({"loop": BarAmongTheValues})
    assert [resumed["x"] for _, resumed, _ in results(pipe, progress=False)] == [3, 3, 3]
    assert [event.peek("x") for event in pipe.stream(progress=False)] == [1, 2, 3]


def test_tensors_that_are_changed_in_place_are_saved_as_they_are() -> None:
    class InPlace(ModularPipelineBlocks):
        inputs = [InputParam("x", required=True)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.get("x").data.mul_(2)
            state.get("x").numpy()[0] += 1
            return components, state

    pipe = pipeline({"loop": Repeat.from_blocks_dict({"in_place": InPlace})})
    state, memory = saved_run(pipe, x=torch.ones(2))
    assert state.x.tolist() == [15.0, 8.0]
    for iteration in memory.iterations:
        assert pipe.resume(memory.until(iteration)).result().x.tolist() == [15.0, 8.0]


# What a loop decides by


class Note(ModularPipelineBlocks):
    """Mixes what a loop gives into `x`."""

    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any, i: Any) -> tuple[Any, Any]:
        state.set("x", (3 * state.get("x") + i) % 1_000_003)
        return components, state


class WorksOff(LoopSequentialPipelineBlocks):
    """Goes through a list in the block state, which holds what is left of it."""

    loop_inputs = [InputParam("todo", required=True)]
    block_classes = [Note]
    block_names = ["note"]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        while block_state.todo:
            first, *block_state.todo = block_state.todo
            yield {"i": first}


class WorksOffInPlace(WorksOff):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        while block_state.todo:
            yield {"i": block_state.todo.pop(0)}


class WorksOffALocalName(WorksOff):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        todo = block_state.todo
        while todo:
            yield {"i": todo.pop(0)}


class WorksOffByHand(WorksOff):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        while block_state.todo:
            components, block_state = self.loop_step(components, block_state, i=block_state.todo.pop())
        self.set_block_state(state, block_state)
        return components, state


EVERY_WORKER = pytest.mark.parametrize("loop", [WorksOff, WorksOffInPlace, WorksOffALocalName, WorksOffByHand])


@EVERY_WORKER
@pytest.mark.parametrize("count", [1, 10, 19])
def test_a_list_that_is_worked_off(loop: type, count: int) -> None:
    found = list(results(pipeline({"loop": loop, "end": AddOne}), todo=list(range(count))))
    assert len(found) == count
    for _, resumed, whole in found:
        assert resumed == whole
        assert whole["todo"] == []


class Lists(RepeatRows):
    """Has lists made for the loop inside of it; the one of which it takes them holds what is left."""

    loop_inputs = [InputParam("lists", required=True)]
    loop_intermediate_outputs = [OutputParam("todo")]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        while block_state.lists:
            block_state.todo = block_state.lists.pop()
            yield {}


@EVERY_WORKER
def test_lists_that_a_loop_inside_of_another_works_off(loop: type) -> None:
    pipe = pipeline({"lists": Lists.from_blocks_dict({"loop": loop}), "end": AddOne})
    found = list(results(pipe, lists=[[1, 2, 3], [4], [], [5, 6]], todo=[]))
    assert len(found) == 10
    for _, resumed, whole in found:
        assert resumed == whole


class WritesKeys(ModularPipelineBlocks):
    """Writes into the dict by which the loop around it decides."""

    inputs = [InputParam("table", required=True), InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any, i: int) -> tuple[Any, Any]:
        state.get("table")[f"k{i}"] = i + 1
        state.set("x", 3 * state.get("x") + i)
        return components, state


class GoesThroughTable(LoopSequentialPipelineBlocks):
    loop_inputs = [InputParam("table", required=True)]
    block_classes = [WritesKeys]
    block_names = ["writes"]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for key in sorted(block_state.table):
            yield {"i": block_state.table[key]}


def test_a_dict_that_blocks_write_into_is_as_it_was_when_the_loop_began() -> None:
    found = list(results(pipeline({"loop": GoesThroughTable, "end": AddOne}), table={"a": 1, "b": 2, "c": 3}))
    assert len(found) == 3
    for _, resumed, whole in found:
        assert resumed == whole
        assert whole["table"].keys() == {"a", "b", "c", "k1", "k2", "k3"}


class Logs(Repeat):
    """Holds a list of the block state by a name of its own, and adds to it late."""

    loop_inputs = [*Repeat.loop_inputs, InputParam("log", required=True)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        log = block_state.log
        for i in range(block_state.steps):
            yield {"i": i}
            if i > 1:
                log.append(i)


def test_a_list_that_a_wrapper_holds_stays_the_one_in_the_state() -> None:
    log: list[int] = []
    pipe = pipeline({"loop": Logs.from_blocks_dict({"double": Double}), "end": AddOne})
    for _, resumed, _ in results(pipe, x=1, steps=5, log=log):
        assert resumed["log"] == [2, 3, 4]


class Shared(LoopSequentialPipelineBlocks):
    """Works on the state of the pipeline itself, and counts from where `x` was when it began."""

    block_classes = [Double]
    block_names = ["double"]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        begin = state.get("x")
        assert state.get("seen") is None
        for i in range(3):
            components, state = self.loop_step(components, state, i=i)
            state.set("seen", [begin, i])
        return components, state


def test_a_loop_on_the_state_of_the_pipeline_finds_what_it_found() -> None:
    for _, resumed, whole in results(pipeline({"loop": Shared, "end": AddOne}), x=5):
        assert resumed == whole
        assert whole["seen"] == [5, 2]


# Memory


class Views(ModularPipelineBlocks):
    """Writes into a tensor of which the state holds a part as well."""

    inputs = [InputParam("buffer"), InputParam("first")]
    intermediate_outputs = [OutputParam("buffer"), OutputParam("first"), OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        if state.get("buffer") is None:
            state.set("buffer", torch.zeros(100))
            state.set("first", state.get("buffer")[:1])
        state.get("buffer").add_(1)
        state.set("x", state.get("first").item())
        return components, state


def test_tensors_that_share_memory_share_it_in_the_resumed_run() -> None:
    loop = Repeat.from_blocks_dict({"views": Views})
    for _, resumed, whole in results(pipeline({"loop": loop}), steps=4):
        assert (resumed["x"], whole["x"]) == (4.0, 4.0)


def test_inputs_that_share_memory_share_it_in_the_resumed_run() -> None:
    buffer = torch.zeros(100)
    pipe = pipeline({"loop": Repeat.from_blocks_dict({"views": Views})})
    for _, resumed, _ in results(pipe, steps=4, buffer=buffer, first=buffer[:1]):
        assert resumed["x"] == 4.0


# How much is kept


class Moves(ModularPipelineBlocks):
    """Changes a small value and a large one."""

    inputs = [InputParam("small", required=True), InputParam("large", required=True)]
    intermediate_outputs = [OutputParam("small"), OutputParam("large")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        state.set("small", state.get("small") + 1)
        state.set("large", state.get("large") + 1)
        return components, state


@pytest.mark.parametrize("small", [1, torch.tensor(1.0), torch.ones(16), numpy.ones(3)])
def test_a_small_value_that_changes_keeps_no_earlier_files(small: Any) -> None:
    memory = Memory()
    pipe = pipeline({"loop": Repeat.from_blocks_dict({"moves": Moves})})
    state = pipe(small=small, large=torch.zeros(10_000), steps=30, checkpoint=Checkpoint(memory, keep=2))
    assert memory.iterations == [1, 29, 30]
    assert torch.equal(pipe.resume(memory, output="large").result(), state.large)
