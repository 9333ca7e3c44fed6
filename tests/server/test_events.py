"""The events of a job: all of them once, also for a reader that comes back or is slow."""

from __future__ import annotations

import asyncio

from loopwright.server.events import LAST_ID, Channel, Hub
from tests.server.conftest import Start
from tests.server.pipelines import TURNSTILE


def test_a_watcher_sees_every_step_and_the_end(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    job = server.submit(previews=1)
    events = server.events(job)
    first = next(events)
    assert (first.kind, first.data["id"]) == ("job", job)
    TURNSTILE.open()
    rest = list(events)
    assert [event.data["step"] for event in rest if event.kind == "progress"] == [1, 2, 3, 4]
    assert [event.data["step"] for event in rest if event.kind == "preview"] == [2]
    assert (rest[-1].id, rest[-1].kind, rest[-1].data["status"]) == (LAST_ID, "job", "succeeded")


def test_a_reader_that_comes_back_gets_what_it_has_not_seen(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    job = server.submit(num_inference_steps=6)
    TURNSTILE.let(2)
    seen = []
    for event in server.events(job):
        seen.append(event)
        if event.kind == "progress" and event.data["step"] == 2:
            break
    TURNSTILE.let(2)
    server.wait_for_step(job, 4)
    TURNSTILE.open()
    rest = list(server.events(job, seen[-1].id))
    assert [event.data["step"] for event in rest if event.kind == "progress"] == [3, 4, 5, 6]
    assert rest[-1].id == LAST_ID


def test_a_reader_that_has_the_last_event_is_told_not_to_come_back(start: Start) -> None:
    server = start()
    job = server.submit()
    server.wait(job)
    answer = server.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": LAST_ID})
    assert (answer.status_code, answer.content) == (204, b"")
    (only,) = server.events(job)
    assert (only.id, only.data["status"]) == (LAST_ID, "succeeded")


def test_an_id_that_is_not_known_gets_the_job_as_it_is(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    job = server.submit()
    TURNSTILE.let(1)
    server.wait_for_step(job, 1)
    for last_id in ("1", "x-y", "00000000-1", "", "end", "-1", f"{2**80}-{2**80}"):
        event = next(server.events(job, last_id))
        assert (event.kind, event.data["progress"]["step"]) == ("job", 1)


def test_a_reader_gets_the_job_as_it_is_after_the_server_was_away(start: Start) -> None:
    server = start()
    job = server.submit(num_inference_steps=200)
    last_id = next(event.id for event in server.events(job) if event.kind == "progress")
    server.stop()
    server = start()
    first, *_ = server.events(job, last_id)
    assert (first.kind, first.data["id"]) == ("job", job)


def test_publishing_waits_for_nobody_and_a_slow_reader_is_told_that_it_missed_something() -> None:
    channel = Channel("x")
    for number in range(1000):
        channel.publish("progress", {"step": number})
    assert channel.position_of("x-1") is None
    assert channel.position_of("x-999") == 999
    assert asyncio.run(channel.after(0)) == (None, False)
    events, has_ended = asyncio.run(channel.after(998))
    assert [event.data["step"] for event in events or ()] == [998, 999]
    assert not has_ended


def test_readers_are_woken_from_another_thread_and_let_go_at_the_end() -> None:
    hub = Hub()
    channel = hub.open("job")

    async def read() -> list[object]:
        waiting = asyncio.ensure_future(channel.after(0))
        while not channel.has_readers:
            await asyncio.sleep(0)
        await asyncio.to_thread(channel.publish, "job", {"n": 1})
        first = await waiting
        waiting = asyncio.ensure_future(channel.after(1))
        while not channel.has_readers:
            await asyncio.sleep(0)
        await asyncio.to_thread(hub.close)
        return [first[0][0].data, await waiting]  # type: ignore[index]

    assert asyncio.run(read()) == [{"n": 1}, ([], True)]
    assert hub.open("another").after is not None
