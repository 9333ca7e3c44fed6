"""What README, guide and deployment files say of the server is so."""

from __future__ import annotations

import configparser
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from loopwright.cli import app
from loopwright.server.keys import Keys
from tests.server.conftest import Start
from tests.server.live import LiveServer

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guides" / "serve.md").read_text(encoding="utf-8")


def commands(text: str, program: str) -> list[str]:
    """The commands of a program in the fences of a document, with continued lines joined."""
    found = []
    for fence in re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = fence.replace("\\\n", " ").splitlines()
        found += [line for line in lines if line.startswith(f"{program} ")]
    return found


def options_of(*names: str) -> set[str]:
    command = get_command(app)
    for name in names:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {option for param in command.params for option in param.opts}


def test_the_command_of_the_readme_makes_a_picture(start: Start, tmp_path: Path) -> None:
    server = start()
    (command,) = commands(README, "curl")
    subprocess.run(shlex.split(command.replace("localhost:8000", server.url)), cwd=tmp_path, check=True)
    assert (tmp_path / "apple.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_of_the_guide_work(start: Start, tmp_path: Path) -> None:
    server = start()
    job = "job_..."
    for command in commands(GUIDE, "curl"):
        typed = command.replace("localhost:8000", server.url).replace("job_...", job).replace(', "strength": 0.7', "")
        ran = subprocess.run(shlex.split(typed), cwd=tmp_path, capture_output=True, check=True)
        answer = ran.stdout.decode()
        assert '"error":{' not in answer, answer
        if '"object":"job"' in answer:
            job = answer.partition('"id":"')[2].partition('"')[0]
    assert (tmp_path / "apple.png").read_bytes().startswith(b"\x89PNG")


def test_curl_reads_the_events_of_a_job_and_reads_on(shared: LiveServer) -> None:
    job = shared.submit()
    shared.wait(job)
    events = f"{shared.url}/v1/jobs/{job}/events"
    read = subprocess.run(["curl", "-sN", events], capture_output=True, text=True, check=True).stdout
    assert read.startswith("id: end\nevent: job\ndata: {")
    status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Last-Event-ID: end", events]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == "204"


@pytest.mark.parametrize("text", [README, GUIDE], ids=["README.md", "serve.md"])
def test_the_options_that_are_shown_exist(text: str) -> None:
    for command in commands(text, "loopwright"):
        _, *words = shlex.split(command)
        names = words[:2] if words[0] in ("jobs", "keys") else words[:1]
        used = {word for word in words if word.startswith("-")}
        assert used <= options_of(*names), command


def test_the_options_that_the_guide_names_exist() -> None:
    known = options_of("serve") | options_of("jobs", "watch") | options_of("keys", "add")
    named = set(re.findall(r"`(--[a-z-]+)", GUIDE))
    assert named <= known
    assert len(named) > 10


def test_the_metrics_that_the_guide_names_exist(shared: LiveServer) -> None:
    named = {name.removesuffix("_bucket") for name in re.findall(r"\bloopwright_[a-z_]+", GUIDE)}
    batched = {"loopwright_batch_forwards", "loopwright_batch_calls"}
    text = shared.http.get("/metrics").text
    assert [name for name in named - batched if f"# TYPE {name} " not in text] == []


@pytest.mark.parametrize("has_keys", [False, True])
def test_what_is_backed_up_as_the_guide_says_is_served_again(start: Start, tmp_path: Path, has_keys: bool) -> None:
    server = start()
    secret = Keys(server.data_dir).add("ann") if has_keys else "none"
    server.http.headers["Authorization"] = f"Bearer {secret}"
    job = server.submit()
    server.wait(job)
    # python has the library, and a machine not always the program
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2].split()[1]))"
    program = f'sqlite3() {{ {shlex.quote(sys.executable)} -c {shlex.quote(script)} "$@"; }}\n'
    backup, restore = re.findall(r"```text\n((?:install|mv) [^`]*)```", GUIDE)
    for commands in (backup, restore):
        subprocess.run(["bash", "-euc", program + commands], cwd=tmp_path, check=True)
        server.stop()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    again = start()
    again.http.headers["Authorization"] = f"Bearer {secret}"
    assert again.job(job)["status"] == "succeeded"
    assert again.http.get(f"/v1/jobs/{job}/result").status_code == 200
    assert len(Keys(again.data_dir).all()) == has_keys


def test_the_unit_and_the_image_run_commands_that_exist() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy" / "loopwright.service")
    _, command, *words = shlex.split(unit["Service"]["ExecStart"])
    image = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    (started,) = re.findall(r"^CMD (\[.*\])$", image, re.MULTILINE)
    in_image = re.findall(r'"([^"]*)"', started)
    assert command == in_image[0] == "serve"
    for given in (words, in_image[1:]):
        assert {word for word in given if word.startswith("--")} <= options_of("serve")
    assert unit["Service"]["KillSignal"] == "SIGTERM"
    for source in re.findall(r"^COPY (.*) \S+$", image, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_description_of_the_api_has_every_route(shared: LiveServer) -> None:
    described = shared.http.get("/openapi.json").json()
    paths = {
        (method.upper(), path) for path, item in described["paths"].items() for method in item if method != "parameters"
    }
    assert len(paths) == 18
    for method, path in paths:
        answer = shared.http.request(
            method, path.replace("{job_id}", "x").replace("{name}", "y").replace("{model}", "z")
        )
        assert answer.status_code != 405, path
        assert "there is nothing here" not in answer.text, path
