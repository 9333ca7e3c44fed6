"""Runs the jobs: so many at a time, each saved while it runs, and gone on with from where it was saved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from loopwright.errors import (
    CheckpointDamagedError,
    CheckpointError,
    InvalidInputError,
    LoopwrightError,
    MissingInputError,
    RequestRefusedError,
    RunCancelledError,
    RunTimeoutError,
    StorageError,
    UnknownInputError,
)
from loopwright.run import Checkpoint, Event
from loopwright.run.torch_threads import release_torch_threads
from loopwright.server.folders import JobFolder, storage_errors
from loopwright.server.jobs import Job, Progress
from loopwright.server.logs import log, log_failure
from loopwright.server.metrics import Metrics
from loopwright.server.outputs import png_of, write_outputs
from loopwright.server.service import JobService, Outcome, Steering
from loopwright.server.uploads import load_image, load_tensor

__all__ = ["Runner"]

# between two looks at what could not be written, and at what is old, in seconds
_TEND, _FORGET = 1.0, 30.0
# what blocks say about inputs that only they can judge
_OF_THE_REQUEST = (InvalidInputError, MissingInputError, RequestRefusedError, UnknownInputError)


class Runner:
    """Threads that take jobs and run them.

    Args:
        service: has the jobs.
        pipeline: a pipeline, or anything else with its `start` and `resume`.
        metrics: measures.
        slots: how many jobs run at a time.
        checkpoint_seconds: a job is saved after an iteration if it was not for so long.
        timeout: seconds that a run may take, None for no limit.
    """

    def __init__(
        self,
        service: JobService,
        pipeline: Any,
        metrics: Metrics,
        slots: int,
        checkpoint_seconds: float = 1.0,
        timeout: float | None = None,
    ) -> None:
        self._service, self._pipeline, self._metrics = service, pipeline, metrics
        self._seconds, self._timeout = checkpoint_seconds, timeout
        self._stopped = threading.Event()
        self._workers = [
            threading.Thread(target=self._work, name=f"loopwright-slot-{number}", daemon=True)
            for number in range(slots)
        ]
        self._tending = threading.Thread(target=self._tend, name="loopwright-tending", daemon=True)

    def start(self) -> None:
        for thread in (*self._workers, self._tending):
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether all its threads work."""
        return all(thread.is_alive() for thread in (*self._workers, self._tending))

    def stop(self, grace: float) -> None:
        """Let the jobs that run leave after their current iteration, and end.

        Args:
            grace: seconds after which those that have not left do so before their next call of a model.
        """
        self._service.close()
        deadline = time.monotonic() + grace
        for worker in self._workers:
            worker.join(max(deadline - time.monotonic(), 0))
        self._service.cut_short()
        deadline = time.monotonic() + grace
        for worker in self._workers:
            worker.join(max(deadline - time.monotonic(), 0))
        self._stopped.set()
        self._tending.join()
        self._service.tend()
        self._service.forget_old()

    def _tend(self) -> None:
        forgotten = time.monotonic()
        while not self._stopped.wait(_TEND):
            self._service.tend()
            if time.monotonic() - forgotten > _FORGET:
                forgotten = time.monotonic()
                self._service.forget_old()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            execution = _Execution(self, self._service, job)
            try:
                outcome = execution.outcome()
            except StorageError as error:
                self._service.hold(job, error)
                # there may be no room for a while
                self._stopped.wait(_TEND)
            except BaseException as error:
                log_failure("job failed", error, job=job.id)
                self._service.finish(job, Outcome(error=described(error)))
            else:
                self._service.finish(job, outcome)

    def _next(self) -> Job | None:
        # what is kept while it waits slows the runs of others
        release_torch_threads()
        return self._service.next()


class _Execution:
    """One run of one job."""

    def __init__(self, runner: Runner, service: JobService, job: Job) -> None:
        self._runner, self._service, self._job = runner, service, job
        self._folder: JobFolder = service.folder(job)
        self._steering: Steering = service.steering(job)
        self._run: Any = None
        self._has_run = threading.Event()
        self._previews = job.request.previews
        self._ended_loops: list[str] = []

    def outcome(self) -> Outcome | None:
        """How it ended; None if it left before its end.

        Raises:
            StorageError: what came out cannot be written.
            Exception: what ended the run.
        """
        job = self._job
        log("job begins", job=job.id, resumed=self._folder.has_checkpoint)
        try:
            outputs = self._outputs()
        except RunCancelledError:
            return None
        log("job computed", job=job.id)
        with storage_errors("the result cannot be written"):
            return Outcome(write_outputs(outputs, self._folder.files))

    def _outputs(self) -> Any:
        """What comes out of a run that goes on from where the job was saved, or of a new one."""
        if self._folder.has_checkpoint:
            try:
                return self._result_of(self._resumed)
            except CheckpointError as error:
                log_failure("job begins again", error, job=self._job.id)
                self._begins_again(
                    "it could not go on from where it was saved, and began again: its checkpoint was damaged, or saved "
                    "with another model or version"
                )
                self._folder.forget_run()
        elif self._job.progress is not None:
            self._begins_again("it began again, as it had not been saved")
        return self._result_of(self._begun)

    def _result_of(self, begin: Callable[[], Any]) -> Any:
        self._has_run.clear()
        self._run = begin()
        self._has_run.set()
        self._steering.attach(self._run)
        return self._run.result()

    def _options(self) -> dict[str, Any]:
        return {
            "output": list(self._job.request.output),
            "callbacks": self._on_event,
            "timeout": self._runner._timeout,
            "progress": False,
        }

    def _resumed(self) -> Any:
        pipeline, storage = self._runner._pipeline, self._checkpoints()
        self._job.previews = self._folder.previews()
        try:
            run = pipeline.resume(storage, **self._options())
        except CheckpointDamagedError:
            run = pipeline.resume(storage, fall_back=True, **self._options())
            self._service.note(self._job, "its last checkpoint was damaged; it went on from an earlier one")
        self._runner._metrics.resumed.inc()
        return run

    def _begun(self) -> Any:
        options = self._options()
        if not self._job.request.is_synchronous:
            options["checkpoint"] = Checkpoint(self._checkpoints(), strict=False, seconds=self._runner._seconds)
        return self._runner._pipeline.start(**self._inputs(), **options)

    def _begins_again(self, why: str) -> None:
        self._runner._metrics.restarted.inc()
        self._service.note(self._job, why)

    def _checkpoints(self) -> Any:
        return _Checkpoints(self._folder, self._runner._metrics, self._service, self._job)

    def _inputs(self) -> dict[str, Any]:
        """The inputs of the pipeline, as it takes them."""
        request = self._job.request
        inputs = dict(request.inputs)
        for upload in request.uploads:
            with storage_errors("an upload cannot be read"):
                try:
                    data = self._folder.inputs.read(upload.file)
                except FileNotFoundError as error:
                    raise LoopwrightError(
                        f"the file of `{upload.input}` is no longer in the data folder; submit the job again"
                    ) from error
            value = load_image(data) if upload.kind == "image" else load_tensor(data)
            if upload.listed:
                inputs.setdefault(upload.input, []).append(value)
            else:
                inputs[upload.input] = value
        if request.seed is not None:
            generators = [torch.Generator().manual_seed(request.seed + index) for index in range(request.images)]
            inputs["generator"] = generators if len(generators) > 1 else generators[0]
        return inputs

    def _on_event(self, event: Event) -> None:
        """After an iteration, in the thread of the run, before it is saved."""
        job, metrics = self._job, self._runner._metrics
        metrics.steps.inc()
        if job.first_step is None:
            job.first_step = max(time.time(), job.created)
            metrics.first_step_seconds.observe(job.first_step - job.created)
        job.progress = Progress(event.path, event.index + 1, event.total, event.position)
        self._service.publish(job, "progress", {**job.progress.to_json(), "elapsed": round(event.elapsed, 3)})
        if self._ended_loops:
            # they have ended by now, and are saved so
            self._service.stopped(job, self._ended_loops)
        self._ended_loops = [loop for loop in job.stops if loop == event.path]
        if self._ended_loops:
            self._has_run.wait()
            self._run.stop_loop(event.path)
        if self._wants_preview(event):
            self._preview(event)
        if self._steering.is_leaving:
            self._has_run.wait()
            if not job.request.is_synchronous:
                self._run.save()
            self._run.cancel()

    def _wants_preview(self, event: Event) -> bool:
        """Whether this is one of the steps, evenly spaced, after which a preview is made; the result is none."""
        if not self._previews or len(event.position) > 1:
            return False
        if event.total is None:
            return event.index < self._previews
        count, total = self._previews, event.total
        steps = {(number * total + count // 2) // (count + 1) for number in range(1, count + 1)}
        return event.index + 1 in steps and event.index + 1 < total

    def _preview(self, event: Event) -> None:
        name = self._job.request.output[0]
        step = event.index + 1
        try:
            made = event.peek(name)
            pictures = [png_of(picture) for picture in (made if isinstance(made, list) else [made])]
        except Exception as error:
            # blocks that cannot do with what there is so far may do with what there is at the end
            log_failure("no preview", error, job=self._job.id)
            self._service.note(self._job, "there are no previews of what this pipeline makes")
            self._previews = 0
            return
        files = [f"preview-{step}-{number}.png" for number in range(len(pictures))]
        try:
            for file, picture in zip(files, pictures, strict=True):
                self._folder.files.write(file, picture)
        except OSError as error:
            self._service.failed_to_write("preview", error, self._job)
            return
        if all(preview["step"] != step for preview in self._job.previews):
            self._job.previews.append({"step": step, "files": files})
        links = [self._job.file_url(file) for file in files]
        self._service.publish(self._job, "preview", {"step": step, "total": event.total, "images": links})


class _Checkpoints:
    """The folder of a job's checkpoints, as a `Storage` that is measured.

    What cannot be written is noted: the run goes on without being saved.
    """

    def __init__(self, folder: JobFolder, metrics: Metrics, service: JobService, job: Job) -> None:
        self._folder, self._metrics, self._service, self._job = folder, metrics, service, job

    def __str__(self) -> str:
        return f"the checkpoints of job {self._job.id}"

    def write(self, name: str, data: bytes) -> None:
        try:
            with self._metrics.checkpoint_seconds.time():
                self._folder.run.write(name, data)
        except OSError as error:
            self._service.failed_to_write("checkpoint", error, self._job)
            self._service.note(self._job, "it is not saved any more, as the data folder cannot be written to")
            raise
        self._service.saved(self._job)

    def read(self, name: str) -> bytes:
        return self._folder.run.read(name)

    def names(self) -> list[str]:
        return self._folder.run.names()

    def remove(self, name: str) -> None:
        self._folder.run.remove(name)


def described(error: BaseException) -> dict[str, Any]:
    """What ended a run, as the API says it: what Loopwright itself says, and of other exceptions the class alone."""
    location = getattr(error, "loopwright", None)
    block = location.path if location is not None and location.path else None
    where = "" if block is None else f", in block `{block}`"
    fields = {"type": "server_error", "param": None, "code": "run_failed"}
    if isinstance(error, RunTimeoutError):
        return {**fields, "message": str(error), "code": "timeout"}
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return {**fields, "message": f"there is not enough memory for this job{where}", "code": "out_of_memory"}
    if isinstance(error, _OF_THE_REQUEST):
        return {"message": f"{error}{where}", "type": "invalid_request_error", "param": None, "code": "invalid_input"}
    if isinstance(error, LoopwrightError):
        return {**fields, "message": f"{error}{where}"}
    return {**fields, "message": f"the pipeline failed: {type(error).__name__}{where}"}
