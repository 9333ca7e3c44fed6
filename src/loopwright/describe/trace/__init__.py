"""What a run did and how long it took: as a file in Chrome's format, as a table, and as a page of HTML."""

from loopwright.describe.trace.chrome import read_trace, write_trace
from loopwright.describe.trace.plot import plot
from loopwright.describe.trace.recording import BlockTimes, LoopTimes, Recording, Span
from loopwright.describe.trace.table import table

__all__ = ["BlockTimes", "LoopTimes", "Recording", "Span", "plot", "read_trace", "table", "write_trace"]
