"""`acall` and `astream` never block the event loop; what is left early is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from loopwright.errors import RunTimeoutError, UnknownInputError
from tests.blocks.arithmetic import AddOne, Divide, Double, Repeat
from tests.run.blocks import Do, Turnstile, counting, join_run_threads, pipeline


def stopping(turnstile: Turnstile, seen: list[int]) -> Any:
    block = Do(lambda _, x, i: (seen.append(i), turnstile())[1])
    return pipeline(loop=Repeat.from_blocks_dict({"stop": block, "add": AddOne}), double=Double)


def test_acall_returns_what_a_call_returns() -> None:
    assert asyncio.run(counting().acall(x=0, output="x")) == 6


def test_astream_yields_the_events_of_stream() -> None:
    async def main() -> list[tuple[int, int, int]]:
        return [(event.index, event.state.x, event.peek("x")) async for event in counting().astream(x=0)]

    assert asyncio.run(main()) == [(0, 1, 2), (1, 2, 4), (2, 3, 6)]


def test_mistakes_in_a_call_are_raised() -> None:
    with pytest.raises(UnknownInputError):
        asyncio.run(counting().acall(y=0))
    with pytest.raises(UnknownInputError):
        counting().astream(y=0)


def test_the_event_loop_goes_on_while_blocks_work() -> None:
    turnstile, seen = Turnstile(), []

    async def main() -> int:
        task = asyncio.ensure_future(stopping(turnstile, seen).acall(x=0, output="x"))
        # the run cannot end before the event loop gets here again
        while not seen:
            await asyncio.sleep(0)
        turnstile.let_go(3)
        return int(await task)

    assert asyncio.run(main()) == 6


def test_exceptions_come_as_they_are() -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"divide": Divide}))

    async def watch() -> None:
        async for _ in pipe.astream(x=0):
            pass

    for call in (lambda: pipe.acall(x=0), watch):
        with pytest.raises(ZeroDivisionError) as caught:
            asyncio.run(call())
        assert caught.value.__notes__ == ["in block `loop.divide`, iteration 0 of loop `loop` (i=0)"]


def test_cancelling_the_task_cancels_the_run() -> None:
    turnstile, seen = Turnstile(), []

    async def main() -> None:
        task = asyncio.ensure_future(stopping(turnstile, seen).acall(x=0))
        while not seen:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        turnstile.let_go(3)

    asyncio.run(main())
    join_run_threads()
    assert seen == [0]


def test_leaving_the_iteration_early_cancels_the_run() -> None:
    turnstile, seen = Turnstile(), []
    turnstile.let_go(3)

    async def main() -> None:
        async for _ in stopping(turnstile, seen).astream(x=0):
            break

    asyncio.run(main())
    join_run_threads()
    assert seen == [0]


def test_a_stream_that_is_never_iterated_never_begins() -> None:
    seen: list[int] = []
    events = stopping(Turnstile(), seen).astream(x=0)
    del events
    assert seen == []


def test_options_hold_here_too(clock: Any) -> None:
    def tick(*_: Any, **__: Any) -> None:
        clock.now += 1

    pipe = pipeline(loop=Repeat.from_blocks_dict({"tick": Do(tick)}))
    indices: list[int] = []
    with pytest.raises(RunTimeoutError):
        asyncio.run(pipe.acall(timeout=1.5, callbacks=lambda event: indices.append(event.index)))
    assert indices == [0, 1]


def test_many_calls_at_once_end_as_they_do_alone(embedded: Any, inputs: Any) -> None:
    seeds = range(4)
    alone = [embedded(**inputs(seed)) for seed in seeds]

    async def main() -> list[np.ndarray]:
        return await asyncio.gather(*[embedded.acall(**inputs(seed)) for seed in seeds])

    for got, expected in zip(asyncio.run(main()), alone, strict=True):
        assert np.array_equal(got, expected)
