"""What a command was asked, so that `loopwright resume` can finish it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loopwright.errors import CheckpointError

__all__ = ["REQUEST_NAME", "Request", "read_request", "resume_command"]

# of the file beside the checkpoints of a run
REQUEST_NAME = "command.json"
_FORMAT = 1


@dataclass(frozen=True)
class Request:
    """What `generate` or `morph` was asked, without the inputs of the run, which its checkpoints hold.

    Attributes:
        prompts: the prompts: one for `generate`, several for `morph`.
        seeds: the seed of each picture, or of the one animation of `morph`.
        outputs: the files to write, one for each seed.
        animations: the files that show how the pictures formed: one for each output, or none.
        model: a model folder; None for the embedded model.
        frames: the number of frames of `morph`; None for `generate`.
        bounce: whether the animation of `morph` comes back to where it began.
        was_asked_for: whether the user named the folder of the run; if not, it is removed when the files are written.
        is_finished: whether the files have been written.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    outputs: Sequence[Path]
    animations: Sequence[Path] = ()
    model: Path | None = None
    frames: int | None = None
    bounce: bool = False
    was_asked_for: bool = True
    is_finished: bool = False

    def to_bytes(self) -> bytes:
        """As JSON. Paths are absolute, as a run may be resumed from another folder."""
        values = {"format": _FORMAT, **asdict(self)}
        return json.dumps(values, indent=2, default=lambda path: str(path.absolute())).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Request:
        """Raises `ValueError` if it is not what `to_bytes` makes."""
        values = json.loads(data)
        try:
            if values.pop("format") != _FORMAT:
                raise ValueError("another version of loopwright wrote it")
            for name in ("outputs", "animations"):
                values[name] = [_as_seen_from_here(path) for path in values[name]]
            if values["model"] is not None:
                values["model"] = _as_seen_from_here(values["model"])
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("it is not complete") from error


def read_request(folder: Path) -> Request:
    """What the command was asked whose run is saved in a folder.

    Raises:
        CheckpointError: there is no such folder, or no such run in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    try:
        return Request.from_bytes((folder / REQUEST_NAME).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no run of this command line: it has no {REQUEST_NAME}; a run that a program saved is "
            f"resumed by `pipe.resume(...)`"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / REQUEST_NAME} cannot be read: {error}") from error


def resume_command(folder: Path) -> str:
    """What to type to go on with the run in a folder."""
    return f"loopwright resume {shlex.quote(str(folder))}"


def _as_seen_from_here(name: str) -> Path:
    path = Path(name)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
