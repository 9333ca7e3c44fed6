"""What the tests of the bridge share."""

from __future__ import annotations

import pytest

from tests.bridge.families.text import stand_in_for_ftfy


@pytest.fixture(autouse=True, scope="session")
def _prompts_need_no_repair() -> None:
    stand_in_for_ftfy()
