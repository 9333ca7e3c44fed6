"""The pictures that an animation of a forming picture is made of."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from loopwright.run.checkpoints import Storage

__all__ = ["MOST", "Frames", "is_frame", "stride"]

# frames of an animation without its last one
MOST = 100
_NAME = re.compile(r"frame-(\d{8})-(\d+)\.png")


class Frames:
    """The pictures after the steps of a run, kept as files, so that a run that is resumed has those before the break.

    Of very many steps every second is kept, or every fourth, and so on: at most `MOST`.

    Args:
        storage: where the files are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, index: int, pictures: Sequence[Image.Image]) -> None:
        """Keep the pictures after a step."""
        if index and stride(index) != stride(index - 1):
            for name in filter(is_frame, self._storage.names()):
                if _place(name)[0] % stride(index):
                    self._storage.remove(name)
        for number, picture in enumerate(pictures):
            data = io.BytesIO()
            picture.save(data, format="PNG", compress_level=1)
            self._storage.write(f"frame-{index:08d}-{number}.png", data.getvalue())

    def of(self, number: int) -> list[Image.Image]:
        """The kept pictures of one of the images that a run makes, in their order."""
        from PIL import Image

        names = sorted(name for name in filter(is_frame, self._storage.names()) if _place(name)[1] == number)
        return [Image.open(io.BytesIO(self._storage.read(name))) for name in names]


def stride(index: int) -> int:
    """Every so many steps a picture is kept, once step `index` was done."""
    return 1 << (index // MOST).bit_length()


def is_frame(name: str) -> bool:
    """Whether a file is one of the pictures."""
    return _NAME.fullmatch(name) is not None


def _place(name: str) -> tuple[int, int]:
    """The index of the step, and which of its pictures it is."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2])
