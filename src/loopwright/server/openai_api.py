"""OpenAI's images API: its requests, its answers and its errors, so that its clients work here."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from sse_starlette import ServerSentEvent

from loopwright.errors import RequestRefusedError, brief, did_you_mean
from loopwright.server.context import Context, error_answer, read_body, whole
from loopwright.server.inputs import Given
from loopwright.server.jobs import Job, Status
from loopwright.server.jobs import Request as JobRequest
from loopwright.server.limits import Limits, read_json
from loopwright.server.native_api import digest_of, idempotency_key, owner, read_seed, wants_picture
from loopwright.server.streams import ServerSentEvents, follow, require_room, until_ended
from loopwright.server.uploads import edit_mask, load_image

__all__ = ["CHOICES", "HIDDEN", "KINDS", "MOST_PARTIAL", "SIZE", "add_openai_api"]

# what its clients may say; the first is what holds if they do not
CHOICES = {
    "response_format": ("b64_json", "url"),
    "output_format": ("png", "jpeg", "webp"),
    "quality": ("auto", "low", "medium", "high", "standard", "hd"),
    "background": ("auto", "opaque"),
    "style": ("vivid", "natural"),
    "moderation": ("auto", "low"),
    "input_fidelity": ("low", "high"),
}
MOST_PARTIAL = 3
SIZE = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
# what has a meaning here; `quality`, `style`, `moderation`, `input_fidelity` and `user` are taken and have none
_OWN = ("model", "prompt", "n", "size", "stream", "partial_images", "output_compression", "user", "seed", *CHOICES)
# inputs of the pipeline that have other names here; the others have their own, for what OpenAI has no word for
HIDDEN = ("prompt", "num_images_per_prompt", "width", "height", "mask_image", "output_type")
KINDS = ("image_generation", "image_edit")
_GENERATION, _EDIT = KINDS
_MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def add_openai_api(api: FastAPI, context: Context) -> None:
    """Add the routes of OpenAI's images API."""
    model = {"id": context.model, "object": "model", "created": context.started, "owned_by": "loopwright"}

    @api.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [model]})

    @api.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Response:
        _require_model(context, name)
        return JSONResponse(model)

    @api.post("/v1/images/generations")
    async def generations(request: Request) -> Response:
        body, _ = await read_body(request, context.limits)
        return await _answer(context, request, _GENERATION, body, {})

    @api.post("/v1/images/edits")
    async def edits(request: Request) -> Response:
        body, files = await read_body(request, context.limits, forms=True)
        return await _answer(context, request, _EDIT, body if files is None else _of_form(body), files or {})


def _of_form(texts: dict[str, Any]) -> dict[str, Any]:
    """The fields of a form: those that are no text here are JSON there."""
    fields: dict[str, Any] = {}
    for name, text in texts.items():
        name = name.removesuffix("[]")
        if name in ("prompt", "user", "model", "size", *CHOICES) or name == "negative_prompt":
            fields[name] = text
            continue
        try:
            fields[name] = read_json(b'{"value": %s}' % text.encode(), Limits())["value"]
        except (RequestRefusedError, UnicodeEncodeError):
            fields[name] = text
    return fields


async def _answer(
    context: Context, request: Request, kind: str, body: dict[str, Any], files: dict[str, list[bytes]]
) -> Response:
    key = idempotency_key(request)
    wanted, job = await asyncio.to_thread(_submitted, context, request, kind, body, files, key)
    if wanted.stream:
        return ServerSentEvents(context, _stream(context, job, wanted, kind), job)
    job = await until_ended(context, job, request)
    answer = await asyncio.to_thread(_whole_answer, context, request, wanted, job)
    answer.headers["X-Job-ID"] = job.id
    return answer


def _submitted(
    context: Context, request: Request, kind: str, body: dict[str, Any], files: dict[str, list[bytes]], key: str | None
) -> tuple[_Wanted, Job]:
    wanted = _Wanted(context, kind, body, files, key is None)
    if wanted.stream:
        require_room(context)
    digest = digest_of(wanted.request, wanted.given, body)
    job, _ = context.service.submit(wanted.request, wanted.given.contents, owner(request), key, digest)
    return wanted, job


def _whole_answer(context: Context, request: Request, wanted: _Wanted, job: Job) -> Response:
    if job.status is not Status.SUCCEEDED:
        return error_answer(_refusal(context, job))
    pictures = _pictures(context, job)
    if wants_picture(request):
        return Response(wanted.encoded(pictures[0]), media_type=wanted.media_type)
    if wanted.choices["response_format"] == "url":
        base = str(request.base_url).rstrip("/")
        data = [{"url": base + job.file_url(file)} for file in _files(job)]
    else:
        data = [{"b64_json": wanted.base64(picture)} for picture in pictures]
    return JSONResponse({"created": int(job.created), "data": data, **wanted.echo(pictures[0])})


class _Wanted:
    """What a request asks for, checked.

    Raises:
        RequestRefusedError: it asks for something that cannot be done.
    """

    def __init__(
        self, context: Context, kind: str, body: dict[str, Any], files: dict[str, list[bytes]], is_synchronous: bool
    ) -> None:
        inputs, limits = context.inputs, context.limits
        self._require_known(context, kind, body, files)
        if body.get("model") is not None:
            _require_model(context, body["model"])
        self.choices = {name: _choice(body, name) for name in CHOICES}
        count = whole(body, "n", 1, 1, limits.images)
        self.stream = _flag(body, "stream")
        partial = whole(body, "partial_images", 0, 0, MOST_PARTIAL)
        if partial and not self.stream:
            raise RequestRefusedError(
                "`partial_images` needs `stream`", status=422, code="invalid_value", param="partial_images"
            )
        if self.stream and count > 1:
            raise RequestRefusedError(
                "`stream` is for a single image: leave `n` out", status=422, code="invalid_value", param="n"
            )
        if not isinstance(body.get("user", ""), (str, type(None))):
            raise RequestRefusedError(
                f"`user` is {brief(body['user'])}; it must be a text", code="invalid_type", param="user"
            )
        self.compression = whole(body, "output_compression", 100, 0, 100)
        given = {name: value for name, value in body.items() if name not in _OWN}
        given["prompt"] = body.get("prompt")
        if given["prompt"] is None:
            raise RequestRefusedError("missing the field `prompt`", code="missing_field", param="prompt")
        if not isinstance(given["prompt"], str):
            raise RequestRefusedError(
                f"`prompt` is {brief(given['prompt'])}; it must be a text", code="invalid_type", param="prompt"
            )
        if count > 1:
            given["num_images_per_prompt"] = count
        size = body.get("size")
        if size is not None and size != "auto":
            given["width"], given["height"] = _size(size)
        images = {name.replace("mask", "mask_image"): parts for name, parts in files.items()}
        if kind == _EDIT and "image" not in images and "image" not in given:
            raise RequestRefusedError("missing the file `image`: what to edit", code="missing_field", param="image")
        if "mask_image" in images:
            images["mask_image"] = [edit_mask(part, "mask", limits) for part in images["mask_image"]]
        try:
            self.given: Given = inputs.read(given, images, where="")
        except RequestRefusedError as error:
            if error.param in ("width", "height"):
                error.param = "size"
            raise
        if kind == _EDIT and "mask_image" in images:
            _require_alike(self.given)
        self.request = JobRequest(
            inputs=self.given.inputs,
            uploads=tuple(self.given.uploads),
            seed=read_seed(context, body),
            images=count,
            output=inputs.output,
            previews=partial,
            is_synchronous=is_synchronous,
        )

    def _require_known(self, context: Context, kind: str, body: dict[str, Any], files: dict[str, list[bytes]]) -> None:
        taken = context.inputs.names
        if kind == _EDIT and not context.inputs.takes_image("image"):
            raise RequestRefusedError(
                f"the model {context.model} cannot edit images", status=404, code="not_supported", param="model"
            )
        known = [*_OWN, *(name for name in taken if name not in HIDDEN)]
        if kind == _GENERATION:
            known = [name for name in known if name != "image"]
        for name in body:
            if name not in known:
                shown = brief(name)[1:-1]
                raise RequestRefusedError(
                    f"unknown parameter `{shown}`{did_you_mean(name, known)}", code="unknown_parameter", param=shown
                )
        masks = ["mask"] if context.inputs.takes_image("mask_image") else []
        parts = ["image", *masks, *(name for name in known if name in taken)]
        for name in files:
            if name not in parts:
                shown = brief(name)[1:-1]
                raise RequestRefusedError(
                    f"unknown file `{shown}`{did_you_mean(name, parts)}",
                    code="unknown_parameter",
                    param=shown,
                )

    @property
    def format(self) -> str:
        return self.choices["output_format"]

    @property
    def media_type(self) -> str:
        return _MEDIA[self.format]

    def encoded(self, picture: bytes) -> bytes:
        """A picture in the format that was asked for."""
        if self.format == "png":
            return picture
        written = io.BytesIO()
        image = load_image(picture)
        if self.format == "jpeg":
            image = image.convert("RGB")
        image.save(written, format=self.format.upper(), quality=self.compression)
        return written.getvalue()

    def base64(self, picture: bytes) -> str:
        return base64.b64encode(self.encoded(picture)).decode()

    def echo(self, picture: bytes) -> dict[str, Any]:
        """What an answer says about its pictures."""
        with Image.open(io.BytesIO(picture)) as image:
            size = f"{image.width}x{image.height}"
        return {"size": size, "output_format": self.format, "background": "opaque"}


async def _stream(context: Context, job: Job, wanted: _Wanted, kind: str) -> AsyncIterator[ServerSentEvent]:
    """Partial images, and at the end the whole one."""
    index = 0
    async for event in follow(context, job):
        if event.kind == "preview":
            (link, *_) = event.data["images"]
            path = context.service.folder(job).file(link.rpartition("/")[2])
            if path is not None:
                picture = await asyncio.to_thread(path.read_bytes)
                yield _sent(f"{kind}.partial_image", wanted, job, picture, partial_image_index=index)
                index += 1
    job = await asyncio.to_thread(context.service.get, job.id, None)
    if job.status is Status.SUCCEEDED:
        (picture, *_) = await asyncio.to_thread(_pictures, context, job)
        usage = {
            "input_tokens": 0,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
            "output_tokens": 0,
            "total_tokens": 0,
        }
        yield _sent(f"{kind}.completed", wanted, job, picture, usage=usage)
    else:
        yield ServerSentEvent(data=bytes(error_answer(_refusal(context, job)).body).decode(), event="error")


def _sent(kind: str, wanted: _Wanted, job: Job, picture: bytes, **more: Any) -> ServerSentEvent:
    data = {
        "type": kind,
        "b64_json": wanted.base64(picture),
        "created_at": int(time.time()),
        "quality": "auto",
        **wanted.echo(picture),
        **more,
    }
    return ServerSentEvent(data=json.dumps(data), event=kind)


def _refusal(context: Context, job: Job) -> RequestRefusedError:
    """Why there is no picture."""
    if job.error is not None:
        status = 422 if job.error["code"] == "invalid_input" else 500
        return RequestRefusedError(job.error["message"], status=status, code=job.error["code"])
    if context.service.is_closing:
        return RequestRefusedError(
            "the server is about to end; try again when it is back", status=503, code="closing", retry_after=5
        )
    return RequestRefusedError(f"job {job.id} was {job.status}", status=409, code="wrong_state")


def _files(job: Job) -> list[str]:
    return [file["file"] for output in (job.outputs or {}).values() for file in output["files"]]


def _pictures(context: Context, job: Job) -> list[bytes]:
    """The pictures that came out.

    Raises:
        RequestRefusedError: there are none.
    """
    paths = [context.service.folder(job).file(file) for file in _files(job) if file.endswith(".png")]
    if not paths or None in paths:
        raise RequestRefusedError(f"job {job.id} has no pictures", status=500, code="no_picture")
    return [path.read_bytes() for path in paths if path is not None]


def _require_model(context: Context, name: Any) -> None:
    if not isinstance(name, str):
        raise RequestRefusedError(f"`model` is {brief(name)}; it must be a text", code="invalid_type", param="model")
    if name != context.model:
        raise RequestRefusedError(
            f"there is no model `{brief(name)[1:-1]}`; this server has `{context.model}`",
            status=404,
            code="model_not_found",
            param="model",
        )


def _choice(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return CHOICES[name][0]
    if value not in CHOICES[name]:
        raise _refused(
            f"`{name}` is {brief(value)}{did_you_mean(str(value), CHOICES[name])}; "
            f"it must be one of {', '.join(CHOICES[name])}",
            name,
        )
    return str(value)


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _refused(f"`{name}` is {brief(value)}; it must be true or false", name)
    return bool(value)


def _size(size: Any) -> tuple[int, int]:
    if not isinstance(size, str) or not re.fullmatch(SIZE, size, re.ASCII):
        raise _refused(f"`size` is {brief(size)}; it must be like `64x64`, width first, or `auto`", "size")
    width, _, height = size.partition("x")
    return int(width), int(height)


def _require_alike(given: Given) -> None:
    sizes = {
        upload.input: load_image(given.contents[upload.file]).size for upload in given.uploads if upload.kind == "image"
    }
    if sizes["image"] != sizes["mask_image"]:
        shown = ["x".join(map(str, sizes[name])) for name in ("mask_image", "image")]
        raise RequestRefusedError(
            f"`mask` is {shown[0]} pixels, and `image` is {shown[1]}; they must be alike",
            status=422,
            code="invalid_image",
            param="mask",
        )


def _refused(message: str, param: str) -> RequestRefusedError:
    return RequestRefusedError(message, code="invalid_value", param=param)
