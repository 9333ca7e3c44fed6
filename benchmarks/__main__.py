"""The command: `python -m benchmarks`, or `python -m benchmarks iterations sequences` for some of them.

All of them together write docs/performance.md; some of them only print.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .measure import ROOT, Amount, Result
from .report import document, row, server_section

DOCUMENT = ROOT / "docs" / "performance.md"
EMBEDDED_MODEL = ROOT / "src" / "loopwright" / "diffusion" / "embedded" / "model"


class Benchmark(NamedTuple):
    """Where a benchmark is, how often it repeats, and whether it needs a model."""

    module: str
    repetitions: int
    needs_model: bool = False

    def function(self, name: str) -> Callable[..., list[Result | Amount]]:
        function: Callable[..., list[Result | Amount]] = getattr(
            importlib.import_module(f".{self.module}", __package__), name
        )
        return function


BENCHMARKS = {
    "iterations": Benchmark("calls", 25),
    "sequences": Benchmark("calls", 25),
    "empty_loop": Benchmark("calls", 25),
    "converted": Benchmark("families", 25),
    "inputs": Benchmark("tree", 15),
    "imports": Benchmark("processes", 5),
    "generate": Benchmark("processes", 5, needs_model=True),
    "picture": Benchmark("picture", 15, needs_model=True),
    "streams": Benchmark("runs", 25, needs_model=True),
    "checkpoints": Benchmark("runs", 25, needs_model=True),
    "events": Benchmark("runs", 5),
    "memory": Benchmark("runs", 1),
    "abandoned": Benchmark("runs", 1),
    "threads": Benchmark("runs", 7, needs_model=True),
    "shared": Benchmark("runs", 1, needs_model=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}; all if none is given"
    )
    parser.add_argument("--quick", action="store_true", help="three repetitions of each, and nothing is written")
    parser.add_argument("--model", type=Path, default=EMBEDDED_MODEL, help="a model folder other than the embedded one")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")

    results: list[Result | Amount] = []
    skipped: list[str] = []
    for name in options.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        arguments: list[object] = [3 if options.quick else benchmark.repetitions]
        if benchmark.needs_model:
            if not (options.model / "model_index.json").is_file():
                skipped.append(f"`{name}`: the embedded model is not there; `make train` makes it")
                print(skipped[-1], file=sys.stderr)
                continue
            arguments.append(options.model.resolve())
        for result in benchmark.function(name)(*arguments):
            results.append(result)
            print(row(result), f"({result.remark})" if result.remark else "", flush=True)

    if not options.names and not options.quick:
        # what another command measures stays
        kept = server_section(DOCUMENT.read_text(encoding="utf-8")) if DOCUMENT.is_file() else ""
        text = document(results, skipped)
        DOCUMENT.write_text(f"{text}\n{kept}" if kept else text, encoding="utf-8")
        print(f"{DOCUMENT.relative_to(ROOT)} is written")
    return int(any(result.passed is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
