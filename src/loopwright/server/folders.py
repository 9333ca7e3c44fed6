"""The folders of jobs: what came with a request, its checkpoints, its previews, and what came out.

    jobs/<id>/request.json    what was asked; a folder without it is of no job
    jobs/<id>/inputs/         the uploads
    jobs/<id>/run/            the checkpoints
    jobs/<id>/files/          previews and results
    jobs/<id>/outcome.json    how the job ended; a job that has it is never run again

Every name is made here: none comes from a client. A file is whole or not there, also after a loss of power.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loopwright.errors import StorageError
from loopwright.run.checkpoints import LocalFolder

__all__ = ["JobFolder", "JobFolders", "storage_errors"]

REQUEST = "request.json"
OUTCOME = "outcome.json"
_ID = re.compile(r"job_[0-9a-f]{32}")
_FILE = re.compile(r"[a-z0-9-]{1,40}\.[a-z0-9]{1,12}")
_PREVIEW = re.compile(r"preview-(\d+)-(\d+)\.png")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn what the operating system says about files into a `StorageError`.

    Args:
        what: what was being done, for the message: "the job cannot be stored".
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        full = error.errno in _FULL
        reason = "the disk is full" if full else error.strerror or type(error).__name__
        raise StorageError(f"{what}: {reason}", full) from error


class JobFolder:
    """What is on disk of one job.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inputs = LocalFolder(path / "inputs")
        self.run = LocalFolder(path / "run")
        self.files = LocalFolder(path / "files")
        self._own = LocalFolder(path)

    def write_request(self, record: str, uploads: dict[str, bytes]) -> None:
        """Write what was asked; the record last, as it makes the folder one of a job.

        Raises:
            StorageError: it cannot be written.
        """
        with storage_errors("the job cannot be stored"):
            for name, data in uploads.items():
                self.inputs.write(name, data)
            self._own.write(REQUEST, record.encode())
            _sync(self.path.parent)

    def write_outcome(self, record: str) -> None:
        """Write how the job ended.

        Raises:
            StorageError: it cannot be written.
        """
        with storage_errors("the result cannot be stored"):
            self._own.write(OUTCOME, record.encode())

    def read_request(self) -> str | None:
        """What was asked; None if there is no job in the folder."""
        return self._read(REQUEST)

    def read_outcome(self) -> str | None:
        """How the job ended; None if it has not."""
        return self._read(OUTCOME)

    def _read(self, name: str) -> str | None:
        with storage_errors(f"{name} of {self.path.name} cannot be read"):
            try:
                return self._own.read(name).decode("utf-8", errors="replace")
            except FileNotFoundError:
                return None

    def file(self, name: str) -> Path | None:
        """A preview or a part of the result; None if there is none of that name."""
        path = self.path / "files" / name
        return path if _FILE.fullmatch(name) and path.is_file() else None

    def previews(self) -> list[dict[str, Any]]:
        """The previews that were written: after which step, and their files."""
        found: dict[int, list[str]] = {}
        for name in self.files.names():
            match = _PREVIEW.fullmatch(name)
            if match:
                found.setdefault(int(match[1]), []).append(name)
        return [{"step": step, "files": sorted(files)} for step, files in sorted(found.items())]

    @property
    def has_checkpoint(self) -> bool:
        return any(name.endswith(".safetensors") for name in self.run.names())

    @property
    def bytes(self) -> int:
        """The size of what is kept once the job has ended."""
        sizes = []
        for path in (*self.path.glob("*.json"), *self.files.path.glob("*")):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        return sum(sizes)

    def forget_run(self) -> None:
        """Remove the checkpoints, so that the job begins again."""
        shutil.rmtree(self.run.path, ignore_errors=True)

    def keep_result_only(self) -> None:
        """Remove what was needed to come to the result."""
        self.forget_run()
        shutil.rmtree(self.inputs.path, ignore_errors=True)

    def remove(self) -> None:
        """Remove everything; what makes it the folder of a job first."""
        with suppress(OSError):
            (self.path / REQUEST).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


class JobFolders:
    """The folders of all jobs.

    Args:
        path: the folder that they are in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(f"{path} cannot be made"):
            path.mkdir(parents=True, exist_ok=True)

    def of(self, job_id: str) -> JobFolder:
        if not _ID.fullmatch(job_id):
            raise ValueError(f"{job_id!r} is not the name of a job")
        return JobFolder(self.path / job_id)

    def ids(self, known: Collection[str] = ()) -> list[str]:
        """The jobs that have a folder. What a server left that died while it wrote a request is removed.

        Args:
            known: jobs of which it is known that there was a request.
        """
        found = []
        for entry in sorted(self.path.iterdir()):
            if not _ID.fullmatch(entry.name) or not entry.is_dir():
                continue
            if entry.name in known or (entry / REQUEST).is_file():
                found.append(entry.name)
            else:
                shutil.rmtree(entry, ignore_errors=True)
        return found

    def probe(self) -> None:
        """Raises `StorageError` if nothing can be written."""
        with storage_errors("the data folder cannot be written to"):
            LocalFolder(self.path).write("probe", b"\0" * 65_536)
            (self.path / "probe").unlink()


def _sync(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
