"""No job is lost: not by a crash, a full disk, a locked or damaged database, or a clock that jumps."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loopwright.errors import StorageError
from loopwright.run.checkpoints import LocalFolder
from loopwright.server import service
from loopwright.server.jobs import Job, Progress, Request, Status, new_id
from loopwright.server.store import Store
from tests.server.conftest import Start
from tests.server.live import LiveServer
from tests.server.pipelines import PATIENCE, TURNSTILE

TIME = time.time


@contextmanager
def database(server: LiveServer) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(server.data_dir / "jobs.db", isolation_level=None)) as connection:
        yield connection


def paused_job(server: LiveServer, step: int = 2, **inputs: Any) -> str:
    """A job that was paused after a step, at which it is saved."""
    TURNSTILE.close()
    job = server.submit(**inputs)
    TURNSTILE.let(step - 1)
    server.wait_for_step(job, step - 1)
    server.http.post(f"/v1/jobs/{job}/pause")
    TURNSTILE.let(1)
    server.wait_for_step(job, step)
    TURNSTILE.open()
    return job


def test_a_server_that_ends_has_its_jobs_leave_and_go_on_later(start: Start) -> None:
    server = start()
    running, queued = server.submit(num_inference_steps=100, seed=1), server.submit(seed=2)
    server.wait_for_step(running, 2)
    server.stop()
    server = start()
    assert [server.wait(job)["status"] for job in (running, queued)] == ["succeeded", "succeeded"]
    assert TURNSTILE.passed == 104  # no iteration ran twice
    again = server.submit(num_inference_steps=100, seed=1)
    server.wait(again)
    assert server.picture(again) == server.picture(running)


def test_a_result_that_was_written_is_not_computed_again_though_the_database_does_not_know_it(start: Start) -> None:
    server = start()
    job = server.submit(seed=1)
    server.wait(job)
    picture = server.picture(job)
    server.stop()
    store = Store(server.data_dir / "jobs.db")
    known = store.get(job)
    assert known is not None
    known.status, known.outputs, known.ended = Status.RUNNING, None, None
    store.save(known)
    store.close()
    passed = TURNSTILE.passed
    server = start()
    assert server.job(job)["status"] == "succeeded"
    assert (server.picture(job), TURNSTILE.passed) == (picture, passed)


def test_a_row_that_is_damaged_is_made_again_from_the_folder_of_its_job(start: Start) -> None:
    server = start()
    ended = server.submit(seed=1)
    server.wait(ended)
    shown = server.job(ended)
    waiting = paused_job(server, seed=1)
    server.stop()
    with database(server) as connection:
        connection.execute("update jobs set record = substr(record, 1, 50)")
    server = start()
    assert server.job(ended) == shown
    assert server.wait(waiting)["status"] == "succeeded"
    assert server.picture(waiting) == server.picture(ended)


def test_a_row_that_is_damaged_while_the_server_runs_is_made_again_when_it_is_asked_for(start: Start) -> None:
    server = start()
    job = server.submit()
    server.wait(job)
    shown = server.job(job)
    with database(server) as connection:
        connection.execute("update jobs set record = x'00ff'")
    assert server.job(job) == shown


def test_a_database_that_cannot_be_read_is_put_aside_and_made_again(start: Start) -> None:
    server = start()
    ended = server.submit()
    server.wait(ended)
    waiting = paused_job(server)
    server.stop()
    (server.data_dir / "jobs.db").write_bytes(b"not a database" * 1000)
    server = start()
    assert server.job(ended)["status"] == "succeeded"
    assert server.wait(waiting)["status"] == "succeeded"
    assert (server.data_dir / "jobs.db.damaged-1").is_file()


def test_a_job_of_which_nothing_can_be_read_says_so(start: Start) -> None:
    server = start()
    job = paused_job(server)
    server.stop()
    with database(server) as connection:
        connection.execute("update jobs set digest = 'another'")
    (server.data_dir / "jobs" / job / "request.json").write_text("{")
    server = start()
    shown = server.job(job)
    assert shown["status"] == "failed"
    assert shown["error"] == {
        "message": "what is stored of this job is damaged, so that it cannot be run; submit it again",
        "type": "server_error",
        "param": None,
        "code": "record_damaged",
    }
    assert server.wait(server.submit())["status"] == "succeeded"


def test_a_folder_that_the_database_does_not_know_is_a_job_and_half_a_folder_is_none(start: Start) -> None:
    server = start()
    job = paused_job(server, seed=3)
    server.stop()
    with database(server) as connection:
        connection.execute("delete from jobs")
    half = server.data_dir / "jobs" / new_id()
    (half / "inputs").mkdir(parents=True)
    server = start()
    assert server.wait(job)["status"] == "succeeded"
    assert not half.exists()


@pytest.mark.filterwarnings("ignore:.* is damaged; the run goes on from iteration")
def test_a_damaged_checkpoint_costs_an_iteration_and_damaged_checkpoints_all_of_them(start: Start) -> None:
    server = start()
    first, second = paused_job(server, 3, seed=1), paused_job(server, 3, seed=1)
    server.stop()
    for job, count in ((first, 1), (second, 100)):
        saved = sorted((server.data_dir / "jobs" / job / "run").iterdir())
        for path in saved[-count:]:
            path.write_bytes(path.read_bytes()[:-1])
    server = start()
    ended = []
    for job in (first, second):
        passed = TURNSTILE.passed
        server.http.post(f"/v1/jobs/{job}/go-on")
        ended.append((server.wait(job)["status"], TURNSTILE.passed - passed, len(server.job(job)["notes"])))
    assert ended == [("succeeded", 2, 1), ("succeeded", 4, 1)]
    assert server.picture(first) == server.picture(second)
    assert "an earlier one" in server.job(first)["notes"][0]
    assert "began again" in server.job(second)["notes"][0]


def test_a_database_that_is_locked_refuses_new_jobs_and_loses_none(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    job = server.submit()
    TURNSTILE.let(1)
    server.wait_for_step(job, 1)
    with database(server) as connection:
        connection.execute("begin immediate")
        answer = server.http.post("/v1/jobs", json={"inputs": {"prompt": "red"}})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["message"] == (
            "the database is locked by another process; nothing was changed, try again later"
        )
        assert server.http.delete(f"/v1/jobs/{job}").status_code == 503
        ready = server.http.get("/readyz")
        assert (ready.status_code, ready.json()["problems"]) == (503, ["the data folder cannot be written to"])
        TURNSTILE.open()
        assert server.wait(job)["status"] == "succeeded"
        connection.execute("rollback")
    server.stop()
    server = start()
    assert server.job(job)["status"] == "succeeded"
    assert server.http.get("/readyz").status_code == 200
    assert len(server.http.get("/v1/jobs").json()["data"]) == 1


class Disk:
    """Makes the disk full, for writes of some names."""

    def __init__(self) -> None:
        self.full: str | None = None
        self.hit = threading.Event()
        self._write = LocalFolder.write

    def write(self, folder: LocalFolder, name: str, data: bytes) -> None:
        if self.full is not None and self.full in f"{folder.path.name}/{name}":
            self.hit.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        self._write(folder, name, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(LocalFolder, "write", lambda *arguments: disk.write(*arguments))
    return disk


def test_a_full_disk_refuses_new_jobs_and_keeps_nothing_of_them(start: Start, disk: Disk) -> None:
    server = start()
    disk.full = "request.json"
    answer = server.http.post("/v1/jobs", json={"inputs": {"prompt": "red"}})
    assert answer.status_code == 507
    assert answer.json()["error"] == {
        "message": "the job cannot be stored: the disk is full; nothing was changed, try again later",
        "type": "server_error",
        "param": None,
        "code": "storage_full",
    }
    disk.full = None
    assert list((server.data_dir / "jobs").iterdir()) == []
    assert server.wait(server.submit())["status"] == "succeeded"


@pytest.mark.parametrize("full", ["files/result", "outcome.json"])
def test_a_result_for_which_there_is_no_room_waits_for_it(start: Start, disk: Disk, full: str) -> None:
    server = start()
    disk.full = full
    job = server.submit(seed=1)
    held = server.wait(job, lambda job: job["status"] == "paused")
    assert held["pause_reason"] == "storage"
    disk.full = None
    assert server.wait(job)["status"] == "succeeded"
    again = server.submit(seed=1)
    server.wait(again)
    assert server.picture(job) == server.picture(again)


@pytest.mark.filterwarnings("ignore:the run is not saved any more")
def test_a_run_that_cannot_be_saved_goes_on_and_says_so(start: Start, disk: Disk) -> None:
    server = start()
    disk.full = "run/"
    job = server.submit()
    ended = server.wait(job)
    assert ended["status"] == "succeeded"
    assert ended["notes"] == ["it is not saved any more, as the data folder cannot be written to"]


@pytest.mark.parametrize("years", [-20, 20])
def test_a_clock_that_jumps_neither_forgets_results_nor_mixes_up_jobs(
    start: Start, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    server = start()
    TURNSTILE.close()
    before = server.submit()
    server.wait(before, lambda job: job["status"] == "running")

    class Jumped:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def time() -> float:
            return TIME() + years * 365 * 24 * 3600

    monkeypatch.setattr(service, "time", Jumped)
    TURNSTILE.open()
    after = server.submit()
    for job in (before, after):
        shown = server.wait(job)
        assert shown["status"] == "succeeded"
        assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]
    server.stop()
    server = start()
    assert [job["id"] for job in server.http.get("/v1/jobs").json()["data"]] == [after, before]
    assert all(server.picture(job) for job in (before, after))


def test_a_client_that_waited_on_a_connection_is_gone_after_a_crash_and_its_job_is_cancelled(start: Start) -> None:
    server = start()
    waiting = paused_job(server)
    server.stop()
    path = server.data_dir / "jobs.db"
    store = Store(path)
    job = store.get(waiting)
    assert job is not None
    store.save(Job.from_record(json.dumps(json.loads(job.to_record()) | {"status": "running"})))
    record = json.loads(job.to_record())
    record["request"]["is_synchronous"] = True
    store.save(Job.from_record(json.dumps(record)))
    store.close()
    assert start().job(waiting)["status"] == "cancelled"


def test_two_servers_do_not_share_a_folder(start: Start) -> None:
    server = start()
    with pytest.raises(StorageError, match="another server uses the data folder"):
        start(data_dir=server.data_dir)


# The database alone.


def a_job(number: int = 1, **values: Any) -> Job:
    return Job(new_id(), number, Request({"prompt": "é"}), "ann", 1.0, **values)


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.db")
    job = a_job(progress=Progress("loop", 1, 4, (("loop", 0),)), stops=["loop"], idempotency_key="k", digest="d")
    store.save(job)
    assert store.get(job.id) == job
    assert store.by_key("ann", "k") == job.id
    assert store.by_key("bob", "k") is None
    store.close()


def test_a_database_without_room_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.db")
    store._database.execute("pragma max_page_count = 12")
    full = None
    for number in range(200):
        try:
            store.save(a_job(number))
        except StorageError as error:
            full = error
            break
    assert full is not None
    assert (str(full), full.is_full) == ("the database cannot be written: the disk is full", True)
    assert not store.is_healthy
    store._database.execute("pragma max_page_count = 1000")
    store.save(a_job(500))
    assert store.is_healthy
    store.close()


def test_a_database_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="format 99, which a newer version of loopwright wrote"):
        Store(path)
    assert path.read_bytes() == before


def test_what_is_forgotten_is_the_oldest_and_what_there_is_no_room_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.db")
    jobs = [a_job(n, status=Status.SUCCEEDED, kept_since=float(n), bytes=10) for n in range(6)]
    for job in jobs:
        store.save(job)
    store.save(a_job(7))
    ids = [job.id for job in jobs]
    assert set(store.to_forget(2.0, 1000, 100)) == set(ids[:2])
    assert set(store.to_forget(0.0, 35, 100)) == set(ids[:3])
    assert set(store.to_forget(0.0, 1000, 1)) == set(ids[:5])
    store.close()


def test_the_folder_of_a_server_may_be_moved(start: Start, tmp_path: Path) -> None:
    server = start()
    job = paused_job(server)
    server.stop()
    shutil.move(server.data_dir, tmp_path / "moved")
    server = start(data_dir=tmp_path / "moved")
    server.http.post(f"/v1/jobs/{job}/go-on")
    assert server.wait(job)["status"] == "succeeded"
    assert PATIENCE
