"""Who begins next: what there is room for, higher priorities first, each client in its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from loopwright.batching import batched
from loopwright.batching.admission import Admission, Client
from loopwright.batching.memory import RunMemory
from loopwright.errors import InvalidInputError, RunCancelledError
from loopwright.run.control import Control
from tests.batching.blocks import pipeline, row
from tests.run.blocks import PATIENCE, Turnstile

FREE = RunMemory(None, None)


def until(admission: Admission, condition: Callable[[], bool]) -> None:
    """Wait for something that changes when a run comes or leaves."""
    ends = time.monotonic() + PATIENCE
    with admission._changed:
        while not condition():
            assert time.monotonic() < ends
            admission._changed.wait(0.01)


def until_in_line(b: Any, count: int) -> None:
    """Wait until so many runs wait for their turn."""
    admission: Admission = b._batch._batcher._admission
    until(admission, lambda: len(admission._waiting) >= count)


class Line:
    """Runs that wait for their turn one behind the other, and leave in the order in which they are told to."""

    def __init__(self, admission: Admission) -> None:
        self.order: list[str] = []
        self._admission = admission
        self._began: dict[str, threading.Semaphore] = {}
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def come(self, name: str, client: Client) -> None:
        self._ends[name] = threading.Event()
        waiting = sum(self._admission.waiting.values())
        active = self._admission.active

        def work() -> None:
            with self._admission.admitted(client, lambda: None):
                self.order.append(name)
                assert self._ends[name].wait(PATIENCE)

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()
        until(self._admission, lambda: len(self._admission._waiting) > waiting or self._admission.active > active)

    def leave(self, name: str) -> None:
        count = len(self.order) + (sum(self._admission.waiting.values()) > 0)
        self._ends[name].set()
        until(self._admission, lambda: len(self.order) >= count)

    def close(self) -> None:
        for end in self._ends.values():
            end.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_no_more_runs_are_active_than_there_is_room_for() -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe, max_active=2) as b:
        runs = [b.start(x=row(n), around=turnstile, steps=1, output="x") for n in range(5)]
        turnstile.wait()
        turnstile.wait()
        until_in_line(b, 3)
        assert (b.report().active, b.report().waiting) == (2, {None: 3})
        turnstile.let_go(5)
        for run in runs:
            run.result(PATIENCE)
        assert (b.report().active, b.report().waiting) == (0, {})


def test_a_run_that_waits_for_its_turn_can_be_cancelled() -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe, max_active=1) as b:
        first = b.start(x=row(0), around=turnstile, steps=1)
        turnstile.wait()
        waiting = b.start(x=row(1))
        waiting.cancel()
        with pytest.raises(RunCancelledError):
            waiting.result(PATIENCE)
        turnstile.let_go()
        first.result(PATIENCE)


def paused_at_its_second_call(b: Any) -> Any:
    """A run that is told to pause, and leaves its place when it comes to its second call at the latest."""
    turnstile = Turnstile()
    run = b.start(x=row(9), around=lambda i: turnstile() if i == 1 else None, output="x")
    turnstile.wait()
    run.pause()
    turnstile.let_go()
    return run


def test_a_paused_run_leaves_its_place_to_others() -> None:
    with batched(pipeline(lambda x: 2 * x), max_active=1) as b:
        paused = paused_at_its_second_call(b)
        assert torch.equal(b(x=row(1), output="x"), 8 * row(1))
        assert b.report().active == 0
        paused.go_on()
        assert torch.equal(paused.result(PATIENCE), 8 * row(9))
        assert (b.report().active, b.report().waiting) == (0, {})


def test_a_run_goes_on_after_a_pause_when_its_turn_has_come() -> None:
    turnstile = Turnstile()
    with batched(pipeline(lambda x: 2 * x), max_active=1) as b:
        paused = paused_at_its_second_call(b)
        other = b.start(x=row(1), around=turnstile, steps=1, output="x")
        turnstile.wait()
        paused.go_on()
        until_in_line(b, 1)
        turnstile.let_go()
        assert torch.equal(other.result(PATIENCE), 2 * row(1))
        assert torch.equal(paused.result(PATIENCE), 8 * row(9))


def test_a_run_that_is_cancelled_before_it_goes_on_gives_back_no_place_that_it_does_not_have() -> None:
    turnstile = Turnstile()
    with batched(pipeline(lambda x: 2 * x), max_active=1) as b:
        paused = [paused_at_its_second_call(b), paused_at_its_second_call(b)]
        other = b.start(x=row(1), around=turnstile, steps=1, output="x")
        turnstile.wait()
        # one while it waits for its turn to go on, one that has not been told to
        paused[0].go_on()
        until_in_line(b, 1)
        for run in paused:
            run.cancel()
            with pytest.raises(RunCancelledError):
                run.result(PATIENCE)
        late = b.start(x=row(2), output="x")
        until_in_line(b, 1)
        assert (b.report().active, b.report().waiting) == (1, {None: 1})
        turnstile.let_go()
        assert torch.equal(other.result(PATIENCE), 2 * row(1))
        assert torch.equal(late.result(PATIENCE), 8 * row(2))


def test_time_for_which_a_run_waits_for_its_turn_does_not_count() -> None:
    control, admission = Control(timeout=PATIENCE), Admission(1, FREE)
    with admission.admitted(Client(), lambda: None), control.waiting():
        before = control.elapsed
        until(admission, lambda: time.perf_counter() > control._began + control._waited + before)
        assert control.elapsed == before
    assert control.elapsed < time.perf_counter() - control._began


@pytest.mark.parametrize("call", [lambda b: b(x=row(5), output="x"), lambda b: b.start(x=row(5), output="x").result()])
def test_a_block_may_wait_for_a_run_of_its_own_batch(call: Callable[[Any], Any]) -> None:
    made: list[Any] = []
    with batched(pipeline(lambda x: 2 * x), max_active=1) as b:
        run = b.start(x=row(1), around=lambda i: made.append(call(b)), output="x")
        assert torch.equal(run.result(PATIENCE), 8 * row(1))
    assert all(torch.equal(x, 8 * row(5)) for x in made)
    assert len(made) == 3


def test_what_a_run_takes_is_not_measured_by_one_that_failed() -> None:
    memory = RunMemory(100, lambda: (1000, 1000))
    admission = Admission(None, memory)
    with pytest.raises(ZeroDivisionError), admission.admitted(Client(), lambda: None):
        raise ZeroDivisionError
    # so that one begins, and no more
    assert memory.run_bytes is None
    assert not memory.has_room(1)


def test_a_paused_run_keeps_its_memory() -> None:
    memory = RunMemory(100, lambda: (1000, 1000))
    admission = Admission(None, memory)
    memory.run_bytes = 60
    with admission.admitted(Client(), lambda: None) as place:
        admission.halt(place)
        beside = Thread(admission)
        until(admission, lambda: len(admission._waiting) == 1)
        # it goes on, as it takes no more than before
        admission.go_on(place, lambda: None)
        assert admission.active == 1
    beside.join()


class Thread:
    """A run that is admitted, in a thread of its own."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        with self._admission.admitted(Client(), lambda: None):
            pass

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_clients_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopwright.batching.admission._MOST_CLIENTS", 3)
    admission = Admission(1, FREE)
    for n in range(9):
        with admission.admitted(Client(f"client {n}"), lambda: None):
            pass
    assert list(admission._served) == ["client 6", "client 7", "client 8"]
    assert not admission._active


def test_higher_priorities_begin_first() -> None:
    admission = Admission(1, FREE)
    line = Line(admission)
    line.come("first", Client("a"))
    line.come("usual", Client("b"))
    line.come("urgent", Client("c", priority=5))
    line.come("late", Client("d", priority=-1))
    for name in ("first", "urgent", "usual"):
        line.leave(name)
    line.close()
    assert line.order == ["first", "urgent", "usual", "late"]


def test_a_client_with_many_runs_does_not_keep_the_others_waiting() -> None:
    admission = Admission(1, FREE)
    line = Line(admission)
    for n in range(3):
        line.come(f"many {n}", Client("many"))
    line.come("few 0", Client("few"))
    line.come("other 0", Client("other"))
    line.come("few 1", Client("few"))
    for name in ("many 0", "few 0", "other 0", "many 1", "few 1"):
        line.leave(name)
    line.close()
    assert line.order == ["many 0", "few 0", "other 0", "many 1", "few 1", "many 2"]


def test_as_many_runs_begin_as_fit_into_the_memory_that_they_were_measured_to_take() -> None:
    in_use = 1000
    memory = RunMemory(100, lambda: (in_use, in_use))
    memory.note(0)
    # nothing is known yet: one run at a time
    assert memory.has_room(0)
    assert not memory.has_room(1)
    in_use = 1030
    memory.note(1)
    assert memory.run_bytes == 30
    assert [memory.has_room(active) for active in (1, 2, 3)] == [True, True, False]
    # two together took more than twice what one did
    in_use = 1090
    memory.note(2)
    assert memory.run_bytes == 45
    assert not memory.has_room(2)
    assert memory.has_room(0)


def test_a_budget_lets_runs_begin_one_by_one_until_one_was_measured() -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe, memory_budget=1) as b:
        assert b.report().run_bytes is None
        for run in [b.start(x=row(n), output="x") for n in range(3)]:
            run.result(PATIENCE)
        assert b.report().run_bytes is not None


def test_clients_share_a_batch() -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe, max_active=1) as b:
        first = b.client("a").start(x=row(0), around=turnstile, steps=1)
        turnstile.wait()
        others: list[Any] = [b.client(name, priority=1).start(x=row(1)) for name in ("b", "b", "c")]
        until_in_line(b, 3)
        assert b.report().waiting == {"b": 2, "c": 1}
        turnstile.let_go()
        for run in [first, *others]:
            run.result(PATIENCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1,), "the name of a client is 1; it must be a string"), (("a", "high"), "`priority` is 'high'")],
)
def test_a_client_that_cannot_be_used_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with batched(pipeline(lambda x: x)) as b, pytest.raises(InvalidInputError, match=message):
        b.client(*arguments)
