"""Who begins next: what there is room for, higher priorities first, each client in its turn."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from loopwright.batching import batched
from loopwright.batching.admission import Admission, Client
from loopwright.batching.memory import RunMemory
from loopwright.errors import InvalidInputError, RunCancelledError
from tests.batching.blocks import pipeline, row
from tests.run.blocks import PATIENCE, Turnstile

FREE = RunMemory(None, None)


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
        # until it is in its place
        while sum(self._admission.waiting.values()) == waiting and self._admission.active == active:
            pass

    def leave(self, name: str) -> None:
        count = len(self.order) + (sum(self._admission.waiting.values()) > 0)
        self._ends[name].set()
        while len(self.order) < count:
            pass

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
        while sum(b.report().waiting.values()) < 3:
            pass
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
        while sum(b.report().waiting.values()) < 3:
            pass
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
