"""`loopwright jobs`, `keys` and `serve`, as a user types them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopwright.cli import main
from tests.server.live import LiveServer
from tests.server.pipelines import TURNSTILE, painting


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    server = LiveServer(painting(), tmp_path / "data")
    monkeypatch.setenv("LOOPWRIGHT_SERVER", server.url)
    yield server
    TURNSTILE.open()
    server.stop()


def test_jobs_are_listed_shown_watched_and_cancelled(
    server: LiveServer, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    done = server.submit(seed=7)
    server.wait(done)
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    assert main(["jobs", "list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{running}  running")
    assert second.startswith(f"{done}  succeeded")
    assert main(["jobs", "cancel", running]) == 0
    assert capsys.readouterr().out == f"{running} is cancelled\n"
    TURNSTILE.open()
    assert main(["jobs", "show", done[:12]]) == 0
    shown = capsys.readouterr().out
    assert "status  succeeded\n" in shown
    assert "seed    7\n" in shown
    assert main(["jobs", "watch", done, "-o", "apple.png"]) == 0
    assert capsys.readouterr().out == "apple.png\n"
    assert Path("apple.png").read_bytes() == server.picture(done)


def test_watching_a_job_that_fails_is_an_error(server: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    job = server.submit(trouble="input")
    assert main(["jobs", "watch", job]) == 2
    assert capsys.readouterr().err == f"error: job {job} failed: `trouble` is not wanted here, in block `begin`\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "job_" + "0" * 32], "the server refuses: there is no job job_" + "0" * 32),
        (["show", "0000"], "no job begins with '0000'; `loopwright jobs list` shows them"),
        (["list", "--server", "ftp://x"], "--server must be a URL such as http://127.0.0.1:8000, not 'ftp://x'"),
        (["list", "--status", "done"], "the server refuses: `status` is 'done'; it must be one of queued, running,"),
        (["list", "--server", "http://127.0.0.1:1"], "no server answers at http://127.0.0.1:1: "),
        (["watch", "x", "-o", "x.gif"], "cannot write x.gif: it must end in .png, not .gif"),
    ],
)
def test_mistakes_are_one_line(
    server: LiveServer, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["jobs", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_keys_are_made_listed_and_removed(
    server: LiveServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--data-dir", str(tmp_path / "data")]
    assert main(["keys", "add", "ann", *options]) == 0
    secret = capsys.readouterr().out.strip()
    assert main(["jobs", "list"]) == 2
    assert "an API key is needed" in capsys.readouterr().err
    assert main(["jobs", "list", "--api-key", secret]) == 0
    assert main(["keys", "list", *options]) == 0
    assert capsys.readouterr().out == "ann  user\n"
    assert main(["keys", "remove", "ann", *options]) == 0
    assert capsys.readouterr().err == "no key is left: nobody is let in until there is one again\n"
    assert main(["jobs", "list"]) == 2
    assert "an API key is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port must lie between 0 and 65535, not 70000"),
        (["--max-batch", "0"], "--max-batch must be at least 1, not 0"),
        (["--keep-hours", "0"], "--keep-hours must be more than 0, not 0"),
        (["--checkpoint-seconds", "-1"], "--checkpoint-seconds must be at least 0, not -1"),
        (["--dtype", "float8"], "--dtype is 'float8'; it must be one of float32, bfloat16, float16"),
        (["nowhere"], "there is no folder nowhere, and it is not the name of a repository either"),
        (["json:dumps"], "json:dumps is no pipeline"),
        (["--determinstic"], "No such option: --determinstic, did you mean --deterministic?"),
    ],
)
def test_mistakes_in_serving_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_progress_and_pictures_are_drawn_in_a_terminal(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    TURNSTILE.close()
    job = server.submit(previews=2, num_inference_steps=5)
    TURNSTILE.let(5)
    assert main(["jobs", "watch", job]) == 0
    drawn = terminal.getvalue()
    assert "▀" in drawn
    assert "5/5" in drawn
    assert json.dumps(capsys.readouterr().out) == '""'
