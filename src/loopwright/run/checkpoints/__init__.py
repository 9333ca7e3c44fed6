"""Saving a run between two iterations, and going on from there."""

from loopwright.run.checkpoints.branch import Branch
from loopwright.run.checkpoints.checkpoint import Checkpoint, Recorder, classes_of
from loopwright.run.checkpoints.comparison import same
from loopwright.run.checkpoints.fingerprint import compare, fingerprint
from loopwright.run.checkpoints.replay import Replay, saved_start
from loopwright.run.checkpoints.saved import Saved, read_saved
from loopwright.run.checkpoints.start import Start
from loopwright.run.checkpoints.storage import LocalFolder, Storage

__all__ = [
    "Branch",
    "Checkpoint",
    "LocalFolder",
    "Recorder",
    "Replay",
    "Saved",
    "Start",
    "Storage",
    "classes_of",
    "compare",
    "fingerprint",
    "read_saved",
    "same",
    "saved_start",
]
