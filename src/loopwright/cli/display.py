"""What a command shows while its run works: its progress, and with `--preview` the pictures as they form."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from .terminal import can_show, side_by_side

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Display"]

# of the progress line, in seconds; pictures are drawn after every step
_LEAST_INTERVAL = 0.1
# at the end of the progress line: a terminal writes ^C there
_ROOM = 4
# the terminal shows what is written between these two all at once, if it can (mode 2026)
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


class Display:
    """A progress line, under the pictures if there are any, drawn anew in its place; nothing if it is no terminal.

    The cursor is never hidden, so that nothing has to be put right if the program ends. Without pictures there are no
    escape codes.

    Args:
        stream: where it is drawn.
        pictures: whether to draw pictures, if the stream is a terminal that can show them.
        label: what stands before the progress.
    """

    def __init__(self, stream: TextIO, *, pictures: bool, label: str) -> None:
        self._stream, self._label = stream, label
        self._is_terminal = stream.isatty()
        self.shows_pictures = pictures and can_show(stream)
        # of what is drawn: its lines, the width of the last, the size of the terminal
        self._lines = self._width = 0
        self._size = shutil.get_terminal_size()
        self._first: int | None = None
        self._drawn_at = 0.0

    def show(self, done: int, total: int | None, elapsed: float, pictures: Sequence[Image.Image] = ()) -> None:
        """Draw how far the run is.

        Args:
            done: the number of steps that were done.
            total: the number of all steps, None if it is not known.
            elapsed: the seconds that it took.
            pictures: those after the last step, drawn if the display shows pictures.
        """
        if not self._is_terminal:
            return
        if self._first is None:
            # the steps of a run that was resumed were not done in this time
            self._first = done - 1
        pictures = pictures if self.shows_pictures else ()
        if not pictures and done != total and time.monotonic() - self._drawn_at < _LEAST_INTERVAL:
            return
        self._drawn_at = time.monotonic()
        from tqdm import tqdm

        size = shutil.get_terminal_size()
        is_unicode = (self._stream.encoding or "").lower().startswith("utf")
        line = tqdm.format_meter(
            done,
            total,
            elapsed,
            ncols=max(size.columns - _ROOM, 1),
            prefix=self._label,
            ascii=not is_unicode,
            initial=self._first,
            unit=" steps",
        )
        self._draw(side_by_side(pictures, size.columns - 1, size.lines - 2) if pictures else [], line)

    def say(self, text: str) -> None:
        """Draw a text in place of the progress line."""
        if not self._is_terminal:
            return
        if self._lines > 1:
            self._stream.write(f"\r\x1b[K{text}")
        else:
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._lines = 1
        self._width = max(self._width, len(text))
        self._stream.flush()

    def leave(self) -> None:
        """Leave what is drawn where it is, and go on below."""
        if self._lines:
            self._stream.write("\n")
            self._stream.flush()
        self._lines = self._width = 0

    def clear(self) -> None:
        """Take away what is drawn."""
        if self._lines > 1:
            self._stream.write(f"\r\x1b[{self._lines - 1}A\x1b[J")
        elif self._lines:
            self._stream.write("\r" + " " * (self._width + _ROOM - 1) + "\r")
        self._stream.flush()
        self._lines = self._width = 0

    def _draw(self, pictures: list[str], line: str) -> None:
        size = shutil.get_terminal_size()
        if size != self._size:
            # nobody knows where the lines are now
            self.leave()
            self._size = size
        if not pictures:
            self._stream.write(f"\r{line.ljust(self._width)}")
        else:
            up = f"\x1b[{self._lines - 1}A" if self._lines > 1 else ""
            lines = "\n".join(f"\x1b[K{text}" for text in [*pictures, line])
            self._stream.write(f"{_BEGIN}\r{up}{lines}{_END}")
        self._lines, self._width = len(pictures) + 1, len(line)
        self._stream.flush()
