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
from loopwright.server.service import ALONE_AFTER, MOST_CRASHES
from loopwright.server.store import Store
from tests.server.conftest import Start
from tests.server.live import LiveServer
from tests.server.pipelines import PATIENCE, TURNSTILE, Begin, Count, Paint, Painting

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


def test_rows_that_say_another_thing_than_their_records_are_put_right(start: Start) -> None:
    server = start()
    jobs = [server.submit(), server.submit()]
    for job in jobs:
        server.wait(job)
    waiting = paused_job(server)
    server.stop()
    with database(server) as connection:
        connection.execute("update jobs set id = 'nobody' where id = ?", (jobs[0],))
        connection.execute("update jobs set id = null where id = ?", (jobs[1],))
        connection.execute("update jobs set number = 'x', client = 'y', kept_since = 'z', bytes = 'v', status = 'w'")
    server = start()
    assert [job["id"] for job in server.http.get("/v1/jobs").json()["data"]] == [waiting, *reversed(jobs)]
    assert [server.job(job)["status"] for job in (*jobs, waiting)] == ["succeeded", "succeeded", "paused"]


def test_after_a_database_was_lost_new_jobs_are_newer_and_old_results_are_older(start: Start) -> None:
    server = start()
    old = [server.submit(), server.submit()]
    for job in old:
        server.wait(job)
    server.stop()
    # they ended when servers had used the folder for long
    for job in old:
        path = server.data_dir / "jobs" / job / "outcome.json"
        path.write_text(path.read_text().replace('"kept_since": ', '"kept_since": 100'))
    (server.data_dir / "jobs.db").unlink()
    server = start()
    new = server.submit()
    server.wait(new)
    assert [job["id"] for job in server.http.get("/v1/jobs").json()["data"]] == [new, *reversed(old)]
    assert new not in server.service._store.to_forget(0.0, 2**40, 1)


def test_a_job_of_which_nothing_can_be_read_says_so(start: Start) -> None:
    server = start()
    server.wait(server.submit())
    job = paused_job(server)
    server.stop()
    with database(server) as connection:
        connection.execute("update jobs set digest = 'another' where id = ?", (job,))
    (server.data_dir / "jobs" / job / "request.json").write_text("{")
    server = start()
    # it is kept as long as others
    assert not server.service._store.to_forget(0.001, 2**40, 100)
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


def test_a_job_whose_loop_is_another_now_begins_again_and_says_so(start: Start) -> None:
    first = 0

    class CountFrom(Count):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            for i in range(block_state.num_inference_steps):
                yield {"i": first + i}

    class PaintingFrom(Painting):
        block_classes = [Begin, CountFrom, Paint]

    server = start(PaintingFrom().init_pipeline())
    job = paused_job(server)
    server.stop()
    first, TURNSTILE.passed = 1, 0
    server = start(PaintingFrom().init_pipeline())
    server.http.post(f"/v1/jobs/{job}/go-on")
    ended = server.wait(job)
    assert (ended["status"], TURNSTILE.passed) == ("succeeded", 4)
    assert "began again" in ended["notes"][0]


def test_a_loop_that_was_told_to_end_ends_also_after_a_crash_before_anything_was_saved(start: Start) -> None:
    server, (job,) = waiting_jobs(start, 1)
    store = Store(server.data_dir / "jobs.db")
    known = store.get(job)
    assert known is not None
    known.status, known.stops = Status.RUNNING, ["count"]
    store.save(known)
    store.close()
    server = start()
    assert server.wait(job)["progress"]["step"] == 1


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
    disk.full = "probe"
    assert list((server.data_dir / "jobs").iterdir()) == []
    # what can be read says nothing of what can be written
    assert server.http.get("/v1/jobs").status_code == 200
    service = server.service
    service.tend()
    assert server.http.get("/readyz").status_code == 503
    assert "loopwright_storage_ok 0.0" in server.http.get("/metrics").text
    disk.full = None
    service.tend()
    assert server.http.get("/readyz").status_code == 200
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


def crashed_while_running(server: LiveServer, job: str, crashes: int) -> None:
    """Have the database of a server that has ended say that servers died while they ran a job."""
    store = Store(server.data_dir / "jobs.db")
    known = store.get(job)
    assert known is not None
    # the last of them is counted when the next server begins
    known.status, known.crashes = Status.RUNNING, crashes - 1
    store.save(known)
    store.close()


def waiting_jobs(start: Start, count: int) -> tuple[LiveServer, list[str]]:
    """Paused jobs that have never run, and the server that had them, which has ended."""
    server = start()
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    jobs = [server.submit() for _ in range(count)]
    for job in jobs:
        server.http.post(f"/v1/jobs/{job}/pause")
    server.http.delete(f"/v1/jobs/{running}")
    TURNSTILE.open()
    server.stop()
    TURNSTILE.passed = 0
    return server, jobs


def test_a_job_that_ends_the_server_again_and_again_fails_and_says_so(start: Start) -> None:
    server, (job,) = waiting_jobs(start, 1)
    crashed_while_running(server, job, MOST_CRASHES)
    server = start()
    shown = server.job(job)
    assert (shown["status"], shown["error"]) == (
        "failed",
        {
            "message": "the server died 10 times in a row while it ran this job, the last 8 times with nothing beside "
            "it, and no step was saved in between; it is not run again",
            "type": "server_error",
            "param": None,
            "code": "crashed",
        },
    )
    assert TURNSTILE.passed == 0
    server.stop()
    assert start().job(job)["status"] == "failed"


def test_a_job_that_may_have_ended_the_server_runs_alone_until_it_has_come_further(start: Start) -> None:
    server, jobs = waiting_jobs(start, 3)
    crashed_while_running(server, jobs[0], ALONE_AFTER)
    TURNSTILE.close()
    server = start(max_active=2)
    server.wait(jobs[0], lambda job: job["status"] == "running")
    for job in jobs[1:]:
        server.http.post(f"/v1/jobs/{job}/go-on")
    assert [server.job(job)["queue_place"] for job in jobs] == [None, 1, 2]
    TURNSTILE.let(1)
    # it is saved, so that another may begin
    server.wait(jobs[1], lambda job: job["status"] == "running")
    known = server.service._store.get(jobs[0])
    assert known is not None
    assert known.crashes == 0
    TURNSTILE.open()
    assert [server.wait(job)["status"] for job in jobs] == ["succeeded"] * 3


def test_a_server_that_ends_in_good_order_is_no_crash(start: Start) -> None:
    server, (job,) = waiting_jobs(start, 1)
    crashed_while_running(server, job, MOST_CRASHES - 1)
    TURNSTILE.close()
    server = start()
    server.wait(job, lambda job: job["status"] == "running")
    server.service.close()
    TURNSTILE.open()
    server.stop()
    assert start().wait(job)["status"] == "succeeded"


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
    store._database.execute("pragma max_page_count = 1000")
    store.save(a_job(500))
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
