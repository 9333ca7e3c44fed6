"""A recording as a table for a terminal, and figures as people read them."""

from __future__ import annotations

from loopwright.describe.trace.recording import BlockTimes, Recording

__all__ = ["bytes_text", "seconds_text", "summary", "table"]

_HEADINGS = ("block", "calls", "total", "own", "mean", "longest", "peak memory")


def table(recording: Recording) -> str:
    """The blocks in the order of the tree, indented, each loop with its iterations; notes below."""
    if not recording.blocks:
        return "nothing has run"
    loops = {loop.path: loop for loop in recording.iterations}
    depths: dict[str | None, int] = {None: -1}
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for block in recording.blocks:
        depths[block.path] = depths.get(block.outer, -1) + 1
        indent = "  " * depths[block.path]
        rows.append((indent + block.name, *_figures(block)))
        loop = loops.get(block.path)
        if loop is not None:
            times = (seconds_text(loop.seconds), "", seconds_text(loop.mean), seconds_text(loop.longest), "")
            rows.append((f"{indent}  (iterations)", f"{loop.count:,}", *times))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", summary(recording), *recording.notes])


def summary(recording: Recording) -> str:
    """The time of the run in a line."""
    waited = f", and {seconds_text(recording.waited)} of waiting" if recording.waited else ""
    return f"{seconds_text(recording.elapsed)} of running{waited}"


def _figures(block: BlockTimes) -> tuple[str, ...]:
    times = (block.seconds, block.own_seconds, block.mean, block.longest)
    return f"{block.calls:,}", *map(seconds_text, times), bytes_text(block.peak_memory)


def seconds_text(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if 0 < seconds < 1e-4:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.2f} ms"


def bytes_text(count: int | None) -> str:
    """An amount of memory in mebibytes, empty for None."""
    return "" if count is None else f"{count / 2**20:,.1f} MiB"
