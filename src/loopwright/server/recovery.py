"""The jobs of a data folder, found again when a server begins: what a crash or a damaged disk left is put right."""

from __future__ import annotations

from loopwright.server.folders import JobFolders
from loopwright.server.jobs import Job, Request, Status
from loopwright.server.logs import log
from loopwright.server.store import Store

__all__ = ["recover", "stored"]


def recover(store: Store, folders: JobFolders) -> list[Job]:
    """The jobs that have not ended, in their order, ready to run again.

    A job whose result was written before the crash has ended, whatever the database says. A row that is damaged, or
    missing, is made again from the folder of its job.

    Raises:
        StorageError: the folder or the database cannot be used.
    """
    found, damaged = store.unfinished()
    known = store.ids()
    lost = [job_id for job_id in folders.ids() if job_id not in known]
    number = store.last_number()
    for job_id in (*damaged, *lost):
        number += 1
        job = _rebuilt(folders, job_id, number)
        log("job made again from its folder", job=job_id, status=job.status.value)
        store.save(job)
        if not job.has_ended:
            found.append(job)
    unfinished = []
    for job in sorted(found, key=lambda job: job.number):
        outcome = folders.of(job.id).read_outcome()
        ended = None if outcome is None else _read(outcome, job.id)
        if ended is not None:
            store.save(ended)
            folders.of(job.id).keep_result_only()
            continue
        if job.status is Status.RUNNING:
            job.status = Status.QUEUED
            store.save(job)
        elif job.has_ended:
            store.save(job)
            continue
        unfinished.append(job)
    return unfinished


def stored(store: Store, folders: JobFolders, job_id: str) -> Job | None:
    """A job that has ended; None if there is none of that name."""
    job = store.get(job_id)
    if job is None and job_id in store.ids():
        job = _rebuilt(folders, job_id, store.last_number() + 1)
        log("job made again from its folder", job=job_id, status=job.status.value)
        store.save(job)
    return job


def _rebuilt(folders: JobFolders, job_id: str, number: int) -> Job:
    """A job by what its folder says; one that failed if that is damaged too."""
    folder = folders.of(job_id)
    for record in (folder.read_outcome(), folder.read_request()):
        job = None if record is None else _read(record, job_id)
        if job is not None:
            return job
    error = {
        "message": "what is stored of this job is damaged, so that it cannot be run; submit it again",
        "type": "server_error",
        "param": None,
        "code": "record_damaged",
    }
    return Job(job_id, number, Request({}), "", 0.0, Status.FAILED, error=error, notes=["its record was damaged"])


def _read(record: str, job_id: str) -> Job | None:
    try:
        job = Job.from_record(record)
    except ValueError:
        return None
    return job if job.id == job_id else None
