"""Which thread waits for which other one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

import pytest

from loopwright.components import waits
from loopwright.components.waits import awaiting, waits_for
from tests.run.blocks import PATIENCE, Turnstile

WAYS: dict[str, Callable[[Future[Any]], Any]] = {
    "result": lambda future: future.result(),
    "exception": lambda future: future.exception(),
    "wait": lambda future: wait([future]),
    "as_completed": lambda future: list(as_completed([future])),
}


def until(condition: Callable[[], bool]) -> None:
    """Until another thread has come to where it waits, which nothing tells."""
    pause = threading.Event()
    for _ in range(PATIENCE * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came to pass")


def started(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def ident(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return thread.ident


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_for_a_future_waits_for_the_thread_that_works_at_it(way: str) -> None:
    turnstile, idents = Turnstile(), []

    def work() -> None:
        idents.append(threading.get_ident())
        turnstile()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        turnstile.wait()
        waiting = started(lambda: WAYS[way](future))
        until(lambda: waits_for(ident(waiting), idents[0]))
        assert not waits_for(idents[0], ident(waiting))
        assert not waits_for(threading.get_ident(), idents[0])
        turnstile.let_go()
        waiting.join(PATIENCE)


def test_who_waits_for_a_future_in_a_queue_waits_for_the_threads_of_the_pool() -> None:
    turnstile, idents = Turnstile(), []

    def work() -> None:
        idents.append(threading.get_ident())
        turnstile()

    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        pool.submit(work)
        turnstile.wait()
        queued = pool.submit(int)
        other.submit(work)
        turnstile.wait()
        waiting = started(queued.result)
        until(lambda: waits_for(ident(waiting), idents[0]))
        assert not waits_for(ident(waiting), idents[1])
        turnstile.let_go(2)
        waiting.join(PATIENCE)


def test_threads_that_are_joined_are_waited_for_in_turn() -> None:
    turnstile = Turnstile()
    last = started(turnstile)
    turnstile.wait()
    middle = started(last.join)
    first = started(middle.join)
    until(lambda: waits_for(ident(first), ident(last)))
    assert not waits_for(ident(last), ident(first))
    turnstile.let_go()
    first.join(PATIENCE)


def test_a_thread_waits_for_itself_and_for_whom_it_says() -> None:
    turnstile, mine = Turnstile(), threading.get_ident()
    other = started(turnstile)
    turnstile.wait()
    assert waits_for(mine, mine)
    assert not waits_for(mine, ident(other))
    with awaiting(ident(other)), awaiting(None):
        assert waits_for(mine, ident(other))
    assert not waits_for(mine, ident(other))
    assert not waits._awaited
    turnstile.let_go()
    other.join(PATIENCE)
