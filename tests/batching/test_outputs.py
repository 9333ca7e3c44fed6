"""Outputs are taken apart by what was learned, and compared as the contract says."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput, Transformer2DModelOutput
from transformers.modeling_outputs import BaseModelOutputWithPooling

from loopwright.batching.outputs import CannotSplitError, Share, difference, learn, same_bits, split
from tests.batching.blocks import row

FIRST, SECOND = Share(0, 1, 3), Share(1, 2, 3)
Pair = namedtuple("Pair", "one two")


def taken_apart(alone: Any, together: Any) -> tuple[Any, Any]:
    how = learn(alone, together, FIRST)
    return split(how, together, FIRST), split(how, together, SECOND)


def test_dataclasses_of_diffusers_and_of_transformers() -> None:
    first, second = taken_apart(Transformer2DModelOutput(row(0)), Transformer2DModelOutput(row(0, rows=3)))
    assert type(first) is Transformer2DModelOutput
    assert torch.equal(first.sample, row(0))
    assert torch.equal(second.sample, row(0, rows=3)[1:])

    def made(rows: int) -> BaseModelOutputWithPooling:
        hidden = row(1, rows=rows)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=hidden, hidden_states=(hidden, hidden)
        )

    first, second = taken_apart(made(1), made(3))
    assert type(second) is BaseModelOutputWithPooling
    assert second[0].shape == (2, 4)
    assert [part.shape for part in second.hidden_states] == [(2, 4), (2, 4)]
    assert second.attentions is None


def test_tuples_with_names() -> None:
    first, second = taken_apart(Pair(row(0), None), Pair(row(0, rows=3), None))
    assert type(second) is Pair
    assert (second.one.shape, second.two) == ((2, 4), None)
    assert first.one.shape == (1, 4)


def test_lists_with_an_entry_for_each_row() -> None:
    together = [torch.full((4, 2), float(n)) for n in range(3)]
    first, second = taken_apart((together[:1],), (together,))
    assert [part[0, 0].item() for part in (*first[0], *second[0])] == [0, 1, 2]


def test_a_distribution_of_latents() -> None:
    def made(rows: int) -> AutoencoderKLOutput:
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(torch.rand(rows, 4, 2, 2)))

    _, second = taken_apart(made(1), made(3))
    assert second.latent_dist.mode().shape == (2, 2, 2, 2)


def test_rows_on_another_axis_and_what_all_have_in_common() -> None:
    together = (torch.rand(5, 3, 2), torch.ones(7))
    first, second = taken_apart((together[0][:, :1], together[1]), together)
    assert torch.equal(second[0], together[0][:, 1:])
    assert torch.equal(second[1], together[1])
    # each gets its own
    second[1].zero_()
    assert first[1].sum() == 7


def test_padding_is_taken_off() -> None:
    together = torch.rand(2, 5, 3)
    how = learn(together[:1, :4], together, Share(0, 1, 2, length=4, padded=5))
    assert torch.equal(split(how, together, Share(1, 1, 2, length=3, padded=5)), together[1:, :3])


@pytest.mark.parametrize(
    ("alone", "together", "message"),
    [
        (object(), object(), "`object`, which cannot be taken apart"),
        (row(0), [row(0)], "alone it gives `Tensor`, together `list`"),
        ((row(0),), (row(0, rows=3), row(0, rows=3)), "other parts"),
        (row(0), row(0, rows=4), "alone its output has the shape"),
        (row(0), row(0)[0], "other axes"),
        (1, 2, "cannot be taken apart"),
    ],
)
def test_what_cannot_be_taken_apart(alone: Any, together: Any, message: str) -> None:
    with pytest.raises(CannotSplitError, match=message):
        learn(alone, together, FIRST)


def test_an_output_that_is_not_what_was_learned() -> None:
    how = learn(row(0), row(0, rows=3), FIRST)
    for other in (row(0, rows=2), [row(0)]):
        with pytest.raises(CannotSplitError):
            split(how, other, SECOND)


def test_rounding_is_no_difference_and_more_is() -> None:
    one = torch.randn(4, 4)
    assert difference((one,), (one + 1e-6,)) is None
    assert "values up to 0.01" in str(difference((one,), (one + 0.01,)))
    assert difference(one.bfloat16(), (one + 1e-3).bfloat16()) is None
    assert difference(one, one.where(one > 0, torch.nan)) == "other places with no number"
    assert difference(torch.tensor([1]), torch.tensor([2])) == "other whole numbers"
    assert difference(one, one.double()) is not None
    assert difference({"a": 1}, {"b": 1}) == "parts are missing"


def test_bits_are_compared_bit_by_bit() -> None:
    zero = torch.zeros(2)
    assert same_bits((zero, "a"), (zero.clone(), "a"))
    assert not same_bits(zero, -zero)
    assert same_bits(zero / 0, zero / 0)
    assert not same_bits(zero, zero.double())
