"""What calls have in common, how their arguments are put together, and that outputs are taken apart again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopwright.batching.arguments import Arguments, describe, merge
from loopwright.batching.contents import Contents
from loopwright.batching.outputs import learn, same_bits, split
from loopwright.batching.proof import shares, vary
from tests.batching.blocks import row

NAMES = ("hidden_states", "timestep")


def described(*args: Any, fixed: bool = False, **kwargs: Any) -> Arguments:
    made = describe(NAMES, args, kwargs, Contents(), fixed)
    assert isinstance(made, Arguments), made
    return made


def merged(*calls: Arguments, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    assert len({call.key for call in calls}) == 1
    return merge(calls, **options)


def test_rows_are_concatenated() -> None:
    args, kwargs = merged(described(row(1), text=row(2)), described(row(3, rows=2), text=row(4, rows=2)))
    assert torch.equal(args[0], torch.cat([row(1), row(3, rows=2)]))
    assert torch.equal(kwargs["text"], torch.cat([row(2), row(4, rows=2)]))


def test_timesteps_become_one_for_each_row() -> None:
    calls = [described(row(0, rows=2), torch.tensor(7)), described(row(1), torch.tensor(3))]
    assert merged(*calls)[0][1].tolist() == [7, 7, 3]
    calls = [described(row(0, rows=2), timestep=0.5), described(row(1), timestep=0.25)]
    assert merged(*calls)[1]["timestep"].tolist() == [0.5, 0.5, 0.25]


def test_tensors_without_rows_must_be_equal() -> None:
    one, same, other = torch.arange(6).reshape(3, 2), torch.arange(6).reshape(3, 2), torch.ones(3, 2, dtype=torch.long)
    assert described(row(0), ids=one).key == described(row(1), ids=same).key
    assert described(row(0), ids=one).key != described(row(1), ids=other).key
    assert described(row(0), ids=one).proof_key == described(row(1), ids=other).proof_key
    assert merged(described(row(0), ids=one), described(row(1), ids=same))[1]["ids"] is one


def test_plain_values_must_be_equal() -> None:
    assert described(row(0), scale=1.0).key == described(row(1), scale=1.0).key
    for other in (2.0, 1, True, None, "1.0"):
        assert described(row(0), scale=1.0).key != described(row(1), scale=other).key


def test_shapes_dtypes_and_names_must_be_equal() -> None:
    key = described(row(0)).key
    assert key != described(row(0, width=5)).key
    assert key != described(row(0).double()).key
    assert key != described(hidden_states=row(0)).key
    assert key == described(row(0, rows=3)).key


def test_dicts_lists_and_none_are_gone_through() -> None:
    def call(value: float) -> Arguments:
        return described(row(value), None, added={"size": row(value), "none": None, "pair": (row(value), "same")})

    _, kwargs = merged(call(1), call(2))
    assert kwargs["added"]["none"] is None
    assert torch.equal(kwargs["added"]["size"], torch.cat([row(1), row(2)]))
    assert torch.equal(kwargs["added"]["pair"][0], torch.cat([row(1), row(2)]))
    assert kwargs["added"]["pair"][1] == "same"


def test_lists_with_an_entry_for_each_row_are_joined() -> None:
    ragged = [described([torch.ones(4, 2)], cap=[torch.ones(n, 3)], shapes=[[(1, 2, 2)]]) for n in (5, 7)]
    args, kwargs = merged(*ragged)
    assert [len(part) for part in kwargs["cap"]] == [5, 7]
    assert kwargs["shapes"] == [[(1, 2, 2)], [(1, 2, 2)]]
    assert len(args[0]) == 2


def test_lists_of_whole_batches_are_gone_through() -> None:
    def call(value: float) -> Arguments:
        return described(row(value), residuals=[torch.full((1, 2, 3), value), torch.full((1, 3, 2), value)])

    _, kwargs = merged(call(1), call(2))
    assert [tuple(part.shape) for part in kwargs["residuals"]] == [(2, 2, 3), (2, 3, 2)]


def test_texts_with_a_mask_are_padded_and_the_mask_says_so() -> None:
    def call(length: int, **options: Any) -> Arguments:
        text, mask = torch.ones(1, length, 3), torch.ones(1, length, dtype=torch.long)
        return described(row(0), encoder_hidden_states=text, encoder_hidden_states_mask=mask, **options)

    _, kwargs = merged(call(3), call(5))
    assert kwargs["encoder_hidden_states"].shape == (2, 5, 3)
    assert kwargs["encoder_hidden_states_mask"].sum(1).tolist() == [3, 5]
    # to a length that follows from each call alone
    _, kwargs = merged(call(3, fixed=True), call(5, fixed=True), fixed=True)
    assert kwargs["encoder_hidden_states"].shape == (2, 64, 3)
    assert call(64, fixed=True).key != call(65, fixed=True).key


def test_texts_without_a_mask_are_not_padded() -> None:
    assert described(row(0), text=torch.ones(1, 3, 2)).key != described(row(0), text=torch.ones(1, 4, 2)).key


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "`cache` holds an object of class `object`"),
        ({"inner": [{1, 2}]}, "`cache` holds an object of class `set`"),
        (torch.eye(2).to_sparse(), "do not lie one after the other"),
    ],
)
def test_what_may_be_changed_by_the_call_is_never_merged(value: Any, message: str) -> None:
    reason = describe(NAMES, (row(0),), {"cache": value}, Contents())
    assert isinstance(reason, str)
    assert message in reason


def test_a_call_without_rows_is_not_merged() -> None:
    assert describe(NAMES, (1, "a"), {}, Contents()) == "it has no argument with rows"


def test_a_batch_is_filled_with_rows_of_its_first_call() -> None:
    calls = [described(row(1, rows=2), torch.tensor(5)), described(row(2, rows=2), torch.tensor(6))]
    args, _ = merged(*calls, fill_to=7)
    assert torch.equal(args[0][4:], torch.cat([row(1, rows=2)] * 2)[:3])
    assert args[1].tolist() == [5, 5, 6, 6, 5, 5, 5]


def test_in_deterministic_mode_it_does_not_matter_how_partners_lie_in_memory() -> None:
    plain = torch.rand(1, 3, 4, 4)
    last = plain.to(memory_format=torch.channels_last)
    strides = {
        merged(*map(fixed, order), fixed=True)[0][0].stride()
        for order in ((plain, plain), (last, last), (plain, last), (last, plain))
    }
    assert strides == {torch.empty(2, 3, 4, 4).stride()}
    # nobody puts these together, so each keeps its own
    table = torch.rand(3, 2)
    assert fixed(plain, ids=table).key == fixed(plain, ids=table.clone()).key
    assert fixed(plain, ids=table).key != fixed(plain, ids=table.T.contiguous().T).key


def fixed(*args: Any, **kwargs: Any) -> Arguments:
    return described(*args, **kwargs, fixed=True)


@pytest.mark.parametrize("view", [torch.conj, torch._neg_view])
def test_tensors_that_are_views_of_a_kind_have_contents(view: Any) -> None:
    table = torch.rand(3, 2, dtype=torch.complex64)
    assert described(row(0), ids=view(table)).key == described(row(0), ids=view(table).clone()).key
    assert described(row(0), ids=view(table)).key != described(row(0), ids=table).key


def test_one_element_that_is_expanded_has_contents() -> None:
    scale = torch.tensor(0.5).expand(1)
    assert described(row(0, rows=2), scale=scale).key == described(row(1, rows=2), scale=scale.clone()).key
    assert same_bits(scale, scale.clone())


def test_contents_are_looked_at_once_for_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (looked.append(1), original(tensor))[1])
    contents, ids = Contents(), torch.arange(6).reshape(3, 2)
    for _ in range(5):
        describe(NAMES, (row(0),), {"ids": ids}, contents)
    assert len(looked) == 1
    before = contents.digest(ids)
    ids[0, 0] = 9
    assert contents.digest(ids) != before


tensors = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool])
trees = st.recursive(
    st.one_of(tensors, st.none(), st.integers(0, 3), st.text(max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


def filled(tree: Any, rows: int, generator: torch.Generator) -> Any:
    """Arguments of that structure, tensors with so many rows in place of dtypes."""
    if isinstance(tree, torch.dtype):
        return torch.randint(0, 9, (rows, 2, 3), generator=generator).to(tree)
    if isinstance(tree, tuple):
        return tuple(filled(part, rows, generator) for part in tree)
    if isinstance(tree, dict):
        return {name: filled(part, rows, generator) for name, part in tree.items()}
    return tree


@given(tree=trees, rows=st.lists(st.integers(1, 3), min_size=2, max_size=5), seed=st.integers(0, 100))
def test_what_is_put_together_is_taken_apart_again(tree: Any, rows: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    given_ = [filled(tree, count, generator) for count in rows]
    calls = [described(torch.rand(n, 2, generator=generator), part=part) for n, part in zip(rows, given_, strict=True)]
    _, kwargs = merged(*calls)
    how = learn(given_[0], kwargs["part"], shares(calls)[0])
    for part, share in zip(given_, shares(calls), strict=True):
        assert same_bits(split(how, kwargs["part"], share), part)


@given(
    rows=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    alike=st.booleans(),
)
def test_varied_calls_differ_in_every_row_of_every_argument(rows: list[int], dtype: torch.dtype, alike: bool) -> None:
    def tensor(count: int, start: int) -> torch.Tensor:
        return (torch.arange(40) + (0 if alike else start)).repeat(count, 1).to(dtype)

    calls = [
        described(tensor(count, n), torch.tensor(500), mask=torch.ones(count, 40, dtype=torch.long))
        for n, count in enumerate(rows)
    ]
    varied = vary(calls)
    args, kwargs = merged(*varied)
    assert len(args[0].unique(dim=0)) == sum(rows)
    assert len(args[1].unique()) == len(rows)
    assert len(kwargs["mask"].unique(dim=0)) == sum(rows)
    assert (kwargs["mask"].sum(1) > 0).all()
