"""Whether the elements of a tensor are still the same: any way to write to it is noticed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopwright.run.checkpoints.checksum import checksum

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64]


def filled(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)).mul(100).to(dtype)


@given(st.integers(1, 400), st.integers(1, 100), st.sampled_from(DTYPES), st.data())
def test_a_bit_that_turns_anywhere_is_noticed(rows: int, columns: int, dtype: torch.dtype, data: Any) -> None:
    tensor = filled(rows, columns, dtype)
    before = checksum(tensor)
    assert checksum(tensor.clone()) == before
    view = tensor.view(torch.uint8).view(-1).numpy()
    bit = data.draw(st.integers(0, 0 if dtype == torch.bool else 7))
    view[data.draw(st.integers(0, len(view) - 1))] ^= 1 << bit
    assert checksum(tensor) != before


@pytest.mark.parametrize("columns", [3, 8, 31, 32, 64])
def test_rows_that_lie_any_distance_apart_and_change_places_are_noticed(columns: int) -> None:
    tensor = torch.arange(float(700 * columns)).view(700, columns)
    before = checksum(tensor)
    for distance in range(1, 700):
        changed = tensor.clone()
        changed[[0, distance]] = changed[[distance, 0]]
        assert checksum(changed) != before


@given(st.integers(2, 700), st.sampled_from([1, 2, 3, 8, 31, 32, 64]), st.data())
def test_rows_that_change_places_are_noticed(rows: int, columns: int, data: Any) -> None:
    tensor = torch.arange(float(rows * columns)).view(rows, columns)
    before = checksum(tensor)
    first, second = data.draw(st.lists(st.integers(0, rows - 1), min_size=2, max_size=2, unique=True))
    tensor[[first, second]] = tensor[[second, first]]
    assert checksum(tensor) != before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [100, 1023, 1024])
def test_all_signs_that_turn_are_noticed(rows: int, dtype: torch.dtype) -> None:
    tensor = filled(rows, 62, dtype)
    before = checksum(tensor)
    tensor.data.neg_()
    assert checksum(tensor) != before


@pytest.mark.parametrize("change", [lambda x: x.mul_(2), lambda x: x.copy_(x.flip(0)), lambda x: x.copy_(x.roll(1, 1))])
def test_all_elements_that_change_are_noticed(change: Any) -> None:
    tensor = filled(512, 64, torch.float64)
    before = checksum(tensor)
    change(tensor.data)
    assert checksum(tensor) != before


@pytest.mark.parametrize(
    "view",
    [
        lambda base: base.t(),
        lambda base: base.reshape(-1)[1:],
        lambda base: base[::3],
        lambda base: base[:, 5:9],
        lambda base: base[0].expand(3000, 64),
        lambda base: base.to(torch.complex64).conj(),
        lambda base: base[:0],
        lambda base: base[0, 0],
    ],
)
def test_a_view_has_the_sum_of_its_elements(view: Any) -> None:
    base = filled(512, 64)
    assert checksum(view(base)) == checksum(view(base.clone()))


def test_elements_are_counted_in_inference_mode_and_with_gradients() -> None:
    tensor = filled(512, 64)
    before = checksum(tensor)
    assert checksum(torch.nn.Parameter(tensor)) == before
    with torch.inference_mode():
        assert checksum(tensor.clone()) == before
