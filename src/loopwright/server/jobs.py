"""What a job is: what it was asked, the state it is in, and how it may change."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from loopwright.errors import RequestRefusedError

__all__ = ["ENDED", "STATUSES", "Job", "Progress", "Request", "Status", "Upload", "new_id"]


class Status(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUSES = tuple(status.value for status in Status)
ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True)
class Upload:
    """A file that came with a request, in the folder of its job.

    Attributes:
        input: the input of the pipeline that it is for.
        file: the name that the server gave it.
        kind: `image` or `tensor`.
        listed: whether it is one of a list.
    """

    input: str
    file: str
    kind: str
    listed: bool = False


@dataclass(frozen=True)
class Request:
    """What a job was asked, which never changes.

    Attributes:
        inputs: the inputs of the pipeline that JSON can carry.
        uploads: the others.
        seed: what the random numbers begin with; None for a pipeline that draws none.
        images: how many images it makes, each with a seed of its own, counted from `seed`.
        output: the names of the values that are the result.
        previews: how many pictures of how it forms are wanted.
        priority: of the jobs of one client, those of a higher one go first.
        is_synchronous: whether its client waits on the connection, and has no other way to the result.
    """

    inputs: dict[str, Any]
    uploads: tuple[Upload, ...] = ()
    seed: int | None = None
    images: int = 1
    output: tuple[str, ...] = ()
    previews: int = 0
    priority: int = 0
    is_synchronous: bool = False

    def digest(self, contents: dict[str, bytes]) -> str:
        """What tells two requests apart.

        Args:
            contents: the bytes of the uploads by the name of their file.
        """
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for upload in self.uploads:
            digest.update(hashlib.sha256(contents[upload.file]).digest())
        return digest.hexdigest()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Request:
        """Raises `TypeError` or `KeyError` if it is not what `asdict` makes."""
        uploads = tuple(Upload(**upload) for upload in value["uploads"])
        return cls(**{**value, "uploads": uploads, "output": tuple(value["output"])})


@dataclass(frozen=True)
class Progress:
    """How far the loops of a job are.

    Attributes:
        loop: the path of the innermost loop.
        step: how many of its iterations are done.
        total: how many there are, None where it is not known.
        position: path and index of each loop around this point, outermost first.
    """

    loop: str
    step: int
    total: int | None
    position: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        position = [{"loop": loop, "index": index} for loop, index in self.position]
        return {"loop": self.loop, "step": self.step, "total": self.total, "position": position}


@dataclass
class Job:
    """One job.

    Attributes:
        id: its name, made by the server.
        number: its place in the order of submission.
        request: what it was asked.
        client: the name of the API key that it came with, empty without keys.
        created: when it was submitted, in seconds since 1970.
        status: the state that it is in.
        started: when it first ran.
        first_step: when the first iteration of a loop was done.
        ended: when it ended.
        reason: why it is paused: `client`, or `storage` if its result could not be written.
        stops: the paths of the loops that were told to end, and may not have noticed yet.
        error: what went wrong, as the API says it.
        outputs: what came out: for each output its files, or its value.
        previews: the steps after which a preview was made, with their files.
        notes: what the client should know, such as that it had to begin again.
        crashes: how many servers in a row have died while they ran it, with no iteration saved since.
        bytes: the size of what is kept of it, once it has ended.
        kept_since: when it ended, on the clock by which results are kept.
        idempotency_key: the key under which the client may submit it again.
        digest: what the request of that key was.
        progress: how far it is, as it was when the state last changed.
    """

    id: str
    number: int
    request: Request
    client: str
    created: float
    status: Status = Status.QUEUED
    started: float | None = None
    first_step: float | None = None
    ended: float | None = None
    reason: str | None = None
    stops: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None
    previews: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    crashes: int = 0
    bytes: int = 0
    kept_since: float = 0.0
    idempotency_key: str | None = None
    digest: str = ""
    progress: Progress | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def to_record(self) -> str:
        """All that is to be kept of it, as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_record(cls, record: str) -> Job:
        """Raises `ValueError` if it is not what `to_record` makes."""
        try:
            values = json.loads(record)
            values["request"] = Request.from_json(values["request"])
            values["status"] = Status(values["status"])
            if values["progress"] is not None:
                position = tuple(map(tuple, values["progress"]["position"]))
                values["progress"] = Progress(**{**values["progress"], "position": position})
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a job: {error}") from error

    def to_json(self, place: int | None = None) -> dict[str, Any]:
        """The job as the API shows it.

        Args:
            place: its place in the queue, from 1; None if it does not wait there.
        """
        path = f"/v1/jobs/{self.id}"
        return {
            "id": self.id,
            "object": "job",
            "status": self.status.value,
            "created_at": self.created,
            "started_at": self.started,
            "first_step_at": self.first_step,
            "ended_at": self.ended,
            "queue_place": place,
            "progress": None if self.progress is None else self.progress.to_json(),
            "previews": [
                {"step": preview["step"], "images": [self.file_url(file) for file in preview["files"]]}
                for preview in self.previews
            ],
            "inputs": self.request.inputs,
            "uploads": sorted({upload.input for upload in self.request.uploads}),
            "seed": self.request.seed,
            "output": list(self.request.output),
            "priority": self.request.priority,
            "pause_reason": self.reason,
            "error": self.error,
            "notes": self.notes,
            "events_url": f"{path}/events",
            "result_url": f"{path}/result" if self.status is Status.SUCCEEDED else None,
        }

    def result_json(self) -> dict[str, Any]:
        """The result as the API shows it.

        Raises:
            RequestRefusedError: there is none, or none yet.
        """
        if self.status is not Status.SUCCEEDED or self.outputs is None:
            why = "it has none" if self.has_ended else "it has none yet; follow its events, or ask again later"
            raise self.refuses(f"job {self.id} is {self.status}: {why}")
        outputs = {}
        for name, output in self.outputs.items():
            files = [
                {**{key: value for key, value in file.items() if key != "file"}, "url": self.file_url(file["file"])}
                for file in output["files"]
            ]
            outputs[name] = {"files": files, "value": output["value"]}
        return {"id": self.id, "object": "job.result", "seed": self.request.seed, "outputs": outputs}

    def file_url(self, file: str) -> str:
        return f"/v1/jobs/{self.id}/files/{file}"

    def refuses(self, message: str) -> RequestRefusedError:
        """The answer to a request that does not fit the state of the job."""
        return RequestRefusedError(message, status=409, code="wrong_state")

    def require(self, what: str, *statuses: Status) -> None:
        """Check that a job is in a state in which something can be done.

        Raises:
            RequestRefusedError: it is not.
        """
        if self.status not in statuses:
            fits = " or ".join(statuses)
            raise self.refuses(f"job {self.id} is {self.status}; only a job that is {fits} can {what}")


def new_id() -> str:
    """A name that nobody can guess."""
    return f"job_{secrets.token_hex(16)}"
