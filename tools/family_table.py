"""The table of diffusers' families in docs/compatibility.md: what their tests find out.

`python -m tools.family_table` runs every workflow of every family on tiny components, by the tests of
tests/bridge/test_families.py, and writes the table.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import pytest

from tests.bridge.families import ALL, FAMILIES, NOT_RUN
from tests.bridge.families.case import Case

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- families:begin -->", "<!-- families:end -->"

# the columns, each with the test that decides about it
CONVERTS = "test_a_preset_and_its_workflows_declare_what_they_do_in_diffusers"
CHECKS = {
    "runs": "test_a_family_gives_the_bits_of_diffusers",
    "streams": "test_a_watched_run_gives_the_same_bits_with_one_event_per_iteration",
    "resumes": "test_a_cancelled_run_is_resumed_with_the_calls_that_were_left",
    "side by side": "test_two_runs_at_the_same_time_give_the_bits_that_each_gives_alone",
}
BATCH = "test_two_requests_in_one_call_give_the_bits_of_diffusers_or_are_refused_alike"
COLUMNS = ["family", "workflows", "converts", *CHECKS, "in a batch"]
# what stands in the last column
SAME, CLOSE, OTHER, ONE = "same bits", "close", "other", "one prompt"


class Outcomes:
    """What tests came to, as a plugin of pytest.

    Attributes:
        passed: for the name of a test, and of what it was given, whether it passed.
        noted: the same for what it noted about it.
    """

    def __init__(self) -> None:
        self.passed: dict[tuple[str, str], bool] = defaultdict(lambda: True)
        self.noted: dict[tuple[str, str], dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        match = re.search(r"::(\w+)\[(.*)\]$", report.nodeid)
        if match is None:
            return
        self.passed[match[1], match[2]] &= not report.failed
        if report.when == "call":
            self.noted[match[1], match[2]] = dict(report.user_properties)

    def cell(self, test: str, names: list[str]) -> str:
        """`yes` if a test passed with all that it was given."""
        ran = [(test, name) in self.passed for name in names]
        return "yes" if ran and all(ran) and all(self.passed[test, name] for name in names) else "**no**"


def cases_of(family: str) -> list[Case]:
    return [case for case in ALL if case.family == family]


def workflow_name(case: Case) -> str:
    """What a case is called in the table: its workflow, or what tells it from others of its blocks."""
    blocks = case.blocks.removesuffix("Blocks").removesuffix("Auto")
    if case.workflow is None:
        return case.name or blocks
    several = {other.blocks for other in cases_of(case.family)}
    return case.workflow if len(several) == 1 else f"{blocks} {case.workflow}"


def workflows(family: str) -> str:
    """The cell of a family's workflows."""
    return ", ".join(f"`{workflow_name(case)}`" for case in cases_of(family))


def table(outcomes: Outcomes) -> str:
    """The table, and the notes below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    notes = [f"- `{family}` is not run: {reason}." for family, reason in NOT_RUN.items()]
    for family in FAMILIES:
        if family in NOT_RUN:
            lines.append(f"| `{family}` | {'| ' * (len(COLUMNS) - 1)}|")
            continue
        cases = cases_of(family)
        names = [str(case) for case in cases]
        cells = [outcomes.cell(CONVERTS, sorted({case.blocks for case in cases}))]
        for column, test in CHECKS.items():
            cell = outcomes.cell(test, names)
            exceptions = [case for case in cases if column == "resumes" and case.not_resumed]
            cells.append(f"{cell}, but for one" if exceptions else cell)
            notes += [f"- `{workflow_name(case)}` is not resumed: {case.not_resumed}." for case in exceptions]
        notes += [
            f"- `{workflow_name(case)}` is run without {_listed(case.remove)}: {case.why_removed}."
            for case in cases
            if case.remove
        ]
        batch = outcomes.noted.get((BATCH, names[0]), {}).get("batch", "**no**")
        lines.append(f"| `{family}` | {workflows(family)} | {' | '.join([*cells, batch])} |")
    return "\n".join([*lines, "", *notes])


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def part(page: str) -> str:
    """What of the page is the table."""
    return page.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]


def rows(page: str) -> list[dict[str, str]]:
    """The rows of the table in the page, each cell by its column."""
    lines = [line for line in part(page).splitlines() if line.startswith("| ")]
    return [dict(zip(COLUMNS, (cell.strip() for cell in line.split("|")[1:-1]), strict=True)) for line in lines[1:]]


def main() -> int:
    outcomes = Outcomes()
    tests = [str(ROOT / "tests" / "bridge" / name) for name in ("test_families.py", "test_presets.py")]
    # pytest minds that some of its plugins are imported here before it is
    options = ["-q", "-m", "", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    failed = pytest.main([*options, *tests], plugins=[outcomes])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(outcomes)}\n{END}{after}", encoding="utf-8")
    print(f"wrote {PAGE.name}: {len(FAMILIES)} families of diffusers {diffusers.__version__}, {len(ALL)} workflows")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
