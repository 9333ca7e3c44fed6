"""Loops of every form run as in a plain call, with events between their iterations, and end when they are told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loopwright import InputParam, LoopSequentialPipelineBlocks, ModularPipelineBlocks, OutputParam, PipelineState
from loopwright.errors import DefinitionError, RunStateError
from tests.blocks.arithmetic import AddIndex, AddOne, Divide, Double, Repeat, RepeatByHand, RepeatRows
from tests.run.blocks import Do, HoldsLoop, pipeline


class ForLoops(LoopSequentialPipelineBlocks):
    """Two `for`s with code between them, and a break on what the body wrote."""

    loop_inputs = [InputParam("x", int, default=0)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for i in range(3):
            components, block_state = self.loop_step(components, block_state, i=i)
            block_state.x += 10
        block_state.x *= 2
        for i in range(100):
            components, block_state = self.loop_step(components, block_state, i=i)
            if block_state.x > 80:
                break
        self.set_block_state(state, block_state)
        return components, state


class Waits(LoopSequentialPipelineBlocks):
    """A `while` that waits for what the body makes."""

    loop_inputs = [InputParam("x", int, default=0)]
    loop_intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        while block_state.x < 5:
            components, block_state = self.loop_step(components, block_state)
        block_state.x += 100
        self.set_block_state(state, block_state)
        return components, state


class CallsBlocks(RepeatByHand):
    """Calls blocks and loops that it holds, with states made for that."""

    tail = Repeat.from_blocks_dict({"double": Double})

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for i in range(block_state.steps):
            components, block_state = self.loop_step(components, block_state, i=i)
            _, inner = self.tail(components, PipelineState({"x": block_state.x, "steps": 2}))
            _, inner = AddOne()(components, inner)
            block_state.x = inner.get("x")
        self.set_block_state(state, block_state)
        return components, state


@pytest.mark.parametrize("form", [Repeat, RepeatByHand, ForLoops, Waits, CallsBlocks], ids=lambda form: form.__name__)
def test_a_loop_of_any_form_ends_as_in_a_plain_call(form: type[LoopSequentialPipelineBlocks]) -> None:
    pipe = pipeline(loop=form.from_blocks_dict({"add": AddOne}), double=Double)
    plain = pipe(x=1)
    watched = pipe.stream(x=1)
    events = list(watched)
    assert watched.result().values == plain.values
    assert events
    assert pipe(x=1, callbacks=lambda event: event.freeze()).values == plain.values


def test_loops_in_loops_of_any_form_end_as_in_a_plain_call() -> None:
    inner = CallsBlocks.from_blocks_dict({"add": AddOne, "index": AddIndex})
    pipe = pipeline(
        rows=RepeatRows.from_blocks_dict({"first": inner, "second": ForLoops.from_blocks_dict({"a": AddOne})})
    )
    assert pipe.stream(x=0).result().values == pipe(x=0).values


def stop_at_first(pipe: Any, **inputs: Any) -> PipelineState:
    run = pipe.stream(**inputs)
    for event in run:
        if event.index == 0 and len(event.position) == 1:
            run.stop_loop()
    state: PipelineState = run.result()
    return state


def test_a_for_loop_that_was_stopped_runs_its_tail() -> None:
    # its first step, its own additions (3 * 10), and its doubling
    assert stop_at_first(pipeline(loop=ForLoops.from_blocks_dict({"add": AddOne})), x=0).x == 62


def test_a_loop_that_iterates_is_not_asked_for_more_once_it_is_stopped() -> None:
    class Endless(Repeat):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            try:
                while True:
                    yield {"i": 0}
            finally:
                block_state.closed = True

    pipe = pipeline(loop=Endless.from_blocks_dict({"add": AddOne}), double=Double)
    assert stop_at_first(pipe, x=0).x == 2


def test_a_while_that_waits_for_its_body_is_left_and_its_outputs_are_written() -> None:
    pipe = pipeline(loop=Waits.from_blocks_dict({"add": AddOne}), double=Double)
    assert stop_at_first(pipe, x=0).x == 2


def test_a_while_around_it_goes_on_and_so_does_a_while_that_is_the_whole_pipeline() -> None:
    waits = Waits.from_blocks_dict({"add": AddOne})
    run = pipeline(rows=RepeatRows.from_blocks_dict({"waits": waits, "double": Double})).stream(x=0, rows=2)
    for event in run:
        if event.path == "rows.waits":
            run.stop_loop()
    assert run.result().x == 6
    assert stop_at_first(waits.init_pipeline(), x=0).x == 1


def test_a_while_that_a_block_holds_says_that_it_cannot_be_stopped() -> None:
    run = pipeline(leaf=HoldsLoop(Waits.from_blocks_dict({"add": AddOne}))).stream(x=0)
    for _ in run:
        run.stop_loop("leaf.Waits")
        break
    with pytest.raises(RunStateError) as caught:
        run.result()
    assert str(caught.value) == (
        "loop `leaf.Waits` was told to end and does not: it called `loop_step` 1000 times more, which did nothing. "
        "Make it a block of the pipeline, or let it have an end of its own"
    )


def test_a_loop_that_a_block_holds_can_be_stopped() -> None:
    loop = Repeat.from_blocks_dict({"add": AddOne})
    run = pipeline(leaf=HoldsLoop(loop, loop)).stream(x=0)
    assert [run.stop_loop() for event in run if event.index == 0] == [None, None]
    assert run.result().x == 2


def test_a_block_may_catch_what_a_loop_raises_and_go_on() -> None:
    class Tries(ModularPipelineBlocks):
        inputs = [InputParam("x", default=0)]
        intermediate_outputs = [OutputParam("x")]
        failing = Repeat.from_blocks_dict({"divide": Divide})
        working = Repeat.from_blocks_dict({"add": AddOne})

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            try:
                self.failing(components, PipelineState({"x": 0}))
            except ZeroDivisionError:
                _, inner = self.working(components, PipelineState({"x": block_state.x}))
                block_state.x = inner.get("x")
            self.set_block_state(state, block_state)
            return components, state

    pipe = pipeline(tries=Tries, loop=Repeat.from_blocks_dict({"add": AddOne}))
    run = pipe.stream(x=0, steps=1)
    assert [(event.index, event.state.x) for event in run][-1] == (0, 4)
    assert run.result().x == pipe(x=0, steps=1).x == 4


def test_a_wrapper_that_gives_its_blocks_no_state_is_told_so() -> None:
    class Wrong(Repeat):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            self.loop_step(components, None, i=0)
            return components, state

    pipe = pipeline(loop=Wrong.from_blocks_dict({"add": AddOne}))
    for call in (pipe, lambda **inputs: pipe.start(**inputs).result()):
        with pytest.raises(DefinitionError, match="gives `loop_step` None as the state"):
            call(x=0)


def test_a_block_that_returns_something_else_is_told_so_as_in_a_plain_call() -> None:
    class Nothing(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> None:  # type: ignore[override]
            pass

    messages = []
    for call in (Nothing().init_pipeline(), lambda: Nothing().init_pipeline().start().result()):
        with pytest.raises(DefinitionError) as caught:
            call()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_block_in_a_loop_may_return_another_block_state() -> None:
    class Renews(Do):
        def __call__(self, components: Any, block_state: Any, **variables: Any) -> tuple[Any, Any]:
            renewed = type(block_state)(**block_state.as_dict())
            renewed.x += 1
            return components, renewed

    pipe = pipeline(loop=Repeat.from_blocks_dict({"renew": Renews(print)}))
    run = pipe.stream(x=0)
    assert [(event.position, event.state.x) for event in run] == [
        ((("loop", 0),), 1),
        ((("loop", 1),), 2),
        ((("loop", 2),), 3),
    ]
    assert run.result().x == pipe(x=0).x
