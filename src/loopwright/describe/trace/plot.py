"""A recording as a page of HTML: a timeline of blocks and iterations, memory under it, and tables.

The page is one text that needs no other file, no network and no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import floor, log10
from pathlib import Path

from loopwright.describe.markup import Html, element
from loopwright.describe.trace.recording import BLOCK, ITERATION, BlockTimes, Recording, Span, nested
from loopwright.describe.trace.table import bytes_text, seconds_text, summary

__all__ = ["plot"]

# in units of the picture, which are pixels of a page of this width
_WIDTH, _ROW, _AXIS, _MEMORY = 1200, 20, 22, 90
_CHARACTER = 6.7
_COLOURS = 8
_HOVERED = 6  # the width of a place of the memory line that says its figure


def plot(recording: Recording, title: str) -> str:
    """The page.

    Args:
        recording: what is shown.
        title: its heading.
    """
    ranked = sorted(recording.blocks, key=lambda block: -block.own_seconds)
    colours = {block.path: f"lw-c{place}" for place, block in enumerate(ranked[:_COLOURS])}
    notes = [element("p", note) for note in recording.notes]
    parts = [element("h1", title), element("p", summary(recording)), *notes]
    if recording.spans:
        parts.append(element("div", _timeline(recording, colours), class_="lw-scroll"))
    parts += [element("h2", "Blocks by their own time"), _blocks(ranked, colours)]
    if recording.iterations:
        parts += [element("h2", "Iterations"), _iterations(recording)]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_style())),
    )
    body = element("body", element("main", *parts, class_="lw-trace"), class_="lw-trace-page")
    return "<!doctype html>\n" + element("html", head, body, lang="en")


@cache
def _style() -> str:
    return Path(__file__).with_name("plot.css").read_text(encoding="utf-8").strip()


# The timeline


@dataclass
class _Bar:
    """A rectangle of the timeline: one span, or several that are too narrow to be seen.

    Attributes:
        row: how deep it lies.
        left: where it begins.
        right: where it ends.
        span: the first of its spans.
        count: how many there are.
        seconds: the time of all of them.
        iterations: the iteration of each loop around it, outermost first.
    """

    row: int
    left: float
    right: float
    span: Span
    count: int
    seconds: float
    iterations: tuple[Span, ...]
    is_mixed: bool = False


@dataclass(frozen=True)
class _Scale:
    """Where times lie in the picture."""

    begin: float
    end: float

    def __call__(self, seconds: float) -> float:
        length = self.end - self.begin
        return (seconds - self.begin) / length * _WIDTH if length else 0.0


def _timeline(recording: Recording, colours: dict[str, str]) -> Html:
    spans = recording.spans
    scale = _Scale(min(span.start for span in spans), max(span.end for span in spans))
    bars = _bars(spans, scale)
    height = _AXIS + _ROW * (1 + max(bar.row for bar in bars))
    memory = [reading for reading in recording.memory if scale.begin <= reading[0] <= scale.end]
    lower = _memory(memory, scale, height + 8) if memory else ()
    total = height + (_MEMORY + 8 if memory else 0)
    return element(
        "svg",
        *_axis(scale, total),
        *(_drawn(bar, colours) for bar in bars),
        *lower,
        viewBox=f"0 0 {_WIDTH} {total}",
        role="img",
        **{"aria-label": "timeline of blocks and iterations"},
    )


def _bars(spans: Sequence[Span], scale: _Scale) -> list[_Bar]:
    """What is drawn, of spans in order; those narrower than a pixel go into one bar with their neighbours."""
    tracks = _rows_of_tracks(spans)
    bars: list[_Bar] = []
    narrow: dict[int, _Bar] = {}
    for span, around in nested(spans):
        row = tracks[span.track] + len(around)
        left, right = scale(span.start), scale(span.end)
        seconds = span.end - span.start
        bar = narrow.get(row)
        if right - left < 1 and bar is not None and left - bar.right < 1:
            bar.right = max(bar.right, right)
            bar.count += 1
            bar.seconds += seconds
            bar.is_mixed = bar.is_mixed or (span.kind, span.path) != (bar.span.kind, bar.span.path)
            continue
        iterations = tuple(outer for outer in [*around, span] if outer.kind == ITERATION)
        bars.append(_Bar(row, left, right, span, 1, seconds, iterations))
        narrow.pop(row, None)
        if right - left < 1:
            narrow[row] = bars[-1]
    return bars


def _rows_of_tracks(spans: Sequence[Span]) -> dict[str, int]:
    """The first row of each track, one under the other."""
    depths: dict[str, int] = {}
    for span, around in nested(spans):
        depths[span.track] = max(depths.get(span.track, 0), len(around) + 1)
    rows, row = {}, 0
    for track, depth in depths.items():
        rows[track] = row
        row += depth
    return rows


def _drawn(bar: _Bar, colours: dict[str, str]) -> Html:
    top, width = _AXIS + bar.row * _ROW, max(bar.right - bar.left, 1)
    colour = colours.get(bar.span.path, "lw-rest") if bar.span.kind == BLOCK else f"lw-{bar.span.kind}"
    rectangle = element(
        "rect",
        element("title", _told(bar)),
        x=f"{bar.left:.2f}",
        y=str(top),
        width=f"{width:.2f}",
        height=str(_ROW - 1),
        rx="2",
        class_="lw-rest" if bar.is_mixed else colour,
    )
    label = "" if bar.count > 1 else _label(bar.span, width)
    if not label:
        return element("g", rectangle)
    return element("g", rectangle, element("text", label, x=f"{bar.left + 4:.2f}", y=str(top + 14)))


def _told(bar: _Bar) -> str:
    """What a bar says when the pointer is over it."""
    milliseconds = f"{bar.seconds * 1e3:,.3f} ms"
    if bar.count > 1:
        which = "spans" if bar.is_mixed else f"× {bar.span.path or bar.span.name}"
        return f"{bar.count:,} {which}: {milliseconds} in all, from {bar.span.start * 1e3:,.3f} ms"
    lines = [] if bar.span.kind == ITERATION else [bar.span.path or bar.span.name]
    lines += [f"iteration {outer.iteration} of {outer.path or 'the pipeline'}" for outer in bar.iterations]
    return "\n".join([*lines, f"{milliseconds}, from {bar.span.start * 1e3:,.3f} ms"])


def _label(span: Span, width: float) -> str:
    """The name of a span, cut to a width; nothing if too little of it would be left."""
    count = floor((width - 8) / _CHARACTER)
    if len(span.name) <= count:
        return span.name
    if span.kind == ITERATION:
        return str(span.iteration) if len(str(span.iteration)) <= count else ""
    return f"{span.name[: count - 1]}…" if count > 3 else ""


def _axis(scale: _Scale, height: int) -> Iterator[Html]:
    """Times at round places."""
    length = scale.end - scale.begin
    if not length:
        return
    unit = 10.0 ** floor(log10(length / 5))
    step = next(unit * factor for factor in (1, 2, 5, 10) if length / (unit * factor) <= 10)
    place = floor(scale.begin / step) + 1
    while place * step < scale.end:
        x = f"{scale(place * step):.2f}"
        yield element("line", x1=x, x2=x, y1="16", y2=str(height))
        yield element("text", seconds_text(place * step), x=x, y="11", class_="lw-tick", text_anchor="middle")
        place += 1


def _memory(readings: Sequence[tuple[float, int]], scale: _Scale, top: int) -> Iterator[Html]:
    """The line of memory: of all readings in one place the highest, at its own scale."""
    places: dict[int, tuple[float, int]] = {}
    for moment, count in readings:
        place = floor(scale(moment) / _HOVERED)
        if place not in places or count > places[place][1]:
            places[place] = moment, count
    counts = [count for _, count in places.values()]
    least, most = min(counts), max(counts)
    span = (most - least) or 1

    def height(count: int) -> float:
        return top + 18 + (_MEMORY - 22) * (1 - (count - least) / span)

    points = " ".join(f"{scale(moment):.1f},{height(count):.1f}" for moment, count in places.values())
    yield element("polyline", points=points, class_="lw-memory")
    yield element(
        "text", f"memory, {bytes_text(least)} to {bytes_text(most)}", x="4", y=str(top + 10), class_="lw-tick"
    )
    for place, (moment, count) in places.items():
        yield element(
            "rect",
            element("title", f"{bytes_text(count)}, {moment * 1e3:,.3f} ms"),
            x=str(place * _HOVERED),
            y=str(top),
            width=str(_HOVERED),
            height=str(_MEMORY),
            class_="lw-hover",
        )


# The tables


def _blocks(ranked: Sequence[BlockTimes], colours: dict[str, str]) -> Html:
    whole = sum(block.own_seconds for block in ranked) or 1.0
    rows = [
        (
            (element("span", class_=f"lw-swatch {colours.get(block.path, 'lw-rest')}"), block.path or block.name),
            seconds_text(block.own_seconds),
            f"{100 * block.own_seconds / whole:.1f} %",
            seconds_text(block.seconds),
            f"{block.calls:,}",
            seconds_text(block.mean),
            seconds_text(block.longest),
            bytes_text(block.peak_memory),
        )
        for block in ranked
    ]
    return _table(("block", "own", "share", "total", "calls", "mean", "longest", "peak memory"), rows)


def _iterations(recording: Recording) -> Html:
    rows = [
        (
            (loop.path or "pipeline",),
            f"{loop.count:,}",
            seconds_text(loop.seconds),
            seconds_text(loop.mean),
            seconds_text(loop.longest),
        )
        for loop in recording.iterations
    ]
    return _table(("loop", "count", "total", "mean", "longest"), rows)


def _table(headings: Sequence[str], rows: Iterable[tuple[tuple[str, ...], *tuple[str, ...]]]) -> Html:
    head = element("thead", element("tr", *(element("th", heading, scope="col") for heading in headings)))
    body = [
        element("tr", element("th", *first, scope="row"), *(element("td", cell) for cell in cells))
        for first, *cells in rows
    ]
    return element("div", element("table", head, element("tbody", *body)), class_="lw-scroll")
