"""One thread for torch, and no thread of a batch or a run left over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loopwright.diffusion import embedded_pipeline
from tests.bridge.families.text import stand_in_for_ftfy
from tests.run.blocks import join_run_threads
from tools.batching_schedules import tiny_pipeline


@pytest.fixture(autouse=True, scope="package")
def _one_thread_for_torch() -> Iterator[None]:
    # the pools of many threads would spend the time waiting for each other
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="package")
def _prompts_need_no_repair() -> None:
    stand_in_for_ftfy()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    join_run_threads()
    assert [thread for thread in threading.enumerate() if thread.name == "loopwright-batch"] == []


@pytest.fixture(scope="package")
def embedded() -> Any:
    made = embedded_pipeline()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def tiny() -> Any:
    return tiny_pipeline()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that a batch sees stands still, so that whoever is waited for is waited for."""
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr("loopwright.batching.batcher.time", SimpleNamespace(perf_counter=lambda: made.now))
    monkeypatch.setattr("loopwright.batching.member.time", SimpleNamespace(perf_counter=lambda: made.now))
    return made
