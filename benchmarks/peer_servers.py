"""The same model behind HTTP in other ways: each takes and answers what `loopwright serve` does.

python -m benchmarks.peer_servers KIND PORT, with KIND `one by one` or `threads`.

They run diffusers' engine over the same blocks and models, see `peer.py`.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import uvicorn
from diffusers.utils import logging
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from loopwright.diffusion import embedded_pipeline

from .peer import clone, peer_of

AT_ONCE = 8


def png(image: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, format="PNG")
    return written.getvalue()


class FirstStep:
    """Notes when the transformer was first called to the end, in this thread."""

    def __init__(self, transformer: Any) -> None:
        self._local = threading.local()
        transformer.register_forward_hook(lambda *_: self._note())

    def begin(self) -> None:
        self._local.at = None

    def _note(self) -> None:
        if getattr(self._local, "at", None) is None:
            self._local.at = time.time()

    @property
    def at(self) -> float:
        found: float = self._local.at
        return found


def peer() -> Any:
    logging.set_verbosity_error()
    return peer_of(embedded_pipeline(workflow="text2image"))


def paint(pipe: Any, requests: list[dict[str, Any]]) -> list[Any]:
    """Pictures for requests of one number of steps, in one call."""
    images: list[Any] = pipe(
        prompt=[request["prompt"] for request in requests],
        num_inference_steps=requests[0]["num_inference_steps"],
        generator=[torch.Generator().manual_seed(request["seed"]) for request in requests],
        output="images",
    )
    return images


def over_fastapi(port: int, work: Callable[[dict[str, Any]], tuple[bytes, float]]) -> None:
    app = FastAPI()

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/images/generations")
    async def generations(request: Request) -> Response:
        picture, first = await run_in_threadpool(work, await request.json())
        return Response(picture, media_type="image/png", headers={"X-First-Step": str(first)})

    uvicorn.run(app, port=port, log_level="error")


def serve_one_by_one(port: int) -> None:
    """diffusers, and a lock."""
    pipe, lock = peer(), threading.Lock()
    first = FirstStep(pipe.transformer)

    def work(request: dict[str, Any]) -> tuple[bytes, float]:
        with lock:
            first.begin()
            (image,) = paint(pipe, [request])
        return png(image), first.at

    over_fastapi(port, work)


def serve_threads(port: int) -> None:
    """diffusers in threads, each request with copies of what a call changes."""
    pipe, slots = peer(), threading.Semaphore(AT_ONCE)
    first = FirstStep(pipe.transformer)

    def work(request: dict[str, Any]) -> tuple[bytes, float]:
        with slots:
            first.begin()
            (image,) = paint(clone(pipe), [request])
        return png(image), first.at

    over_fastapi(port, work)


if __name__ == "__main__":
    kind, number = sys.argv[1:]
    {"one by one": serve_one_by_one, "threads": serve_threads}[kind](int(number))
