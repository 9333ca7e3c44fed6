"""What every request goes through before it is answered: its id, its size, where it comes from, and its key."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loopwright.errors import RequestRefusedError, StorageError
from loopwright.server.context import Context, error_answer, refusal_of
from loopwright.server.logs import REQUEST_ID, log, log_failure

__all__ = ["BodyLimit", "Gate", "RequestLog"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# that anybody may ask for: what a load balancer wants to know, and the description of the API
_OPEN = ("/healthz", "/readyz", "/openapi.json")


class RequestLog:
    """Gives each request an id, writes a line about it, counts it, and answers for handlers that fail."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        token = REQUEST_ID.set(request_id)
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            log_failure("request failed", error)
            if status == 0:
                message = f"the server failed; its log says more under the request id {request_id}"
                refusal = RequestRefusedError(message, status=500, code="internal_error")
                await error_answer(refusal)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            self._note(scope, status, seconds)
            REQUEST_ID.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # the path as the client wrote it may be anything
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        metrics = self._context.metrics
        metrics.requests.labels(method, route, status).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        key = scope.get("loopwright.key")
        log(
            "request",
            logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO,
            method=method,
            route=route,
            status=status,
            seconds=round(seconds, 4),
            key=None if key is None else key.name,
        )


class Gate:
    """Lets requests in that may come in.

    A page of another site that is open in a browser of this machine must not send requests here, under whatever name it
    has for this host; and where there are keys, a request has one.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        try:
            self._admit(scope, Headers(scope=scope))
        except (RequestRefusedError, StorageError) as error:
            refusal = refusal_of(error) if isinstance(error, StorageError) else error
            self._context.metrics.rejected.labels(refusal.code).inc()
            await error_answer(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        context = self._context
        host = _host(headers.get("host", ""))
        if context.hosts is not None and host not in context.hosts:
            raise RequestRefusedError(
                "this server is not known under the name in `Host`; name it with --allow-host",
                status=403,
                code="unknown_host",
                param="Host",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in context.origins and _authority(origin) != headers.get("host"):
            raise RequestRefusedError(
                "pages of other sites may not use this server; name their origin with --allow-origin",
                status=403,
                code="unknown_origin",
                param="Origin",
            )
        if scope["path"] in _OPEN or not context.keys.are_needed:
            return
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        key = context.keys.find(secret.strip()) if scheme.lower() == "bearer" and secret.strip() else None
        if key is None:
            given = "this API key is not known" if secret else "an API key is needed, as `Authorization: Bearer <key>`"
            raise RequestRefusedError(given, status=401, code="invalid_api_key", param="Authorization")
        scope["loopwright.key"] = key
        if key.role == "monitor" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            raise RequestRefusedError(
                "this API key is that of a monitor, which may look and not change anything",
                status=403,
                code="read_only_key",
                param="Authorization",
            )


class BodyLimit:
    """Ends requests whose bodies are too large, whether they say so or not."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._context.limits.body_bytes
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and (len(length) > 18 or int(length) > most):
            self._context.metrics.rejected.labels("body_too_large").inc()
            await error_answer(_too_large(most))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _too_large(most)
            return message

        await self._app(scope, counted, send)


def _too_large(most: int) -> RequestRefusedError:
    return RequestRefusedError(f"the body is larger than {most} bytes", status=413, code="body_too_large")


def _host(header: str) -> str:
    """The name in a `Host` header, without the port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _authority(origin: str) -> Any:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
