"""`Trace`: how long each block and iteration of a run took, and how much memory was in use."""

from __future__ import annotations

import copy
import json
import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loopwright.blocks import walk
from loopwright.describe.trace import BlockTimes, LoopTimes, Recording, Span, table, write_trace
from loopwright.describe.trace.recording import BLOCK, ITERATION, WAITING
from loopwright.run.memory import MemoryGauge

__all__ = ["MOST_SPANS", "Trace"]

# How many spans are kept; a span of a block takes some 200 bytes.
MOST_SPANS = 20_000
# Memory is read at most this often, in seconds, and for at most this part of the time.
_LEAST_INTERVAL = 0.001
_SHARE = 0.005


class _Totals:
    """What is known of all calls of one block, and of its iterations if it is a loop."""

    __slots__ = (
        "calls",
        "inner",
        "iterations",
        "iterations_longest",
        "iterations_seconds",
        "longest",
        "name",
        "outer",
        "own",
        "path",
        "peak",
        "seconds",
    )

    def __init__(self, path: str, name: str, outer: str | None) -> None:
        self.path, self.name, self.outer = path, name, outer
        self.calls = self.iterations = self.peak = 0
        self.seconds = self.own = self.longest = self.iterations_seconds = self.iterations_longest = 0.0
        # by the name under which it was called
        self.inner: dict[str, _Totals] = {}


class _Open:
    """A call of a block, or an iteration, that has not ended.

    Attributes:
        totals: those of the block.
        index: the index of the iteration, None for a call.
        is_held: whether it is a loop that a block calls by itself: nobody tells when that ends, so it is taken to end
            with the last of what it runs.
        start: when it began.
        waited: how long the run had waited by then.
        inside: the seconds of the calls in it.
        peak: the most bytes in use so far.
        last: when the last of what is in it ended.
        last_waited: how long the run had waited by then.
    """

    __slots__ = ("index", "inside", "is_held", "last", "last_waited", "peak", "start", "totals", "waited")

    def __init__(self, totals: _Totals, index: int | None, is_held: bool, start: float, waited: float) -> None:
        self.totals, self.index, self.is_held = totals, index, is_held
        self.start = self.last = start
        self.waited = self.last_waited = waited
        self.inside = 0.0
        self.peak = 0

    def close(self, around: list[_Open], now: float, waited: float, memory: int) -> tuple[Any, ...]:
        """Add it to the totals, and return its span.

        Args:
            around: the calls and iterations that it lies in.
            now: the time.
            waited: how long the run has waited.
            memory: the bytes in use, the most that are known.
        """
        totals = self.totals
        if self.is_held:
            now, waited = self.last, self.last_waited
        seconds = now - self.start - (waited - self.waited)
        # comparisons rather than `max`: this runs for each call of each block
        if memory > self.peak:
            self.peak = memory
        if self.index is None:
            totals.calls += 1
            totals.own += seconds - self.inside
            if seconds > totals.longest:
                totals.longest = seconds
            if self.peak > totals.peak:
                totals.peak = self.peak
            # a held loop may call itself
            if not (self.is_held and any(outer.totals is totals and outer.index is None for outer in around)):
                totals.seconds += seconds
        else:
            totals.iterations += 1
            totals.iterations_seconds += seconds
            if seconds > totals.iterations_longest:
                totals.iterations_longest = seconds
        if around:
            below = around[-1]
            below.inside += seconds if self.index is None else self.inside
            if self.peak > below.peak:
                below.peak = self.peak
            below.last, below.last_waited = now, waited
        return totals, self.index, self.start, now


class Trace:
    """How long the blocks and iterations of a run took, and how much memory was in use. It may be read at any time.

    Time is that of a clock on the wall, without the time for which the run waits. Blocks do not wait for what they hand
    to a GPU: their time is that of handing it over, unless the program runs with `CUDA_LAUNCH_BLOCKING=1`. Memory is
    that of the process on the device of the pipeline, or its resident memory; it is read at ends of blocks, at most
    once in a millisecond, so a block of less time shows what was in use shortly before.

    Totals are kept for all calls, single spans only for the last 20,000.

    Args:
        blocks: the blocks of the pipeline, which have an order.
    """

    def __init__(self, blocks: Any = None) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()
        root = _Totals("", "pipeline", None)
        self._totals = {"": root}
        self._open = [_Open(root, None, False, 0.0, 0.0)]
        self._spans: deque[tuple[Any, ...]] = deque(maxlen=MOST_SPANS)
        self._dropped = 0
        # the end of the last span that was dropped
        self._kept_from = 0.0
        self._began: float | None = None
        self._thread = 0
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._gauge: MemoryGauge | None = None
        self._memory = 0
        # the seconds that a reading takes, and when the next may be
        self._cost = self._next_sample = float("inf")

    # The thread of the run.

    @contextmanager
    def running(self, gauge: MemoryGauge | None) -> Iterator[None]:
        """For the time of the run."""
        self._gauge = gauge
        self._thread = threading.get_native_id()
        if gauge is not None:
            self._read_memory(time.perf_counter())
        self._began = self._open[0].start = self._open[0].last = time.perf_counter()
        try:
            yield
        finally:
            self.leave(0)

    @property
    def depth(self) -> int:
        """How many calls and iterations are in progress."""
        return len(self._open)

    def enter(self, name: str, running: list[tuple[str, Any]]) -> None:
        """A block is called.

        Args:
            name: its name.
            running: all blocks that are running with their names, outermost first, this one last.
        """
        outer = self._open[-1].totals
        totals = outer.inner.get(name) or self._new(outer, name, ".".join(name for name, _ in running), name)
        self._open.append(_Open(totals, None, False, time.perf_counter(), self._waited))

    def enter_held(self, path: str) -> None:
        """The first iteration begins of a loop that a block calls by itself."""
        outer = self._open[-1].totals
        totals = outer.inner.get(path) or self._new(outer, path, path, path.rpartition(".")[2])
        self._open.append(_Open(totals, None, True, time.perf_counter(), self._waited))

    def enter_iteration(self, index: int) -> None:
        """An iteration begins, of the loop that was called last."""
        self._open.append(_Open(self._open[-1].totals, index, False, time.perf_counter(), self._waited))

    def leave(self, depth: int) -> None:
        """All calls and iterations have ended but for the outermost ones.

        Args:
            depth: how many are left.
        """
        if len(self._open) <= depth:
            return
        now = time.perf_counter()
        memory, sample = self._memory, 0
        if now >= self._next_sample:
            memory = sample = self._read_memory(now)
        with self._lock:
            while len(self._open) > depth:
                span = self._open.pop().close(self._open, now, self._waited, memory)
                self._keep((*span, sample))
                sample = 0

    def begin_wait(self, now: float) -> None:
        """The run waits from now on."""
        self._waiting_since = now

    def end_wait(self, now: float) -> None:
        """The run goes on."""
        with self._lock:
            since, self._waiting_since = self._waiting_since, None
            if since is not None and self._began is not None:
                self._waited += now - since
                self._keep((None, None, since, now, 0))

    def _new(self, outer: _Totals, key: str, path: str, name: str) -> _Totals:
        with self._lock:
            totals = outer.inner[key] = self._totals.setdefault(path, _Totals(path, name, outer.path))
        return totals

    def _keep(self, span: tuple[Any, ...]) -> None:
        if len(self._spans) == MOST_SPANS:
            self._dropped += 1
            self._kept_from = max(self._kept_from, self._spans[0][3])
        self._spans.append(span)

    def _read_memory(self, now: float) -> int:
        """The most bytes in use since this was last called, as far as that is known."""
        assert self._gauge is not None
        self._memory, most = self._gauge.sample()
        ended = time.perf_counter()
        # it depends on what else the machine does; in a far longer one, others had the processor
        self._cost = min(2 * self._cost, ended - now)
        self._next_sample = ended + max(_LEAST_INTERVAL, self._cost / _SHARE)
        return most

    # Those who read it.

    @property
    def blocks(self) -> dict[str, BlockTimes]:
        """The times of each block by its path, in the order of the tree; `""` is the pipeline as a whole.

        A loop that a block calls by itself stands under the path of that block and the name of the loop's class. The
        `own_seconds` of all add up to the `seconds` of the pipeline.
        """
        return {block.path: block for block in self._recorded().blocks}

    @property
    def iterations(self) -> dict[str, LoopTimes]:
        """The times of the iterations of each loop by its path, in the order of the tree."""
        return {loop.path: loop for loop in self._recorded().iterations}

    def recording(self) -> Recording:
        """All that is known now, as plain data; what is in progress is taken to end now."""
        return self._recorded(timeline=True)

    def to_dict(self) -> dict[str, Any]:
        """What `save` writes: an object in Chrome's Trace Event Format."""
        return write_trace(self.recording(), os.getpid(), self._thread)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Chrome trace, which https://ui.perfetto.dev, chrome://tracing and `loopwright trace` open.

        Args:
            path: the file, such as `run.json`.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(self.to_dict(), separators=(",", ":"))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def __str__(self) -> str:
        return table(self._recorded())

    def _recorded(self, timeline: bool = False) -> Recording:
        if self._began is None:
            return Recording()
        with self._lock:
            waiting_since, waited = self._waiting_since, self._waited
            totals = {path: copy.copy(one) for path, one in self._totals.items()}
            in_progress = [copy.copy(one) for one in self._open]
            spans = list(self._spans) if timeline else []
            dropped, kept_from = self._dropped, self._kept_from
            now = time.perf_counter()
        ended = now if waiting_since is None else waiting_since
        for one in in_progress:
            one.totals = totals[one.totals.path]
        while in_progress:
            spans.append((*in_progress.pop().close(in_progress, ended, waited, self._memory), 0))
        if waiting_since is not None:
            waited += now - waiting_since
            spans.append((None, None, waiting_since, now, 0))
        ordered = self._in_order(list(totals.values()))
        gauge = self._gauge
        return Recording(
            elapsed=totals[""].seconds,
            waited=waited,
            blocks=tuple(_block_times(one, gauge is not None) for one in ordered),
            iterations=tuple(
                LoopTimes(one.path, one.iterations, one.iterations_seconds, one.iterations_longest)
                for one in ordered
                if one.iterations
            ),
            spans=tuple(_pieces(spans, self._began, max(kept_from, self._began))) if timeline else (),
            dropped=dropped,
            memory=tuple((end - self._began, sample) for _, _, _, end, sample in spans if sample),
            memory_kind=None if gauge is None else gauge.kind,
            asynchronous=gauge is not None and gauge.asynchronous,
        )

    def _in_order(self, totals: list[_Totals]) -> list[_Totals]:
        """Totals in the order of the tree; what is not in the tree comes after what is, in the order of the run."""
        tree = {} if self._blocks is None else {path: place for place, (path, _) in enumerate(walk(self._blocks))}
        inner: dict[str | None, list[_Totals]] = {}
        for one in sorted(totals, key=lambda one: tree.get(one.path, len(tree))):
            inner.setdefault(one.outer, []).append(one)
        ordered: list[_Totals] = []
        left = inner.get(None, [])
        while left:
            ordered.append(left.pop(0))
            left = inner.get(ordered[-1].path, []) + left
        return ordered


def _block_times(totals: _Totals, has_memory: bool) -> BlockTimes:
    return BlockTimes(
        path=totals.path,
        name=totals.name,
        outer=totals.outer,
        calls=totals.calls,
        seconds=totals.seconds,
        # rounding may leave a little less than nothing
        own_seconds=max(totals.own, 0.0),
        longest=totals.longest,
        peak_memory=totals.peak if has_memory else None,
    )


def _pieces(spans: list[tuple[Any, ...]], began: float, kept_from: float) -> list[Span]:
    """The spans in the order in which they began, outer ones first, cut where the run waited.

    Args:
        spans: totals, index, start and end of each, in the order in which they ended; no totals for a wait.
        began: when the run began.
        kept_from: when the time began of which all spans are kept.
    """
    waits = sorted((start, end) for totals, _, start, end, _ in spans if totals is None and end > kept_from)
    starts, ends = [start for start, _ in waits], [end for _, end in waits]
    made = []
    for totals, index, start, end, _ in spans:
        if end < kept_from:
            continue
        start = max(start, kept_from)
        if totals is None:
            made.append(Span(WAITING, "waiting", "", None, start - began, end - began))
            continue
        kind, name = (BLOCK, totals.name) if index is None else (ITERATION, f"iteration {index}")
        inside = waits[bisect_left(starts, start) : bisect_right(ends, end)]
        edges = [start, *(edge for wait in inside for edge in wait), end]
        for since, until in zip(edges[::2], edges[1::2], strict=True):
            if since < until or not inside:
                made.append(Span(kind, name, totals.path, index, since - began, until - began))
    made.reverse()
    made.sort(key=lambda span: (span.start, -span.end))
    return made
