"""The table, as text for docs/performance.md."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .measure import Amount, Result

INTRODUCTION = """\
# Performance

<!-- Written by `python -m benchmarks`, which measures. Do not edit by hand. -->

Loopwright against diffusers {diffusers}, whose modular pipelines have the same API. What counts is the **ratio**:
seconds here over seconds there, so below 1 is faster. Both sides run in turns in one process, or in turns as
processes; the ratio is the median over the repetitions, and the range is that of its middle half. The bars are the
project's own, and are checked at every release.

{machine}

| what | here | there | ratio | middle half | bar | |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


SERVER_BEGINS, SERVER_ENDS = "<!-- server:begin -->\n", "<!-- server:end -->\n"


def server_section(page: str) -> str:
    """The part of the page that `python -m benchmarks.serving` writes, with its marks; empty if it is not there."""
    _, begin, rest = page.partition(SERVER_BEGINS)
    text, end, _ = rest.partition(SERVER_ENDS)
    return f"{begin}{text}{end}" if end else ""


def document(results: Sequence[Result | Amount], skipped: Sequence[str]) -> str:
    """The whole of docs/performance.md."""
    text = INTRODUCTION.format(diffusers=importlib.metadata.version("diffusers"), machine=machine())
    text += "".join(f"{row(result)}\n" for result in results)
    remarks = [f"- {result.title}: {result.remark}." for result in results if result.remark]
    if remarks:
        text += "\n" + "\n".join(remarks) + "\n"
    if skipped:
        text += "\nNot measured in this run:\n\n" + "\n".join(f"- {reason}" for reason in skipped) + "\n"
    return text


def row(result: Result | Amount) -> str:
    verdict = {True: "met", False: "**missed**", None: ""}[result.passed]
    if isinstance(result, Amount):
        bar = "" if result.bar is None else f"≤ {result.bar:g} {result.unit}"
        return f"| {result.title} | {result.value:.3g} {result.unit} | | | | {bar} | {verdict} |"
    low, high = result.spread
    if result.bar is not None:
        bar = f"≤ {result.bar:g}"
    else:
        bar = "" if result.bar_seconds is None else f"≤ {duration(result.bar_seconds)}"
    cells = [
        result.title,
        duration(median(result.ours)),
        duration(median(result.theirs)),
        f"{result.ratio:.3g}",
        f"{low:.3g} to {high:.3g}",
        bar,
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def machine() -> str:
    """What the figures were measured with, in one paragraph."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("diffusers", "torch", "transformers")]
    return (
        f"Measured with Loopwright {_own_version()}, {', '.join(versions)} and Python {platform.python_version()} on "
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}."
    )


def processor() -> str:
    """The model of the processor."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _own_version() -> str:
    import loopwright

    return loopwright.__version__
