"""`--preview`, `--animate` and `--trace`: a picture while it forms, how it formed, and how long it took."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from loopwright.cli import main
from loopwright.diffusion import read_metadata
from tests.cli.conftest import files
from tests.cli.terminals import Screen, Terminal

APPLE = ["generate", "red apple", "--seed", "7", "--steps", "3"]


def frames(path: str) -> list[bytes]:
    with Image.open(path) as animation:
        return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(animation)]


def durations(path: str) -> list[float]:
    with Image.open(path) as animation:
        found = []
        for number in range(animation.n_frames):  # type: ignore[attr-defined]
            animation.seek(number)
            animation.load()
            found.append(animation.info["duration"])
        return found


def test_a_preview_is_redrawn_after_each_step_and_then_gives_way_to_the_picture(folder: Path) -> None:
    with Terminal([*APPLE, "-o", "apple.png", "--preview"], folder) as terminal:
        assert terminal.wait() == 0
    assert terminal.shown.count("\x1b[?2026h") == 3
    assert all(f"{step}/3 " in terminal.shown for step in (1, 2, 3))
    screen = Screen()
    screen.write(terminal.shown)
    assert screen.lines == [*["▀" * 44] * 22, "apple.png  seed 7"]
    assert main([*APPLE, "-o", "again.png"]) == 0
    assert Path("apple.png").read_bytes() == Path("again.png").read_bytes()


@pytest.mark.parametrize("command", [APPLE, ["morph", "cat", "dog", "--frames", "2", "--steps", "1", "--seed", "1"]])
def test_without_a_terminal_a_preview_is_a_note(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--preview"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "note: --preview needs a terminal that shows colours, and stderr is none\n"
    assert "\x1b" not in captured.out


def test_an_animation_shows_the_picture_after_each_step_and_the_last_one_longer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*APPLE, "-o", "apple.png", "--animate", "forming.webp"]) == 0
    assert capsys.readouterr().out == "apple.png  seed 7\nforming.webp\n"
    shown = frames("forming.webp")
    assert len(set(shown)) == 3
    assert shown[-1:] == frames("apple.png")
    assert durations("forming.webp") == [80, 80, 1500]
    assert read_metadata("forming.webp") == read_metadata("apple.png")


def test_the_picture_is_the_same_with_an_animation_as_without(folder: Path) -> None:
    assert main([*APPLE, "-o", "with.png", "--animate", "forming.webp"]) == 0
    assert main([*APPLE, "-o", "without.png"]) == 0
    assert Path("with.png").read_bytes() == Path("without.png").read_bytes()
    assert files(folder) == ["forming.webp", "with.png", "without.png"]


def test_each_of_several_pictures_has_its_animation(folder: Path) -> None:
    assert main([*APPLE, "-n", "2", "-o", "apple.png", "--animate", "forming.gif"]) == 0
    assert files(folder) == ["apple-1.png", "apple-2.png", "forming-1.gif", "forming-2.gif"]
    assert durations("forming-2.gif") == [80, 80, 1500]
    metadata = read_metadata("forming-2.gif")
    assert metadata is not None
    assert metadata.seed == 8


def test_an_animated_png_is_as_exact_as_a_webp() -> None:
    assert main([*APPLE, "-o", "apple.png", "--animate", "forming.png"]) == 0
    assert main([*APPLE, "-o", "apple.png", "--animate", "forming.webp"]) == 0
    assert frames("forming.png") == frames("forming.webp")


def test_an_animation_of_many_steps_has_evenly_spread_ones() -> None:
    assert main(["generate", "dog", "--steps", "101", "--seed", "1", "--animate", "forming.webp"]) == 0
    assert len(frames("forming.webp")) == 51


def test_where_the_time_went_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*APPLE, "-o", "apple.png", "--trace", "run.json"]) == 0
    assert capsys.readouterr().out == "apple.png  seed 7\nrun.json\n"
    assert main(["trace", "run.json"]) == 0
    assert "denoise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--animate", "forming.mp4"],
            "cannot write forming.mp4: it must end in .webp or .gif or .png, not .mp4",
        ),
        (["-o", "apple.png", "--animate", "apple.png"], "--animate and -o are the same file, apple.png"),
        (["--trace", "run.txt"], "cannot write run.txt: it must end in .json, not .txt"),
        (["--animate", "absent/forming.gif"], "cannot write absent/forming.gif: there is no folder absent"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*APPLE, *options]) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert files(folder) == []
