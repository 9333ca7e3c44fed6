"""The API of jobs: submit, watch, steer, and fetch what comes out."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from loopwright.errors import RequestRefusedError, brief
from loopwright.server.context import Context, client_of, read_body, read_query, require_known, whole
from loopwright.server.events import LAST_ID
from loopwright.server.inputs import SEEDS, Given
from loopwright.server.jobs import STATUSES, Job
from loopwright.server.jobs import Request as JobRequest
from loopwright.server.limits import read_json
from loopwright.server.outputs import PNG, media_type
from loopwright.server.streams import event_stream

__all__ = ["MOST_SEED", "add_native_api", "digest_of", "idempotency_key", "owner", "read_seed", "wants_picture"]

MOST_SEED = 2**63 - 1
MOST_PRIORITY = 10
MOST_LISTED = 100
_FIELDS = ("inputs", "seed", "output", "previews", "priority")


def add_native_api(api: FastAPI, context: Context) -> None:
    """Add the routes under `/v1/jobs`."""
    service = context.service

    @api.post("/v1/jobs")
    async def submit(request: Request) -> Response:
        key = idempotency_key(request)
        body, files = await read_body(request, context.limits, forms=True)
        if files is not None:
            body = _of_form(context, body)
        job, is_new = await asyncio.to_thread(_submit, context, body, files or {}, owner(request), key)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        if not is_new:
            headers["Idempotent-Replayed"] = "true"
        return JSONResponse(service.shown(job), 202 if is_new else 200, headers)

    @api.get("/v1/jobs")
    async def listed(request: Request) -> Response:
        query = read_query(request, "status", "after", "limit")
        status = query.get("status")
        if status is not None:
            require_status(status)
        count = whole(query, "limit", 20, 1, MOST_LISTED, is_text=True)
        jobs = await asyncio.to_thread(service.page, viewer(request), status, query.get("after"), count + 1)
        shown = [service.shown(job) for job in jobs[:count]]
        return JSONResponse({"object": "list", "data": shown, "has_more": len(jobs) > count})

    @api.get("/v1/jobs/{job_id}")
    async def found(job_id: str, request: Request) -> Response:
        return JSONResponse(service.shown(await find(job_id, request)))

    @api.delete("/v1/jobs/{job_id}")
    async def cancelled(job_id: str, request: Request) -> Response:
        return await steer(service.cancel, job_id, request)

    @api.post("/v1/jobs/{job_id}/pause")
    async def paused(job_id: str, request: Request) -> Response:
        return await steer(service.pause, job_id, request)

    @api.post("/v1/jobs/{job_id}/go-on")
    async def gone_on(job_id: str, request: Request) -> Response:
        return await steer(service.go_on, job_id, request)

    @api.post("/v1/jobs/{job_id}/stop-loop")
    async def loop_stopped(job_id: str, request: Request) -> Response:
        loop = None
        if await request.body():
            body, _ = await read_body(request, context.limits)
            for name in body:
                require_known(name, ("loop",), "field")
            loop = body.get("loop")
            if loop is not None and not isinstance(loop, str):
                raise RequestRefusedError(
                    f"`loop` is {brief(loop)}; it must be the path of a loop", code="invalid_type", param="loop"
                )
        return await steer(service.stop_loop, job_id, request, loop, context.loops)

    @api.get("/v1/jobs/{job_id}/events")
    async def events(job_id: str, request: Request) -> Response:
        job = await find(job_id, request)
        last_id = request.headers.get("last-event-id")
        if last_id == LAST_ID and job.has_ended:
            # a reader that comes back after the last event is told not to
            return Response(status_code=204)
        return event_stream(context, job, last_id)

    @api.get("/v1/jobs/{job_id}/result")
    async def result(job_id: str, request: Request) -> Response:
        job = await find(job_id, request)
        described = job.result_json()
        if wants_picture(request):
            return picture_of(job)
        return JSONResponse(described)

    @api.get("/v1/jobs/{job_id}/files/{name}")
    async def file(job_id: str, name: str, request: Request) -> Response:
        job = await find(job_id, request)
        path = service.folder(job).file(name)
        if path is None:
            raise RequestRefusedError(f"job {job.id} has no such file", status=404, code="not_found")
        return FileResponse(path, media_type=media_type(name), headers={"Cache-Control": "private, max-age=3600"})

    def picture_of(job: Job) -> Response:
        for output in (job.outputs or {}).values():
            for described in output["files"]:
                path = service.folder(job).file(described["file"])
                if described["type"] == PNG and path is not None:
                    return FileResponse(path, media_type=PNG)
        raise RequestRefusedError(f"job {job.id} made no picture", status=406, code="no_picture", param="Accept")

    async def find(job_id: str, request: Request) -> Job:
        return await asyncio.to_thread(service.get, job_id, viewer(request))

    async def steer(action: Any, job_id: str, request: Request, *arguments: Any) -> Response:
        job = await asyncio.to_thread(action, job_id, owner(request), *arguments)
        return JSONResponse(service.shown(job))


def _of_form(context: Context, texts: dict[str, Any]) -> dict[str, Any]:
    """The fields of a job that came as a form: `job` holds the JSON, the files are its other inputs."""
    for name in texts:
        require_known(name, ("job",), "field of the form")
    try:
        return read_json(texts.get("job", "{}").encode("utf-8", errors="surrogatepass"), context.limits)
    except RequestRefusedError as error:
        raise RequestRefusedError(str(error), status=422, code=error.code, param="job") from error


def _submit(
    context: Context, body: dict[str, Any], files: dict[str, list[bytes]], client: str, key: str | None
) -> tuple[Job, bool]:
    limits = context.limits
    for name in body:
        require_known(name, _FIELDS, "field")
    if "inputs" not in body and not files:
        raise RequestRefusedError(
            "missing the field `inputs`: the inputs of the pipeline by name", code="missing_field", param="inputs"
        )
    given = context.inputs.read(body.get("inputs", {}), files)
    images = context.inputs.images_of(given.inputs)
    seed = read_seed(context, body)
    request = JobRequest(
        inputs=given.inputs,
        uploads=tuple(given.uploads),
        seed=seed,
        images=images,
        output=context.inputs.read_output(body.get("output")),
        previews=whole(body, "previews", 0, 0, limits.previews),
        priority=whole(body, "priority", 0, -MOST_PRIORITY, MOST_PRIORITY),
    )
    return context.service.submit(request, given.contents, client, key, digest_of(request, given, body))


def digest_of(request: JobRequest, given: Given, body: dict[str, Any]) -> str:
    """What tells a request from others, without what the server has added to it."""
    return replace(request, seed=body.get("seed")).digest(given.contents)


def read_seed(context: Context, body: dict[str, Any]) -> int | None:
    """The seed of a request, a random one if it gives none; None for a pipeline that has no use for one.

    Raises:
        RequestRefusedError: it cannot be one, or the pipeline takes none.
    """
    if body.get("seed") is None:
        return secrets.randbelow(SEEDS) if context.inputs.has_seed else None
    if not context.inputs.has_seed:
        raise RequestRefusedError(
            "this pipeline takes no `seed`: none of its blocks has the input `generator`",
            code="unknown_parameter",
            param="seed",
        )
    return whole(body, "seed", 0, 0, MOST_SEED)


def idempotency_key(request: Request) -> str | None:
    """The key under which a client may send a request again.

    Raises:
        RequestRefusedError: it cannot be one.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise RequestRefusedError(
            "an Idempotency-Key must be 1 to 255 printable characters of ASCII",
            code="invalid_value",
            param="Idempotency-Key",
        )
    return key


def wants_picture(request: Request) -> bool:
    """Whether a client asks for a picture itself rather than for JSON about it."""
    accepted = request.headers.get("accept", "").lower()
    return "image/" in accepted and "json" not in accepted


def require_status(status: str) -> None:
    if status not in STATUSES:
        raise RequestRefusedError(
            f"`status` is {brief(status)}; it must be one of {', '.join(STATUSES)}",
            code="invalid_value",
            param="status",
        )


def owner(request: Request) -> str:
    """Whose jobs a request may change."""
    key = client_of(request)
    return "" if key is None else key.name


def viewer(request: Request) -> str | None:
    """Whose jobs a request may see; None for everybody's."""
    key = client_of(request)
    if key is None:
        return ""
    return None if key.role == "monitor" else key.name
