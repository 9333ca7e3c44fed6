"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import LiveServer
from tests.server.pipelines import TURNSTILE, painting

Start = Callable[..., LiveServer]


@pytest.fixture(autouse=True)
def open_turnstile() -> Iterator[None]:
    TURNSTILE.open()
    TURNSTILE.passed = 0
    yield
    TURNSTILE.open()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, one after the other in one folder unless it is given another; ends those that still run."""
    running: list[LiveServer] = []

    def start(pipeline: Any = None, data_dir: Path | None = None, **settings: Any) -> LiveServer:
        server = LiveServer(painting() if pipeline is None else pipeline, data_dir or tmp_path / "data", **settings)
        running.append(server)
        return server

    yield start
    TURNSTILE.open()
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests of a module that leave it as it was."""
    server = LiveServer(painting(), tmp_path_factory.mktemp("shared"), max_active=2)
    yield server
    TURNSTILE.open()
    server.stop()
