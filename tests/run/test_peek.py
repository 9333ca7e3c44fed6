"""`event.peek` shows what the result would be if the loops ended now, and leaves the run as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from loopwright import ComponentSpec, SequentialPipelineBlocks
from loopwright.errors import InvalidInputError, RunStateError, UnknownValueError
from tests.blocks.arithmetic import AddOne, Double, DoubleIfAsked, Repeat, RepeatRows
from tests.run.blocks import Do, HoldsLoop, counting, nested, pipeline


def peeks(pipe: Any, **inputs: Any) -> list[Any]:
    return [event.peek("x") for event in pipe.stream(**inputs)]


def test_the_blocks_after_the_loop_run_on_what_the_iteration_left() -> None:
    assert peeks(counting(), x=0, steps=3) == [2, 4, 6]


def test_the_last_peek_is_the_result() -> None:
    run = counting().stream(x=0, steps=3)
    last = [event.peek("x") for event in run][-1]
    assert run.result().x == last == 6


def test_it_takes_an_output_as_a_call_does() -> None:
    for event in counting().stream(x=0, steps=1):
        assert event.peek().x == 2
        assert event.peek(["x", "steps"]) == {"x": 2, "steps": 1}
        with pytest.raises(UnknownValueError, match="did you mean `steps`"):
            event.peek("step")


def test_the_iterations_of_the_outer_loops_are_finished_but_no_more_begun() -> None:
    # after the first inner iteration: 1, doubled, one added; after the second 2; the outer loop has doubled already
    assert peeks(nested(), x=0, steps=2, rows=1) == [3, 5, 5]
    # the second row begins with 4
    assert peeks(nested(), x=0, steps=1, rows=2) == [3, 3, 7, 7]


def test_it_leaves_sequences_and_conditionals_around_the_loop() -> None:
    class Chosen(DoubleIfAsked):
        block_classes = [
            SequentialPipelineBlocks.from_blocks_dict(
                {"loop": Repeat.from_blocks_dict({"add": AddOne}), "two": Double}
            ),
            Double,
        ]
        block_names = ["sequence", "other"]
        block_trigger_inputs = ["steps", "x"]

    assert peeks(pipeline(choice=Chosen, add=AddOne), x=0, steps=2) == [3, 5]


def test_variables_of_outer_loops_are_seen_by_the_blocks_that_follow_an_inner_one() -> None:
    after = Do(lambda _, x, row, **__: x * 10 + row)
    inner = Repeat.from_blocks_dict({"add": AddOne})
    pipe = pipeline(rows=RepeatRows.from_blocks_dict({"count": inner, "after": after}))
    assert peeks(pipe, x=0, steps=1, rows=2) == [10, 10, 111, 111]


def test_a_run_that_is_peeked_into_ends_in_the_same_bits(embedded: Any, inputs: Any, image: np.ndarray) -> None:
    run = embedded.stream(**inputs())
    seen = [event.peek("images") for event in run]
    assert np.array_equal(run.result(), image)
    assert np.array_equal(seen[-1], image)
    assert not np.array_equal(seen[0], image)


def test_schedulers_with_a_memory_and_generators_are_copied(embedded: Any, inputs: Any) -> None:
    usual = embedded.scheduler
    try:
        embedded.update_components(scheduler=EulerAncestralDiscreteScheduler.from_config(usual.config))
        plain = embedded(**inputs())
        run = embedded.stream(**inputs())
        for event in run:
            event.peek("images")
            event.peek("images")
        assert np.array_equal(run.result(), plain)
    finally:
        embedded.update_components(scheduler=usual)


def test_global_random_numbers_are_untouched() -> None:
    def draw(*_: Any, **__: Any) -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(np.random.rand())

    def run(peek: bool) -> Any:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        made = pipeline(loop=Repeat.from_blocks_dict({"in": Do(draw)}), after=Do(draw)).stream()
        for event in made:
            if peek:
                event.peek()
        return made.result().x

    assert run(peek=True) == run(peek=False)


def test_what_follows_changes_nothing_in_the_run() -> None:
    def spoil(components: Any, x: Any, **_: Any) -> None:
        x["list"].append("spoilt")
        x["tensor"].zero_()
        components.scheduler.marked = True
        components.note = "spoilt"

    class WithScheduler(Do):
        expected_components = [
            ComponentSpec("scheduler", DDIMScheduler, default_creation_method="from_config"),
        ]

    seen: list[Any] = []

    def look(components: Any, x: Any, **_: Any) -> None:
        seen.append((list(x["list"]), x["tensor"].item(), hasattr(components.scheduler, "marked")))
        assert not hasattr(components, "note")

    pipe = pipeline(loop=Repeat.from_blocks_dict({"look": WithScheduler(look)}), spoil=WithScheduler(spoil))
    for event in pipe.stream(x={"list": [], "tensor": torch.ones(())}):
        event.peek()
    assert seen == [([], 1.0, False)] * 3


def test_it_sees_what_blocks_assigned_to_the_components() -> None:
    def assign(components: Any, x: Any, **_: Any) -> None:
        components.note = 7

    pipe = pipeline(assign=Do(assign), loop=Repeat.from_blocks_dict({"add": AddOne}), read=Do(lambda c, *_: c.note))
    assert peeks(pipe, x=0, steps=1) == [7]


def test_what_follows_does_not_change_what_a_block_put_on_the_components() -> None:
    def put(components: Any, x: Any, **_: Any) -> None:
        components.history, components.also = [], {}
        components.also["history"] = components.history

    def add(components: Any, x: Any, **_: Any) -> int:
        components.history.append(x)
        assert components.also["history"] is components.history
        return len(components.history)

    pipe = pipeline(put=Do(put), loop=Repeat.from_blocks_dict({"add": AddOne}), after=Do(add))
    run = pipe.stream(x=0, output="x")
    assert [event.peek("x") for event in run] == [1, 1, 1]
    assert run.result() == 1
    assert run.components.history == [3]


def test_what_stands_on_the_pipeline_itself_is_shared() -> None:
    class Uncopyable:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError

    pipe = pipeline(loop=Repeat.from_blocks_dict({"add": AddOne}), read=Do(lambda c, *_: c.note))
    pipe.note = Uncopyable()
    assert peeks(pipe, x=0, steps=1) == [pipe.note]


def test_what_a_block_put_on_the_components_and_cannot_be_copied_is_named() -> None:
    def put(components: Any, x: Any, **_: Any) -> None:
        components.items = (i for i in ())

    pipe = pipeline(put=Do(put), loop=Repeat.from_blocks_dict({"add": AddOne}))
    with pipe.stream(x=0) as run, pytest.raises(InvalidInputError, match="the value `items`") as caught:
        [event.peek() for event in run]
    assert str(caught.value).endswith("; a block put it on the components")


def test_models_are_shared_also_by_what_refers_to_them() -> None:
    class Holder:
        def __init__(self, model: Any) -> None:
            self.model = model

    class WithModel(Do):
        expected_components = [ComponentSpec("model", torch.nn.Linear)]

    pipe = pipeline(loop=Repeat.from_blocks_dict({"add": WithModel(lambda c, x, **_: Holder(c.model))}))
    pipe.update_components(model=torch.nn.Linear(1, 1))
    assert peeks(pipe, steps=1)[0].model is pipe.model


def test_it_works_under_the_modes_of_the_run() -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"add": AddOne}), ask=Do(lambda *_: torch.is_inference_mode_enabled()))
    with torch.inference_mode():
        run = pipe.stream(x=0, steps=1)
    assert [event.peek("x") for event in run] == [True]


def test_it_can_be_called_while_the_run_is_paused_and_in_a_callback() -> None:
    run = counting().stream(x=0, steps=1)
    for event in run:
        run.pause()
        assert event.peek("x") == 2
        run.go_on()
    seen: list[int] = []
    counting()(x=0, callbacks=lambda event: seen.append(event.peek("x")))
    assert seen == [2, 4, 6]


def test_an_event_of_the_past_cannot_be_peeked_into() -> None:
    message = (
        "`peek` shows the run as it stands at this event, and it has gone on since: peek before the next event is "
        "asked for"
    )
    events = list(counting().stream(x=0))
    for event in events:
        with pytest.raises(RunStateError) as caught:
            event.peek()
        assert str(caught.value) == message


def test_a_loop_that_a_block_calls_by_itself_cannot_be_peeked_out_of() -> None:
    loop = Repeat.from_blocks_dict({"add": AddOne})
    for held in (loop, SequentialPipelineBlocks.from_blocks_dict({"loop": loop})):
        with pipeline(leaf=HoldsLoop(held)).stream(x=0) as run, pytest.raises(RunStateError) as caught:
            [event.peek() for event in run]
        assert str(caught.value) == (
            f"`peek` cannot tell what follows loop `leaf.{'Repeat' if held is loop else 'loop'}`: a block calls it by "
            f"itself, and it is not among the blocks of the pipeline"
        )


def test_a_value_that_cannot_be_copied_is_named() -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda *_, **__: (i for i in ()))}))
    with pipe.stream() as run, pytest.raises(InvalidInputError, match="the value `x`"):
        [event.peek() for event in run]


def test_a_loop_that_follows_is_run_in_the_peek() -> None:
    class Twice(Repeat):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            yield from ({"i": i} for i in range(2))

    loops = [loop.from_blocks_dict({"add": AddOne}) for loop in (Repeat, Twice)]
    run = pipeline(first=loops[0], second=loops[1]).stream(x=0, steps=2)
    assert [(event.path, event.peek("x")) for event in run] == [
        ("first", 3),
        ("first", 4),
        ("second", 3),
        ("second", 4),
    ]
