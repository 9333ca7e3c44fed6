"""The display of a run: on the terminal's screen, in its place, and gone at the end."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence

import pytest
from PIL import Image

from loopwright.cli.display import Display
from loopwright.cli.terminal import side_by_side
from tests.cli.terminals import Screen

RED, BLUE = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


class Stream(io.TextIOWrapper):
    """A terminal, and its screen."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="")
        self.screen = Screen(80)
        self.written = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.screen.write(text)
        self.written += text
        return len(text)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def display(stream: Stream, pictures: bool = True) -> Display:
    return Display(stream, pictures=pictures, label="denoising")


def show(shown: Display, steps: int, pictures: Sequence[Image.Image] = ()) -> None:
    for done in range(1, steps + 1):
        shown.show(done, steps, 0.5 * done, pictures)


def test_pictures_and_progress_are_drawn_anew_in_their_place() -> None:
    stream = Stream()
    stream.write("$ loopwright\r\n")
    show(display(stream), 3, [RED])
    assert stream.written.count("\x1b[?2026h") == 3
    assert stream.screen.lines[:5] == ["$ loopwright", *["▀" * 8] * 4]
    assert len(stream.screen.lines) == 6
    assert re.match(r"denoising: 100%\|.*\| 3/3 \[", stream.screen.lines[5])


def test_nothing_of_it_is_left_when_it_is_cleared() -> None:
    for pictures in ([RED], []):
        stream = Stream()
        stream.write("$ loopwright\r\n")
        shown = display(stream)
        show(shown, 3, pictures)
        shown.clear()
        stream.write("apple.png\r\n")
        assert stream.screen.lines == ["$ loopwright", "apple.png"]


def test_nothing_is_left_of_what_a_terminal_writes_for_ctrl_c() -> None:
    for pictures in ([RED], []):
        stream = Stream()
        shown = display(stream)
        show(shown, 3, pictures)
        stream.write("^C")
        shown.say("pausing")
        stream.write("^C")
        shown.clear()
        assert stream.screen.lines == []


def test_what_is_left_stands_above_what_follows() -> None:
    stream = Stream()
    shown = display(stream)
    show(shown, 1, [RED])
    shown.leave()
    stream.write("paused\r\n")
    shown.show(2, 2, 1.0, [BLUE])
    assert stream.screen.lines[5] == "paused"
    assert [line.count("▀") for line in stream.screen.lines] == [8] * 4 + [0] * 2 + [8] * 4 + [0]


def test_the_cursor_is_never_hidden() -> None:
    stream = Stream()
    show(display(stream), 2, [RED])
    assert "?25" not in stream.written


def test_a_terminal_of_another_size_is_drawn_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    shown = display(stream)
    show(shown, 1, [RED])
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    shown.show(2, 2, 1.0, [BLUE])
    assert len(stream.screen.lines) == 10


def test_without_pictures_there_are_no_escape_codes() -> None:
    stream = Stream()
    shown = display(stream, pictures=False)
    show(shown, 3, [RED])
    shown.clear()
    assert "\x1b" not in stream.written
    assert "3/3" in stream.written


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_terminals_without_colours_show_no_pictures(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    assert not display(Stream()).shows_pictures


def test_terminals_without_half_blocks_show_no_pictures() -> None:
    assert not display(Stream("latin-1")).shows_pictures
    assert display(Stream()).shows_pictures


def test_what_is_no_terminal_gets_nothing() -> None:
    stream = io.StringIO()
    shown = Display(stream, pictures=True, label="denoising")
    show(shown, 2)
    shown.say("pausing")
    shown.leave()
    shown.clear()
    assert stream.getvalue() == ""


def test_steps_before_a_break_do_not_count_for_the_speed() -> None:
    stream = Stream()
    shown = display(stream, pictures=False)
    shown.show(9, 10, 0.5)
    shown.show(10, 10, 1.0)
    assert "2.00 steps/s" in stream.screen.lines[0]


def test_pictures_stand_side_by_side_as_far_as_they_have_room() -> None:
    def widths(count: int, columns: int, size: int = 64) -> list[list[int]]:
        pictures = [Image.new("RGB", (size, size))] * count
        return [[len(part) for part in re.sub("\x1b[^m]*m", "", line).split()] for line in drawn(pictures, columns)]

    def drawn(pictures: Sequence[Image.Image], columns: int) -> list[str]:
        return side_by_side(pictures, columns, 100)

    assert widths(3, 79) == [[25, 25, 25]] * 12
    assert widths(10, 79)[0] == [19, 19, 19, 19]
    assert widths(3, 10)[0] == [10]
    assert widths(2, 79, size=8) == [[8, 8]] * 4
