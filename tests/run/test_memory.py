"""Memory is read without changing anything of it."""

from __future__ import annotations

import mmap

import torch

from loopwright.run.memory import MemoryGauge, memory_gauge
from tests.run.blocks import counting


def test_a_peak_counts_when_it_has_grown_since_the_last_time() -> None:
    now = [(5, 100)]
    gauge = MemoryGauge("", lambda: list(now))
    seen = [gauge.sample()]
    for now[0] in [(7, 100), (7, 120), (6, 120), (9, 20), (8, 30)]:
        seen.append(gauge.sample())
    # somebody else set the figure back before the last but one
    assert seen == [(5, 5), (7, 7), (7, 120), (6, 6), (9, 9), (8, 30)]


def test_devices_are_added_up_and_may_come_later() -> None:
    now = [(5, 10)]
    gauge = MemoryGauge("", lambda: list(now))
    now[:] = [(5, 30), (2, 2)]
    assert gauge.sample() == (7, 32)
    now[:] = [(6, 30), (1, 4)]
    assert gauge.sample() == (7, 10)


def test_without_an_accelerator_it_is_the_resident_memory_of_the_process() -> None:
    gauge = memory_gauge(counting())
    assert gauge is not None
    assert (gauge.kind, gauge.asynchronous) == ("resident memory of the whole process", False)
    before, _ = gauge.sample()
    # pages that the process did not have before, as memory that was given back to an allocator may still be resident
    with mmap.mmap(-1, 64 * 2**20) as held:
        held.write(b"1" * len(held))
        after, most = gauge.sample()
        assert most >= after
        assert after - before > len(held) // 2


def test_reading_memory_does_not_initialize_cuda() -> None:
    gauge = memory_gauge(counting())
    assert gauge is not None
    gauge.sample()
    assert not torch.cuda.is_initialized()
