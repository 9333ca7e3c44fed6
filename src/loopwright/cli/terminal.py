"""Pictures in a terminal: two pixels in each character, the upper half block in one colour on the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["can_show", "half_blocks", "side_by_side"]

_RESET = "\x1b[0m"
_BLOCK = "▀"
# of a picture among others, in characters
_LEAST_WIDTH = 16


def can_show(stream: TextIO) -> bool:
    """Whether the stream is a terminal that shows colours (see https://no-color.org) and half blocks."""
    try:
        _BLOCK.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def half_blocks(picture: Image.Image, columns: int | None = None, lines: int | None = None) -> str:
    """The picture in 24-bit colour, made small enough for the terminal, never larger than it is.

    Args:
        picture: any image.
        columns: characters in a line, those of the terminal if None.
        lines: the lines that there are, those of the terminal but two if None.
    """
    from PIL import Image

    terminal = shutil.get_terminal_size()
    columns = columns or terminal.columns
    lines = lines or max(terminal.lines - 2, 1)
    scale = min(1.0, columns / picture.width, 2 * lines / picture.height)
    width, rows = max(round(picture.width * scale), 1), max(round(picture.height * scale / 2), 1)
    pixels = picture.convert("RGB").resize((width, 2 * rows), Image.Resampling.LANCZOS).tobytes()

    def colour(x: int, y: int) -> str:
        start = 3 * (y * width + x)
        return ";".join(map(str, pixels[start : start + 3]))

    return "\n".join(
        "".join(f"\x1b[38;2;{colour(x, 2 * row)};48;2;{colour(x, 2 * row + 1)}m{_BLOCK}" for x in range(width)) + _RESET
        for row in range(rows)
    )


def side_by_side(pictures: Sequence[Image.Image], columns: int, lines: int) -> list[str]:
    """The lines of pictures of one size next to each other: as many as have room, the first of them.

    Args:
        pictures: the pictures.
        columns: characters in a line.
        lines: the lines that there are.
    """
    shown = pictures[: max((columns + 1) // (_LEAST_WIDTH + 1), 1)]
    each = (columns + 1) // len(shown) - 1
    drawn = [half_blocks(picture, max(each, 1), max(lines, 1)).split("\n") for picture in shown]
    return [" ".join(row) for row in zip(*drawn, strict=True)]
