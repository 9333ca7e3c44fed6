"""`loopwright trace`: a table or a page from what `run.trace.save` wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loopwright.cli import main
from tests.run.blocks import counting


@pytest.fixture
def saved(folder: Path) -> str:
    """The table of the run that is saved in `run.json`."""
    run = counting().start(x=0, steps=20)
    run.result()
    run.trace.save("run.json")
    return str(run.trace)


def test_it_prints_the_table_of_the_run(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "run.json"]) == 0
    assert capsys.readouterr().out == f"{saved}\n"


def test_it_writes_a_page(saved: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "run.json", "-o", "trace.html"]) == 0
    assert capsys.readouterr().out == "trace.html\n"
    page = (folder / "trace.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("iteration 19 of count") == 2


def test_it_needs_no_torch(saved: str) -> None:
    program = (
        "import sys; from loopwright.cli import main; main(['trace', 'run.json', '-o', 'trace.html']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG", "run.json is not a Chrome trace: it is not JSON"),
        (b"[" * 100_000, "run.json is not a Chrome trace: it is not JSON"),
        (
            b'{"runs": 3}',
            "run.json is not a Chrome trace: it holds an object without `traceEvents`, and must hold `traceEvents`, a "
            "list of events",
        ),
        (
            b'{"traceEvents": []}',
            'run.json is a Chrome trace without complete events (`"ph": "X"`): there is nothing to show',
        ),
        (None, "there is no file run.json"),
    ],
)
def test_a_file_that_is_no_trace_is_one_line(
    content: bytes | None, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (folder / "run.json").write_bytes(content)
    assert main(["trace", "run.json"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_folder_or_a_page_that_cannot_be_written_is_said(
    saved: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "runs").mkdir()
    assert main(["trace", "runs"]) == 2
    assert main(["trace", "run.json", "-o", "trace.htm"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: runs is a folder; name a trace in it",
        "error: cannot write trace.htm: it must end in .html, not .htm, did you mean `.html`?",
    ]


def test_the_trace_of_another_program_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = [{"name": "compile", "ph": "X", "ts": 5, "dur": 1000, "pid": 1, "tid": 1, "args": {}}]
    (folder / "run.json").write_text(json.dumps(events), encoding="utf-8")
    assert main(["trace", "run.json"]) == 0
    assert "compile      1  1.00 ms  1.00 ms" in capsys.readouterr().out
