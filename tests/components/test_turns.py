"""Who works with a model: together, alone, or by turns; and nobody waits for ever."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.components import turns
from loopwright.components.turns import (
    acting_as,
    alone,
    at_work,
    has_owner,
    is_holding,
    is_inside,
    is_used,
    lent,
    together,
    unchanged,
    vacated,
)
from tests.components.simulated import until_waiting
from tests.run.blocks import PATIENCE, Turnstile, in_threads


def nothing() -> None:
    pass


def model() -> torch.nn.Module:
    return torch.nn.Linear(1, 1)


class Thread:
    """A function in a thread of its own, as the work of a run of a name."""

    def __init__(self, run: str, function: Callable[[], Any]) -> None:
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(run, function))
        self._thread.start()

    def _work(self, run: str, function: Callable[[], Any]) -> None:
        try:
            with acting_as(run, nothing):
                function()
        except BaseException as error:
            self._errors.append(error)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._errors:
            raise self._errors[0]


def call(model: torch.nn.Module, *then: Callable[[], Any]) -> Callable[[], None]:
    """What makes a call of a model, in which some things are done."""

    def work() -> None:
        with together(model):
            for do in then:
                do()

    return work


def take(models: list[torch.nn.Module], *then: Callable[[], Any]) -> Callable[[], None]:
    """What has models alone, and does some things meanwhile."""

    def work() -> None:
        with alone(models):
            for do in then:
                do()

    return work


def test_one_who_has_a_model_alone_may_take_it_again_and_call_it() -> None:
    first = model()
    with acting_as("a", nothing):
        with alone([first]), alone([first]), together(first):
            assert has_owner(first)
            assert is_inside(first)
            assert is_holding("a")
        assert not has_owner(first)
        assert not is_inside(first)
        assert not is_holding("a")


def test_calls_of_several_runs_go_on_together_and_one_alone_waits_for_them() -> None:
    first, order = model(), []
    turnstile = Turnstile()

    calls = [Thread(run, call(first, turnstile, lambda: order.append("together"))) for run in "ab"]
    turnstile.wait()
    turnstile.wait()
    assert is_used(first)
    taking = Thread("c", take([first], lambda: order.append("alone")))
    until_waiting(1)
    turnstile.let_go(2)
    for thread in (*calls, taking):
        thread.join()
    assert order == ["together", "together", "alone"]
    assert not is_used(first)


def test_those_who_wait_for_a_model_come_before_those_who_come_later() -> None:
    first, order = model(), []
    turnstile = Turnstile()

    threads = [Thread("a", call(first, turnstile, lambda: order.append("first")))]
    turnstile.wait()
    threads.append(Thread("b", take([first], lambda: order.append("alone"))))
    until_waiting(1)
    threads.append(Thread("c", call(first, lambda: order.append("late"))))
    until_waiting(2)
    turnstile.let_go()
    for thread in threads:
        thread.join()
    assert order == ["first", "alone", "late"]


def test_a_call_does_not_wait_for_those_who_come_later_to_have_the_model_alone() -> None:
    """Otherwise two runs that have it alone in turn would keep all others from it."""
    first, order = model(), []
    turnstile = Turnstile()

    with acting_as("a", nothing), alone([first]):
        calling = Thread("b", call(first, turnstile, lambda: order.append("called")))
        until_waiting(1)
        taking = Thread("c", take([first], lambda: order.append("alone")))
        until_waiting(2)
    turnstile.wait()
    assert order == []
    turnstile.let_go()
    calling.join()
    taking.join()
    assert order == ["called", "alone"]


def test_one_who_takes_a_model_again_lets_those_pass_who_wait_for_it() -> None:
    first, order = model(), []

    with acting_as("a", nothing):
        with alone([first]):
            waiting = []
            for number, name in enumerate("bc", 1):
                waiting.append(Thread(name, take([first], partial(order.append, name))))
                until_waiting(number)
        take([first], lambda: order.append("a"))()
    for thread in waiting:
        thread.join()
    assert order == ["b", "c", "a"]


def test_a_model_that_nobody_has_is_not_kept_for_one_who_waits_for_another_besides() -> None:
    first, second, order = model(), model(), []

    with acting_as("a", nothing), alone([second]):
        waiting = Thread("b", take([first, second], lambda: order.append("both")))
        until_waiting(1)
        Thread("c", take([first], lambda: order.append("one"))).join()
    waiting.join()
    assert order == ["one", "both"]


def test_many_runs_that_wait_for_each_other_go_on_without_delay() -> None:
    """Each calls a model, and wants those of all others."""
    models = [model() for _ in range(16)]
    meet = threading.Barrier(len(models))

    def work(own: torch.nn.Module) -> Callable[[], None]:
        def take() -> None:
            with together(own):
                meet.wait(PATIENCE)
                with vacated(lambda: [other for other in models if other is not own]):
                    pass

        return take

    in_threads(*map(work, models))
    assert not turns._waits
    assert not turns._passed


def test_a_thread_of_nobody_takes_no_model_from_a_block() -> None:
    """Its calls pass, as the block may have made it; but it does not move the model, or change it."""
    first, second = model(), model()
    had: list[torch.nn.Module] = []

    def vacate() -> None:
        with vacated(lambda: [first, second]) as models:
            had.extend(models)

    def call_alone() -> None:
        with alone([first], for_call=True), together(first):
            assert is_used(second)

    with acting_as("a", nothing), alone([first, second], for_block=True):
        in_threads(call_alone)
        in_threads(vacate)
        assert had == []
        taking = threading.Thread(target=take([first], lambda: had.append(first)))
        taking.start()
        until_waiting(1)
        assert had == []
    taking.join(PATIENCE)
    assert had == [first]


def test_a_thread_that_is_given_the_context_of_a_run_does_not_count_as_the_run() -> None:
    with acting_as("a", nothing):
        context = contextvars.copy_context()
        assert in_threads(lambda: context.run(turns.current_run)) != ["a"]
        assert turns.current_run() == "a"


def test_one_who_is_interrupted_while_it_waits_for_what_it_lent_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, turnstile = model(), Turnstile()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def lend() -> None:
        with acting_as("a", nothing), alone([first]), together(first), lent([first]):
            taking.append(Thread("b", take([first], turnstile)))
            turnstile.wait()
            monkeypatch.setattr(turns._changed, "wait", interrupt)

    taking: list[Thread] = []
    with pytest.raises(KeyboardInterrupt):
        lend()
    monkeypatch.undo()
    assert not turns._gate(first).waiting
    turnstile.let_go()
    taking[0].join()
    assert not is_used(first)
    assert not turns._waits
    assert not turns._passed


def test_nobody_changes_a_model_whose_weights_are_read() -> None:
    first, turnstile = model(), Turnstile()

    def read() -> None:
        with unchanged(first):
            turnstile()

    with at_work("a", nothing), alone([first], for_block=True):
        with unchanged(first):
            pass  # in the thread of the run that has it
        reading = threading.Thread(target=read)
        reading.start()
        until_waiting(1)
    turnstile.wait()
    assert is_used(first)
    turnstile.let_go()
    reading.join(PATIENCE)
    assert not is_used(first)


def test_one_who_has_no_model_keeps_nobody_waiting() -> None:
    with acting_as("a", nothing), alone([]):
        assert not is_holding("a")


def test_waiting_ends_when_the_run_has_to_end() -> None:
    first = model()

    def stop() -> None:
        raise ZeroDivisionError

    with acting_as("a", nothing), together(first), acting_as("b", stop):
        for wait in (alone([first]), vacated(lambda: [first])):
            with pytest.raises(ZeroDivisionError), wait:
                pass
        assert not turns._waits
    with acting_as("c", stop), alone([first]):
        assert has_owner(first)


def test_what_is_chosen_is_had_alone_once_nobody_uses_it() -> None:
    first, second = model(), model()
    turnstile, had = Turnstile(), []

    def vacate() -> None:
        with vacated(lambda: [first, second]) as models:
            had.extend(models)
            assert has_owner(first)
            assert has_owner(second)

    calling = Thread("a", call(first, turnstile))
    turnstile.wait()
    taking = Thread("b", vacate)
    until_waiting(1)
    assert had == []
    turnstile.let_go()
    calling.join()
    taking.join()
    assert had == [first, second]


def test_a_run_does_not_have_away_what_it_is_calling_itself() -> None:
    first, second = model(), model()
    with acting_as("a", nothing), together(first), vacated(lambda: [first, second]) as models:
        assert models == [second]


def test_runs_that_wait_for_each_other_go_on_without() -> None:
    """Each calls a model, and wants the other's."""
    first, second = model(), model()
    meet, had = threading.Barrier(2), {}

    def work(run: str, own: torch.nn.Module, other: torch.nn.Module) -> Callable[[], None]:
        def take() -> None:
            with acting_as(run, nothing), together(own):
                meet.wait(PATIENCE)
                with vacated(lambda: [other]) as models:
                    had[run] = models

        return take

    in_threads(work("a", first, second), work("b", second, first))
    # the one that goes on first has nothing; what the other has depends on whether the first has left by then
    assert [] in had.values()
    assert not turns._waits
    assert not turns._passed


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["together", "alone", "vacated"]), st.sets(st.integers(0, 2), min_size=1))),
        min_size=2,
        max_size=4,
    )
)
def test_whatever_runs_do_one_after_the_other_all_come_to_an_end(plans: list[list[tuple[str, set[int]]]]) -> None:
    models = [model() for _ in range(3)]
    inside: list[set[int]] = [set() for _ in models]

    def enter(run: int, numbers: set[int], exclusively: bool) -> None:
        for number in numbers:
            inside[number].add(run)
            assert not exclusively or inside[number] == {run}
        for number in numbers:
            inside[number].discard(run)

    def work(run: int, plan: list[tuple[str, set[int]]]) -> Callable[[], None]:
        def follow() -> None:
            with acting_as(run, nothing):
                for kind, numbers in plan:
                    if kind == "together":
                        for number in numbers:
                            with together(models[number]):
                                enter(run, {number}, False)
                    elif kind == "alone":
                        with alone([models[number] for number in numbers]):
                            enter(run, numbers, True)
                    else:
                        with vacated(lambda numbers=numbers: [models[number] for number in numbers]) as had:
                            enter(run, {models.index(found) for found in had}, True)

        return follow

    in_threads(*[work(run, plan) for run, plan in enumerate(plans)])
    assert not turns._waits
    assert not turns._passed
    assert not any(map(is_used, models))
