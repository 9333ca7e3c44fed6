"""Timing two things against each other: in turns, so that whatever else the machine does meets both."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        title: what was measured.
        ours: seconds of each repetition.
        theirs: seconds of the same repetitions of what it is compared with.
        bar: the largest ratio that is good enough, None if there is none.
        bar_seconds: the most seconds that are good enough, None if there is no such bar.
        remark: what the reader should know about this row.
    """

    title: str
    ours: Sequence[float]
    theirs: Sequence[float]
    bar: float | None = None
    bar_seconds: float | None = None
    remark: str = ""

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the ratios."""
        low, _, high = quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def passed(self) -> bool | None:
        """Whether the bar is met, None if there is none."""
        if self.bar is not None:
            return self.ratio <= self.bar
        return None if self.bar_seconds is None else median(self.ours) <= self.bar_seconds


@dataclass(frozen=True)
class Amount:
    """A row of the table that is no time.

    Attributes:
        title: what was measured.
        value: what came out.
        unit: what it is counted in, after the number.
        bar: the most that is good enough, None if there is no bar.
        remark: what the reader should know about this row.
    """

    title: str
    value: float
    unit: str
    bar: float | None = None
    remark: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the bar is met, None if there is none."""
        return None if self.bar is None else self.value <= self.bar


def in_turns(
    ours: Callable[[], object], theirs: Callable[[], object], *, calls: int, repetitions: int, per: int = 1
) -> tuple[list[float], list[float]]:
    """Time two functions in turns; who goes first alternates.

    Args:
        ours: one function.
        theirs: the other.
        calls: how often each is called in a repetition.
        repetitions: how often that is repeated, after one repetition that does not count.
        per: what a call's time is divided by.

    Returns:
        Seconds for one call of each, one entry for each repetition.
    """

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / (calls * per)

    seconds(ours), seconds(theirs)
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions):
        gc.collect()
        gc.disable()
        try:
            for side in (0, 1) if repetition % 2 == 0 else (1, 0):
                times[side].append(seconds((ours, theirs)[side]))
        finally:
            gc.enable()
    return times


def run_process(command: Sequence[str], folder: Path) -> None:
    """Run a program to its end in a folder.

    Raises:
        RuntimeError: it failed; the message holds what it wrote.
    """
    ran = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{ran.stdout}{ran.stderr}")


def python(code: str, *arguments: str) -> list[str]:
    """The command that runs Python code."""
    return [sys.executable, "-c", code, *arguments]


def loopwright(*arguments: str) -> list[str]:
    """The command that runs `loopwright`, as its installed script does."""
    return python(
        "import sys; from loopwright.cli import main; sys.argv[0] = 'loopwright'; sys.exit(main())", *arguments
    )


def _environment() -> Mapping[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
