"""docs/compatibility.md has a row for each family of diffusers, with the workflows that the tests run."""

from __future__ import annotations

from tests.bridge.families import FAMILIES, NOT_RUN
from tools.family_table import CHECKS, CLOSE, ONE, OTHER, PAGE, SAME, rows, workflows

ROWS = rows(PAGE.read_text(encoding="utf-8"))


def test_the_rows_are_the_families() -> None:
    assert [row["family"] for row in ROWS] == [f"`{family}`" for family in FAMILIES]


def test_a_row_lists_the_workflows_that_are_run() -> None:
    assert {row["family"]: row["workflows"] for row in ROWS} == {
        f"`{family}`": workflows(family) for family in FAMILIES
    }, "`make families` writes them"


def test_a_row_says_that_all_is_well() -> None:
    for row in ROWS:
        if row["family"].strip("`") in NOT_RUN:
            continue
        assert {row[column].partition(",")[0] for column in ("converts", *CHECKS)} == {"yes"}
        assert row["in a batch"] in (SAME, CLOSE, OTHER, ONE)
