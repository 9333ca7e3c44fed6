"""The HTTP application: all routes, and how failures are answered."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from loopwright.errors import RequestRefusedError, StorageError
from loopwright.server.context import Context, error_answer, read_query, refusal_of
from loopwright.server.middleware import BodyLimit, Gate, RequestLog
from loopwright.server.native_api import add_native_api
from loopwright.server.openai_api import add_openai_api
from loopwright.server.openapi import description
from loopwright.server.streams import GONE

__all__ = ["make_app"]


def make_app(context: Context) -> FastAPI:
    """The application of one server."""
    # the description is written by hand, and pages that load scripts from elsewhere are not for a server without a net
    app = FastAPI(title="Loopwright", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    add_native_api(app, context)
    add_openai_api(app, context)
    described = description(context)

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return JSONResponse(described)

    @app.get("/healthz")
    async def healthy() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> Response:
        problems = _problems(context)
        return JSONResponse({"status": "unready" if problems else "ok", "problems": problems}, 503 if problems else 200)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        read_query(request)
        text = await asyncio.to_thread(context.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(RequestRefusedError)
    async def refused(request: Request, error: Any) -> Response:
        context.metrics.rejected.labels(error.code).inc()
        return error_answer(error)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Any) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(StorageError)
    async def unstored(request: Request, error: Any) -> Response:
        refusal = refusal_of(error)
        context.metrics.rejected.labels(refusal.code).inc()
        return error_answer(refusal)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: Any) -> Response:
        methods = _methods(app, request) if error.status_code == 405 else ""
        answer = error_answer(_of_routing(error, methods))
        if methods:
            answer.headers["Allow"] = methods
        return answer

    app.add_middleware(BodyLimit, context=context)
    app.add_middleware(Gate, context=context)
    if context.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(context.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"],
            expose_headers=["Location", "Retry-After", "X-Request-ID", "Idempotent-Replayed"],
        )
    app.add_middleware(RequestLog, context=context)
    return app


def _problems(context: Context) -> list[str]:
    """Why the server should be sent no jobs now."""
    service = context.service
    found = {
        "the server is about to end": service.is_closing,
        "the data folder cannot be written to": not service.is_writable,
        "a thread that runs jobs has ended": not context.runner.is_alive,
    }
    return [problem for problem, holds in found.items() if holds]


def _methods(app: FastAPI, request: Request) -> str:
    """What the path of a request takes: each of its routes knows only its own."""
    found: set[str] = set()
    for route in app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(found))


def _of_routing(error: HTTPException, methods: str) -> RequestRefusedError:
    if error.status_code == 404:
        return RequestRefusedError(
            "there is nothing here; /openapi.json says what there is", status=404, code="not_found"
        )
    if error.status_code == 405:
        return RequestRefusedError(f"this takes {methods}", status=405, code="method_not_allowed")
    return RequestRefusedError(str(error.detail), status=error.status_code, code="invalid_request")
