"""What a call is given: defaults of its own, and the nearest name for an input that there is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loopwright import InputParam
from loopwright.errors import UnknownInputError
from tests.blocks.arithmetic import Repeat
from tests.run.blocks import Do, counting, in_threads, pipeline


class Log(Do):
    """Writes into the value that it reads."""

    def __init__(self, default: Any) -> None:
        super().__init__(lambda _, x, i: x["list"].append(i) if isinstance(x, dict) else x.append(i))
        self.default = default

    @property
    def inputs(self) -> list[InputParam]:  # type: ignore[override]
        return [InputParam("x", default=self.default)]


def logging(default: Any) -> Any:
    return pipeline(loop=Repeat.from_blocks_dict({"log": Log(default)}))


def test_what_a_block_writes_into_a_default_stays_in_the_call() -> None:
    pipe = logging([])
    assert [pipe(output="x") for _ in range(2)] == [[0, 1, 2]] * 2
    assert in_threads(*[lambda: pipe.start(output="x").result()] * 4) == [[0, 1, 2]] * 4
    assert pipe.default_call_parameters["x"] == []


def test_what_it_writes_into_something_inside_a_default_does_too() -> None:
    pipe = logging({"list": []})
    assert [pipe(output="x") for _ in range(2)] == [{"list": [0, 1, 2]}] * 2


def test_a_default_in_place_of_none_is_of_the_call_as_well() -> None:
    pipe = logging([])
    assert [pipe(x=None, output="x") for _ in range(2)] == [[0, 1, 2]] * 2


def test_a_default_that_is_a_model_or_cannot_be_copied_is_taken_as_it_is() -> None:
    for default in (torch.nn.Linear(1, 1), (i for i in ())):

        class Looks(Do):
            inputs = [InputParam("x", default=default)]

        seen: list[Any] = []
        pipeline(look=Looks(lambda _, x, seen=seen: seen.append(x)))()
        assert seen == [default]


class Seeded(Do):
    inputs = [*Do.inputs, InputParam("generator")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timeot": 3}, "unknown input `timeot`, did you mean `timeout`?; this pipeline takes `steps`, `x`"),
        ({"callback": print}, "unknown input `callback`, did you mean `callbacks`?; this pipeline takes `steps`, `x`"),
        ({"stat": 1}, "unknown input `stat`, did you mean `state`?; this pipeline takes `steps`, `x`"),
        ({"step": 1}, "unknown input `step`, did you mean `steps`?; this pipeline takes `steps`, `x`"),
        ({"seed": 3}, "unknown input `seed`; this pipeline takes `steps`, `x`"),
    ],
    ids=str,
)
def test_an_input_that_there_is_not_is_told_with_the_nearest_name(given: dict[str, Any], message: str) -> None:
    for call in (counting(), counting().start):
        with pytest.raises(UnknownInputError) as caught:
            call(x=0, **given)
        assert str(caught.value) == message


def test_a_seed_is_told_how_to_write_it_where_there_is_a_generator() -> None:
    with pytest.raises(UnknownInputError) as caught:
        pipeline(do=Seeded(lambda *_: None))(seed=3)
    assert str(caught.value) == (
        "unknown input `seed`; for a seed, write `generator=torch.Generator().manual_seed(seed)`; this pipeline takes "
        "`x`, `generator`"
    )
