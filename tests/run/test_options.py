"""The options of a call are the same in all its forms; what cannot be used is refused, and no input has their names."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from loopwright import InputParam
from loopwright.check import CALL_OPTIONS
from loopwright.errors import CheckError, InvalidInputError
from loopwright.run import Callbacks, StepEnd
from tests.blocks.arithmetic import AddOne
from tests.run.blocks import counting, pipeline

CASES = [
    ({"timeout": 0}, "`timeout` is 0; it must be a positive number of seconds"),
    ({"timeout": -1.5}, "`timeout` is -1.5; it must be a positive number of seconds"),
    ({"timeout": float("nan")}, "`timeout` is nan; it must be a positive number of seconds"),
    ({"timeout": True}, "`timeout` is True; it must be a positive number of seconds"),
    ({"timeout": "1"}, "`timeout` is '1'; it must be a positive number of seconds"),
    ({"progress": 1}, "`progress` is 1; it must be True, to show progress bars, False, to hide them, or None"),
    ({"checkpoint": "a"}, "`checkpoint` is 'a'; it must be a `Checkpoint`, such as `Checkpoint('run-1')`"),
    ({"callbacks": 3}, "`callbacks` holds 3, which cannot be called; give a function that takes the event"),
    ({"callbacks": "a"}, "`callbacks` holds 'a', which cannot be called; give a function that takes the event"),
    ({"callbacks": "ab"}, "`callbacks` holds 'ab', which cannot be called; give a function that takes the event"),
    (
        {"callbacks": {"on_evnet": print}},
        "`callbacks` has an entry `on_evnet`, did you mean `on_event`?; it may have `callback_on_step_end`, "
        "`callback_on_step_end_tensor_inputs`, `on_event`",
    ),
    ({"callbacks": {"on_event": 3}}, "`callbacks` has 3 as `on_event`, which cannot be called"),
    (
        {"callbacks": lambda a, b: None},
        "the callback `<lambda>` takes neither one argument, the event, nor the four of `callback_on_step_end`: write "
        "`def callback(event)`, or `def callback(pipe, i, t, callback_kwargs)`",
    ),
]


@pytest.mark.parametrize(
    ("options", "message"), CASES, ids=lambda case: None if isinstance(case, str) else str(case)[:30]
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    pipe = counting()
    for call in (pipe, pipe.start, pipe.stream, pipe.astream):
        with pytest.raises(InvalidInputError) as caught:
            call(x=0, **options)
        assert str(caught.value) == message


@pytest.mark.parametrize("name", sorted(CALL_OPTIONS))
def test_no_input_may_have_the_name_of_an_option(name: str) -> None:
    class Collides(AddOne):
        inputs = [*AddOne.inputs, InputParam(name)]

    with pytest.raises(CheckError, match=f"`{name}`"):
        pipeline(collides=Collides)


def test_callables_are_told_apart_by_what_they_take() -> None:
    def four(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> None: ...

    def one(event: Any) -> None: ...

    assert Callbacks.read([four, one]) == Callbacks((StepEnd(four),), (one,))
    assert Callbacks.read(one) == Callbacks(on_event=(one,))
    assert Callbacks.read(StepEnd(four, ("x",))) == Callbacks((StepEnd(four, ("x",)),))
    assert Callbacks.read(None) == Callbacks()


def test_a_callable_that_takes_anything_gets_the_event() -> None:
    def anything(*arguments: Any, **named: Any) -> None: ...

    def one_or_more(event: Any, *others: Any) -> None: ...

    class Unknown:
        """Does not tell what it takes."""

        __signature__ = "nothing"

        def __call__(self, event: Any) -> None: ...

    for function in (print, anything, one_or_more, functools.partial(anything, 1), Unknown(), [].append):
        assert Callbacks.read(function) == Callbacks(on_event=(function,))


def test_a_callable_with_four_named_arguments_is_one_for_steps() -> None:
    def with_defaults(pipe: Any, i: int = 0, t: Any = None, values: Any = None) -> None: ...

    def with_more(pipe: Any, i: int, t: Any, values: Any, *others: Any) -> None: ...

    def five(note: str, pipe: Any, i: int, t: Any, values: Any) -> None: ...

    for function in (with_defaults, with_more, functools.partial(five, "note")):
        assert Callbacks.read(function) == Callbacks((StepEnd(function),))


def test_the_names_of_values_default_to_the_latents() -> None:
    def four(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> None: ...

    read = Callbacks.read({"callback_on_step_end": four})
    assert read.step_end[0].tensor_inputs == ("latents",)
