"""The jobs of a data folder, found again when a server begins: what a crash or a damaged disk left is put right."""

from __future__ import annotations

from loopwright.server.folders import JobFolder, JobFolders
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
    damaged = store.put_right()
    known = store.ids()
    unreadable = []
    for job_id in (*damaged, *(job_id for job_id in folders.ids(known) if job_id not in known)):
        job = _by_folder(folders.of(job_id), job_id)
        if job is None:
            unreadable.append(job_id)
        else:
            _save_again(store, job)
    # what is said of them depends on the others
    for job_id in unreadable:
        _save_again(store, _lost(store, job_id))
    unfinished = []
    for job in store.unfinished():
        outcome = folders.of(job.id).read_outcome()
        ended = None if outcome is None else _read(outcome, job.id)
        if ended is not None:
            store.save(ended)
            folders.of(job.id).keep_result_only()
            continue
        if job.status is Status.RUNNING:
            # the server died while it ran
            job.status = Status.QUEUED
            job.crashes += 1
            store.save(job)
        unfinished.append(job)
    return unfinished


def stored(store: Store, folders: JobFolders, job_id: str) -> Job | None:
    """A job that has ended; None if there is none of that name."""
    job = store.get(job_id)
    if job is None and store.named(job_id) is not None:
        job = _by_folder(folders.of(job_id), job_id) or _lost(store, job_id)
        _save_again(store, job)
    return job


def _save_again(store: Store, job: Job) -> None:
    log("job made again from its folder", job=job.id, status=job.status.value)
    store.save(job)


def _by_folder(folder: JobFolder, job_id: str) -> Job | None:
    """A job by what its folder says; None if that is damaged too."""
    for record in (folder.read_outcome(), folder.read_request()):
        job = None if record is None else _read(record, job_id)
        if job is not None:
            return job
    return None


def _lost(store: Store, job_id: str) -> Job:
    """A job of which nothing can be read: it has failed, for the client whose it was, if that is known."""
    number, client = store.named(job_id) or (store.last_number() + 1, "")
    error = {
        "message": "what is stored of this job is damaged, so that it cannot be run; submit it again",
        "type": "server_error",
        "param": None,
        "code": "record_damaged",
    }
    # kept as long as one that ends now
    return Job(
        job_id,
        number,
        Request({}),
        client,
        0.0,
        Status.FAILED,
        error=error,
        notes=["its record was damaged"],
        kept_since=store.clock(),
    )


def _read(record: str, job_id: str) -> Job | None:
    try:
        job = Job.from_record(record)
    except ValueError:
        return None
    return job if job.id == job_id else None
