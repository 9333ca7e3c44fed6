"""What the tests of the bridge share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.bridge.families.text import stand_in_for_ftfy


@pytest.fixture(autouse=True, scope="session")
def _prompts_need_no_repair() -> None:
    stand_in_for_ftfy()


@pytest.fixture(autouse=True, scope="module")
def _one_thread_of_torch() -> Iterator[None]:
    """Sums depend on how many threads share them: the tests make the same ones on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
