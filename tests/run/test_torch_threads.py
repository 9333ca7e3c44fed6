"""The thread that waits for a run keeps no worker threads of torch, which would slow those of the run down."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright.run.torch_threads import _releases, release_torch_threads
from tests.blocks.arithmetic import Repeat
from tests.run.blocks import PATIENCE, Do, pipeline

WORKERS = 3


def native_threads() -> int:
    # a listing of the tasks may count one that ends and one that begins, though they are never there together
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads:"))
    return int(line.split()[1])


@pytest.fixture
def workers() -> Iterator[None]:
    """This thread has worker threads of torch."""
    if not _releases():
        pytest.skip("torch does not use GNU's OpenMP here")
    before = torch.get_num_threads()
    torch.set_num_threads(WORKERS + 1)
    torch.rand(1_000_000).add(1)
    yield
    torch.set_num_threads(before)
    release_torch_threads()


def call(pipe: Any) -> None:
    for _ in pipe.stream():
        torch.rand(1_000_000).add(1)


def acall(pipe: Any) -> None:
    async def main() -> None:
        async for _ in pipe.astream():
            torch.rand(1_000_000).add(1)

    asyncio.run(main())


@pytest.mark.parametrize("wait", [call, acall, lambda pipe: pipe.start().result(), lambda pipe: pipe.stream().result()])
def test_who_waits_for_a_run_has_none(workers: Any, wait: Any) -> None:
    there, seen = native_threads(), []

    def look(components: Any, x: int, i: int) -> None:
        until = time.monotonic() + PATIENCE / 10
        # the thread of the run, without the workers, which end a moment after they are told to
        while native_threads() > there - WORKERS + 1 and time.monotonic() < until:
            os.sched_yield()
        seen.append(native_threads())

    wait(pipeline(loop=Repeat.from_blocks_dict({"look": Do(look)})))
    assert seen == [there - WORKERS + 1] * 3


def test_giving_them_back_twice_is_no_trouble(workers: Any) -> None:
    release_torch_threads()
    release_torch_threads()
    assert torch.ones(1_000_000).add(1).sum() == 2_000_000
