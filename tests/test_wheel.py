"""The wheel alone, in an environment of its own, does what the README promises."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
LARGEST_MODEL = 24_000_000

pytestmark = pytest.mark.wheel


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints. It sees nothing of the environment that the tests run in, but for pip's constraints.

    Constraints choose versions; they install nothing that a package does not ask for. The second name is for the build
    backend, with newer pips; older ones read the first.
    """
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PIP_CONSTRAINT"] = environment["PIP_BUILD_CONSTRAINT"] = str(ROOT / "constraints.txt")
    ran = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a new environment that holds the wheel and what the wheel asks for."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    run(commands / "python", "-m", "pip", "install", "--no-compile", wheel, cwd=folder)
    return commands


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {file.filename: file.file_size for file in archive.infolist() if ".dist-info/" not in file.filename}
    sources = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "src", cwd=ROOT).splitlines()
    assert set(sizes) == {path.removeprefix("src/") for path in sources}
    assert "loopwright/py.typed" in sizes
    model = {path: size for path, size in sizes.items() if "/embedded/model/" in path}
    assert {path.rpartition(".")[2] for path in model} >= {"json", "md", "safetensors"}
    assert sum(model.values()) <= LARGEST_MODEL


def test_a_picture_is_made_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    run(installed / "loopwright", "generate", "red apple", "-o", "apple.png", cwd=tmp_path)
    with Image.open(tmp_path / "apple.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["apple.png"]
