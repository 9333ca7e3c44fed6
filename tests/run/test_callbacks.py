"""Callbacks are called once after each iteration, may change values, and may end the loop or the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from loopwright import InputParam
from loopwright.errors import InvalidInputError
from tests.blocks.arithmetic import AddOne, Double, Repeat, RepeatRows
from tests.run.blocks import Do, HoldsLoop, Steps, pipeline


def stepping() -> Any:
    return pipeline(loop=Steps.from_blocks_dict({"add": AddOne}), double=Double)


def step_end(function: Any, *tensor_inputs: str) -> dict[str, Any]:
    return {
        "callback_on_step_end": function,
        "callback_on_step_end_tensor_inputs": list(tensor_inputs or ["x"]),
    }


def ways(pipe: Any) -> list[Any]:
    """A call, a run, and a stream that is watched, each of which gives the final state."""

    def watched(**inputs: Any) -> Any:
        run = pipe.stream(**inputs)
        list(run)
        return run.result()

    return [pipe, lambda **inputs: pipe.start(**inputs).result(), watched]


def test_the_callback_of_a_steps_end_gets_the_pipeline_the_variables_and_the_values() -> None:
    pipe, seen = stepping(), []

    def callback(given: Any, i: int, t: Any, values: dict[str, Any]) -> None:
        seen.append((type(given) is type(pipe), i, t, values))

    for call in ways(pipe):
        seen.clear()
        call(x=0, callbacks=step_end(callback))
        assert seen == [(True, 0, 0, {"x": 1}), (True, 1, 10, {"x": 2}), (True, 2, 20, {"x": 3})]


def test_what_it_returns_is_taken_over() -> None:
    for call in ways(stepping()):
        state = call(x=0, callbacks=step_end(lambda pipe, i, t, values: {"x": values["x"] + 10}))
        assert state.x == 2 * 33


def test_events_show_what_a_callback_changed() -> None:
    run = stepping().stream(x=0, callbacks=step_end(lambda *_: {"x": 5}))
    assert [event.state.x for event in run] == [5, 5, 5]


def test_interrupt_ends_the_loop_of_this_run_only() -> None:
    pipe = stepping()

    def callback(given: Any, i: int, t: Any, values: dict[str, Any]) -> None:
        given._interrupt = i == 1

    for call in ways(pipe):
        assert call(x=0, steps=100, callbacks=step_end(callback)).x == 4
        assert call(x=0, steps=5).x == 10


def test_interrupt_on_the_pipeline_itself_is_not_taken_over() -> None:
    pipe = stepping()
    pipe._interrupt = True
    assert pipe(x=0, progress=False).x == 6


def test_on_event_is_called_once_for_each_event() -> None:
    seen: list[Any] = []
    pipe = pipeline(rows=RepeatRows.from_blocks_dict({"loop": Steps.from_blocks_dict({"add": AddOne})}))
    pipe.set_progress_bar_config(disable=True)
    for call in ways(pipe):
        seen.clear()
        call(x=0, steps=1, rows=2, callbacks={"on_event": seen.append})
        assert [event.path for event in seen] == ["rows.loop", "rows", "rows.loop", "rows"]


def test_steps_are_those_of_loops_that_have_them() -> None:
    seen: list[Any] = []
    pipe = pipeline(rows=RepeatRows.from_blocks_dict({"loop": Steps.from_blocks_dict({"add": AddOne})}))
    pipe.set_progress_bar_config(disable=True)
    pipe(x=0, steps=2, rows=2, callbacks=step_end(lambda pipe, i, t, values: seen.append(i)))
    assert seen == [0, 1, 0, 1]


def test_several_callbacks_are_called_in_order_and_see_what_those_before_changed() -> None:
    class Official:
        tensor_inputs = ["x"]

        def __call__(self, pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
            return {"x": values["x"] * 2}

    seen: list[int] = []
    stepping()(x=1, steps=1, callbacks=[Official(), lambda event: seen.append(event.state.x)])
    assert seen == [4]


def test_an_exception_in_a_callback_ends_the_run_and_says_where() -> None:
    def fail(*_: Any) -> None:
        raise KeyError("boom")

    for callbacks in (step_end(fail), {"on_event": fail}):
        for call in ways(stepping()):
            with pytest.raises(KeyError, match="boom") as caught:
                call(x=0, callbacks=callbacks)
            assert "in a callback, after iteration 0 of loop `loop`" in caught.value.__notes__


def test_a_callback_that_asks_for_what_there_is_not_is_told_what_there_is() -> None:
    with pytest.raises(InvalidInputError) as caught:
        stepping()(x=0, callbacks=step_end(print, "xs"))
    assert str(caught.value) == (
        "the callback asks for `xs`, which loop `loop` does not have, did you mean `x`?; it has `steps`, `x`"
    )


def test_a_callback_that_returns_something_else_is_told_so() -> None:
    with pytest.raises(InvalidInputError) as caught:
        stepping()(x=0, callbacks=step_end(lambda *_: 3))
    assert str(caught.value) == "the callback returned an int; it must return a dict of the values to change, or None"


def test_a_callback_that_changes_a_value_that_there_is_not_is_told_so() -> None:
    for call in ways(stepping()):
        with pytest.raises(InvalidInputError) as caught:
            call(x=0, callbacks=step_end(lambda *_: {"x": 3, "step": 3}))
        assert str(caught.value) == (
            "the callback changes `step`, and loop `loop` has no such value, did you mean `steps`?; it has `steps`, `x`"
        )


def test_a_callback_may_set_an_input_of_the_loop_that_was_not_given() -> None:
    class AddMore(AddOne):
        inputs = [*AddOne.inputs, InputParam("more")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.x += 1 + (state.more or 0)
            return components, state

    pipe = pipeline(loop=Steps.from_blocks_dict({"add": AddMore}))
    assert pipe(x=0, callbacks=step_end(lambda pipe, i, t, values: {"more": 10}), output="x") == 23


def test_a_callback_for_steps_is_refused_where_no_loop_has_them() -> None:
    pipe = pipeline(rows=RepeatRows.from_blocks_dict({"count": Repeat.from_blocks_dict({"add": AddOne})}))
    message = (
        "the callback takes `i` and `t`, and no loop of this pipeline gives both; write `def callback(event)`, which "
        "is called after each iteration of each loop"
    )
    for callbacks in (lambda pipe, i, t, values: None, step_end(print)):
        for call in (pipe, pipe.start, pipe.stream):
            with pytest.raises(InvalidInputError) as caught:
                call(x=0, callbacks=callbacks)
            assert str(caught.value) == message


def test_a_callback_for_steps_is_called_for_a_loop_that_a_block_holds_or_whose_source_does_not_tell() -> None:
    class Secret(Repeat):
        def iterate(self, components: Any, block_state: Any) -> Any:
            yield from ({"i": i, "t": i} for i in range(2))

    seen: list[int] = []
    callbacks = step_end(lambda pipe, i, t, values: seen.append(i))
    counts = Repeat.from_blocks_dict({"add": AddOne})
    pipeline(count=counts, secret=Secret.from_blocks_dict({"add": AddOne}))(x=0, callbacks=callbacks)
    assert seen == [0, 1]
    pipeline(count=counts, leaf=HoldsLoop(Steps.from_blocks_dict({"add": AddOne})))(x=0, callbacks=callbacks)
    assert seen == [0, 1] * 2


def test_a_callback_may_call_the_pipeline() -> None:
    pipe = stepping()
    results: list[int] = []
    run = pipe.stream(x=0, callbacks=lambda event: results.append(pipe(x=event.state.x, output="x")))
    assert [(event.index, event.total) for event in run] == [(0, 3), (1, 3), (2, 3)]
    assert results == [8, 10, 12]
    assert run.result().x == 6


def test_a_callback_changes_the_latents_of_a_picture(embedded: Any, inputs: Any, image: np.ndarray) -> None:
    shapes: list[Any] = []

    def shift(pipe: Any, i: int, t: torch.Tensor, values: dict[str, Any]) -> dict[str, Any]:
        shapes.append(values["latents"].shape)
        return {"latents": values["latents"] + 0.1}

    changed = embedded(**inputs(callbacks=step_end(shift, "latents")))
    assert len(shapes) == 3
    assert not np.array_equal(changed, image)
    watched = embedded.stream(**inputs(callbacks=step_end(shift, "latents")))
    list(watched)
    assert np.array_equal(watched.result(), changed)


def test_watching_with_callbacks_that_change_nothing_changes_no_bit(
    embedded: Any, inputs: Any, image: np.ndarray
) -> None:
    callbacks = {**step_end(lambda *_: {}, "latents"), "on_event": lambda event: None}
    assert np.array_equal(embedded(**inputs(callbacks=callbacks)), image)


def test_an_attribute_that_a_callback_sets_is_seen_by_the_blocks_of_this_run_only() -> None:
    def callback(given: Any, i: int, t: Any, values: dict[str, Any]) -> None:
        given.note = i

    seen: list[Any] = []
    block = Do(lambda components, x, **_: seen.append(getattr(components, "note", None)))
    pipe = pipeline(loop=Steps.from_blocks_dict({"look": block}))
    pipe(x=0, steps=2, callbacks=step_end(callback))
    pipe(x=0, steps=1)
    assert seen == [None, 0, None]
