"""The same model behind LitServe, with dynamic batching: `python -m benchmarks.peer_litserve litserve PORT`.

What comes together is called together, as far as its number of steps agrees: that is all that one call can do.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import litserve
from fastapi.responses import Response

from .peer_servers import AT_ONCE, FirstStep, paint, peer, png


class Painter(litserve.LitAPI):  # type: ignore[misc]
    """Pictures from prompts."""

    def setup(self, device: Any) -> None:
        self.pipe = peer()
        self.first = FirstStep(self.pipe.transformer)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        # with an annotation it would be taken for a model of pydantic
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, requests: list[dict[str, Any]]) -> list[Any]:
        by_steps = defaultdict(list)
        for index, request in enumerate(requests):
            by_steps[request["num_inference_steps"]].append(index)
        made: list[Any] = [None] * len(requests)
        for indices in by_steps.values():
            self.first.begin()
            images = paint(self.pipe, [requests[index] for index in indices])
            for index, image in zip(indices, images, strict=True):
                made[index] = (png(image), self.first.at)
        return made

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: tuple[bytes, float]) -> Response:
        picture, first = output
        return Response(picture, media_type="image/png", headers={"X-First-Step": str(first)})


if __name__ == "__main__":
    api = Painter(max_batch_size=AT_ONCE, batch_timeout=0.01, api_path="/v1/images/generations")
    server = litserve.LitServer(api, accelerator="cpu", healthcheck_path="/healthz", timeout=False)
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="error", num_api_servers=1)
