"""Real processes, really killed: `make crash-loop` in short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_a_run_that_is_killed_and_resumed_ends_in_the_same_picture() -> None:
    """After three iterations, at two moments chosen at random, but always the same, and two runs more than once."""
    arguments = ["--steps", "5", "--iterations", "1", "3", "5", "--moments", "2", "--again", "2", "--seed", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "tools.crash_loop", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "7 of 7 runs survived"
