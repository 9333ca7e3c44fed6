"""What the cache did in one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["CacheReport", "CachedBlock", "in_units"]


@dataclass(frozen=True)
class CachedBlock:
    """What became of one call of a block.

    Attributes:
        path: the path of the block.
        outcome: `hit`, `stored` or `not cached`.
        reason: why it was not cached; empty otherwise.
        bytes: the size of the result in the cache; 0 if it is not there.
        seconds_saved: for a hit, the seconds that the block took when its result was stored, less those that it took
            to find it; 0 otherwise.
    """

    path: str
    outcome: str
    reason: str = ""
    bytes: int = 0
    seconds_saved: float = 0.0


@dataclass(frozen=True)
class CacheReport:
    """What became of each block outside loops, in the order in which they ran; `print(run.cache_report())`.

    Attributes:
        blocks: one entry for each call of a block.
        is_on: whether the pipeline has a cache.
    """

    blocks: tuple[CachedBlock, ...] = ()
    is_on: bool = True

    @property
    def hits(self) -> list[str]:
        """The paths of the blocks whose results came from the cache."""
        return [block.path for block in self.blocks if block.outcome == "hit"]

    @property
    def seconds_saved(self) -> float:
        return sum(block.seconds_saved for block in self.blocks)

    def __iter__(self) -> Iterator[CachedBlock]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, path: str) -> CachedBlock:
        """The last call of a block.

        Raises:
            KeyError: it did not run, or only inside a loop.
        """
        for block in reversed(self.blocks):
            if block.path == path:
                return block
        raise KeyError(path)

    def __str__(self) -> str:
        if not self.is_on:
            return "the cache is off: `pipe.cache()` turns it on"
        rows = [("block", "outcome", "bytes", "saved", "why it is not cached")]
        for block in self.blocks:
            size = in_units(block.bytes) if block.bytes else ""
            saved = f"{block.seconds_saved:.3f} s" if block.outcome == "hit" else ""
            rows.append((block.path or "(the pipeline)", block.outcome, size, saved, block.reason))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            f"{path:<{widths[0]}}  {outcome:<{widths[1]}}  {size:>{widths[2]}}  {saved:>{widths[3]}}  {reason}".rstrip()
            for path, outcome, size, saved, reason in rows
        )


def in_units(count: int) -> str:
    """A number of bytes for readers."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
