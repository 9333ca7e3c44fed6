"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright import Checkpoint
from loopwright.cli.request import REQUEST_NAME, Request
from loopwright.diffusion import embedded_pipeline

Break = Callable[..., Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def broken_run(folder: Path) -> Break:
    """Makes a folder like that of a command which was killed after some of its steps."""

    def make(steps_done: int = 2, path: Path = Path("run"), **inputs: Any) -> Path:
        request = Request(["red apple"], [7], [Path("apple.png")])
        pipe = embedded_pipeline()
        generators = [torch.Generator().manual_seed(7)]
        given = {"prompt": "red apple", "num_inference_steps": 4, "generator": generators, **inputs}
        with pipe.stream(checkpoint=Checkpoint(path), progress=False, **given) as run:
            for event in run:
                if event.index == steps_done - 1:
                    break
        (path / REQUEST_NAME).write_bytes(request.to_bytes())
        return path

    return make


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
