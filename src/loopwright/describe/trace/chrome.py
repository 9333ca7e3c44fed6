"""Recordings in the Trace Event Format, which chrome://tracing and https://ui.perfetto.dev open.

The format is described in "Trace Event Format" by the authors of Chrome's trace viewer. Written is its JSON object
form: metadata events for the names, a complete event for each span, a counter event for each reading of memory, with
times in microseconds. The totals, which go further back than the spans, are in `otherData`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeGuard

from loopwright.describe.trace.recording import (
    BLOCK,
    ITERATION,
    WAITING,
    BlockTimes,
    LoopTimes,
    Recording,
    Span,
    nested,
)
from loopwright.errors import InvalidInputError, kind_of

__all__ = ["read_trace", "write_trace"]

_PRODUCER = "loopwright"
_MICRO, _DIGITS = 1e6, 3


def write_trace(recording: Recording, process: int, thread: int) -> dict[str, Any]:
    """A recording as an object that is written as JSON.

    Args:
        recording: the recording.
        process: the id of the process of the run.
        thread: the id of its thread.
    """
    place = {"pid": process, "tid": thread}
    events = [_metadata("process_name", place, "name", _PRODUCER), _metadata("thread_name", place, "name", "run")]
    if recording.dropped:
        label = f"{recording.dropped} earlier spans were dropped"
        events.append(_metadata("process_labels", place, "labels", label))
    events += [_complete(span, place) for span in recording.spans]
    for moment, count in recording.memory:
        reading = {"ts": _micro(moment), **place, "args": {"MiB": round(count / 2**20, 3)}}
        events.append({"name": "memory", "cat": "memory", "ph": "C", **reading})
    other = {
        "producer": _PRODUCER,
        "elapsed": recording.elapsed,
        "waited": recording.waited,
        "dropped_spans": recording.dropped,
        "memory_kind": recording.memory_kind,
        "asynchronous": recording.asynchronous,
        "blocks": [asdict(block) for block in recording.blocks],
        "iterations": [asdict(loop) for loop in recording.iterations],
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def _metadata(name: str, place: dict[str, int], argument: str, value: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "ts": 0, **place, "args": {argument: value}}


def _complete(span: Span, place: dict[str, int]) -> dict[str, Any]:
    arguments: dict[str, Any] = {} if span.kind == WAITING else {"path": span.path}
    if span.iteration is not None:
        arguments["index"] = span.iteration
    start = _micro(span.start)
    return {
        "name": span.name,
        "cat": span.kind,
        "ph": "X",
        "ts": start,
        # from rounded times, so that a span never ends after the one around it
        "dur": round(_micro(span.end) - start, _DIGITS),
        **place,
        "args": arguments,
    }


def _micro(seconds: float) -> float:
    return round(seconds * _MICRO, _DIGITS)


def read_trace(loaded: Any) -> Recording:
    """The recording in an object that was read from JSON; of files that others wrote, their complete events.

    Raises:
        InvalidInputError: it is not a trace in this format, or has no complete events.
    """
    events = loaded.get("traceEvents") if isinstance(loaded, dict) else loaded
    if not isinstance(events, list):
        given = "an object without `traceEvents`" if isinstance(loaded, dict) else kind_of(loaded)
        raise InvalidInputError(f"not a Chrome trace: it holds {given}, and must hold `traceEvents`, a list of events")
    for event in events:
        if not isinstance(event, dict):
            raise InvalidInputError(f"not a Chrome trace: one of its events is {kind_of(event)}, not an object")
    spans = sorted(filter(None, map(_span, events)), key=lambda span: (span.start, -span.end))
    if not spans:
        raise InvalidInputError('a Chrome trace without complete events (`"ph": "X"`): there is nothing to show')
    # a stored trace may have any beginning
    began = 0.0 if _is_own(loaded) else spans[0].start
    spans = [span._replace(start=span.start - began, end=span.end - began) for span in spans]
    memory = tuple((moment - began, count) for moment, count in filter(None, map(_reading, events)))
    try:
        return _with_totals(loaded["otherData"], spans, memory)
    except (KeyError, TypeError, ValueError):
        return _added_up(spans, memory)


def _is_own(loaded: Any) -> bool:
    other = loaded.get("otherData") if isinstance(loaded, dict) else None
    return isinstance(other, dict) and other.get("producer") == _PRODUCER


def _span(event: dict[str, Any]) -> Span | None:
    """The span of a complete event, None for another event, or one that is not well formed."""
    start, length, arguments = event.get("ts"), event.get("dur", 0), event.get("args")
    if event.get("ph") != "X" or not _is_number(start) or not _is_number(length) or length < 0:
        return None
    path = arguments.get("path") if isinstance(arguments, dict) else None
    index = arguments.get("index") if isinstance(arguments, dict) else None
    kind = event.get("cat") if event.get("cat") in (ITERATION, WAITING) else BLOCK
    return Span(
        kind=str(kind),
        name=str(event.get("name", "")),
        path="" if kind == WAITING else path if isinstance(path, str) else str(event.get("name", "")),
        iteration=index if kind == ITERATION and isinstance(index, int) else None,
        start=start / _MICRO,
        end=round(start + length, _DIGITS) / _MICRO,
        track=f"process {event.get('pid', 0)}, thread {event.get('tid', 0)}",
    )


def _reading(event: dict[str, Any]) -> tuple[float, int] | None:
    """What a counter event of memory says."""
    moment, arguments = event.get("ts"), event.get("args")
    if event.get("ph") != "C" or event.get("name") != "memory" or not isinstance(arguments, dict):
        return None
    count = arguments.get("MiB")
    return (moment / _MICRO, round(count * 2**20)) if _is_number(moment) and _is_number(count) else None


def _is_number(value: Any) -> TypeGuard[float]:
    # JSON as Python reads it has NaN and infinities
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def _with_totals(other: Any, spans: list[Span], memory: tuple[tuple[float, int], ...]) -> Recording:
    """The recording of a file that `write_trace` made."""
    return Recording(
        elapsed=float(other["elapsed"]),
        waited=float(other["waited"]),
        blocks=tuple(map(_block_times, other["blocks"])),
        iterations=tuple(
            LoopTimes(str(loop["path"]), int(loop["count"]), float(loop["seconds"]), float(loop["longest"]))
            for loop in other["iterations"]
        ),
        spans=tuple(spans),
        dropped=int(other["dropped_spans"]),
        memory=memory,
        memory_kind=None if other["memory_kind"] is None else str(other["memory_kind"]),
        asynchronous=bool(other["asynchronous"]),
    )


def _block_times(block: Any) -> BlockTimes:
    return BlockTimes(
        path=str(block["path"]),
        name=str(block["name"]),
        outer=None if block["outer"] is None else str(block["outer"]),
        calls=int(block["calls"]),
        seconds=float(block["seconds"]),
        own_seconds=float(block["own_seconds"]),
        longest=float(block["longest"]),
        peak_memory=None if block["peak_memory"] is None else int(block["peak_memory"]),
    )


def _added_up(spans: list[Span], memory: tuple[tuple[float, int], ...]) -> Recording:
    """The recording of a file that has no totals of ours."""
    calls: dict[str, list[float]] = {}
    own: dict[str, float] = {}
    for span, around in nested(spans):
        if span.kind != BLOCK:
            continue
        seconds = span.end - span.start
        calls.setdefault(span.path, []).append(seconds)
        own[span.path] = own.get(span.path, 0.0) + seconds
        outer = next((outer.path for outer in reversed(around) if outer.kind == BLOCK), None)
        if outer is not None:
            own[outer] -= seconds
    blocks = tuple(
        BlockTimes(path, path, None, len(times), sum(times), max(own[path], 0.0), max(times), None)
        for path, times in calls.items()
    )
    waited = sum(span.end - span.start for span in spans if span.kind == WAITING)
    elapsed = max(span.end for span in spans) - waited
    kind = "as the file has it" if memory else None
    return Recording(elapsed, waited, blocks, (), tuple(spans), 0, memory, kind)
