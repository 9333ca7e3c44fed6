"""What a run did and how long it took, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["BLOCK", "ITERATION", "WAITING", "BlockTimes", "LoopTimes", "Recording", "Span", "nested"]

BLOCK, ITERATION, WAITING = "block", "iteration", "waiting"


@dataclass(frozen=True)
class BlockTimes:
    """The calls of one block.

    Attributes:
        path: the path of the block; empty for the whole pipeline.
        name: its name.
        outer: the path of the block that it is called in, None for the whole pipeline.
        calls: how often it was called, a call in progress among them.
        seconds: the time of all calls, without that for which the run waited.
        own_seconds: the same without that of the blocks inside. It holds what the driver does between them: callbacks,
            events and checkpoints.
        longest: the seconds of the longest call.
        peak_memory: the most bytes seen while it ran; None if they cannot be read here.
    """

    path: str
    name: str
    outer: str | None
    calls: int
    seconds: float
    own_seconds: float
    longest: float
    peak_memory: int | None

    @property
    def mean(self) -> float:
        """The seconds of a call."""
        return self.seconds / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class LoopTimes:
    """The iterations of one loop.

    Attributes:
        path: the path of the loop, as in its events.
        count: how many iterations were run, one in progress among them.
        seconds: the time of all of them, without that for which the run waited.
        longest: the seconds of the longest.
    """

    path: str
    count: int
    seconds: float
    longest: float

    @property
    def mean(self) -> float:
        """The seconds of an iteration."""
        return self.seconds / self.count if self.count else 0.0


class Span(NamedTuple):
    """A stretch of time in which the run was in a block or in an iteration, or waited.

    A call around which the run waited is several spans, one for each stretch in which it worked.

    Attributes:
        kind: `block`, `iteration` or `waiting`.
        name: the name of the block, or what else it is.
        path: the path of the block or of the loop; empty for the whole pipeline, and for waiting.
        iteration: the index of the iteration, None for the others.
        start: when it began, in seconds after the beginning of the run.
        end: when it ended, likewise.
        track: what it belongs to, in a file that holds more than one run.
    """

    kind: str
    name: str
    path: str
    iteration: int | None
    start: float
    end: float
    track: str = ""


@dataclass(frozen=True)
class Recording:
    """What a run did and how long it took.

    Attributes:
        elapsed: the seconds of the run, without those for which it waited.
        waited: the seconds for which it waited, paused or with an event in the hand of a listener.
        blocks: the blocks, in the order of the tree.
        iterations: the loops, likewise.
        spans: the last spans; of those that begin together the outer one comes first.
        dropped: how many earlier spans were dropped.
        memory: bytes in use, at times in seconds after the beginning of the run.
        memory_kind: whose memory that is, None if it cannot be read.
        asynchronous: whether blocks hand their work to a device and do not wait for its end.
    """

    elapsed: float = 0.0
    waited: float = 0.0
    blocks: tuple[BlockTimes, ...] = ()
    iterations: tuple[LoopTimes, ...] = ()
    spans: tuple[Span, ...] = ()
    dropped: int = 0
    memory: tuple[tuple[float, int], ...] = ()
    memory_kind: str | None = None
    asynchronous: bool = False

    @property
    def notes(self) -> list[str]:
        """What somebody who reads the figures has to know."""
        notes = []
        if self.memory_kind is not None:
            notes.append(f"memory: {self.memory_kind}")
        if self.asynchronous:
            notes.append("times are those of handing the work to the device, which may end it later")
        if self.dropped:
            notes.append(f"the timeline has the last spans only, {self.dropped:,} earlier ones were dropped")
        return notes


def nested(spans: Iterable[Span]) -> Iterator[tuple[Span, list[Span]]]:
    """Spans in order, each with those of its track that it lies in, outermost first."""
    open_spans: dict[str, list[Span]] = {}
    for span in spans:
        around = open_spans.setdefault(span.track, [])
        while around and around[-1].end < span.end:
            around.pop()
        yield span, around
        around.append(span)
