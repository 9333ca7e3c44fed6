"""Runs for asyncio: the event loop is never blocked, and no thread is held for waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from loopwright.run.event import Event
from loopwright.run.run import Run

__all__ = ["events_of", "result_of"]


async def result_of(run: Run) -> Any:
    """The result of a held run; cancelling the task cancels the run."""
    async with aclosing(_steps(run, listen=False)) as steps:
        async for _ in steps:
            pass
    return run.result()


async def events_of(run: Run) -> AsyncGenerator[Event]:
    """The events of a held run; leaving the iteration early cancels it."""
    async with aclosing(_steps(run, listen=True)) as steps:
        async for event in steps:
            yield event
    run._task.raise_failure()


async def _steps(run: Run, listen: bool) -> AsyncGenerator[Event]:
    control = run._execution.control
    loop = asyncio.get_running_loop()
    try:
        while True:
            ready = asyncio.Event()

            def wake(ready: asyncio.Event = ready) -> None:
                with suppress(RuntimeError):  # the event loop was closed
                    loop.call_soon_threadsafe(ready.set)

            if listen:
                control.want(wake)
            else:
                control.at_end(wake)
            run._task.start()
            await ready.wait()
            event: Event | None = control.taken() if listen else None
            if event is None:
                return
            yield event
            del event
    finally:
        if run._task.status is None:
            run.cancel()
