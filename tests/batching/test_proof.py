"""A merge is trusted only where it was shown to give the same, for each kind of call and each size of batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from loopwright.batching import batched
from loopwright.batching.proof import Ledger, size_class
from tests.batching.blocks import Gathered, Model, pipeline, row
from tests.run.blocks import PATIENCE

# how many calls share a forward is then a matter of the calls alone
pytestmark = pytest.mark.usefixtures("clock")


def gathered(b: Any, count: int, **inputs: Any) -> list[Any]:
    """The results of runs that make their first calls when all of them are in their loops."""
    together = Gathered(count)
    runs = [
        b.start(
            **{name: value(n) if callable(value) else value for name, value in {"x": row, **inputs}.items()},
            around=together,
            output="x",
        )
        for n in range(count)
    ]
    return [run.result(PATIENCE) for run in runs]


def mixes_rows(x: torch.Tensor) -> torch.Tensor:
    return x - 0.5 * x.mean(0)


def uses_the_first_timestep(x: torch.Tensor, timestep: Any) -> torch.Tensor:
    t = torch.as_tensor(timestep).flatten()
    return x * (1 + t[0])


def breaks_down_with_eight(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if len(x) < 8 else x + 2


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("function", "extra"),
    [(mixes_rows, None), (uses_the_first_timestep, {"timestep": torch.tensor(0.5)})],
    ids=["a model that mixes rows", "a model that takes the timestep of its first row, which all runs share"],
)
def test_a_model_for_which_the_proof_fails_is_run_alone_and_right(
    function: Callable[..., Any], extra: Any, deterministic: bool
) -> None:
    pipe = pipeline(function)
    alone = [pipe(x=row(n), steps=6, extra=extra, output="x") for n in range(4)]
    with batched(pipe, deterministic=deterministic) as b:
        results = gathered(b, 4, steps=6, extra=extra)
        report = b.report()
    assert all(torch.equal(result, expected) for result, expected in zip(results, alone, strict=True))
    assert report.models["model"].sizes == {1: 24}
    assert [(refusal.component, refusal.method) for refusal in report.refusals] == [("model", "forward")]
    assert "something else" in report.refusals[0].reason or "depend on the calls" in report.refusals[0].reason


def test_what_holds_for_two_is_not_taken_to_hold_for_eight() -> None:
    pipe = pipeline(breaks_down_with_eight)
    with batched(pipe) as b:
        assert all(torch.equal(x, row(n) + 3) for n, x in enumerate(gathered(b, 2)))
        assert b.report().refusals == []
        assert all(torch.equal(x, row(n) + 3) for n, x in enumerate(gathered(b, 8)))
        assert len(b.report().refusals) == 1


@pytest.mark.parametrize(("rows", "expected"), [(2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16)])
def test_classes_of_sizes_are_powers_of_two(rows: int, expected: int) -> None:
    assert size_class(rows) == expected


def test_a_proof_is_made_once_and_again_now_and_then() -> None:
    with batched(pipeline(lambda x: x + 1), prove_every=5) as b:
        gathered(b, 2, steps=5)
        assert b.report().models["model"].proofs == 3
        gathered(b, 2, steps=5)
        assert b.report().models["model"].proofs == 6


def test_a_model_that_begins_to_mix_rows_is_found_out_and_run_alone() -> None:
    pipe = pipeline(lambda x: x + 1)
    with batched(pipe, prove_every=4) as b:
        gathered(b, 2, steps=5)
        pipe.model.function = mixes_rows
        expected = [mixes_rows(row(n)) for n in range(2)]
        assert all(torch.equal(*pair) for pair in zip(gathered(b, 2, steps=1), expected, strict=True))
        assert len(b.report().refusals) == 1


def test_sizes_that_coincide_do_not_pass_by_luck() -> None:
    # as many heads as rows: a table of the heads looks like an argument with rows
    def heads(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale.sum()

    pipe = pipeline(heads)
    scale = torch.tensor([[0.5, 0.75]])
    alone = [pipe(x=row(n), extra={"scale": scale}, output="x") for n in range(3)]
    with batched(pipe) as b:
        results = gathered(b, 3, extra={"scale": scale})
        assert len(b.report().refusals) == 1
    assert all(torch.equal(result, expected) for result, expected in zip(results, alone, strict=True))


def test_timesteps_that_differ_between_runs_are_merged() -> None:
    def step(x: torch.Tensor, timestep: Any) -> torch.Tensor:
        return x * torch.as_tensor(timestep).reshape(-1, 1)

    def number(n: int) -> Any:
        return lambda i: {"timestep": 1.0 + n + i}

    def tensor(n: int) -> Any:
        return lambda i: {"timestep": torch.tensor(1.0 + n + i)}

    pipe = pipeline(step)
    for timestep in (number, tensor):
        with batched(pipe) as b:
            results = gathered_with(b, 4, timestep)
            assert b.report().models["model"].merged == 12
        assert all(torch.equal(x, row(n) * (1.0 + n) * (2.0 + n) * (3.0 + n)) for n, x in enumerate(results))


def gathered_with(b: Any, count: int, extra: Callable[[int], Any]) -> list[Any]:
    together = Gathered(count)
    runs = [b.start(x=row(n), extra=extra(n), around=together, output="x") for n in range(count)]
    return [run.result(PATIENCE) for run in runs]


@pytest.mark.parametrize("deterministic", [False, True])
def test_texts_of_several_lengths_share_a_forward_if_the_model_heeds_the_mask(deterministic: bool) -> None:
    def heeds(x: torch.Tensor, encoder_hidden_states: Any, encoder_hidden_states_mask: Any) -> torch.Tensor:
        weighed = encoder_hidden_states * encoder_hidden_states_mask[..., None]
        return x + weighed.sum(1) / encoder_hidden_states_mask.sum(1, keepdim=True)

    def heedless(x: torch.Tensor, encoder_hidden_states: Any, encoder_hidden_states_mask: Any) -> torch.Tensor:
        return x + encoder_hidden_states.mean(1)

    def text(n: int) -> dict[str, Any]:
        return {
            "encoder_hidden_states": torch.full((1, 5 + n, 4), n + 1.0),
            "encoder_hidden_states_mask": torch.ones(1, 5 + n, dtype=torch.long),
        }

    for function, is_merged in ((heeds, True), (heedless, False)):
        pipe = pipeline(function)
        alone = [pipe(x=row(n), extra=text(n), output="x") for n in range(4)]
        with batched(pipe, deterministic=deterministic) as b:
            results = gathered_with(b, 4, text)
            assert bool(b.report().models["model"].merged) is is_merged
        for result, expected in zip(results, alone, strict=True):
            assert torch.allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", ["its rows", "a tensor without rows", "a list"])
def test_a_call_that_changes_its_arguments_is_made_alone(kind: str, deterministic: bool) -> None:
    def changes(x: torch.Tensor, table: torch.Tensor, notes: list[Any]) -> torch.Tensor:
        if kind == "its rows":
            return x.mul_(2)
        if kind == "a list":
            notes.append(1)
        else:
            table += 1
        return x + table.sum()

    def inputs(n: int) -> dict[str, Any]:
        extra = {"table": torch.zeros(3, 2), "notes": []}
        return {"x": row(n), "extra": extra}

    pipe = pipeline(changes)
    expected = [inputs(n) for n in range(3)]
    alone = [pipe(**each, output="x") for each in expected]
    given = [inputs(n) for n in range(3)]
    with batched(pipe, deterministic=deterministic) as b:
        together = Gathered(3)
        runs = [b.start(**each, around=together, output="x") for each in given]
        results = [run.result(PATIENCE) for run in runs]
        assert [refusal.reason for refusal in b.report().refusals] == ["it changes its arguments"]
    assert all(map(torch.equal, results, alone))
    for one, other in zip(given, expected, strict=True):
        assert torch.equal(one["extra"]["table"], other["extra"]["table"])
        assert one["extra"]["notes"] == other["extra"]["notes"]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", [AssertionError, KeyError, NotImplementedError])
def test_a_model_that_takes_no_batches_is_run_alone_however_it_says_so(
    kind: type[Exception], deterministic: bool
) -> None:
    def one_row(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise kind("one row, please")
        return 2 * x

    with batched(pipeline(one_row), deterministic=deterministic) as b:
        assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(gathered(b, 3)))
        assert f"{kind.__name__}" in b.report().refusals[0].reason


def words(length: int, value: float, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {
        "encoder_hidden_states": torch.full((1, length, 4), value, dtype=dtype),
        "encoder_hidden_states_mask": torch.ones(1, length, dtype=torch.long),
    }


def test_in_deterministic_mode_a_text_that_needs_little_padding_proves_nothing_about_one_that_needs_much() -> None:
    def heedless(x: torch.Tensor, encoder_hidden_states: Any, encoder_hidden_states_mask: Any) -> torch.Tensor:
        return x + encoder_hidden_states.mean(1)

    pipe = pipeline(heedless)
    for length in (64, 63):
        with batched(pipe, deterministic=True) as b:
            b(x=row(0), extra=words(length, 1.0))
            assert torch.allclose(b(x=row(0), extra=words(5, 1.0), output="x"), row(0) + 3)


def test_in_half_precision_two_texts_of_almost_the_same_length_prove_nothing_about_others() -> None:
    def heedless(x: torch.Tensor, encoder_hidden_states: Any, encoder_hidden_states_mask: Any) -> torch.Tensor:
        return encoder_hidden_states.mean(1)

    def call(n: int, length: int) -> Any:
        return words(length, 1.0 + n, torch.bfloat16)

    with batched(pipeline(heedless)) as b:
        gathered_with(b, 2, lambda n: call(n, 62 + 2 * n))
        for n, result in enumerate(gathered_with(b, 2, lambda n: call(n, (62, 5)[n]))):
            assert torch.equal(result, torch.full((1, 4), 1.0 + n, dtype=torch.bfloat16))


def test_in_deterministic_mode_texts_in_outputs_have_the_length_that_they_have_alone() -> None:
    def masks(x: torch.Tensor, encoder_hidden_states: Any, encoder_hidden_states_mask: Any) -> Any:
        return x, encoder_hidden_states * encoder_hidden_states_mask[..., None]

    pipe = pipeline(masks)
    seen: list[Any] = []
    original = masks
    pipe.model.function = original
    with batched(pipe, deterministic=True) as b, torch.no_grad():
        predict = pipe.model.forward

        def note(*args: Any, **kwargs: Any) -> Any:
            made = predict(*args, **kwargs)
            seen.append(made[1].shape[1])
            return made

        pipe.model.forward = note
        for length in (64, 5, 63):
            b(x=row(0), steps=1, extra=words(length, 1.0))
        assert b.report().refusals == []
        pipe.model.forward = predict
    assert seen == [64, 5, 63]


def test_what_was_found_out_is_remembered_of_the_signatures_that_came_last() -> None:
    ledger = Ledger(every=9, most=2)
    ledger.trust("first", 2, "how")
    ledger.refuse("second", "a reason")
    ledger.limit("second", 3)
    assert (ledger.how("first", 2), ledger.how("first", 4)) == ("how", None)
    assert (ledger.refusal("second"), ledger.room("second")) == ("a reason", 3)
    # the first was asked for since
    ledger.trust("third", 2, "how")
    assert (ledger.refusal("second"), ledger.room("second")) == (None, None)
    assert ledger.how("first", 2) == ledger.how("third", 2) == "how"


def test_a_merge_that_fails_where_separate_calls_do_not_is_given_up() -> None:
    def picky(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1 and picky_now:
            raise ValueError("one row, please")
        return 2 * x

    picky_now: list[bool] = []
    pipe = pipeline(picky)
    with batched(pipe) as b:
        gathered(b, 2)
        picky_now.append(True)
        assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(gathered(b, 2)))
        assert "one row, please" in b.report().refusals[0].reason
        assert pipe.model.rows.count(2) == 1 + 3 + 1


def test_outputs_that_cannot_be_told_apart_are_not_shared() -> None:
    class Cache:
        pass

    pipe = pipeline(lambda x: (2 * x, Cache()))
    with batched(pipe) as b:
        assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(gathered(b, 2)))
        assert "`Cache`, which cannot be taken apart" in b.report().refusals[0].reason


def test_every_component_has_its_own_proofs() -> None:
    pipe = pipeline(mixes_rows)
    with batched(pipe) as b:
        gathered(b, 2)
        assert len(b.report().refusals) == 1
    pipe.update_components(model=Model(lambda x: x + 1).eval())
    with batched(pipe) as b:
        gathered(b, 2)
        assert b.report().models["model"].merged > 0
