"""One execution of a pipeline: its events, how it is steered, and how it survives."""

from loopwright.run.caching import BlockCache, CacheReport
from loopwright.run.checkpoints import Checkpoint
from loopwright.run.event import Event
from loopwright.run.execution import Execution
from loopwright.run.options import Callbacks, RunOptions, StepEnd
from loopwright.run.run import Run
from loopwright.run.scope import is_run_scoped
from loopwright.run.trace import Trace
from loopwright.run.verify import verify_resume

__all__ = [
    "BlockCache",
    "CacheReport",
    "Callbacks",
    "Checkpoint",
    "Event",
    "Execution",
    "Run",
    "RunOptions",
    "StepEnd",
    "Trace",
    "is_run_scoped",
    "verify_resume",
]
