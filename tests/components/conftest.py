"""What the tests of components share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.hub import Hub, serving, use


@pytest.fixture(scope="session")
def _hub() -> Iterator[Hub]:
    # one for all tests: libraries remember the address
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(_hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """An empty hub, which the client talks to."""
    _hub.repos.clear()
    _hub.requests.clear()
    use(_hub, monkeypatch, tmp_path / "cache")
    return _hub
