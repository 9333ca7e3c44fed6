"""Recordings in Chrome's Trace Event Format: what is written comes back, and what others wrote is read if it can be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loopwright.describe.trace import BlockTimes, LoopTimes, Recording, Span, read_trace, table, write_trace
from loopwright.errors import InvalidInputError

RECORDING = Recording(
    elapsed=3.0,
    waited=2.0,
    blocks=(
        BlockTimes("", "pipeline", None, 1, 3.0, 1.0, 3.0, None),
        BlockTimes("a.b", "a.b", "", 2, 2.0, 2.0, 1.5, 7),
    ),
    iterations=(LoopTimes("a.b", 4, 1.5, 1.0),),
    spans=(
        Span("block", "pipeline", "", None, 0.0, 3.0),
        Span("block", "a.b", "a.b", None, 0.25, 2.0),
        Span("iteration", "iteration 3", "a.b", 3, 0.5, 1.0),
        Span("waiting", "waiting", "", None, 3.0, 5.0),
    ),
    dropped=12,
    memory=((1.0, 2**20),),
    memory_kind="of the test",
    asynchronous=True,
)


def event(name: str, start: float, length: float, **others: Any) -> dict[str, Any]:
    return {"name": name, "ph": "X", "ts": start, "dur": length, "pid": 1, "tid": 1, **others}


def test_what_is_written_comes_back() -> None:
    read = read_trace(json.loads(json.dumps(write_trace(RECORDING, process=5, thread=6))))
    assert [span._replace(track="") for span in read.spans] == list(RECORDING.spans)
    for name in ("elapsed", "waited", "blocks", "iterations", "dropped", "memory", "memory_kind", "asynchronous"):
        assert getattr(read, name) == getattr(RECORDING, name)


def test_dropped_spans_are_named_in_the_viewer() -> None:
    labels = [event for event in write_trace(RECORDING, 5, 6)["traceEvents"] if event["name"] == "process_labels"]
    assert [event["args"] for event in labels] == [{"labels": "12 earlier spans were dropped"}]


def test_the_spans_of_other_programs_are_added_up_by_name() -> None:
    events = [event("outer", 1e6, 10e6), event("inner", 2e6, 3e6), event("inner", 6e6, 1e6), {"ph": "M", "name": "x"}]
    for trace in (events, {"traceEvents": events, "otherData": {"producer": "another"}}):
        read = read_trace(trace)
        assert [
            (block.path, block.calls, block.seconds, block.own_seconds, block.longest) for block in read.blocks
        ] == [
            ("outer", 1, 10.0, 6.0, 10.0),
            ("inner", 2, 4.0, 4.0, 3.0),
        ]
        assert (read.elapsed, read.spans[0].start) == (10.0, 0.0)
        assert "outer" in table(read)


@pytest.mark.parametrize("other", [None, 3, {}, {"elapsed": "long"}, {"producer": "loopwright", "blocks": [1]}])
def test_totals_that_are_not_as_they_were_written_are_left_out(other: Any) -> None:
    assert read_trace({"traceEvents": [event("a", 0, 1e6)], "otherData": other}).elapsed == 1.0


@pytest.mark.parametrize(
    "bad",
    [
        event("a", 0, -1),
        event("a", 0, float("nan")),
        event("a", True, 1),
        {"name": "a", "ph": "X"},
        event("a", "0", 1),
        {"name": "memory", "ph": "C", "ts": None, "args": {"MiB": "much"}},
        {"name": "memory", "ph": "C", "args": 3},
    ],
)
def test_events_that_are_not_well_formed_are_passed_over(bad: dict[str, Any]) -> None:
    read = read_trace([bad, event("b", 0, 1e6)])
    assert ([span.name for span in read.spans], read.memory) == (["b"], ())


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (3, "not a Chrome trace: it holds an int, and must hold `traceEvents`, a list of events"),
        (
            {"blocks": []},
            "not a Chrome trace: it holds an object without `traceEvents`, and must hold `traceEvents`, a list of "
            "events",
        ),
        ([1], "not a Chrome trace: one of its events is an int, not an object"),
        ([], 'a Chrome trace without complete events (`"ph": "X"`): there is nothing to show'),
    ],
)
def test_what_is_no_trace_is_refused(loaded: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_trace(loaded)
    assert str(caught.value) == message
