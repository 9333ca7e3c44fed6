"""The files of the project speak of the project: of no machine that they were written on, and of no registry's host."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOREIGN = re.compile(
    r"(?<![\w.])/(?:work|root|home|Users)/\w"  # a folder of somebody's machine
    r"|\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|download\.pytorch\.org)\b"
)


def project_files() -> list[Path]:
    """What is tracked, and what `git add .` would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path != Path(__file__)]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in project_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture, or weights
        found += [
            f"{path.relative_to(ROOT)}:{number}: {match[0]}"
            for number, line in enumerate(lines, start=1)
            if (match := FOREIGN.search(line))
        ]
    assert found == []


@pytest.mark.parametrize("line", ["open('/root/x')", "cd /work/main", "https://pypi.org/simple"])
def test_a_foreign_name_is_found(line: str) -> None:
    assert FOREIGN.search(line)


@pytest.mark.parametrize("line", ["the network/home/page", "https://example.org/root/x", "training/.work/"])
def test_other_names_are_not(line: str) -> None:
    assert not FOREIGN.search(line)
