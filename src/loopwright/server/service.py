"""The jobs of a server: submitted, steered, found again; all that changes their state goes through here.

A job that has not ended is in memory, and its state on disk; a job that has ended is on disk alone. Nothing is answered
for that is not on disk first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from loopwright.errors import RequestRefusedError, StorageError, did_you_mean
from loopwright.server.events import Hub
from loopwright.server.folders import JobFolder, JobFolders
from loopwright.server.jobs import Job, Request, Status, new_id
from loopwright.server.limits import Limits
from loopwright.server.logs import log, log_failure
from loopwright.server.metrics import Metrics
from loopwright.server.recovery import recover, stored
from loopwright.server.store import Store

__all__ = ["JobService", "Keeping", "Outcome"]

# by the client, or because what came out could not be written
_BY_CLIENT, _BY_STORAGE = "client", "storage"
# a client that is told to come back is not told to wait longer, in seconds
_LONGEST_WAIT = 60
# after so many crashes in a row a job runs alone, so that no other is taken for what ends the server; after so many it
# has failed
ALONE_AFTER, MOST_CRASHES = 2, 10


@dataclass(frozen=True)
class Keeping:
    """For how long the results of jobs are kept; the oldest go first.

    Attributes:
        seconds: on a clock that goes while a server runs, so that neither a clock that jumps nor a machine that was off
            makes results disappear.
        bytes: the size of all of them together.
        jobs: their number.
    """

    seconds: float = 24 * 3600.0
    bytes: int = 4 * 2**30
    jobs: int = 10_000


@dataclass(frozen=True)
class Outcome:
    """How the run of a job ended.

    Attributes:
        outputs: what came out, as `write_outputs` says it; None if nothing did.
        error: what went wrong, as the API says it.
    """

    outputs: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class JobService:
    """The jobs of one data folder. Its methods may be called from any thread.

    Args:
        folders: the folders of the jobs.
        store: their states.
        hub: where what happens to them is published.
        metrics: counts.
        limits: bounds the queue.
        keeping: how long results are kept.
        slots: how many jobs run at a time.
    """

    def __init__(
        self,
        folders: JobFolders,
        store: Store,
        hub: Hub,
        metrics: Metrics,
        limits: Limits,
        keeping: Keeping,
        slots: int,
    ) -> None:
        self._folders, self._store, self.hub, self._metrics = folders, store, hub, metrics
        self._limits, self._keeping, self._slots = limits, keeping, slots
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._keyed = threading.Lock()
        # that have not ended, or whose end is not in the database yet
        self._live: dict[str, Job] = {}
        # whose end, or state, is to be written when that is possible again
        self._unwritten: set[str] = set()
        # how the run of a job is told to leave while it is in a slot
        self._running: dict[str, Steering] = {}
        self._places: dict[str, int] = {}
        self._entering = 0
        self._closing = False
        self._can_write = True
        self._mean_seconds = 1.0
        for job in recover(store, folders):
            self._live[job.id] = job
            hub.open(job.id)
        self._clock_base, self._clock_began = store.clock(), time.monotonic()
        self._number = store.last_number()
        self._abandon()

    def _abandon(self) -> None:
        """End the jobs that do not go on: those whose clients waited on a connection, and those that end the server."""
        with self._changed:
            for job in list(self._live.values()):
                if job.request.is_synchronous:
                    self._cancel(job)
                elif job.crashes >= MOST_CRASHES:
                    log("job not run again", job=job.id, crashes=job.crashes)
                    self._finish(job, Outcome(error=_crashed(job)))

    # Clients.

    def submit(
        self, request: Request, contents: Mapping[str, bytes], client: str, key: str | None = None, digest: str = ""
    ) -> tuple[Job, bool]:
        """Take a job, once it is on disk.

        Args:
            request: what it is asked.
            contents: the bytes of the uploads by the names of their files.
            client: whose it is.
            key: under which the client may submit it again without a second job.
            digest: what tells its request from others.

        Returns:
            The job, and whether it is new.

        Raises:
            RequestRefusedError: the queue is full; or the key belongs to another request.
            StorageError: it cannot be stored.
        """
        with self._keyed if key is not None else nullcontext():
            if key is not None:
                known = self._store.by_key(client, key)
                if known is not None:
                    return self._same(known, client, digest), False
            number = self._enter()
            try:
                job = Job(new_id(), number, request, client, time.time(), idempotency_key=key, digest=digest)
                folder = self._folders.of(job.id)
                try:
                    folder.write_request(job.to_record(), dict(contents))
                    self._store.save(job)
                except StorageError as error:
                    # it was not answered for, so it must not come back
                    folder.remove()
                    self.failed_to_write("request", error)
                    raise
            finally:
                with self._lock:
                    self._entering -= 1
            # who comes next with the same key finds it here
            with self._changed:
                self._live[job.id] = job
                self.hub.open(job.id)
                self._publish(job)
                self._look_at_queue()
        self._metrics.submitted.inc()
        return job, True

    def _enter(self) -> int:
        with self._lock:
            self._require_open()
            # what is paused waits as well: otherwise there could be any number of them
            waiting = sum(job.status in (Status.QUEUED, Status.PAUSED) for job in self._live.values()) + self._entering
            if waiting >= self._limits.queue:
                raise RequestRefusedError(
                    f"the queue is full: {waiting} jobs wait; try again later",
                    status=429,
                    code="queue_full",
                    retry_after=self.wait_estimate(waiting),
                )
            self._entering += 1
            self._number += 1
            return self._number

    def _same(self, job_id: str, client: str, digest: str) -> Job:
        job = self.get(job_id, client)
        if job.digest != digest:
            raise RequestRefusedError(
                f"this Idempotency-Key belongs to job {job.id}, which was asked something else; take another key",
                status=409,
                code="idempotency_key_reused",
                param="Idempotency-Key",
            )
        return job

    def wait_estimate(self, waiting: int) -> int:
        """Seconds after which there may be room."""
        return max(1, min(_LONGEST_WAIT, round(self._mean_seconds * waiting / self._slots / 4)))

    def get(self, job_id: str, client: str | None) -> Job:
        """A job.

        Args:
            job_id: its name.
            client: whose it must be; None for anybody's.

        Raises:
            RequestRefusedError: there is none of that name.
            StorageError: the database cannot be read.
        """
        with self._lock:
            job = self._live.get(job_id)
        if job is None:
            job = stored(self._store, self._folders, job_id)
        if job is None or (client is not None and job.client != client):
            raise RequestRefusedError(f"there is no job {job_id}", status=404, code="not_found")
        return job

    def page(self, client: str | None, status: str | None, before: str | None, count: int) -> list[Job]:
        """Jobs, the newest first.

        Args:
            client: whose; None for everybody's.
            status: in which state; None for all.
            before: only those that were submitted before this one.
            count: at most so many.
        """
        number = None if before is None else self.get(before, client).number
        found = []
        for job_id in self._store.page(client, status, number, count):
            try:
                found.append(self.get(job_id, client))
            except RequestRefusedError:
                continue  # forgotten since
        return found

    def shown(self, job: Job) -> dict[str, Any]:
        """A job as the API shows it."""
        with self._lock:
            return job.to_json(self._places.get(job.id) if job.status is Status.QUEUED else None)

    def folder(self, job: Job) -> JobFolder:
        return self._folders.of(job.id)

    def cancel(self, job_id: str, client: str | None) -> Job:
        """End a job. What is cancelled already stays so.

        Raises:
            RequestRefusedError: there is none of that name, or it ended in another way.
            StorageError: that cannot be stored; it goes on.
        """
        job = self.get(job_id, client)
        with self._changed:
            if job.status is Status.CANCELLED:
                return job
            job.require("be cancelled", Status.QUEUED, Status.RUNNING, Status.PAUSED)
            self._cancel(job)
            return job

    def _cancel(self, job: Job) -> None:
        before = job.status, job.reason, job.ended
        self._end(job, Status.CANCELLED)
        try:
            self._save(job)
        except StorageError:
            job.status, job.reason, job.ended = before
            raise
        try:
            self.folder(job).write_outcome(job.to_record())
        except StorageError as error:
            # the database has it
            self.failed_to_write("end", error, job)
        if job.id in self._running:
            self._running[job.id].cancel()
        self._forget_live(job)

    def pause(self, job_id: str, client: str | None) -> Job:
        """Have a job stand still, and free its slot; it is saved after its current iteration.

        Raises:
            RequestRefusedError: there is none of that name, or it neither waits nor runs.
            StorageError: that cannot be stored; it goes on.
        """
        job = self.get(job_id, client)
        if job.request.is_synchronous:
            raise job.refuses(f"job {job.id} cannot be paused: its client waits for it on a connection")
        with self._changed:
            job.require("be paused", Status.QUEUED, Status.RUNNING)
            self._set(job, Status.PAUSED, _BY_CLIENT)
            if job.id in self._running:
                self._running[job.id].leave()
            return job

    def go_on(self, job_id: str, client: str | None) -> Job:
        """Let a paused job go on: it waits for a slot again.

        Raises:
            RequestRefusedError: there is none of that name, or it is not paused.
            StorageError: that cannot be stored; it stays paused.
        """
        job = self.get(job_id, client)
        with self._changed:
            job.require("go on", Status.PAUSED)
            self._set(job, Status.QUEUED, None)
            return job

    def stop_loop(self, job_id: str, client: str | None, loop: str | None, loops: list[str]) -> Job:
        """End a loop of a job after its current iteration; the blocks after it run.

        Args:
            job_id: its name.
            client: whose it must be; None for anybody's.
            loop: the path of the loop; None for the innermost that runs.
            loops: the paths that there are.

        Raises:
            RequestRefusedError: there is no such job or loop, or the job does not run, or is in no loop.
            StorageError: that cannot be stored; it goes on as it would.
        """
        job = self.get(job_id, client)
        with self._changed:
            job.require("have a loop stopped", Status.RUNNING)
            if loop is None:
                if job.progress is None:
                    raise job.refuses(f"job {job.id} is in no loop yet; name the one to stop, as `loop`")
                loop = job.progress.loop
            if loop not in loops:
                known = ", ".join(f"`{path}`" for path in loops) or "none"
                raise RequestRefusedError(
                    f"there is no loop `{loop[:80]}`{did_you_mean(loop, loops)}; there are {known}",
                    status=422,
                    code="unknown_loop",
                    param="loop",
                )
            if loop not in job.stops:
                job.stops.append(loop)
                try:
                    self._save(job)
                except StorageError:
                    job.stops.remove(loop)
                    raise
            return job

    def _set(self, job: Job, status: Status, reason: str | None) -> None:
        """Change the state of a job that has not ended, on disk first."""
        before = job.status, job.reason
        job.status, job.reason = status, reason
        try:
            self._save(job)
        except StorageError:
            job.status, job.reason = before
            raise
        self._publish(job)
        self._look_at_queue()

    # Those who run the jobs.

    def next(self) -> Job | None:
        """The job that is to run next; waits for it. None when the server ends."""
        with self._changed:
            while not self._closing:
                waiting = self._waiting()
                if waiting and self._has_place_for(waiting[0]):
                    return self._begin(waiting[0])
                self._changed.wait()
        return None

    def _has_place_for(self, job: Job) -> bool:
        """Whether a job may begin beside those that run: one that may have ended the server runs alone."""
        running = [self._live[job_id] for job_id in self._running if job_id in self._live]
        return not self._running or all(each.crashes < ALONE_AFTER for each in (job, *running))

    def _begin(self, job: Job) -> Job:
        job.status, job.reason = Status.RUNNING, None
        if job.started is None:
            job.started = max(time.time(), job.created)
            self._metrics.queue_seconds.observe(job.started - job.created)
        self._running[job.id] = Steering()
        self._write_state(job)
        self._publish(job)
        self._look_at_queue()
        return job

    def steering(self, job: Job) -> Steering:
        """What steers the run of a job that was taken by `next`."""
        return self._running[job.id]

    def finish(self, job: Job, outcome: Outcome | None) -> None:
        """The run of a job that was taken by `next` has ended.

        Args:
            job: the job.
            outcome: how; None if it left to go on later, or was cancelled.
        """
        with self._changed:
            del self._running[job.id]
            if job.has_ended:
                self.folder(job).keep_result_only()
            elif outcome is None:
                if job.status is Status.RUNNING:
                    job.status = Status.QUEUED
                job.crashes = 0
                self._write_state(job)
            else:
                job.crashes = 0
                self._finish(job, outcome)
            self._look_at_queue()

    def _finish(self, job: Job, outcome: Outcome) -> None:
        job.outputs, job.error = outcome.outputs, outcome.error
        self._end(job, Status.SUCCEEDED if outcome.error is None else Status.FAILED)
        try:
            self.folder(job).write_outcome(job.to_record())
        except StorageError as error:
            self._hold(job, error)
            return
        self._write_state(job)
        if job.started is not None and job.ended is not None:
            self._mean_seconds += 0.1 * (job.ended - job.started - self._mean_seconds)
        if outcome.error is None:
            self._metrics.job_seconds.observe(max((job.ended or 0) - job.created, 0))
        self._forget_live(job)
        self.folder(job).keep_result_only()

    def hold(self, job: Job, error: StorageError) -> None:
        """The result of a job that was taken by `next` could not be written: it is paused until there is room."""
        with self._changed:
            del self._running[job.id]
            if not job.has_ended:
                job.crashes = 0
                self._hold(job, error)
            self._look_at_queue()

    def _hold(self, job: Job, error: StorageError) -> None:
        self.failed_to_write("result", error, job)
        job.status, job.reason, job.ended, job.outputs, job.error = Status.PAUSED, _BY_STORAGE, None, None, None
        self._write_state(job)
        self._publish(job)

    def publish(self, job: Job, kind: str, data: dict[str, Any]) -> None:
        """Tell those who watch a job."""
        channel = self.hub.find(job.id)
        if channel is not None:
            channel.publish(kind, data)

    def note(self, job: Job, text: str) -> None:
        """Tell the client of a job something that it should know."""
        with self._lock:
            if text not in job.notes:
                job.notes.append(text)
                self._write_state(job)
                self._publish(job)

    def saved(self, job: Job) -> None:
        """A checkpoint of a job was written: whatever ended the server before, the job has come further since."""
        if job.crashes:
            with self._changed:
                job.crashes = 0
                self._write_state(job)
                self._look_at_queue()

    def stopped(self, job: Job, loops: list[str]) -> None:
        """Loops of a job have ended as they were told to, and that is in its checkpoint."""
        with self._lock:
            job.stops = [loop for loop in job.stops if loop not in loops]
            self._write_state(job)

    def close(self) -> None:
        """Begin to end: no job is taken, none begins, and those that run leave after their current iteration."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            for job in list(self._live.values()):
                if job.request.is_synchronous and not job.has_ended:
                    try:
                        self._cancel(job)
                    except StorageError:
                        # it is cancelled when the server begins again
                        if job.id in self._running:
                            self._running[job.id].cancel()
            for steering in self._running.values():
                steering.leave()
            self._changed.notify_all()

    def cut_short(self) -> None:
        """Those that run leave at once, and go on later from where they were last saved."""
        with self._lock:
            for steering in self._running.values():
                steering.cancel()

    @property
    def is_closing(self) -> bool:
        return self._closing

    # What is seen of all jobs.

    def failed_to_write(self, what: str, error: OSError, job: Job | None = None) -> None:
        """Count and log what could not be written; until something can be again, the server is not ready."""
        self._can_write = False
        self._metrics.storage_failures.labels(what).inc()
        reason = str(error) if isinstance(error, StorageError) else error.strerror
        log_failure("could not write", error, what=what, reason=reason, job=None if job is None else job.id)

    @property
    def is_writable(self) -> bool:
        """Whether everything that was to be written is, and the last that was to be could be."""
        return self._can_write and not self._unwritten

    def count(self, status: Status) -> int:
        """How many jobs are in a state that is not the last."""
        with self._lock:
            return sum(job.status is status for job in self._live.values())

    # What is to be done now and then.

    def tend(self) -> None:
        """Write what could not be written, and let jobs go on that waited for room."""
        with self._lock:
            unwritten = [self._live[job_id] for job_id in self._unwritten if job_id in self._live]
            held = [job for job in self._live.values() if job.reason == _BY_STORAGE]
        try:
            for job in unwritten:
                with self._lock:
                    self._store.save(job)
                    self._unwritten.discard(job.id)
                    if job.has_ended:
                        self._live.pop(job.id, None)
            if held or not self._can_write:
                self._folders.probe()
                self._store.set_clock(self.clock())
                self._can_write = True
            for job in held:
                with self._changed:
                    if job.status is Status.PAUSED and job.reason == _BY_STORAGE:
                        self._set(job, Status.QUEUED, None)
        except StorageError as error:
            self.failed_to_write("state", error)

    def forget_old(self) -> None:
        """Forget the jobs whose results have been kept long enough, and those for which there is no more room."""
        now, keeping = self.clock(), self._keeping
        try:
            self._store.set_clock(now)
            for job_id in self._store.to_forget(now - keeping.seconds, keeping.bytes, keeping.jobs):
                self._folders.of(job_id).remove()
                self._store.remove(job_id)
                log("job forgotten", job=job_id)
        except StorageError as error:
            self.failed_to_write("clock", error)

    def clock(self) -> float:
        """Seconds for which servers have used the data folder."""
        return self._clock_base + time.monotonic() - self._clock_began

    # Within.

    def _waiting(self) -> list[Job]:
        """The jobs that wait, in their order: clients with fewer jobs that run go first, then higher priorities."""
        active = Counter(self._live[job_id].client for job_id in self._running if job_id in self._live)
        waiting = [job for job in self._live.values() if job.status is Status.QUEUED and job.id not in self._running]
        return sorted(waiting, key=lambda job: (active[job.client], -job.request.priority, job.number))

    def _look_at_queue(self) -> None:
        """Tell jobs their new places, and wake a slot if the first can begin; that one looks again for the next.

        No more than one is woken: each that wakes takes a core from the runs.
        """
        waiting = self._waiting()
        if waiting and self._has_place_for(waiting[0]):
            self._changed.notify()
        places = {job.id: place for place, job in enumerate(waiting, start=1)}
        changed = [job_id for job_id, place in places.items() if self._places.get(job_id) != place]
        self._places = places
        for job_id in changed:
            self.publish(self._live[job_id], "queue", {"place": places[job_id]})

    def _publish(self, job: Job) -> None:
        channel = self.hub.find(job.id)
        if channel is not None:
            channel.publish("job", self.shown(job), is_last=job.has_ended)

    def _end(self, job: Job, status: Status) -> None:
        job.status, job.reason = status, None
        job.ended = max(time.time(), job.started or job.created)
        job.kept_since = self.clock()
        job.bytes = self.folder(job).bytes

    def _forget_live(self, job: Job) -> None:
        """A job has ended: those who watch it are told, and once the database has it, it is no longer in memory."""
        self._metrics.ended.labels(job.status.value).inc()
        self._publish(job)
        self.hub.drop(job.id)
        if job.id not in self._unwritten:
            self._live.pop(job.id, None)
        if job.id not in self._running:
            self.folder(job).keep_result_only()
        self._look_at_queue()

    def _write_state(self, job: Job) -> None:
        """Write the state of a job now, or as soon as that is possible."""
        try:
            self._save(job)
            self._unwritten.discard(job.id)
        except StorageError:
            self._unwritten.add(job.id)

    def _save(self, job: Job) -> None:
        """Raises `StorageError` if the state cannot be written now."""
        try:
            self._store.save(job)
        except StorageError as error:
            self.failed_to_write("state", error, job)
            raise

    def _require_open(self) -> None:
        if self._closing:
            raise RequestRefusedError(
                "the server is about to end; try again when it is back", status=503, code="closing", retry_after=5
            )


def _crashed(job: Job) -> dict[str, Any]:
    """Why a job is not run again, as the API says it."""
    return {
        "message": (
            f"the server died {job.crashes} times in a row while it ran this job, the last {job.crashes - ALONE_AFTER} "
            f"times with nothing beside it, and no step was saved in between; it is not run again"
        ),
        "type": "server_error",
        "param": None,
        "code": "crashed",
    }


class Steering:
    """What those who end a job want of its run, whether it has begun or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: Any = None
        self._is_cancelled = False
        self.is_leaving = False

    def attach(self, run: Any) -> None:
        """The run has begun."""
        with self._lock:
            self._run = run
            if self._is_cancelled:
                run.cancel()

    def cancel(self) -> None:
        """End it at the next possible moment."""
        with self._lock:
            self._is_cancelled = True
            if self._run is not None:
                self._run.cancel()

    def leave(self) -> None:
        """End it after the current iteration, which is saved."""
        self.is_leaving = True
