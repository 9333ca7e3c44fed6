"""A `Run` is watched and steered from outside: pause, go on, cancel, end of a loop, result."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from loopwright import Checkpoint
from loopwright.errors import (
    OutputNotSetError,
    RunCancelledError,
    RunStateError,
    RunTimeoutError,
    UnknownInputError,
    UnknownNameError,
    UnknownValueError,
)
from tests.blocks.arithmetic import AddOne, Divide, Double, Repeat, RepeatRows, Silent
from tests.run.blocks import (
    PATIENCE,
    Do,
    Steps,
    Turnstile,
    counting,
    in_threads,
    join_run_threads,
    nested,
    pipeline,
    run_threads,
)


def stopping(turnstile: Turnstile) -> Any:
    """Three iterations, in each of which somebody comes to the turnstile; then doubled."""
    return pipeline(count=Repeat.from_blocks_dict({"stop": Do(turnstile), "add": AddOne}), double=Double)


def test_start_runs_at_once_and_the_result_is_that_of_the_call() -> None:
    turnstile = Turnstile()
    run = stopping(turnstile).start(x=1, output="x")
    turnstile.wait()
    assert (run.status, repr(run)) == ("running", "<Run: running>")
    turnstile.let_go(3)
    assert run.result() == 8
    assert run.result() == 8
    assert run.status == "succeeded"


def test_stream_begins_when_it_is_iterated_or_its_result_is_asked_for() -> None:
    seen: list[int] = []
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda _, x, i: seen.append(i))}))
    run = pipe.stream()
    assert (seen, run_threads()) == ([], [])
    for event in run:
        assert seen == list(range(event.index + 1))
    assert pipe.stream().result().x == 0
    assert seen == [0, 1, 2] * 2


def test_mistakes_in_a_call_are_raised_when_the_run_is_made() -> None:
    pipe = counting()
    for make in (pipe.start, pipe.stream, pipe.astream):
        with pytest.raises(UnknownInputError):
            make(y=1)
        with pytest.raises(UnknownValueError):
            make(x=1, output="z")


def test_a_run_that_is_watched_waits_while_an_event_is_in_hand() -> None:
    seen: list[int] = []
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda _, x, i: seen.append(i))}))
    other = counting()
    for event in pipe.stream():
        other(x=1)
        assert seen == list(range(event.index + 1))


def test_leaving_the_iteration_lets_a_run_that_is_kept_go_on() -> None:
    run = counting().stream(x=0, output="x")
    for _ in run:
        break
    assert run.result() == 6


def test_the_result_can_be_asked_for_with_an_event_in_hand() -> None:
    run = counting().stream(x=0, output="x")
    assert [run.result() for _ in run] == [6]


def test_waiting_for_the_result_in_another_thread_takes_no_events_away() -> None:
    turnstile = Turnstile()
    run = stopping(turnstile).stream(x=0, output="x")
    events: list[int] = []
    watcher = threading.Thread(target=lambda: events.extend(event.index for event in run))
    watcher.start()
    turnstile.wait()
    results: list[int] = []
    waiter = threading.Thread(target=lambda: results.append(run.result()))
    waiter.start()
    turnstile.let_go(3)
    for thread in (watcher, waiter):
        thread.join(PATIENCE)
    assert (events, results) == ([0, 1, 2], [6])


def test_a_paused_run_waits_and_goes_on_in_the_same_bits(embedded: Any, inputs: Any, image: np.ndarray) -> None:
    run = embedded.stream(**inputs())
    for event in run:
        if event.index == 1:
            run.pause()
            assert run.status == "paused"
            assert not np.array_equal(embedded(**inputs(seed=2)), image)
            assert np.array_equal(embedded(**inputs()), image)
            run.go_on()
            assert run.status == "running"
    assert np.array_equal(run.result(), image)


def test_pausing_takes_effect_after_the_iteration() -> None:
    turnstile, seen = Turnstile(), []
    block = Do(lambda _, x, i: (seen.append(i), turnstile())[1])
    run = pipeline(loop=Repeat.from_blocks_dict({"do": block})).start(steps=2)
    turnstile.wait()
    run.pause()
    turnstile.let_go(2)
    with pytest.raises(TimeoutError) as caught:
        run.result(timeout=0.01)
    assert str(caught.value) == "the run has not ended after 0.01 seconds; it goes on"
    assert seen == [0]
    run.go_on()
    run.result()
    assert seen == [0, 1]


def test_cancelling_ends_a_run_after_the_iteration() -> None:
    turnstile, seen = Turnstile(), []
    block = Do(lambda _, x, i: (seen.append(i), turnstile())[1])
    run = pipeline(loop=Repeat.from_blocks_dict({"do": block}), after=Do(lambda *_: seen.append("after"))).start()
    turnstile.wait()
    run.cancel()
    turnstile.let_go()
    with pytest.raises(RunCancelledError) as caught:
        run.result()
    assert str(caught.value) == (
        "the run was cancelled, so it has no result; `stop_loop` ends a loop early and goes on to the result"
    )
    assert (run.status, seen) == ("cancelled", [0])


def test_cancelling_ends_an_iteration_over_events() -> None:
    run = counting().stream(x=0)
    events = []
    for event in run:
        events.append(event)
        run.cancel()
    assert (len(events), run.status) == (1, "cancelled")


def test_a_paused_run_can_be_cancelled() -> None:
    run = counting().stream(x=0)
    for _ in run:
        run.pause()
        run.cancel()
    assert run.status == "cancelled"


def test_a_run_that_has_not_begun_can_be_cancelled() -> None:
    seen: list[Any] = []
    run = pipeline(do=Do(lambda *_: seen.append(1))).stream()
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()
    assert seen == []


def test_cancelling_a_run_that_has_ended_changes_nothing() -> None:
    run = counting().start(x=0, output="x")
    assert run.result() == 6
    run.cancel()
    assert (run.result(), run.status) == (6, "succeeded")


def test_no_block_takes_a_cancellation_for_an_exception_of_its_own() -> None:
    class Catches(Repeat):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            try:
                return super().__call__(components, state)
            except Exception:
                return components, state

    run = pipeline(loop=Catches.from_blocks_dict({"add": AddOne})).stream(x=0)
    for _ in run:
        run.cancel()
    assert run.status == "cancelled"


def test_the_loop_can_be_stopped_and_the_rest_runs() -> None:
    run = counting().stream(x=0, steps=100, output="x")
    for event in run:
        if event.index == 1:
            run.stop_loop()
    assert run.result() == 4


def test_a_stopped_run_gives_what_its_last_peek_showed(embedded: Any, inputs: Any) -> None:
    run = embedded.stream(**inputs())
    for event in run:
        if event.index == 1:
            run.stop_loop()
            shown = event.peek("images")
    assert np.array_equal(run.result(), shown)


def test_stopping_without_a_path_ends_the_innermost_loop_once() -> None:
    run = nested().stream(x=0, steps=3, rows=2)
    position = []
    for event in run:
        position.append(event.position[-1])
        if len(position) == 1:
            run.stop_loop()
    assert position == [
        ("rows.count", 0),
        ("rows", 0),
        ("rows.count", 0),
        ("rows.count", 1),
        ("rows.count", 2),
        ("rows", 1),
    ]


def test_stopping_an_outer_loop_lets_its_iteration_end() -> None:
    run = nested().stream(x=0, steps=2, rows=3, output="x")
    for _ in run:
        run.stop_loop("rows")
    assert run.result() == 5


def test_stopping_an_inner_loop_by_its_path_ends_one_visit_of_it() -> None:
    run = nested().stream(x=0, steps=2, rows=2)
    positions = []
    for event in run:
        positions.append(event.position[-1])
        if len(positions) == 1:
            run.stop_loop("rows.count")
    assert positions == [("rows.count", 0), ("rows", 0), ("rows.count", 0), ("rows.count", 1), ("rows", 1)]


def test_a_loop_that_has_not_begun_ends_after_its_first_iteration() -> None:
    run = counting().stream(x=0, output="x")
    run.stop_loop("count")
    assert run.result() == 2


def test_stopping_a_loop_that_there_is_not_names_those_that_there_are() -> None:
    run = counting().stream(x=0)
    with pytest.raises(UnknownNameError) as caught:
        run.stop_loop("cuont")
    assert str(caught.value) == "this pipeline has no loop `cuont`, did you mean `count`?; it has `count`"
    with pytest.raises(UnknownNameError, match=r"this pipeline has no loop `a`; it has none"):
        pipeline(add=AddOne).stream(x=0).stop_loop("a")


def test_an_exception_keeps_its_type_and_says_where_it_came_from() -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"divide": Divide}))
    run = pipe.start(x=0)
    with pytest.raises(ZeroDivisionError) as caught:
        run.result()
    assert run.status == "failed"
    assert caught.value.__notes__ == ["in block `loop.divide`, iteration 0 of loop `loop` (i=0)"]
    assert caught.value.loopwright.path == "loop.divide"  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        list(pipe.stream(x=0))


def test_asking_again_for_the_result_of_a_run_that_failed_raises_the_same_error() -> None:
    run = pipeline(divide=Do(lambda *_: 1 // 0)).start()
    lengths = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            run.result()
        lengths.append(len(caught.traceback))
    assert len(set(lengths)) == 1


def test_asking_for_the_result_leaves_a_watcher_in_another_thread_its_events() -> None:
    run = counting().stream(x=0, output="x")
    seen: list[int] = []
    in_hand, asked = threading.Event(), threading.Event()

    def watch() -> None:
        for event in run:
            in_hand.set()
            assert asked.wait(PATIENCE)
            seen.append(event.peek("x"))

    def ask() -> int:
        assert in_hand.wait(PATIENCE)
        control, wait = run._execution.control, run._execution.control.wait_for_end

        def waiting(timeout: Any) -> bool:
            asked.set()
            return wait(timeout)

        control.wait_for_end = waiting
        return int(run.result())

    assert in_threads(watch, ask)[1] == 6
    assert seen == [2, 4, 6]


def test_asking_for_the_result_lets_a_run_go_whose_watcher_is_gone() -> None:
    run = counting().stream(x=0, output="x")
    events = iter(run)
    in_threads(lambda: next(events))
    assert run.result() == 6
    assert list(events) == []


def test_a_run_that_nobody_began_is_waiting() -> None:
    run = counting().stream(x=0)
    assert run.status == "waiting"
    run.pause()
    assert (run.status, repr(run)) == ("waiting", "<Run: waiting>")
    run.go_on()
    run.result()
    assert run.status == "succeeded"


@pytest.mark.parametrize("steer", ["pause", "go_on", "cancel", "stop_loop"])
def test_a_run_that_has_ended_stays_as_it_ended(steer: str) -> None:
    run = counting().start(x=0, output="x")
    run.result()
    getattr(run, steer)()
    assert (run.status, run.result()) == ("succeeded", 6)


def test_an_output_that_was_not_set_is_a_failure_of_the_run() -> None:
    run = Silent().init_pipeline().start()
    with pytest.raises(OutputNotSetError):
        run.result()
    assert run.status == "failed"


def test_a_time_limit_ends_a_run_after_the_iteration(clock: Any) -> None:
    def tick(*_: Any, **__: Any) -> None:
        clock.now += 1

    pipe = pipeline(loop=Repeat.from_blocks_dict({"tick": Do(tick)}))
    run = pipe.start(timeout=1.5)
    with pytest.raises(RunTimeoutError) as caught:
        run.result()
    assert str(caught.value) == "the run took longer than its 1.5 seconds and was ended"
    assert (run.status, clock.now) == ("failed", 2)
    with pytest.raises(RunTimeoutError):
        pipe(timeout=1.5)
    assert pipe(timeout=3).x == 0


def test_the_time_for_which_a_run_waits_does_not_count(clock: Any) -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"add": AddOne}))
    run = pipe.stream(x=0, timeout=1)
    clock.now += 10
    for _ in run:
        clock.now += 10
        run.pause()
        clock.now += 10
        run.go_on()
    assert run.result().x == 3


def test_a_context_manager_cancels_what_still_runs() -> None:
    turnstile = Turnstile()
    with stopping(turnstile).start(x=0) as run:
        turnstile.wait()
        turnstile.let_go(3)
        run.pause()
    assert run.status == "cancelled"
    assert run_threads() == []
    with counting().start(x=0) as run:
        run.result()
    assert run.status == "succeeded"


def test_a_run_that_is_dropped_is_cancelled() -> None:
    turnstile, seen = Turnstile(), []
    block = Do(lambda _, x, i: (seen.append(i), turnstile())[1])
    run = pipeline(loop=Repeat.from_blocks_dict({"do": block})).start()
    turnstile.wait()
    del run
    turnstile.let_go(3)
    join_run_threads()
    assert seen == [0]


def test_a_thousand_abandoned_streams_leave_no_thread() -> None:
    pipe = counting()
    for _ in range(1000):
        for _ in pipe.stream(x=0):
            break
    join_run_threads()


def test_nothing_is_kept_of_events_that_are_over() -> None:
    def ours() -> Counter[str]:
        gc.collect()
        kinds = (type(kept) for kept in gc.get_objects())
        return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("loopwright."))

    counts = [ours() for event in counting().stream(x=0, steps=2000) if event.index in (100, 1999)]
    assert not counts[1] - counts[0]


def test_streams_that_nobody_began_have_no_thread() -> None:
    pipe = counting()
    runs = [pipe.stream(x=0) for _ in range(10)]
    assert run_threads() == []
    del runs


def test_the_components_of_the_run_are_those_that_it_worked_with(embedded: Any, inputs: Any) -> None:
    before = embedded.scheduler.timesteps.clone()
    run = embedded.start(**inputs())
    run.result()
    assert len(run.components.scheduler.timesteps) == 3
    assert run.components.transformer is embedded.transformer
    assert embedded.scheduler.timesteps.equal(before)


def test_a_run_is_saved_where_it_stands_and_resumed_elsewhere(tmp_path: Any) -> None:
    pipe = counting()
    run = pipe.stream(x=0, steps=4, output="x")
    for event in run:
        if event.index == 1:
            run.save(tmp_path / "held")
            run.pause()
            run.save(tmp_path / "paused")
            run.go_on()
    assert run.result() == 8
    for folder in ("held", "paused"):
        resumed = pipe.resume(tmp_path / folder, output="x")
        assert resumed.result() == 8


def test_a_run_that_works_is_saved_after_the_iteration(tmp_path: Any) -> None:
    turnstile = Turnstile()
    pipe = stopping(turnstile)
    run = pipe.start(x=0, output="x")
    turnstile.wait()
    run.pause()
    turnstile.let_go(3)
    run.save(tmp_path / "run")
    run.go_on()
    assert run.result() == 6
    # the first iteration is not run again: twice somebody comes to the turnstile
    resumed = pipe.resume(tmp_path / "run", output="x")
    turnstile.let_go(2)
    assert resumed.result() == 6


def test_saving_a_run_that_is_paused_before_a_model_works_to_the_end_of_the_iteration(
    embedded: Any, inputs: Any, image: np.ndarray, tmp_path: Any
) -> None:
    run = embedded.stream(**inputs())
    events = iter(run)
    next(events)
    run.pause()
    events.close()  # type: ignore[attr-defined]
    run.save(tmp_path / "run")
    run.go_on()
    assert np.array_equal(run.result(), image)
    assert np.array_equal(embedded.resume(tmp_path / "run", output="images").result(), image)


def test_a_resumed_run_and_a_branch_wait_to_be_watched_if_they_are_held(tmp_path: Any) -> None:
    pipe = counting()
    run = pipe.stream(x=0, steps=5, output="x", checkpoint=Checkpoint(tmp_path / "run", keep=None))
    for event in run:
        if event.index == 1:
            run.cancel()
    resumed = pipe.resume(tmp_path / "run", output="x", held=True)
    assert (resumed.status, run_threads()) == ("waiting", [])
    assert [(event.index, event.peek("x")) for event in resumed] == [(2, 6), (3, 8), (4, 10)]
    assert resumed.result() == 10
    branch = pipe.branch(tmp_path / "run", at=1, output="x", held=True)
    assert branch.status == "waiting"
    assert [event.index for event in branch] == [1, 2, 3, 4]
    assert pipe.branch(tmp_path / "run", at=1, output="x", held=True).result() == 10


def test_what_was_stopped_is_saved_as_stopped(tmp_path: Any) -> None:
    pipe = counting()
    run = pipe.stream(x=0, steps=4, output="x")
    for _ in run:
        run.stop_loop()
        run.save(tmp_path / "run")
    assert run.result() == 2
    assert pipe.resume(tmp_path / "run", output="x").result() == 2


def test_a_callback_can_save_the_run(tmp_path: Any) -> None:
    pipe = counting()
    runs: list[Any] = []
    run = pipe.stream(x=0, output="x", callbacks=lambda e: runs[0].save(tmp_path / "run") if e.index == 1 else None)
    runs.append(run)
    assert run.result() == 6
    assert pipe.resume(tmp_path / "run", output="x").result() == 6
    runs.clear()


def test_a_run_that_has_not_begun_or_has_ended_cannot_be_saved(tmp_path: Any) -> None:
    run = counting().stream(x=0)
    with pytest.raises(RunStateError) as caught:
        run.save(tmp_path / "run")
    assert str(caught.value) == ("the run has not begun, there is nothing to save: iterate it, or ask for its result")
    run.result()
    with pytest.raises(RunStateError) as caught:
        run.save(tmp_path / "run")
    assert str(caught.value) == "the run ended before it came to the end of an iteration"


def test_a_failure_to_save_is_raised_to_who_asked_and_the_run_goes_on(tmp_path: Any) -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda *_, **__: object())}))
    run = pipe.stream()
    for _ in run:
        with pytest.raises(TypeError):
            run.save(tmp_path / "run")
    assert run.status == "succeeded"


def test_progress_bars_are_shown_and_hidden(capsys: Any) -> None:
    pipe = pipeline(loop=Steps.from_blocks_dict({"add": AddOne}))
    pipe(x=0, progress=True)
    assert "3/3" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=False)
    pipe.start(x=0, progress=False).result()
    assert capsys.readouterr().err == ""


def test_rows_of_a_loop_in_a_loop_run_as_in_a_call() -> None:
    pipe = pipeline(rows=RepeatRows.from_blocks_dict({"count": Repeat.from_blocks_dict({"add": AddOne})}))
    assert pipe.stream(x=0).result().x == pipe(x=0).x == 6
