"""`run.trace`: how long the blocks and iterations of a run took, and how much memory was in use."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given

import loopwright.modular_pipelines
from loopwright import ModularPipeline, ModularPipelineBlocks, PipelineState
from loopwright.describe.trace import Recording, Span, read_trace
from loopwright.describe.trace.recording import nested as lying_in
from loopwright.errors import MissingInputError, RunCancelledError
from loopwright.run import Execution, RunOptions, Trace
from loopwright.run.memory import MemoryGauge
from loopwright.run.request import start_state
from loopwright.run.trace import MOST_SPANS
from tests.blocks.arithmetic import AddOne, Divide, Double, Repeat, RepeatByHand, RepeatRows
from tests.blocks.trees import Composite, blocks_of, build, composites
from tests.run.blocks import Do, HoldsLoop, Turnstile, counting, in_threads, nested, pipeline
from tests.run.checkpoints.storages import saved_run

Spend = Callable[[float], Do]
BLOCKS = blocks_of(loopwright.modular_pipelines)


@pytest.fixture
def spend(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Spend:
    """Makes a block that takes so many seconds, in runs for which no other time goes by, whose memory is 3 MiB."""
    monkeypatch.setattr("loopwright.run.trace.time", SimpleNamespace(perf_counter=lambda: clock.now))
    gauge = MemoryGauge("of the test", lambda: [(3 * 2**20, 0)])
    monkeypatch.setattr("loopwright.run.execution.memory_gauge", lambda view: gauge)

    def make(seconds: float) -> Do:
        def work(*_: Any, **__: Any) -> None:
            clock.now += seconds

        return Do(work)

    return make


def traced(pipe: ModularPipeline, **inputs: Any) -> Trace:
    run = pipe.start(**inputs)
    run.result()
    return run.trace


def times(trace: Trace) -> dict[str, tuple[int, float, float]]:
    """Calls, seconds and own seconds of each block."""
    return {path: (block.calls, block.seconds, block.own_seconds) for path, block in trace.blocks.items()}


def assert_well_formed(recording: Recording, precision: float = 1e-12) -> None:
    """Spans lie in each other or apart, none in a wait, and their lengths are the totals.

    Args:
        recording: the recording.
        precision: how far the lengths may be from the totals, in seconds; beside a millionth of them.
    """
    previous: dict[int, Span] = {}
    seconds: Counter[tuple[str, str]] = Counter()
    for span, around in lying_in(recording.spans):
        assert span.start <= span.end
        if around:
            assert around[-1].start <= span.start <= span.end <= around[-1].end
            assert around[-1].kind != "waiting"
        before = previous.get(len(around))
        assert before is None or before.end <= span.start
        previous[len(around)] = span
        seconds[span.kind, span.path] += span.end - span.start
    if not recording.dropped:
        for block in recording.blocks:
            assert seconds["block", block.path] == pytest.approx(block.seconds, rel=1e-6, abs=precision)
        for loop in recording.iterations:
            assert seconds["iteration", loop.path] == pytest.approx(loop.seconds, rel=1e-6, abs=precision)
        assert seconds["waiting", ""] == pytest.approx(recording.waited, rel=1e-6, abs=precision)
    assert sum(block.own_seconds for block in recording.blocks) == pytest.approx(recording.elapsed)


# Totals


def test_each_block_has_its_calls_its_time_and_its_own_time(spend: Spend) -> None:
    rows = RepeatRows.from_blocks_dict({"count": Repeat.from_blocks_dict({"add": spend(1)}), "then": spend(10)})
    trace = traced(pipeline(rows=rows, last=spend(100)), rows=2, steps=3)
    assert times(trace) == {
        "": (1, 126, 0),
        "rows": (1, 26, 0),
        "rows.count": (2, 6, 0),
        "rows.count.add": (6, 6, 6),
        "rows.then": (2, 20, 20),
        "last": (1, 100, 100),
    }
    assert list(trace.blocks) == list(times(trace))
    assert trace.blocks["rows.count"].mean == 3


def test_each_loop_has_the_number_and_the_time_of_its_iterations(clock: Any, spend: Spend) -> None:
    def work(_: Any, x: int, i: int) -> None:
        clock.now += i

    spend(0)
    trace = traced(pipeline(loop=Repeat.from_blocks_dict({"work": Do(work), "more": spend(1)})), steps=4)
    (loop,) = trace.iterations.values()
    assert (loop.path, loop.count, loop.seconds, loop.mean, loop.longest) == ("loop", 4, 10, 2.5, 4)
    assert trace.blocks["loop.work"].longest == 3


def test_what_a_callback_takes_is_the_loops_own(clock: Any, spend: Spend) -> None:
    def callback(event: Any) -> None:
        clock.now += 5

    trace = traced(pipeline(loop=Repeat.from_blocks_dict({"work": spend(1)})), steps=2, callbacks=callback)
    assert times(trace) == {"": (1, 12, 0), "loop": (1, 12, 10), "loop.work": (2, 2, 2)}
    assert trace.iterations["loop"].seconds == 2


def test_the_time_for_which_a_run_waits_does_not_count(clock: Any, spend: Spend) -> None:
    loop = Repeat.from_blocks_dict({"work": spend(1)})
    run = pipeline(rows=RepeatRows.from_blocks_dict({"loop": loop})).stream(rows=2, steps=2)
    for _ in run:
        clock.now += 10
    recording = run.trace.recording()
    assert (recording.elapsed, recording.waited) == (4, 60)
    assert [block.seconds for block in recording.blocks] == [4, 4, 4, 4]
    assert [span[4:6] for span in recording.spans if span.kind == "waiting"][:2] == [(1, 11), (12, 22)]
    assert [span[4:6] for span in recording.spans if span.path == "rows.loop" and span.kind == "block"] == [
        (0, 1),
        (11, 12),
        (32, 33),
        (43, 44),
    ]
    assert_well_formed(recording)


def test_own_times_add_up_to_the_time_of_the_run() -> None:
    run = nested().stream(x=0, rows=3, steps=4)
    for _ in run:
        pass
    recording = run.trace.recording()
    assert sum(block.own_seconds for block in recording.blocks) == pytest.approx(recording.elapsed)
    assert recording.elapsed <= run._execution.control.elapsed
    assert_well_formed(recording)


def test_own_times_of_the_embedded_model_add_up_to_the_time_of_the_run(embedded: Any, inputs: Any) -> None:
    trace = traced(embedded, **inputs())
    recording = trace.recording()
    assert_well_formed(recording)
    assert trace.iterations["denoise.loop"].count == 3
    assert trace.blocks["denoise.loop.denoiser"].calls == 3


@given(composites())
def test_the_trace_of_any_tree_is_well_formed(tree: Composite) -> None:
    pipe = ModularPipeline(blocks=build(tree, BLOCKS))
    iterations: Counter[str] = Counter()
    run = None
    try:
        run = pipe.start(callbacks=lambda event: iterations.update([event.path]))
        run.result()
    except MissingInputError:
        pass
    if run is None:
        return
    recording = run.trace.recording()
    assert_well_formed(recording)
    if run.status == "succeeded":
        assert {loop.path: loop.count for loop in recording.iterations} == iterations
    # a file has whole nanoseconds, as the clock does; but a float of the clock is off by its rounding
    rounding = len(recording.spans) * math.ulp(time.perf_counter())
    assert_well_formed(read_trace(json.loads(json.dumps(run.trace.to_dict()))), precision=rounding)


# Blocks that are not where the tree has them, and runs that end otherwise


def test_a_loop_that_a_block_calls_by_itself_stands_under_that_block(spend: Spend) -> None:
    loops = (Repeat.from_blocks_dict({"work": spend(1)}), RepeatByHand.from_blocks_dict({"work": spend(10)}))
    trace = traced(pipeline(holder=HoldsLoop(*loops), last=spend(100)))
    assert times(trace) == {
        "": (1, 122, 0),
        "holder": (1, 22, 0),
        "holder.Repeat": (1, 2, 0),
        "holder.work": (4, 22, 22),
        "holder.RepeatByHand": (1, 20, 0),
        "last": (1, 100, 100),
    }
    assert {path: loop.count for path, loop in trace.iterations.items()} == {
        "holder.Repeat": 2,
        "holder.RepeatByHand": 2,
    }
    assert_well_formed(trace.recording())


class CallsByItself(ModularPipelineBlocks):
    """Calls blocks that it holds one after the other, whatever they raise."""

    def __init__(self, *blocks: Any) -> None:
        super().__init__()
        self.blocks = blocks

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        for block in self.blocks:
            try:
                block(components, PipelineState({"x": 0, "steps": 2}))
            except ZeroDivisionError:
                continue
        return components, state


def test_a_sequence_after_a_loop_in_the_same_block_is_not_part_of_the_loop(spend: Spend) -> None:
    loop = Repeat.from_blocks_dict({"work": spend(1)})
    after = loopwright.SequentialPipelineBlocks.from_blocks_dict({"after": spend(10)})
    trace = traced(pipeline(holder=CallsByItself(loop, after)))
    assert times(trace) == {
        "": (1, 12, 0),
        "holder": (1, 12, 0),
        "holder.Repeat": (1, 2, 0),
        "holder.work": (2, 2, 2),
        "holder.after": (1, 10, 10),
    }


def test_blocks_that_raised_are_closed_when_the_block_goes_on_that_caught_it(spend: Spend) -> None:
    failing = Repeat.from_blocks_dict({"work": spend(1), "divide": Divide})
    trace = traced(pipeline(holder=CallsByItself(failing, failing), last=spend(100)))
    assert times(trace)["last"] == (1, 100, 100)
    assert trace.blocks["holder"].seconds == 2
    assert_well_formed(trace.recording())


def test_a_run_that_fails_has_the_trace_until_then(spend: Spend) -> None:
    loop = Repeat.from_blocks_dict({"work": spend(1), "divide": Divide})
    run = pipeline(first=spend(10), loop=loop, last=spend(100)).start(x=0)
    with pytest.raises(ZeroDivisionError):
        run.result()
    assert times(run.trace) == {
        "": (1, 11, 0),
        "first": (1, 10, 10),
        "loop": (1, 1, 0),
        "loop.work": (1, 1, 1),
        "loop.divide": (1, 0, 0),
    }
    assert_well_formed(run.trace.recording())


def test_a_run_that_is_cancelled_has_the_trace_until_then(clock: Any, spend: Spend) -> None:
    run = pipeline(loop=Repeat.from_blocks_dict({"work": spend(1)})).stream(steps=5)
    for event in run:
        clock.now += 10
        if event.index == 1:
            run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()
    assert times(run.trace) == {"": (1, 2, 0), "loop": (1, 2, 0), "loop.work": (2, 2, 2)}
    assert run.trace.recording().waited == 20
    assert_well_formed(run.trace.recording())


def test_iterations_after_the_end_of_a_stopped_loop_are_not_counted() -> None:
    run = counting().stream(x=0, steps=9)
    for event in run:
        if event.index == 1:
            run.stop_loop()
    assert run.trace.iterations["count"].count == 2


def test_a_resumed_run_counts_what_it_runs_itself() -> None:
    rows = RepeatRows.from_blocks_dict({"count": Repeat.from_blocks_dict({"add": AddOne}), "double": Double})
    pipe = pipeline(first=AddOne, rows=rows)
    _, memory = saved_run(pipe, x=0, rows=2, steps=3)
    # after the second iteration of the first row
    run = pipe.resume(memory.until(2))
    run.result()
    assert {path: block.calls for path, block in run.trace.blocks.items()} == {
        "": 1,
        "rows": 1,
        "rows.count": 2,
        "rows.count.add": 4,
        "rows.double": 2,
    }
    assert {path: loop.count for path, loop in run.trace.iterations.items()} == {"rows": 2, "rows.count": 4}
    assert [span.iteration for span in run.trace.recording().spans if span.kind == "iteration"] == [0, 2, 1, 0, 1, 2]
    assert_well_formed(run.trace.recording())


# Reading it


def test_a_run_that_has_not_begun_has_an_empty_trace() -> None:
    run = counting().stream(x=0)
    assert (run.trace.blocks, run.trace.iterations, str(run.trace)) == ({}, {}, "nothing has run")


def test_the_trace_can_be_read_while_the_run_goes_on() -> None:
    turnstile = Turnstile()
    run = pipeline(loop=Repeat.from_blocks_dict({"add": AddOne, "stop": Do(turnstile)})).start(x=0, steps=2)
    seen = []
    for _ in range(2):
        turnstile.wait()
        assert_well_formed(run.trace.recording())
        seen.append({path: block.calls for path, block in run.trace.blocks.items()})
        turnstile.let_go()
    run.result()
    assert seen == [{"": 1, "loop": 1, "loop.add": n, "loop.stop": n} for n in (1, 2)]


def test_while_an_event_is_in_hand_the_time_stands_still_and_waiting_is_seen(clock: Any, spend: Spend) -> None:
    run = pipeline(loop=Repeat.from_blocks_dict({"work": spend(1)})).stream(steps=2)
    for event in run:
        clock.now += 10
        recording = run.trace.recording()
        assert (recording.elapsed, recording.waited) == (event.index + 1, 10 * (event.index + 1))
        assert_well_formed(recording)


def test_readers_in_other_threads_see_one_moment() -> None:
    run = counting().start(x=0, steps=3000)

    def read() -> None:
        while run.status == "running":
            assert_well_formed(run.trace.recording())
            blocks = run.trace.blocks
            assert not blocks or blocks[""].calls == 1

    in_threads(read, read)
    assert run.trace.iterations["count"].count == 3000


def test_runs_in_threads_have_traces_of_their_own() -> None:
    pipe = counting()
    traces = in_threads(*(lambda steps=steps: traced(pipe, x=0, steps=steps) for steps in (3, 5, 7)))
    assert [trace.iterations["count"].count for trace in traces] == [3, 5, 7]
    assert len({trace.to_dict()["traceEvents"][0]["tid"] for trace in traces}) == 3


def test_a_call_with_a_driver_is_traced_as_well() -> None:
    pipe = counting()
    execution = Execution(pipe, start_state(pipe, None, {"x": 1, "steps": 3}), RunOptions())
    execution.run()
    assert execution.trace.iterations["count"].count == 3


def test_it_prints_as_a_table(clock: Any, spend: Spend) -> None:
    loop = Repeat.from_blocks_dict({"work": spend(0.0125)})
    run = pipeline(loop=loop, last=spend(150)).stream(steps=2)
    for _ in run:
        clock.now += 1
    assert str(run.trace) == dedent("""\
        block             calls     total       own      mean   longest  peak memory
        pipeline              1     150 s   0.00 ms     150 s     150 s      3.0 MiB
          loop                1  25.00 ms   0.00 ms  25.00 ms  25.00 ms      3.0 MiB
            (iterations)      2  25.00 ms            12.50 ms  12.50 ms
            work              2  25.00 ms  25.00 ms  12.50 ms  12.50 ms      3.0 MiB
          last                1     150 s     150 s     150 s     150 s      3.0 MiB

        150 s of running, and 2.00 s of waiting
        memory: of the test""")


# Memory


def test_peaks_of_memory_belong_to_the_block_in_which_they_were_reached_and_those_around_it(
    spend: Spend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [(100, 100)]
    monkeypatch.setattr("loopwright.run.execution.memory_gauge", lambda view: MemoryGauge("", lambda: now))

    def hold(count: int, peak: int) -> None:
        now[0] = (count, peak)

    work = spend(1)
    loop = Repeat.from_blocks_dict({"high": Do(lambda *_, **__: hold(200, 900)), "work": work})
    trace = traced(pipeline(before=spend(1), loop=loop, fall=Do(lambda *_: hold(50, 900)), after=spend(1)), steps=1)
    peaks = {path: block.peak_memory for path, block in trace.blocks.items()}
    # time goes by in `work` and `after` only: memory is read at most once a millisecond
    assert peaks == {"": 900, "before": 100, "loop": 900, "loop.high": 100, "loop.work": 900, "fall": 200, "after": 50}


def test_memory_is_read_at_ends_of_blocks(spend: Spend) -> None:
    recording = traced(pipeline(a=spend(1), b=spend(0), c=spend(2))).recording()
    assert recording.memory == ((1, 3 * 2**20), (3, 3 * 2**20))


# More than is kept


def test_totals_are_exact_when_earlier_spans_are_dropped() -> None:
    steps = MOST_SPANS // 2 + 1000
    trace = traced(counting(), x=0, steps=steps)
    assert (trace.blocks["count.add"].calls, trace.iterations["count"].count) == (steps, steps)
    recording = trace.recording()
    # two in each iteration, and three blocks around and after
    assert recording.dropped == 2 * steps + 3 - MOST_SPANS
    assert len(recording.spans) <= MOST_SPANS
    assert_well_formed(recording)
    begin = min(span.start for span in recording.spans)
    assert recording.spans[0].path == ""
    assert all(span.start > begin for span in recording.spans if span.path == "count.add")
    dropped = f"{recording.dropped:,} earlier ones were dropped"
    assert dropped in str(trace)
    assert trace.to_dict()["otherData"]["dropped_spans"] == recording.dropped


# The file


def test_it_is_saved_as_a_chrome_trace(clock: Any, spend: Spend, tmp_path: Path) -> None:
    run = pipeline(loop=Repeat.from_blocks_dict({"work": spend(0.5)})).stream(steps=1)
    for _ in run:
        clock.now += 2
    run.trace.save(tmp_path / "run.json")
    saved = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    place = {key: saved["traceEvents"][0][key] for key in ("pid", "tid")}
    whole, waiting = (
        {"ts": 0, "dur": 500_000, "ph": "X", **place},
        {"ts": 500_000, "dur": 2_000_000, "ph": "X", **place},
    )
    assert saved["traceEvents"] == [
        {"name": "process_name", "ph": "M", "ts": 0, **place, "args": {"name": "loopwright"}},
        {"name": "thread_name", "ph": "M", "ts": 0, **place, "args": {"name": "run"}},
        {"name": "pipeline", "cat": "block", **whole, "args": {"path": ""}},
        {"name": "loop", "cat": "block", **whole, "args": {"path": "loop"}},
        {"name": "iteration 0", "cat": "iteration", **whole, "args": {"path": "loop", "index": 0}},
        {"name": "work", "cat": "block", **whole, "args": {"path": "loop.work"}},
        {"name": "waiting", "cat": "waiting", **waiting, "args": {}},
        {"name": "memory", "cat": "memory", "ph": "C", "ts": 500_000, **place, "args": {"MiB": 3}},
        {"name": "memory", "cat": "memory", "ph": "C", "ts": 2_500_000, **place, "args": {"MiB": 3}},
    ]
    assert saved["displayTimeUnit"] == "ms"
    assert read_trace(saved).blocks == run.trace.recording().blocks
