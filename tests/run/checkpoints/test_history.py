"""What the small values of a loop were after each of its iterations, and what it found when it began."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopwright.run.checkpoints.comparison import same
from loopwright.run.checkpoints.decoder import Decoder
from loopwright.run.checkpoints.encoder import Encoder
from loopwright.run.checkpoints.history import Entry, History

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4) | st.binary(max_size=2)
SMALL = st.one_of(
    SCALARS,
    st.sampled_from([torch.tensor(1.5), torch.tensor([1, 2]), torch.tensor([[True]]), torch.tensor([1j])]),
    st.sampled_from([np.float32(0.5), np.int64(3), np.array([1.0, 2.0]), np.array("text")]),
)
VALUES = st.recursive(
    SMALL,
    lambda inner: (
        st.lists(inner, max_size=6) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(), inner)
    ),
    max_leaves=8,
)
LARGE = st.just(torch.ones(100)) | st.builds(object)
MOMENTS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES | LARGE), max_size=8)


def read_back(history: History) -> History:
    return History.read(json.loads(history.written))


def is_small(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) or value.numel() < 100 if type(value) is not object else False


@given(MOMENTS, st.data())
def test_values_are_restored_as_they_were_after_any_iteration(moments: list[dict[str, Any]], data: Any) -> None:
    history = History()
    for index, values in enumerate(moments):
        history.note(index, values)
        if data.draw(st.booleans()):
            history = read_back(history)
    last = moments[-1] if moments else {}
    read = read_back(history)
    for index in data.draw(st.permutations(range(len(moments)))):
        values = dict(last)
        read.restore(index, values)
        for name in {*moments[index], *last}:
            if name in moments[index] and is_small(moments[index][name]):
                assert same(values[name], moments[index][name])
            elif name in last and not is_small(last[name]):
                # what is large is as it is at the end
                assert values[name] is last[name]
            else:
                assert name not in values


def test_what_is_changed_in_place_is_noted_as_it_was() -> None:
    history, values = History(), {"todo": [1, 2, 3], "seen": {"a": torch.zeros(2)}}
    for index in range(3):
        history.note(index, values)
        values["todo"].pop(0)
        values["seen"]["a"].add_(1)
    found: dict[str, Any] = {}
    read_back(history).restore(1, found)
    assert found["todo"] == [2, 3]
    assert found["seen"]["a"].tolist() == [1, 1]


def written_for(change: Any, start: Any, iterations: int) -> list[int]:
    """How long the history is after each iteration."""
    history, value, lengths = History(), start, []
    for index in range(iterations):
        value = change(value, index)
        history.note(index, {"value": value})
        lengths.append(len(history.written))
    return lengths


@pytest.mark.parametrize(
    ("change", "start"),
    [
        (lambda text, i: text + f"step {i:06}: a loss\n", ""),
        (lambda text, i: f"step {i:06}: a loss\n" + text, ""),
        (lambda items, i: [*items, i], []),
        (lambda items, i: items[1:], list(range(900))),
        (lambda items, i: items[:-1], tuple(range(900))),
        (lambda items, i: [*items[:400], i, *items[401:]], [0] * 900),
        (lambda table, i: {**table, f"key {i}": i}, {}),
        (lambda number, i: number + 0.1, 0.0),
        (lambda tensor, i: tensor + 1, torch.zeros(4)),
    ],
    ids=["text", "text at its front", "longer", "shorter", "shorter tuple", "one item", "dict", "number", "tensor"],
)
def test_only_what_changes_is_written(change: Any, start: Any) -> None:
    lengths = written_for(change, start, 800)
    assert lengths[-1] - lengths[399] < 400 * 250
    assert lengths[-1] - lengths[0] < 1.2 * 2 * (lengths[399] - lengths[0])


def test_what_stays_is_written_once() -> None:
    lengths = written_for(lambda value, i: copy.deepcopy(value), {"a": [1, 2.5, "text", None, torch.ones(2)]}, 50)
    assert lengths[0] == lengths[-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda value, i: f"{i} " * 1500,
        lambda value, i: bytes([i % 256]) * 3000,
        lambda value, i: [i + part for part in range(900)],
    ],
    ids=["text", "bytes", "list"],
)
def test_what_is_another_altogether_each_time_is_left_out(change: Any) -> None:
    lengths = written_for(change, None, 200)
    assert max(lengths) < 70_000 + 200 * 1100
    assert lengths[-1] < 100
    history = History()
    for index in range(200):
        history.note(index, {"value": change(None, index), "count": index})
    read = read_back(read_back(history))
    found = {"value": "as it was saved", "count": 199}
    read.restore(20, found)
    assert found == {"value": "as it was saved", "count": 20}
    read = read_back(history)
    read.note(200, {"value": 1, "count": 200})
    assert read_back(read).written == read.written
    assert "value" not in json.dumps(json.loads(read.written)["changes"])


@pytest.mark.parametrize("count", [17, 9_000])
def test_a_long_list_is_noted(count: int) -> None:
    history, values = History(), {"todo": list(range(count))}
    history.note(0, values)
    values["todo"].pop(0)
    history.note(1, values)
    found: dict[str, Any] = {}
    read_back(history).restore(0, found)
    assert found["todo"] == list(range(count))


# What a loop found


def found_again(before: dict[str, Any], change: Any) -> dict[str, Any]:
    """The names of the values that are changed by a function, with what they were."""
    entry = Entry(before)
    change(before)
    encoder = Encoder({}, {})
    for name, value in before.items():
        encoder.encode(value, name)
    written = entry.encoded(encoder, "loop", before)
    decode = Decoder(encoder.tensors.__getitem__, {}.__getitem__, {}, {}).decode
    return {
        "changed": {name: decode(value) for name, value, _ in written["changed"]},
        "same object": [name for name, _, number in written["changed"] if number is not None],
        "new": written["new"],
    }


def test_what_a_loop_found_is_told_where_it_has_changed() -> None:
    def change(values: dict[str, Any]) -> None:
        values["in place"].append(4)
        values["inside"]["a"][0].add(5)
        values["assigned"] = [7]
        values["number"] += 1
        values["tensor"] += 1
        values["new"] = 1
        del values["gone"]

    before = {
        "same": [1],
        "in place": [1],
        "inside": {"a": [{3}]},
        "assigned": [6],
        "number": 1,
        "tensor": torch.zeros(2),
        "large": torch.zeros(100),
        "gone": "text",
    }
    found = found_again(before, change)
    assert found["changed"].pop("tensor").tolist() == [0, 0]
    assert found == {
        "changed": {"in place": [1], "inside": {"a": [{3}]}, "assigned": [6], "number": 1, "gone": "text"},
        "same object": ["in place", "inside", "tensor"],
        "new": ["new"],
    }


def test_what_could_not_be_saved_and_is_gone_does_not_matter() -> None:
    found = found_again({"file": [1, object()]}, lambda values: values.update(file=None))
    assert found["changed"] == {}
