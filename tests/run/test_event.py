"""After each iteration of each loop there is an event that says where the run is and what its values are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from loopwright import InputParam, LoopSequentialPipelineBlocks, OutputParam, PipelineState
from loopwright.errors import InvalidInputError, UnknownValueError
from tests.blocks.arithmetic import AddOne, Double, DoubleIfAsked, Repeat, RepeatByHand, RepeatRows
from tests.run.blocks import Do, HoldsLoop, Steps, counting, nested, pipeline


def positions(pipe: Any, **inputs: Any) -> list[tuple[tuple[str, int], ...]]:
    return [event.position for event in pipe.stream(**inputs)]


def test_there_is_one_event_after_each_iteration() -> None:
    events = list(counting().stream(x=0, steps=3))
    assert [(event.path, event.index, event.loop_kwargs) for event in events] == [
        ("count", 0, {"i": 0}),
        ("count", 1, {"i": 1}),
        ("count", 2, {"i": 2}),
    ]
    assert [event.state.x for event in events] == [1, 2, 3]


def test_loops_in_loops_have_events_of_their_own_the_inner_ones_first() -> None:
    assert positions(nested(), x=0, steps=2, rows=2) == [
        (("rows", 0), ("rows.count", 0)),
        (("rows", 0), ("rows.count", 1)),
        (("rows", 0),),
        (("rows", 1), ("rows.count", 0)),
        (("rows", 1), ("rows.count", 1)),
        (("rows", 1),),
    ]


def test_a_loop_without_iterations_has_no_events() -> None:
    assert positions(counting(), x=0, steps=0) == []
    assert positions(nested(), x=0, steps=0, rows=2) == [(("rows", 0),), (("rows", 1),)]


def test_a_conditional_in_a_loop_and_a_loop_in_a_conditional_have_the_names_of_the_tree() -> None:
    class Asks(Double):
        inputs = [*Double.inputs, InputParam("twice")]

    inner = Repeat.from_blocks_dict({"maybe": DoubleIfAsked.from_blocks_dict({"double": Asks})})

    class Chosen(DoubleIfAsked):
        block_classes = [inner]
        block_names = ["loop"]

    pipe = pipeline(choice=Chosen)
    assert positions(pipe, x=1, twice=True, steps=2) == [(("choice.loop", 0),), (("choice.loop", 1),)]
    assert positions(pipe, x=1, steps=2) == []


def test_a_pipeline_that_is_a_loop_has_events_with_an_empty_path() -> None:
    pipe = Repeat.from_blocks_dict({"add": AddOne}).init_pipeline()
    assert positions(pipe, x=0, steps=2) == [(("", 0),), (("", 1),)]


def test_the_total_is_what_the_loop_says_else_what_its_progress_bar_says_else_unknown() -> None:
    class Told(Repeat):
        def loop_total(self, components: Any, block_state: Any) -> int:
            return int(block_state.steps)

    for loop, total in ((Told, 2), (Steps, 2), (Repeat, None)):
        pipe = pipeline(loop=loop.from_blocks_dict({"add": AddOne}))
        assert [event.total for event in pipe.stream(x=0, steps=2)] == [total, total]


def test_the_total_of_a_loop_is_not_that_of_another_loops_progress_bar() -> None:
    class WithBar(RepeatRows):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            with self.progress_bar(total=block_state.rows):
                yield from super().iterate(components, block_state)

    pipe = pipeline(rows=WithBar.from_blocks_dict({"count": Repeat.from_blocks_dict({"add": AddOne})}))
    pipe.set_progress_bar_config(disable=True)
    totals = [(event.path, event.total) for event in pipe.stream(x=0, steps=1, rows=2)]
    assert totals == [("rows.count", None), ("rows", 2)] * 2


def test_a_wrapper_with_two_for_loops_counts_on_in_the_second() -> None:
    class TwoFors(LoopSequentialPipelineBlocks):
        loop_inputs = [InputParam("steps", int, default=2)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for i in self.progress_bar(range(block_state.steps)):
                components, block_state = self.loop_step(components, block_state, i=i)
            block_state.x *= 10
            for i in self.progress_bar(range(block_state.steps)):
                components, block_state = self.loop_step(components, block_state, i=i)
            self.set_block_state(state, block_state)
            return components, state

    pipe = pipeline(loop=TwoFors.from_blocks_dict({"add": AddOne}))
    pipe.set_progress_bar_config(disable=True)
    events = list(pipe.stream(x=0))
    assert [(event.index, event.loop_kwargs["i"], event.state.x) for event in events] == [
        (0, 0, 1),
        (1, 1, 2),
        (2, 0, 21),
        (3, 1, 22),
    ]
    assert [event.total for event in events] == [2, 2, 4, 4]


def test_loops_that_a_block_holds_are_loops_with_events_one_after_the_other() -> None:
    first, second = Repeat.from_blocks_dict({"add": AddOne}), RepeatByHand.from_blocks_dict({"double": Double})
    assert positions(pipeline(leaf=HoldsLoop(first, second, first)), x=0) == [
        (("leaf.Repeat", 0),),
        (("leaf.Repeat", 1),),
        (("leaf.RepeatByHand", 0),),
        (("leaf.RepeatByHand", 1),),
        (("leaf.Repeat", 0),),
        (("leaf.Repeat", 1),),
    ]


def test_a_loop_that_a_block_of_a_loop_holds_is_inside_that_loop() -> None:
    held = HoldsLoop(Repeat.from_blocks_dict({"add": AddOne}))
    assert positions(pipeline(rows=RepeatRows.from_blocks_dict({"leaf": held})), x=0, rows=1) == [
        (("rows", 0), ("rows.leaf.Repeat", 0)),
        (("rows", 0), ("rows.leaf.Repeat", 1)),
        (("rows", 0),),
    ]


def test_a_loop_that_a_wrapper_holds_and_calls_between_its_iterations_is_inside_it() -> None:
    class Outer(Repeat):
        held = Repeat.from_blocks_dict({"double": Double})

        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            for i in range(2):
                yield {"i": i}
                _, inner = self.held(components, PipelineState({"x": block_state.x, "steps": 1}))
                block_state.x = inner.get("x")

    pipe = pipeline(loop=Outer.from_blocks_dict({"add": AddOne}))
    events = list(pipe.stream(x=0))
    assert [len(event.position) for event in events] == [1, 2, 1, 2]
    assert [event.index for event in events] == [0, 0, 1, 0]
    assert pipe(x=0, output="x") == 6


def test_the_state_has_the_values_of_the_pipeline_and_over_them_those_of_each_loop() -> None:
    pipe = nested()
    inner = next(iter(pipe.stream(x=1, steps=1, rows=2)))
    assert inner.state.values == {"x": 2, "steps": 1, "rows": 2}
    with pytest.raises(UnknownValueError, match="did you mean `steps`"):
        inner.state.get("step")


def test_the_state_knows_the_groups_of_values() -> None:
    class Group(Do):
        inputs = [InputParam("x", default=0), InputParam(kwargs_type="extras")]

    pipe = pipeline(loop=Repeat.from_blocks_dict({"group": Group(lambda _, x, **__: x + 1)}))
    event = next(iter(pipe.stream(extras={"a": 1, "b": 2})))
    assert event.state.get_by_kwargs("extras") == {"a": 1, "b": 2}


def test_a_snapshot_keeps_its_names_and_shares_its_values() -> None:
    made: list[torch.Tensor] = []

    def new_tensor(components: Any, x: Any, **_: Any) -> torch.Tensor:
        made.append(x + 1)
        return made[-1]

    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(new_tensor)}))
    events = list(pipe.stream(x=torch.zeros(2)))
    assert [event.state.x is tensor for event, tensor in zip(events, made, strict=True)] == [True] * 3
    assert [event.state.x[0].item() for event in events] == [1, 2, 3]


def test_what_is_written_into_a_tensor_shows_in_an_event_unless_it_is_frozen() -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda _, x, **__: x.add_(1))}))
    shared, frozen = [], []
    for event in pipe.stream(x=torch.zeros(1)):
        shared.append(event)
        frozen.append(event.freeze())
    assert [event.state.x.item() for event in shared] == [3, 3, 3]
    assert [event.state.x.item() for event in frozen] == [1, 2, 3]
    assert frozen[0].position == shared[0].position


def test_freezing_copies_generators_and_shares_models() -> None:
    model, generator = torch.nn.Linear(1, 1), torch.Generator().manual_seed(1)
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda *_, **__: None)}))
    event = next(iter(pipe.stream(x=[model, generator]))).freeze()
    assert event.state.x[0] is model
    assert event.state.x[1] is not generator


def test_freezing_names_a_value_that_cannot_be_copied() -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda *_, **__: (i for i in ()))}))
    with pipe.stream() as run, pytest.raises(InvalidInputError) as caught:
        [event.freeze() for event in run]
    assert str(caught.value) == "the value `x` (generator) cannot be copied: cannot pickle 'generator' object"


def test_a_wrapper_may_share_the_pipelines_own_state_with_its_blocks() -> None:
    class Shares(Repeat):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            for i in range(2):
                self.loop_step(components, state, i=i)
            return components, state

    pipe = pipeline(loop=Shares.from_blocks_dict({"add": AddOne}), double=Double)
    run = pipe.stream(x=1)
    peeks = [(event.state.x, event.peek("x")) for event in run]
    assert peeks == [(2, 4), (3, 6)]
    assert run.result().x == 6


def test_the_time_that_a_run_waits_does_not_count(clock: Any) -> None:
    def tick(*_: Any, **__: Any) -> None:
        clock.now += 1

    elapsed = []
    for event in pipeline(loop=Repeat.from_blocks_dict({"tick": Do(tick)})).stream():
        elapsed.append(event.elapsed)
        clock.now += 100
    assert elapsed == [1, 2, 3]


def test_old_events_are_not_kept() -> None:
    class Value:
        pass

    class Make(Do):
        intermediate_outputs = [OutputParam("x")]

    alive: list[int] = []
    seen: list[weakref.ref[Value]] = []
    pipe = pipeline(loop=Repeat.from_blocks_dict({"make": Make(lambda *_, **__: Value())}))
    for event in pipe.stream(steps=20):
        seen.append(weakref.ref(event.state.x))
        alive.append(sum(reference() is not None for reference in seen))
    assert max(alive) <= 3
    del event
    gc.collect()
    assert [reference() for reference in seen] == [None] * 20
