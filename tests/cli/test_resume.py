"""`--checkpoint` and `loopwright resume`: the files of a resumed run are those of an unbroken one."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from loopwright.cli import main
from loopwright.cli.request import REQUEST_NAME
from loopwright.diffusion.model_index import EMBEDDED_MODEL
from tests.cli.conftest import Break, files
from tests.cli.terminals import Terminal

APPLE = ["generate", "red apple", "--seed", "7", "--steps", "4"]


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_a_run_that_was_killed_is_finished_by_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64), "red").save("red.png")
    arguments = ["generate", "dog", "-n", "2", "--image", "red.png", "--strength", "0.9", "--seed", "1"]
    arguments += ["--negative", "leaf", "--steps", "10"]
    written = ["-o", "dog.png", "--animate", "forming.webp", "--checkpoint", "run"]
    with Terminal([*arguments, *written, "--preview"], folder) as terminal:
        terminal.wait_for(" 3/9 ")
        terminal.process.kill()
        assert terminal.process.wait() == -signal.SIGKILL
    assert files(folder) == ["red.png", "run"]
    before = len(list(Path("run").glob("frame-*-0.png")))
    assert 3 <= before < 9

    assert main(["resume", "run"]) == 0
    assert capsys.readouterr().out == "dog-1.png  seed 1\nforming-1.webp\ndog-2.png  seed 2\nforming-2.webp\n"
    Path("whole").mkdir()
    assert main([*arguments, "-o", "whole/dog.png", "--animate", "whole/forming.webp"]) == 0
    for name in files(folder / "whole"):
        assert Path(name).read_bytes() == Path("whole", name).read_bytes()


def test_a_morph_is_resumed_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["morph", "cat", "dog", "--frames", "3", "--steps", "2", "--seed", "1"]
    assert main([*arguments, "-o", "whole.webp"]) == 0
    assert main([*arguments, "-o", "morph.gif", "--checkpoint", "run"]) == 0
    # as if it had been killed after the second frame, before its end
    for checkpoint in checkpoints(folder / "run")[-1:]:
        checkpoint.unlink()
    request = json.loads(Path("run", REQUEST_NAME).read_text())
    Path("run", REQUEST_NAME).write_text(json.dumps({**request, "is_finished": False}))
    capsys.readouterr()
    assert main(["resume", "run", "-o", "morph.webp"]) == 0
    assert capsys.readouterr() == ("morph.webp  seed 1\n", "")
    assert Path("morph.webp").read_bytes() == Path("whole.webp").read_bytes()


def test_a_run_is_resumed_from_anywhere(
    folder: Path, broken_run: Break, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_run()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert main(["resume", "../run"]) == 0
    assert capsys.readouterr().out == f"{folder / 'apple.png'}  seed 7\n"
    assert files(folder) == ["apple.png", "elsewhere", "run"]


def test_a_resumed_run_can_write_elsewhere(folder: Path, broken_run: Break, capsys: pytest.CaptureFixture[str]) -> None:
    broken_run()
    assert main(["resume", "run", "-o", "other.webp"]) == 0
    assert capsys.readouterr().out == "other.webp  seed 7\n"
    assert files(folder) == ["other.webp", "run"]


def test_a_folder_that_nobody_asked_for_is_removed_at_the_end(folder: Path, broken_run: Break) -> None:
    run = broken_run()
    request = json.loads((run / REQUEST_NAME).read_text())
    (run / REQUEST_NAME).write_text(json.dumps({**request, "was_asked_for": False}))
    assert main(["resume", "run"]) == 0
    assert files(folder) == ["apple.png"]


def test_a_damaged_checkpoint_can_be_passed_over(
    folder: Path, broken_run: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    last = checkpoints(broken_run(steps_done=3))[-1]
    last.write_bytes(b"")
    assert main(["resume", "run"]) == 2
    assert capsys.readouterr().err == (
        f"error: `{last.name}` in run is damaged: its bytes are not those that were written; "
        f"`loopwright resume run --fall-back` goes on from the one before\n"
    )
    assert files(folder) == ["run"]
    assert main(["resume", "run", "--fall-back"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "apple.png  seed 7\n"
    assert captured.err == f"warning: `{last.name}` is damaged; the run goes on from iteration 2 instead\n"
    assert main([*APPLE, "-o", "whole.png"]) == 0
    assert Path("apple.png").read_bytes() == Path("whole.png").read_bytes()


def test_the_only_checkpoint_is_damaged(broken_run: Break, capsys: pytest.CaptureFixture[str]) -> None:
    (only,) = checkpoints(broken_run(steps_done=1))
    only.write_bytes(b"")
    assert main(["resume", "run"]) == 2
    assert capsys.readouterr().err == (
        f"error: `{only.name}` in run is damaged: its bytes are not those that were written\n"
    )


def test_a_model_that_was_changed_meanwhile_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(EMBEDDED_MODEL, "model")
    assert main([*APPLE, "-o", "apple.png", "--model", "model", "--checkpoint", "run"]) == 0
    request = json.loads(Path("run", REQUEST_NAME).read_text())
    Path("run", REQUEST_NAME).write_text(json.dumps({**request, "is_finished": False}))
    config = Path("model", "scheduler", "scheduler_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "shift": 1.25}))
    capsys.readouterr()
    assert main(["resume", "run", "-o", "again.png"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        "error: the run was saved in another pipeline and would not go on as it began: component `scheduler` was `"
    )
    assert captured.err.count("\n") == 1
    assert files(folder) == ["apple.png", "model", "run"]


def test_a_finished_run_is_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*APPLE, "-o", "apple.png", "--checkpoint", "run"]) == 0
    capsys.readouterr()
    assert main(["resume", "run"]) == 2
    assert capsys.readouterr() == ("", "error: the run in run is finished: it wrote apple.png\n")
    assert main([*APPLE, "-o", "apple.png", "--checkpoint", "run"]) == 2
    assert capsys.readouterr().err == (
        "error: --checkpoint: run holds a run already: it is finished; remove it or name another folder\n"
    )


def test_a_mistake_in_a_call_leaves_no_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*APPLE, "--height", "70", "--checkpoint", "run"]) == 2
    assert capsys.readouterr().err == "error: `height` must be a multiple of 16 pixels, not 70; the nearest is 64\n"
    assert files(folder) == []


def test_a_folder_of_a_run_that_did_not_come_to_its_first_checkpoint_is_used_again(
    folder: Path, broken_run: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    (only,) = checkpoints(broken_run(steps_done=1))
    only.unlink()
    assert main(["resume", "run"]) == 2
    assert capsys.readouterr().err == "error: run holds no checkpoint: the run ended before its first step was done\n"
    assert main([*APPLE, "-o", "apple.png", "--checkpoint", "run"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume", "absent"], "there is no folder absent"),
        (["resume", "other.txt"], "there is no folder other.txt"),
        (
            ["resume", "."],
            f". holds no run of this command line: it has no {REQUEST_NAME}; a run that a program saved is resumed by "
            f"`pipe.resume(...)`",
        ),
        (["resume", "broken"], f"broken/{REQUEST_NAME} cannot be read: it is not complete"),
        (["resume", "later"], f"later/{REQUEST_NAME} cannot be read: another version of loopwright wrote it"),
        (["resume", "run", "-o", "apple.mp4"], "cannot write apple.mp4: it must end in .png or .webp or .jpg or .jpeg"),
        (["resume", "run", "-o", "absent/a.png"], "cannot write absent/a.png: there is no folder absent"),
        (
            ["resume", "run", "--animate", "forming.webp"],
            "the run in run was begun without --animate, and did not keep its first steps",
        ),
        (
            [*APPLE, "--checkpoint", "run"],
            "--checkpoint: run holds a run already: `loopwright resume run` goes on with it",
        ),
        (
            [*APPLE, "--checkpoint", "my run"],
            "--checkpoint: my run holds a run already: `loopwright resume 'my run'` goes on with it",
        ),
        (["morph", "a", "b", "--checkpoint", "other.txt"], "--checkpoint: other.txt is a file; name a folder"),
        ([*APPLE, "--checkpoint", "."], "--checkpoint: . holds other files; name a new or an empty folder"),
        (
            [*APPLE, "--checkpoint", "absent/run"],
            "--checkpoint: there is no folder absent to make run in",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, folder: Path, broken_run: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(broken_run(steps_done=1), "my run")
    Path("other.txt").write_text("")
    for name, text in {"broken": '{"format": 1}', "later": '{"format": 2}'}.items():
        Path(name).mkdir()
        Path(name, REQUEST_NAME).write_text(text)
    before = files(folder)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert files(folder) == before
