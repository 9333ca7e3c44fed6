"""One checkpoint as one file: a damaged one is refused before any of it is believed."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from loopwright.errors import CheckpointDamagedError, CheckpointError
from loopwright.run.checkpoints.file import TensorFiles, file_name
from tests.run.blocks import counting
from tests.run.checkpoints.storages import Memory, saved_run

PIPE = counting()
_, SAVED = saved_run(PIPE, x=1)
LAST = SAVED.names()[-1]


def refused(data: bytes) -> str:
    """What resuming says of a folder whose last file has these bytes."""
    storage = Memory({**SAVED.files, LAST: data})
    with pytest.raises(CheckpointDamagedError) as raised:
        PIPE.resume(storage)
    return str(raised.value)


DAMAGED = (
    f"`{LAST}` in the memory is damaged: its bytes are not those that were written; the one before may be whole: "
    f"`pipe.resume(..., fall_back=True)` goes on from there"
)


@pytest.mark.parametrize("place", range(0, len(SAVED.files[LAST]), 97))
def test_a_byte_that_has_turned_is_noticed(place: int) -> None:
    data = bytearray(SAVED.files[LAST])
    data[place] ^= 0x10
    assert refused(bytes(data)) == DAMAGED


@given(st.data())
def test_any_bytes_that_have_changed_are_noticed(data: Any) -> None:
    good = SAVED.files[LAST]
    start = data.draw(st.integers(0, len(good) - 1))
    new = data.draw(st.binary(min_size=1, max_size=64).filter(lambda new: new != good[start : start + len(new)]))
    assert refused(good[:start] + new + good[start + len(new) :]) == DAMAGED


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, len(SAVED.files[LAST]) - 1])
def test_a_file_that_was_cut_is_noticed(length: int) -> None:
    assert refused(SAVED.files[LAST][:length]) == DAMAGED


def test_an_earlier_checkpoint_is_taken_only_when_told_and_it_says_so() -> None:
    storage = Memory({**SAVED.files, LAST: b""})
    with pytest.warns(UserWarning, match="is damaged") as warned:
        run = PIPE.resume(storage, fall_back=True)
    assert str(warned[0].message) == f"`{LAST}` is damaged; the run goes on from iteration 2 instead"
    assert run.result().x == 8
    assert storage.iterations == SAVED.iterations
    assert PIPE.resume(storage).result().x == 8


def test_nothing_to_fall_back_to_is_an_error() -> None:
    storage = Memory(dict.fromkeys(SAVED.files, b"\0"))
    with pytest.raises(CheckpointDamagedError, match="is damaged: its bytes are not those that were written"):
        PIPE.resume(storage, fall_back=True)


def test_an_intact_folder_is_resumed_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PIPE.resume(Memory(SAVED.files), fall_back=True).result().x == 8


def test_a_file_that_another_one_needs_and_that_is_gone_is_named() -> None:
    first = SAVED.names()[0]
    storage = Memory(SAVED.files)
    storage.remove(first)
    with pytest.raises(CheckpointDamagedError) as raised:
        PIPE.resume(storage)
    assert f"`{first}` in the memory is gone, and a checkpoint needs it" in str(raised.value)


def header(text: str) -> bytes:
    return save({}, metadata={"loopwright": text})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        save({"x": torch.zeros(1)}),
        header("not json"),
        header("[1]"),
        header("[" * 100_000 + "]" * 100_000),
    ],
)
def test_what_is_no_checkpoint_is_refused_though_its_name_fits(data: bytes) -> None:
    name = file_name(1, data)
    with pytest.raises(CheckpointDamagedError, match=f"`{name}` is not a checkpoint: "):
        PIPE.resume(Memory({name: data}))


def test_a_file_of_another_version_is_refused() -> None:
    data = header(json.dumps({"format": 99}))
    with pytest.raises(CheckpointError) as raised:
        PIPE.resume(Memory({file_name(1, data): data}))
    assert str(raised.value) == f"`{file_name(1, data)}` is of format 99; this version reads format 2"


def test_a_tensor_that_has_not_changed_is_not_written_again() -> None:
    memory = Memory()
    files, large = TensorFiles(memory), torch.rand(10_000)
    files.write(1, {}, {}, {"a": large, "b": large.clone(), "c": torch.ones(2)})
    _, references = files.write(2, {}, {}, {"x": large, "c": torch.zeros(2)})
    first, second = memory.names()
    assert len(memory.files[first]) < 41_000
    assert len(memory.files[second]) < 1_000
    assert references == {first}
    large[0] = 5
    name, references = files.write(3, {}, {}, {"x": large})
    assert len(memory.files[name]) > 40_000
    assert references == set()


def test_a_second_checkpoint_of_an_iteration_does_not_need_the_first() -> None:
    memory = Memory()
    files, large = TensorFiles(memory), torch.rand(10_000)
    files.write(1, {}, {"take": 1}, {"a": large})
    name, references = files.write(1, {}, {"take": 2}, {"a": large})
    assert references == set()
    assert len(memory.files[name]) > 40_000


class Elsewhere(torch.Tensor):
    """Says that it is not in the memory of the CPU."""

    device = torch.device("cuda", 0)


def test_a_tensor_on_another_device_that_is_written_through_its_data_is_written_again() -> None:
    memory = Memory()
    files, tensor = TensorFiles(memory), torch.rand(10_000).as_subclass(Elsewhere)
    first, _ = files.write(1, {}, {}, {"x": tensor})
    assert files.write(2, {}, {}, {"x": tensor})[1] == {first}
    tensor.data[5] = 3.0
    assert files.write(3, {}, {}, {"x": tensor})[1] == set()
    tensor.add_(1)
    assert files.write(4, {}, {}, {"x": tensor})[1] == set()
