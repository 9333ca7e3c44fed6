"""The page with the timeline of a run, read back with a parser."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from loopwright.describe.trace import BlockTimes, LoopTimes, Recording, Span, plot

HOSTILE = "</title><script>alert('1')</script>&\"<b>"


def drawing(page: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", page, re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found[0])


def bars(page: str) -> list[tuple[float, float, float, str]]:
    """Left, top and width of each bar, and what it says when the pointer is over it."""
    return [
        (*(float(bar.attrib[name]) for name in ("x", "y", "width")), bar.findtext("title") or "")
        for bar in drawing(page).iterfind("g/rect")
    ]


def rows(page: str) -> list[list[str]]:
    tables = re.findall(r"<table>.*?</table>", page, re.DOTALL)
    return [
        ["".join(cell.itertext()) for cell in row]
        for table in tables
        for row in ElementTree.fromstring(table).iter("tr")
    ]


def recording(*spans: Span, name: str = "work") -> Recording:
    return Recording(
        elapsed=4.0,
        blocks=(
            BlockTimes("", "pipeline", None, 1, 4.0, 1.0, 4.0, 2**20),
            BlockTimes(name, name, "", 2, 3.0, 3.0, 2.0, 2**21),
        ),
        iterations=(LoopTimes("", 2, 3.0, 2.0),),
        spans=(Span("block", "pipeline", "", None, 0.0, 4.0), *spans),
        memory=((1.0, 2**20), (3.0, 2**21)),
        memory_kind="of the test",
    )


def test_a_bar_says_path_iteration_and_milliseconds() -> None:
    spans = [Span("iteration", "iteration 7", "", 7, 1.0, 3.0), Span("block", "work", "a.work", None, 1.0, 2.0)]
    assert bars(plot(recording(*spans), "run.json")) == [
        (0, 22, 1200, "pipeline\n4,000.000 ms, from 0.000 ms"),
        (300, 42, 600, "iteration 7 of the pipeline\n2,000.000 ms, from 1,000.000 ms"),
        (300, 62, 300, "a.work\niteration 7 of the pipeline\n1,000.000 ms, from 1,000.000 ms"),
    ]


def test_spans_narrower_than_a_pixel_are_drawn_as_one() -> None:
    spans = [Span("block", "work", "work", None, k / 10_000, (k + 0.9) / 10_000) for k in range(20_000)]
    page = plot(recording(*spans), "run.json")
    whole, many = bars(page)
    assert (whole[2], round(many[2])) == (1200, 600)
    assert many[3] == "20,000 × work: 1,800.000 ms in all, from 0.000 ms"
    assert len(page) < 20_000


def test_tracks_are_drawn_one_under_the_other() -> None:
    spans = [Span("block", "other", "other", None, 0.0, 1.0, "b"), Span("block", "work", "work", None, 0.0, 1.0, "b")]
    assert [top for _, top, _, _ in bars(plot(recording(*spans), ""))] == [22, 42, 62]


def test_memory_is_a_line_below() -> None:
    page = plot(recording(), "run.json")
    (line,) = drawing(page).iterfind("polyline")
    assert [point.split(",")[0] for point in line.attrib["points"].split()] == ["300.0", "900.0"]
    hovered = [title.text for title in drawing(page).iterfind("rect/title")]
    assert hovered == ["1.0 MiB, 1,000.000 ms", "2.0 MiB, 3,000.000 ms"]


def test_blocks_are_sorted_by_their_own_time() -> None:
    assert rows(plot(recording(), "run.json")) == [
        ["block", "own", "share", "total", "calls", "mean", "longest", "peak memory"],
        ["work", "3.00 s", "75.0 %", "3.00 s", "2", "1.50 s", "2.00 s", "2.0 MiB"],
        ["pipeline", "1.00 s", "25.0 %", "4.00 s", "1", "4.00 s", "4.00 s", "1.0 MiB"],
        ["loop", "count", "total", "mean", "longest"],
        ["pipeline", "2", "3.00 s", "1.50 s", "2.00 s"],
    ]


def test_the_page_needs_nothing_else_and_its_texts_are_escaped() -> None:
    page = plot(recording(Span("block", HOSTILE, HOSTILE, None, 0.0, 4.0), name=HOSTILE), HOSTILE)
    assert "<script" not in page
    assert "<b>" not in page
    assert not re.search(r"(?:src|href)=|https?:|url\(|@import", page)
    assert bars(page)[1][3].startswith(HOSTILE)
    assert HOSTILE in rows(page)[1][0]
    assert "color-scheme: light dark" in page


def test_a_run_of_no_time_can_be_drawn() -> None:
    assert "<svg" in plot(Recording(spans=(Span("block", "pipeline", "", None, 0.0, 0.0),)), "run.json")
    assert "<svg" not in plot(Recording(), "run.json")
