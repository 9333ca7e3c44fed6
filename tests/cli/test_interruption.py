"""Ctrl-C: once pauses a run and says how to go on, twice stops it; nothing half written is left, and nothing lost."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from loopwright.cli.interruption import CtrlC
from tests.cli.conftest import files
from tests.cli.terminals import CTRL_C, PROGRAM, Terminal

APPLE = ["generate", "red apple", "--seed", "7", "--steps", "40"]
PAUSED = "paused after step {} of 40, saved in {}\r\nEnter goes on, Ctrl-C stops; later: loopwright resume {}\r\n"


def paint_whole(folder: Path) -> None:
    """The same picture without interruptions; in a process of its own, as the other one."""
    command = [*PROGRAM, *APPLE, "-o", "whole.png", "--animate", "whole.webp"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_once_pauses_and_enter_goes_on(folder: Path) -> None:
    with Terminal([*APPLE, "-o", "apple.png", "--preview", "--animate", "forming.webp"], folder) as terminal:
        for name in ("apple.run", "apple-2.run"):
            terminal.wait_for("/40 ")
            terminal.type(CTRL_C)
            terminal.wait_for("pausing after this step; Ctrl-C again stops")
            step = terminal.wait_for(f" of 40, saved in {name}").rpartition(" ")[2]
            terminal.wait_for(f"Enter goes on, Ctrl-C stops; later: loopwright resume {name}\r\n")
            assert PAUSED.format(step, name, name) in terminal.shown
            assert files(folder) == [name]
            terminal.type(b"\n")
        assert terminal.wait() == 0
    assert files(folder) == ["apple.png", "forming.webp"]
    paint_whole(folder)
    assert Path("apple.png").read_bytes() == Path("whole.png").read_bytes()
    assert Path("forming.webp").read_bytes() == Path("whole.webp").read_bytes()


@pytest.mark.parametrize("pressed_at", ["paused after", "later: loopwright resume apple.run\r\n"])
def test_twice_stops_and_what_was_saved_stays(
    pressed_at: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal([*APPLE, "-o", "apple.png", "--animate", "forming.webp"], folder, NO_COLOR="1") as terminal:
        terminal.wait_for("/40 ")
        terminal.type(CTRL_C)
        terminal.wait_for(pressed_at)
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
    assert "\x1b" not in terminal.shown
    assert terminal.shown.endswith("\r\ninterrupted\r\n")
    assert files(folder) == ["apple.run"]
    subprocess.run([*PROGRAM, "resume", "apple.run"], cwd=folder, check=True, capture_output=True)
    assert files(folder) == ["apple.png", "forming.webp"]
    capsys.readouterr()
    paint_whole(folder)
    assert Path("apple.png").read_bytes() == Path("whole.png").read_bytes()
    assert Path("forming.webp").read_bytes() == Path("whole.webp").read_bytes()


def test_twice_within_a_step_stops_too(folder: Path) -> None:
    with Terminal(["generate", "dog", "-n", "40", "--preview", "-o", "dog.png"], folder) as terminal:
        terminal.wait_for("1/20 ")
        terminal.type(CTRL_C)
        terminal.wait_for("Ctrl-C again stops")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
    assert terminal.shown.endswith("interrupted\r\n")
    assert not list(folder.glob("*.png"))


def test_where_nobody_can_press_enter_once_saves_and_stops(folder: Path) -> None:
    arguments = ["generate", "red apple", "-o", "apple.png", "--steps", "1000", "--seed", "7", "--checkpoint", "run"]
    with Terminal(arguments, folder, stdin=subprocess.DEVNULL) as terminal:
        terminal.wait_for("/1000 ")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
    said = re.search(r"\n(stopped after .*)\Z", terminal.shown.replace("\r\n", "\n"), re.DOTALL)
    assert said is not None
    stopped = r"stopped after step \d+ of 1000, saved in run; later: loopwright resume run\ninterrupted\n"
    assert re.fullmatch(stopped, said[1])
    assert files(folder) == ["run"]


def test_while_the_model_is_loaded_once_stops(folder: Path) -> None:
    arguments = [*PROGRAM, "generate", "dog", "-o", "dog.png"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # the last that it says before
        assert process.stderr.readline().startswith("seed ")
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130
    assert files(folder) == []


def test_an_exception_that_python_throws_away_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", lambda thrown_away: None)
    heard: list[str] = []

    def work() -> None:
        with CtrlC() as ctrl_c:
            Finalized()
            heard.append("it goes on")
            with ctrl_c.heard_by(lambda: heard.append("Ctrl-C")):
                heard.append("it goes on still")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert heard == ["it goes on"]


def test_at_the_latest_it_is_raised_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), CtrlC(), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_listens_is_called_instead_until_nobody_does() -> None:
    heard: list[str] = []

    def work() -> None:
        with CtrlC() as ctrl_c, ctrl_c.heard_by(lambda: heard.append("Ctrl-C")):
            signal.raise_signal(signal.SIGINT)
            with ctrl_c.heard_by(None):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert heard == ["Ctrl-C"]


def test_a_program_that_ignores_ctrl_c_goes_on_doing_so() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with CtrlC():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
