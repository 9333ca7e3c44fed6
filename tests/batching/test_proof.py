"""A merge is trusted only where it was shown to give the same, for each kind of call and each size of batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from loopwright.batching import batched
from loopwright.batching.proof import size_class
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
