"""What all parts of the HTTP API share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from loopwright.errors import RequestRefusedError, StorageError, brief, did_you_mean
from loopwright.server.folders import storage_errors
from loopwright.server.inputs import PipelineInputs
from loopwright.server.keys import Key, Keys
from loopwright.server.limits import Limits, read_json
from loopwright.server.metrics import Metrics
from loopwright.server.runner import Runner
from loopwright.server.service import JobService

__all__ = ["Context", "client_of", "error_answer", "read_body", "read_query", "refusal_of", "require_known", "whole"]

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# of the parts of a form
_MOST_PARTS = 64


@dataclass
class Context:
    """What the handlers of requests work with.

    Attributes:
        model: the name under which the model is offered.
        started: when the server began, in seconds since 1970.
        inputs: what a request may give.
        loops: the paths of the loops of the pipeline.
        service: the jobs.
        runner: runs them.
        keys: who may send requests; everybody if there never were any.
        limits: what a request may ask for.
        metrics: counts.
        origins: pages of other hosts that may send requests.
        hosts: the names under which the server may be asked; None for any.
        open_streams: how many streams of events are open.
    """

    model: str
    started: int
    inputs: PipelineInputs
    loops: list[str]
    service: JobService
    runner: Runner
    keys: Keys
    limits: Limits
    metrics: Metrics
    origins: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    open_streams: int = 0


def client_of(request: Request) -> Key | None:
    """Whose key a request came with; None if the server has none."""
    key: Key | None = request.scope.get("loopwright.key")
    return key


def error_answer(refusal: RequestRefusedError) -> JSONResponse:
    """A refusal in the form that clients of OpenAI's API know."""
    status = refusal.status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": str(refusal), "type": kind, "param": refusal.param, "code": refusal.code}
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error}, status, headers)


def refusal_of(error: StorageError) -> RequestRefusedError:
    """The answer to a request that fails because the data folder does."""
    status, code = (507, "storage_full") if error.is_full else (503, "storage_unavailable")
    return RequestRefusedError(
        f"{error}; nothing was changed, try again later", status=status, code=code, retry_after=5
    )


async def read_body(request: Request, limits: Limits, forms: bool = False) -> tuple[dict[str, Any], Any]:
    """The body of a request: an object of JSON, or a form.

    Args:
        request: the request.
        limits: what it may have.
        forms: whether it may be a form with files.

    Returns:
        The object, and None; or the texts of the form, and its files by name.

    Raises:
        RequestRefusedError: it is neither, or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestRefusedError(
            "the body must not be compressed", status=415, code="unsupported_media_type", param="Content-Encoding"
        )
    if forms and kind == "multipart/form-data":
        return await _read_form(request)
    if kind == "application/json":
        body = await request.body()
        return await asyncio.to_thread(read_json, body, limits), None
    known = "application/json" + (" or multipart/form-data" if forms else "")
    raise RequestRefusedError(
        f"the Content-Type is {brief(kind)[1:-1] or 'missing'}; it must be {known}",
        status=415,
        code="unsupported_media_type",
        param="Content-Type",
    )


async def _read_form(request: Request) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    texts: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    try:
        # large parts are in temporary files meanwhile
        with storage_errors("the form cannot be kept while it is read"):
            async with request.form(max_files=_MOST_PARTS, max_fields=_MOST_PARTS) as form:
                for name, part in form.multi_items():
                    if isinstance(part, UploadFile):
                        # some clients write lists so
                        files.setdefault(name.removesuffix("[]"), []).append(await part.read())
                    elif name in texts:
                        raise RequestRefusedError(
                            f"`{brief(name)[1:-1]}` is given twice", code="given_twice", param=brief(name)[1:-1]
                        )
                    else:
                        texts[name] = part
    except HTTPException as error:
        raise RequestRefusedError(f"the form cannot be read: {error.detail}", code="invalid_form") from error
    except (ClientDisconnect, RequestRefusedError):
        raise
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise RequestRefusedError("the form cannot be read", code="invalid_form") from error
    return texts, files


def read_query(request: Request, *names: str) -> dict[str, str]:
    """The query of a request.

    Raises:
        RequestRefusedError: it has a name that is not known here, or one twice.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        require_known(name, names, "parameter")
        if name in found:
            raise RequestRefusedError(f"`{name}` is given twice", code="given_twice", param=name)
        found[name] = value
    return found


def require_known(name: str, names: Any, what: str) -> None:
    """Raises `RequestRefusedError` if a name is none of those that there are."""
    if name not in names:
        shown = brief(name)[1:-1]
        listed = ", ".join(f"`{known}`" for known in names) or "none"
        raise RequestRefusedError(
            f"unknown {what} `{shown}`{did_you_mean(name, names)}; there are {listed}",
            code="unknown_parameter",
            param=shown,
        )


def whole(values: Mapping[str, Any], name: str, default: int, least: int, most: int, is_text: bool = False) -> int:
    """A whole number of a request.

    Args:
        values: what holds it.
        name: its name.
        default: what it is if it is not given.
        least: the smallest that it may be.
        most: the largest.
        is_text: whether it is written as text, as in a query.

    Raises:
        RequestRefusedError: it is none, or not within bounds.
    """
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if is_text and isinstance(value, str):
        if not (value.isascii() and value.removeprefix("-").isdecimal() and len(value) < 20):
            raise RequestRefusedError(
                f"`{name}` is {brief(value)}; it must be a whole number", code="invalid_type", param=name
            )
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestRefusedError(
            f"`{name}` is {brief(value)}; it must be a whole number", code="invalid_type", param=name
        )
    if not least <= value <= most:
        raise RequestRefusedError(
            f"`{name}` is {brief(value)}; it must lie between {least} and {most}", code="out_of_range", param=name
        )
    return value
