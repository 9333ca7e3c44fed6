"""The short form of `make api-fuzz`."""

from __future__ import annotations

from pathlib import Path

from loopwright.server import Limits
from tests.server.conftest import Start
from tools.api_fuzz import fuzz


def test_requests_made_from_the_description_are_answered_as_it_says(start: Start, tmp_path: Path) -> None:
    server = start(limits=Limits(steps=5, image_pixels=4096))
    code, requests, said = fuzz(server.url, 3, 1, tmp_path, "fuzzing,stateful")
    assert code == 0, said
    assert requests > 50
    assert server.http.get("/readyz").status_code == 200
