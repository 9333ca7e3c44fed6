"""Which thread waits for which other one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from loopwright.components import waits
from loopwright.components.waits import awaiting, waits_for
from tests.run.blocks import PATIENCE, Turnstile


def started(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def ident(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return thread.ident


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
