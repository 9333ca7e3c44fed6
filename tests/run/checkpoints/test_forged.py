"""A file that somebody has changed and named again, so that its digest fits: refused, or a run like any other.

Nothing in a file is executed, and no bytes of it end the interpreter.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from loopwright import InputParam, OutputParam
from loopwright.errors import CheckpointDamagedError, LoopwrightError, RunTimeoutError
from loopwright.run.checkpoints.file import file_name
from tests.blocks.arithmetic import Repeat
from tests.run.blocks import PATIENCE, Do, pipeline
from tests.run.checkpoints.storages import Memory, saved_run


class Many(Do):
    """Reads and writes values of many kinds."""

    inputs = [*Do.inputs, InputParam("values"), InputParam("generator")]
    intermediate_outputs = [*Do.intermediate_outputs, OutputParam("values")]


VALUES = {
    "tensor": torch.arange(6.0).reshape(2, 3).T,
    "array": np.arange(4),
    "tuple": (1, 2.5, "three", None, 4j),
    "set": {1, 2},
    "scalar": np.float32(0.5),
    "bytes": b"123",
    "dtype": torch.float16,
    "size": torch.Size([1, 2]),
    "range": range(1, 5),
}
PIPE = pipeline(loop=Repeat.from_blocks_dict({"do": Many(lambda _, x, i: x)}))
_, SAVED = saved_run(PIPE, x=1, values=VALUES, generator=torch.Generator().manual_seed(1))
# the first one refers to no other file
WHOLE = SAVED.files[SAVED.names()[0]]
TENSORS_BEGIN = 8 + int.from_bytes(WHOLE[:8], "little")


def resumed(data: bytes) -> str:
    """How resuming ends from a file of these bytes, with a name that fits."""
    try:
        # one that says that there are 10**30 iterations runs until it is stopped
        PIPE.resume(Memory({file_name(1, data): data}), timeout=2).result(PATIENCE)
    except RunTimeoutError:
        return "ran"
    except LoopwrightError:
        return "refused"
    except Exception as error:
        # a block was given another value than it can work with
        return "ran" if "in block `loop" in str(getattr(error, "__notes__", "")) else "failed"
    return "ran"


def body() -> Any:
    written = json.loads(WHOLE[8:TENSORS_BEGIN])["__metadata__"]
    return {name: value for part in written.values() for name, value in json.loads(part).items()}


def with_body(changed: Any) -> bytes:
    return save(load(WHOLE), metadata={"loopwright": json.dumps(changed)})


def test_the_file_as_it_was_goes_on() -> None:
    assert resumed(WHOLE) == "ran"
    assert resumed(with_body(body())) == "ran"


@pytest.mark.parametrize("turned", [0x01, 0x10])
@pytest.mark.parametrize("part", range(8))
def test_bytes_of_the_header_that_have_turned_are_refused_or_change_a_value(part: int, turned: int) -> None:
    for place in range(part, TENSORS_BEGIN, 8 * 11):
        data = bytearray(WHOLE)
        data[place] ^= turned
        assert resumed(bytes(data)) in ("refused", "ran")


def test_bytes_of_tensors_that_have_turned_are_refused_or_change_a_value() -> None:
    for place in range(TENSORS_BEGIN, len(WHOLE), 211):
        data = bytearray(WHOLE)
        data[place] ^= 0xFF
        assert resumed(bytes(data)) in ("refused", "ran")


def test_a_file_that_was_cut_is_refused() -> None:
    assert {resumed(WHOLE[:length]) for length in range(0, len(WHOLE), 101)} == {"refused"}


def test_a_header_that_says_that_it_is_longer_than_the_file_is_refused() -> None:
    for length in (0, 1, len(WHOLE), 2**31, 2**63, 2**64 - 1):
        assert resumed(length.to_bytes(8, "little") + WHOLE[8:]) == "refused"


def every_place(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value inside a value of JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inside for place in [(*path, key), *every_place(item, (*path, key))]]


PLACES = every_place(body())


@pytest.mark.parametrize("other", [None, -1, 10**30, "x", [], {}, [[]], {"$": "list"}], ids=repr)
def test_any_value_of_the_header_that_is_another_one_is_refused_or_changes_a_value(other: Any) -> None:
    for place in PLACES[:: len(PLACES) // 60]:
        changed = body()
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = other
        assert resumed(with_body(changed)) in ("refused", "ran"), place


@pytest.mark.parametrize("missing", sorted(body().keys() - {"format"}))
def test_what_is_missing_from_the_header_is_named(missing: str) -> None:
    changed = body()
    del changed[missing]
    data = with_body(changed)
    name = file_name(1, data)
    with pytest.raises(CheckpointDamagedError) as raised:
        PIPE.resume(Memory({name: data}))
    assert str(raised.value) == f"`{name}` is not a checkpoint: its header has no `{missing}`"


@pytest.mark.parametrize("cls", ["os:system", "subprocess:Popen", "builtins:eval", "tests.run.blocks:Turnstile"])
def test_no_class_is_made_because_a_file_names_it(cls: str) -> None:
    changed = body()
    changed["state"]["values"][0][1] = {"$": "object", "class": cls, "attributes": [], "number": 999}
    data = with_body(changed)
    with pytest.raises(CheckpointDamagedError, match=f"the checkpoint holds an object of class `{cls}`, which neither"):
        PIPE.resume(Memory({file_name(1, data): data}))
