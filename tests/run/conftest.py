"""The embedded model, and a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from loopwright import ModularPipeline
from loopwright.diffusion import embedded_pipeline
from tests.run.blocks import join_run_threads

STEPS = 3


@pytest.fixture(scope="package")
def embedded() -> Iterator[ModularPipeline]:
    made = embedded_pipeline(workflow="text2image")
    made.set_progress_bar_config(disable=True)
    # the pools of many threads would spend the time waiting for each other
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield made
    torch.set_num_threads(threads)


@pytest.fixture
def inputs() -> Callable[..., dict[str, Any]]:
    """The inputs of a call of the embedded model, with a generator of their own."""

    def make(seed: int = 1, **others: Any) -> dict[str, Any]:
        usual = {
            "prompt": "red apple",
            "num_inference_steps": STEPS,
            "generator": torch.Generator().manual_seed(seed),
            "output": "images",
            "output_type": "np",
        }
        return {**usual, **others}

    return make


@pytest.fixture
def image(embedded: ModularPipeline, inputs: Any) -> np.ndarray:
    """What a plain call makes of `inputs()`."""
    made: np.ndarray = embedded(**inputs())
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that runs see, in `now`."""
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr("loopwright.run.control.time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    join_run_threads()
