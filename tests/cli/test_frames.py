"""The frames of an animation of a forming picture: evenly spread, and not too many."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from loopwright.cli.frames import MOST, Frames, stride
from loopwright.run.checkpoints import LocalFolder


def kept(steps: int, folder: Path) -> list[int]:
    frames = Frames(LocalFolder(folder))
    for index in range(steps):
        if index % stride(index) == 0:
            frames.add(index, [Image.new("L", (1, 1), index % 256)])
    return [frame.tobytes()[0] for frame in frames.of(0)]


@pytest.mark.parametrize("steps", [1, 20, MOST])
def test_of_few_steps_all_are_kept(steps: int, folder: Path) -> None:
    assert kept(steps, folder) == list(range(steps))


@pytest.mark.parametrize(("steps", "every"), [(MOST + 1, 2), (2 * MOST, 2), (2 * MOST + 1, 4), (250, 4)])
def test_of_many_steps_evenly_spread_ones_are_kept(steps: int, every: int, folder: Path) -> None:
    assert kept(steps, folder) == list(range(0, steps, every))


def test_each_picture_has_its_own(folder: Path) -> None:
    frames = Frames(LocalFolder(folder))
    frames.add(0, [Image.new("RGB", (1, 1), "red"), Image.new("RGB", (1, 1), "blue")])
    assert [frame.getpixel((0, 0)) for frame in frames.of(1)] == [(0, 0, 255)]
