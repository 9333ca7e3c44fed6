"""Answers that last as long as a job does: streams of its events, and calls that wait for its result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from loopwright.errors import RequestRefusedError, StorageError
from loopwright.server.context import Context
from loopwright.server.events import LAST_ID, Event
from loopwright.server.jobs import Job
from loopwright.server.logs import log_failure

__all__ = ["GONE", "ServerSentEvents", "event_stream", "follow", "require_room", "until_ended"]

# a comment is sent so often, so that whoever is between does not take the connection for dead, in seconds
_PING = 15
# a reader that takes nothing for so long is let go, in seconds
_SEND = 30.0
# the status, in logs, of requests whose clients did not wait for an answer
GONE = 499


async def follow(context: Context, job: Job, last_id: str | None = None) -> AsyncIterator[Event]:
    """The events of a job, from the one after `last_id` on, until it has ended or the server does.

    The first event is the job as it is, unless the reader has seen what came before.
    """
    service = context.service
    channel = service.hub.find(job.id)
    if channel is None:
        job = await asyncio.to_thread(service.get, job.id, None)
        yield Event(LAST_ID, "job", service.shown(job))
        return
    position = channel.position_of(last_id)
    while True:
        if position is None:
            # what a reader has missed shows in the job as it is
            position = channel.position
            yield Event(LAST_ID if job.has_ended else channel.label(position), "job", service.shown(job))
            if job.has_ended:
                return
        events, has_ended = await channel.after(position)
        if events is None:
            position = None
            if has_ended and not job.has_ended:
                return
            continue
        for event in events:
            yield event
        position += len(events)
        if has_ended and position >= channel.position:
            return


def event_stream(context: Context, job: Job, last_id: str | None) -> EventSourceResponse:
    """The events of a job as server-sent events."""

    require_room(context)

    async def lines() -> AsyncIterator[ServerSentEvent]:
        async for event in follow(context, job, last_id):
            yield ServerSentEvent(data=json.dumps(event.data), event=event.kind, id=event.id)

    return ServerSentEvents(context, lines())


class ServerSentEvents(EventSourceResponse):
    """An answer made of server-sent events.

    Args:
        context: what handlers share.
        events: the events.
        waited_for: the job whose client this is the only way to the result for; None if there is none.
    """

    def __init__(self, context: Context, events: AsyncIterator[ServerSentEvent], waited_for: Job | None = None) -> None:
        super().__init__(events, ping=_PING, send_timeout=_SEND, sep="\n")
        self._context, self._waited_for = context, waited_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # a client may have gone before the first event is asked for
        with _counted(self._context):
            async with cancelled_without(self._context, self._waited_for):
                await super().__call__(scope, receive, send)


@contextmanager
def _counted(context: Context) -> Iterator[None]:
    context.open_streams += 1
    try:
        yield
    finally:
        context.open_streams -= 1


def require_room(context: Context) -> None:
    """Raises `RequestRefusedError` if no more streams can be open."""
    if context.open_streams >= context.limits.streams:
        raise RequestRefusedError(
            f"{context.open_streams} event streams are open, and there may be no more; try again later",
            status=429,
            code="too_many_streams",
            retry_after=5,
        )


async def until_ended(context: Context, job: Job, request: Request) -> Job:
    """Wait for the end of a job; if the client goes away first, the job is cancelled.

    Raises:
        RequestRefusedError: the server ends first, or the client has gone.
    """
    async with cancelled_without(context, job):
        end = asyncio.ensure_future(_ended(context, job))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                # nobody reads this but the log
                raise RequestRefusedError("the client has gone", status=GONE, code="client_gone")
            return await end
        finally:
            for task in (end, gone):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@asynccontextmanager
async def cancelled_without(context: Context, job: Job | None) -> AsyncIterator[None]:
    """Cancel a job whose client waits for it, if the client goes away."""
    try:
        yield
    finally:
        if job is not None and job.request.is_synchronous and not job.has_ended:
            await asyncio.shield(asyncio.to_thread(_cancel, context, job))


def _cancel(context: Context, job: Job) -> None:
    try:
        context.service.cancel(job.id, None)
    except RequestRefusedError:
        return  # it ended by itself
    except StorageError as error:
        log_failure("could not cancel", error, job=job.id)


async def _ended(context: Context, job: Job) -> Job:
    channel = context.service.hub.find(job.id)
    if channel is not None:
        await channel.until_end()
    if not job.has_ended:
        raise RequestRefusedError(
            "the server is about to end; try again when it is back", status=503, code="closing", retry_after=5
        )
    return job


async def _gone(request: Request) -> None:
    """Wait until the client has closed the connection; its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
