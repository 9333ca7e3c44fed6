"""What a request may ask for at most, and reading its JSON within these limits."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from loopwright.errors import RequestRefusedError

__all__ = ["Limits", "read_json"]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for at most.

    Attributes:
        body_bytes: the bytes of a request.
        image_pixels: the pixels of an image, whether it is sent or to be made.
        images: the images of one job.
        steps: the steps of a loop, and the numbers in a list of steps.
        text_characters: the characters of a text, such as a prompt.
        depth: how deep the lists and objects of JSON are nested.
        previews: the previews of one job.
        queue: the jobs that wait.
        streams: the event streams that are open at a time.
    """

    body_bytes: int = 32 * 2**20
    image_pixels: int = 2**24
    images: int = 10
    steps: int = 200
    text_characters: int = 8_000
    depth: int = 32
    previews: int = 20
    queue: int = 256
    streams: int = 1_000

    @property
    def json_bytes(self) -> int:
        """The bytes of the inputs of a job beside images and tensors: room for all its texts, and more."""
        return 2**20 + 8 * self.images * self.text_characters


def read_json(body: bytes, limits: Limits) -> dict[str, Any]:
    """The object in the body of a request.

    Raises:
        RequestRefusedError: it is not a JSON object, or nested too deeply, or not text that can be written down.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep(limits) from None
    except UnicodeDecodeError as error:
        raise RequestRefusedError(f"the body is not UTF-8 (byte {error.start})", code="invalid_json") from error
    except ValueError as error:
        reason = "a number has too many digits" if "int_max_str_digits" in str(error) else error
        raise RequestRefusedError(f"the body is not JSON: {reason}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestRefusedError(f"the body is a JSON {_json_kind(value)}; it must be an object", code="invalid_json")
    _check_values(value, limits)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_values(value: Any, limits: Limits) -> None:
    """Check depth, texts and numbers, without recursion of its own."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limits.depth:
            raise _too_deep(limits)
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item)
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, str) and not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise RequestRefusedError(
                        "a text of the body holds half of a surrogate pair, which is no character",
                        code="invalid_json",
                    ) from error
            elif isinstance(item, float) and not math.isfinite(item):
                raise RequestRefusedError("a number of the body is too large", code="invalid_json")
        level = inner


def _too_deep(limits: Limits) -> RequestRefusedError:
    return RequestRefusedError(
        f"the JSON of the body is nested more than {limits.depth} levels deep", code="invalid_json"
    )


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "array"
