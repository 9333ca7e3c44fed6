"""Requests that cannot be answered as they wish, each with its whole answer."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from loopwright.server import Limits
from tests.server.live import LiveServer
from tests.server.pipelines import painting

J, G, E = "/v1/jobs", "/v1/images/generations", "/v1/images/edits"
P = {"prompt": "red"}
JSON = {"Content-Type": "application/json"}
KNOWN = (
    "`prompt`, `image`, `mask_image`, `tint`, `trouble`, `width`, `height`, `num_images_per_prompt`, "
    "`num_inference_steps`"
)


def png(width: int = 8, height: int = 8, mode: str = "RGB") -> bytes:
    written = io.BytesIO()
    Image.new(mode, (width, height)).save(written, format="PNG")
    return written.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no body": ("POST", J, {"headers": JSON, "content": b""}),
    "no content type": ("POST", J, {"content": b"{}"}),
    "text": ("POST", J, {"headers": {"Content-Type": "text/plain"}, "content": b"{}"}),
    "compressed": ("POST", J, {"headers": {**JSON, "Content-Encoding": "gzip"}, "content": b"{}"}),
    "half an object": ("POST", J, {"headers": JSON, "content": b'{"inputs": '}),
    "not UTF-8": ("POST", J, {"headers": JSON, "content": b'{"inputs": "\xff"}'}),
    "an array": ("POST", J, {"headers": JSON, "content": b"[]"}),
    "a number": ("POST", J, {"headers": JSON, "content": b"1"}),
    "null": ("POST", J, {"headers": JSON, "content": b"null"}),
    "NaN": ("POST", J, {"headers": JSON, "content": b'{"seed": NaN}'}),
    "infinity": ("POST", J, {"headers": JSON, "content": b'{"seed": -Infinity}'}),
    "deep": ("POST", J, {"headers": JSON, "content": b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}"}),
    "rather deep": ("POST", J, {"headers": JSON, "content": b'{"inputs": ' + b"[" * 40 + b"]" * 40 + b"}"}),
    "half a character": ("POST", J, {"headers": JSON, "content": b'{"inputs": {"prompt": "\\ud800"}}'}),
    "a number with too many digits": ("POST", J, {"headers": JSON, "content": b'{"seed": ' + b"9" * 5000 + b"}"}),
    "a number beyond all": ("POST", J, {"headers": JSON, "content": b'{"inputs": {"prompt": "x", "tint": [1e999]}}'}),
    "too large": ("POST", J, {"headers": JSON, "content": b'{"inputs": "' + b"x" * 30_000 + b'"}'}),
    "no inputs": ("POST", J, {"json": {}}),
    "inputs of another type": ("POST", J, {"json": {"inputs": [1]}}),
    "inputs are null": ("POST", J, {"json": {"inputs": None}}),
    "a field with a slip": ("POST", J, {"json": {"input": P}}),
    "a field with a long name": ("POST", J, {"json": {"inputs": P, "x" * 500: 1}}),
    "an input with a slip": ("POST", J, {"json": {"inputs": {"promt": "red"}}}),
    "an input that is close": ("POST", J, {"json": {"inputs": {**P, "steps": 3}}}),
    "an input like none": ("POST", J, {"json": {"inputs": {**P, "zzzz": 3}}}),
    "a generator": ("POST", J, {"json": {"inputs": {**P, "generator": 3}}}),
    "an option of a call": ("POST", J, {"json": {"inputs": {**P, "checkpoint": "/etc"}}}),
    "an input that cannot be sent": ("POST", J, {"json": {"inputs": {**P, "callback": "print"}}}),
    "no prompt": ("POST", J, {"json": {"inputs": {}}}),
    "a prompt that is null": ("POST", J, {"json": {"inputs": {"prompt": None}}}),
    "a prompt that is a number": ("POST", J, {"json": {"inputs": {"prompt": 3}}}),
    "a prompt that is a list of numbers": ("POST", J, {"json": {"inputs": {"prompt": [3]}}}),
    "no prompts": ("POST", J, {"json": {"inputs": {"prompt": []}}}),
    "too many prompts": ("POST", J, {"json": {"inputs": {"prompt": ["red"] * 5}}}),
    "a long prompt": ("POST", J, {"json": {"inputs": {"prompt": "x" * 101}}}),
    "too many images together": ("POST", J, {"json": {"inputs": {"prompt": ["red"] * 3, "num_images_per_prompt": 2}}}),
    "steps that are text": ("POST", J, {"json": {"inputs": {**P, "num_inference_steps": "4"}}}),
    "steps that are true": ("POST", J, {"json": {"inputs": {**P, "num_inference_steps": True}}}),
    "steps with a fraction": ("POST", J, {"json": {"inputs": {**P, "num_inference_steps": 4.5}}}),
    "no steps": ("POST", J, {"json": {"inputs": {**P, "num_inference_steps": 0}}}),
    "too many steps": ("POST", J, {"json": {"inputs": {**P, "num_inference_steps": 51}}}),
    "a huge number of steps": ("POST", J, {"json": {"inputs": {**P, "num_inference_steps": 10**400}}}),
    "a width of nothing": ("POST", J, {"json": {"inputs": {**P, "width": 0}}}),
    "too wide": ("POST", J, {"json": {"inputs": {**P, "width": 65}}}),
    "an image that is a number": ("POST", J, {"json": {"inputs": {**P, "image": 3}}}),
    "an image that is no Base64": ("POST", J, {"json": {"inputs": {**P, "image": "/etc/passwd"}}}),
    "an image that is a link": ("POST", J, {"json": {"inputs": {**P, "image": "http://example.org/x.png"}}}),
    "an image that is text": ("POST", J, {"json": {"inputs": {**P, "image": text_of(b"hello")}}}),
    "an empty list of images": ("POST", J, {"json": {"inputs": {**P, "image": []}}}),
    "a list where one image is taken": ("POST", J, {"json": {"inputs": {**P, "mask_image": [text_of(png())]}}}),
    "a long list of images": ("POST", J, {"json": {"inputs": {**P, "image": [text_of(png())] * 5}}}),
    "half an image": ("POST", J, {"json": {"inputs": {**P, "image": text_of(png(64, 64)[:60])}}}),
    "too many pixels": ("POST", J, {"json": {"inputs": {**P, "image": text_of(png(65, 64))}}}),
    "a tensor that is text": ("POST", J, {"json": {"inputs": {**P, "tint": "x"}}}),
    "an uneven tensor": ("POST", J, {"json": {"inputs": {**P, "tint": [[1], [1, 2]]}}}),
    "a tensor of texts": ("POST", J, {"json": {"inputs": {**P, "tint": ["x"]}}}),
    "a seed that is text": ("POST", J, {"json": {"inputs": P, "seed": "7"}}),
    "a seed that is true": ("POST", J, {"json": {"inputs": P, "seed": True}}),
    "a negative seed": ("POST", J, {"json": {"inputs": P, "seed": -1}}),
    "a seed too large": ("POST", J, {"json": {"inputs": P, "seed": 2**63}}),
    "an output with a slip": ("POST", J, {"json": {"inputs": P, "output": "image_s"}}),
    "an output that is a number": ("POST", J, {"json": {"inputs": P, "output": 3}}),
    "no outputs": ("POST", J, {"json": {"inputs": P, "output": []}}),
    "too many previews": ("POST", J, {"json": {"inputs": P, "previews": 21}}),
    "too high a priority": ("POST", J, {"json": {"inputs": P, "priority": 11}}),
    "an empty Idempotency-Key": ("POST", J, {"json": {"inputs": P}, "headers": {"Idempotency-Key": ""}}),
    "a long Idempotency-Key": ("POST", J, {"json": {"inputs": P}, "headers": {"Idempotency-Key": "x" * 256}}),
    "a form with another field": ("POST", J, {"data": {"jobs": "{}"}, "files": {"image": png()}}),
    "a form with JSON that is none": ("POST", J, {"data": {"job": "{"}, "files": {"image": png()}}),
    "a file that no input takes": ("POST", J, {"data": {"job": "{}"}, "files": {"../../x": png()}}),
    "a file for an input of JSON": ("POST", J, {"data": {"job": "{}"}, "files": {"prompt": png()}}),
    "an image twice": (
        "POST",
        J,
        {"data": {"job": json.dumps({"inputs": {**P, "image": "x"}})}, "files": {"image": png()}},
    ),
    "two files for one image": (
        "POST",
        J,
        {"data": {"job": json.dumps({"inputs": P})}, "files": [("mask_image", png()), ("mask_image", png())]},
    ),
    "a tensor that is an image": ("POST", J, {"data": {"job": json.dumps({"inputs": P})}, "files": {"tint": png()}}),
    "a broken form": (
        "POST",
        J,
        {"headers": {"Content-Type": "multipart/form-data; boundary=x"}, "content": b"--y\r\n"},
    ),
    "a form without a boundary": (
        "POST",
        J,
        {"headers": {"Content-Type": "multipart/form-data"}, "content": b"--y\r\n"},
    ),
    "a job that is not there": ("GET", J + "/job_" + "0" * 32, {}),
    "a job with another name": ("GET", J + "/..%2f..%2fetc", {}),
    "events of no job": ("GET", J + "/x/events", {}),
    "result of no job": ("GET", J + "/x/result", {}),
    "file of no job": ("GET", J + "/x/files/y", {}),
    "cancel no job": ("DELETE", J + "/x", {}),
    "pause no job": ("POST", J + "/x/pause", {}),
    "an unknown state": ("GET", J + "?status=done", {}),
    "a limit that is text": ("GET", J + "?limit=x", {}),
    "a limit of nothing": ("GET", J + "?limit=0", {}),
    "after no job": ("GET", J + "?after=x", {}),
    "a parameter with a slip": ("GET", J + "?stauts=queued", {}),
    "a parameter twice": ("GET", J + "?limit=1&limit=2", {}),
    "a path that is not there": ("GET", "/v2/jobs", {}),
    "another method": ("PUT", J, {"json": {}}),
    "no such model": ("POST", G, {"json": {**P, "model": "dall-e-3"}}),
    "a model that is a number": ("POST", G, {"json": {**P, "model": 3}}),
    "a generation without a prompt": ("POST", G, {"json": {}}),
    "a prompt that is a list": ("POST", G, {"json": {"prompt": ["red"]}}),
    "a parameter of OpenAI's with a slip": ("POST", G, {"json": {**P, "respnse_format": "url"}}),
    "an unknown response_format": ("POST", G, {"json": {**P, "response_format": "b64"}}),
    "a size that is none": ("POST", G, {"json": {**P, "size": "large"}}),
    "a size of nothing": ("POST", G, {"json": {**P, "size": "0x8"}}),
    "a size too large": ("POST", G, {"json": {**P, "size": "99999x8"}}),
    "no images": ("POST", G, {"json": {**P, "n": 0}}),
    "too many images": ("POST", G, {"json": {**P, "n": 5}}),
    "stream that is text": ("POST", G, {"json": {**P, "stream": "true"}}),
    "several images as a stream": ("POST", G, {"json": {**P, "stream": True, "n": 2}}),
    "partial images without a stream": ("POST", G, {"json": {**P, "partial_images": 1}}),
    "too many partial images": ("POST", G, {"json": {**P, "stream": True, "partial_images": 4}}),
    "an edit without an image": ("POST", E, {"data": {"prompt": "red"}, "files": {"mask": png()}}),
    "an edit of a mask without alpha": (
        "POST",
        E,
        {"data": {"prompt": "red"}, "files": {"image": png(), "mask": png()}},
    ),
    "a mask of another size": (
        "POST",
        E,
        {"data": {"prompt": "red"}, "files": {"image": png(), "mask": png(4, 4, "RGBA")}},
    ),
    "an unknown file": ("POST", E, {"data": {"prompt": "red"}, "files": {"picture": png()}}),
    "a job that the pipeline refuses": ("POST", G, {"json": {**P, "trouble": "input"}}),
    "another host": ("GET", J, {"headers": {"Host": "evil.example:80"}}),
    "a page of another site": ("POST", J, {"json": {"inputs": P}, "headers": {"Origin": "http://evil.example"}}),
    "a page without an origin": ("POST", J, {"json": {"inputs": P}, "headers": {"Origin": "null"}}),
}

ANSWERS: dict[str, tuple[int, str, str | None, str, str]] = {
    "no body": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "the body is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    "no content type": (
        415,
        "invalid_request_error",
        "Content-Type",
        "unsupported_media_type",
        "the Content-Type is missing; it must be application/json or multipart/form-data",
    ),
    "text": (
        415,
        "invalid_request_error",
        "Content-Type",
        "unsupported_media_type",
        "the Content-Type is text/plain; it must be application/json or multipart/form-data",
    ),
    "compressed": (
        415,
        "invalid_request_error",
        "Content-Encoding",
        "unsupported_media_type",
        "the body must not be compressed",
    ),
    "half an object": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "the body is not JSON: Expecting value: line 1 column 12 (char 11)",
    ),
    "not UTF-8": (400, "invalid_request_error", None, "invalid_json", "the body is not UTF-8 (byte 12)"),
    "an array": (400, "invalid_request_error", None, "invalid_json", "the body is a JSON array; it must be an object"),
    "a number": (400, "invalid_request_error", None, "invalid_json", "the body is a JSON number; it must be an object"),
    "null": (400, "invalid_request_error", None, "invalid_json", "the body is a JSON null; it must be an object"),
    "NaN": (400, "invalid_request_error", None, "invalid_json", "the body is not JSON: NaN is not a JSON number"),
    "infinity": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "the body is not JSON: -Infinity is not a JSON number",
    ),
    "deep": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "the JSON of the body is nested more than 32 levels deep",
    ),
    "rather deep": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "the JSON of the body is nested more than 32 levels deep",
    ),
    "half a character": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "a text of the body holds half of a surrogate pair, which is no character",
    ),
    "a number with too many digits": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "the body is not JSON: a number has too many digits",
    ),
    "a number beyond all": (
        400,
        "invalid_request_error",
        None,
        "invalid_json",
        "a number of the body is too large",
    ),
    "too large": (413, "invalid_request_error", None, "body_too_large", "the body is larger than 20000 bytes"),
    "no inputs": (
        400,
        "invalid_request_error",
        "inputs",
        "missing_field",
        "missing the field `inputs`: the inputs of the pipeline by name",
    ),
    "inputs of another type": (
        400,
        "invalid_request_error",
        "inputs",
        "invalid_type",
        "`inputs` is a list; it must be an object with the inputs of the pipeline by name",
    ),
    "inputs are null": (
        400,
        "invalid_request_error",
        "inputs",
        "invalid_type",
        "`inputs` is null; it must be an object with the inputs of the pipeline by name",
    ),
    "a field with a slip": (
        400,
        "invalid_request_error",
        "input",
        "unknown_parameter",
        "unknown field `input`, did you mean `inputs`?; there are `inputs`, `seed`, `output`, `previews`, `priority`",
    ),
    "a field with a long name": (
        400,
        "invalid_request_error",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..",
        "unknown_parameter",
        "unknown field `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..`; there are `inputs`, `seed`, `output`, "
        "`previews`, `priority`",
    ),
    "an input with a slip": (
        400,
        "invalid_request_error",
        "inputs.promt",
        "unknown_input",
        f"unknown input `promt`, did you mean `prompt`?; there are {KNOWN}",
    ),
    "an input that is close": (
        400,
        "invalid_request_error",
        "inputs.steps",
        "unknown_input",
        f"unknown input `steps`, did you mean `num_inference_steps`?; there are {KNOWN}",
    ),
    "an input like none": (
        400,
        "invalid_request_error",
        "inputs.zzzz",
        "unknown_input",
        f"unknown input `zzzz`; there are {KNOWN}",
    ),
    "a generator": (
        400,
        "invalid_request_error",
        "inputs.generator",
        "unknown_input",
        "`generator` cannot be sent: give `seed`, from which the server makes one",
    ),
    "an option of a call": (
        400,
        "invalid_request_error",
        "inputs.checkpoint",
        "unknown_input",
        "`checkpoint` is an option of a call in Python, not an input of the pipeline",
    ),
    "an input that cannot be sent": (
        400,
        "invalid_request_error",
        "inputs.callback",
        "unknown_input",
        "`callback` cannot be sent: it is `builtin_function_or_method`, which neither JSON nor a file can carry",
    ),
    "no prompt": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "missing_input",
        "missing the required input `prompt`, which block `begin` needs: it must be a text",
    ),
    "a prompt that is null": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "invalid_type",
        "`prompt` is null; it must be a text",
    ),
    "a prompt that is a number": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "invalid_type",
        "`prompt` is a number; it must be a text",
    ),
    "a prompt that is a list of numbers": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "invalid_type",
        "`prompt` is a list; it must be a text",
    ),
    "no prompts": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "invalid_type",
        "`prompt` is a list; it must be a text",
    ),
    "too many prompts": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "too_large",
        "`prompt` has 5 items; at most 4 are taken",
    ),
    "a long prompt": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "too_large",
        "`prompt` has 101 characters; at most 100 are taken",
    ),
    "too many images together": (
        422,
        "invalid_request_error",
        "inputs.prompt",
        "too_large",
        "`prompt` and `num_images_per_prompt` ask for 6 images; at most 4 are made by a job",
    ),
    "steps that are text": (
        400,
        "invalid_request_error",
        "inputs.num_inference_steps",
        "invalid_type",
        "`num_inference_steps` is a text; it must be a whole number",
    ),
    "steps that are true": (
        400,
        "invalid_request_error",
        "inputs.num_inference_steps",
        "invalid_type",
        "`num_inference_steps` is true; it must be a whole number",
    ),
    "steps with a fraction": (
        400,
        "invalid_request_error",
        "inputs.num_inference_steps",
        "invalid_type",
        "`num_inference_steps` is a number; it must be a whole number",
    ),
    "no steps": (
        400,
        "invalid_request_error",
        "inputs.num_inference_steps",
        "out_of_range",
        "`num_inference_steps` is 0; it must lie between 1 and 50",
    ),
    "too many steps": (
        400,
        "invalid_request_error",
        "inputs.num_inference_steps",
        "out_of_range",
        "`num_inference_steps` is 51; it must lie between 1 and 50",
    ),
    "a huge number of steps": (
        400,
        "invalid_request_error",
        "inputs.num_inference_steps",
        "out_of_range",
        "`num_inference_steps` is 1000000000000000000000000000000000000...; it must lie between 1 and 50",
    ),
    "a width of nothing": (
        400,
        "invalid_request_error",
        "inputs.width",
        "out_of_range",
        "`width` is 0; it must lie between 1 and 64",
    ),
    "too wide": (
        400,
        "invalid_request_error",
        "inputs.width",
        "out_of_range",
        "`width` is 65; it must lie between 1 and 64",
    ),
    "an image that is a number": (
        400,
        "invalid_request_error",
        "inputs.image",
        "invalid_type",
        "`image` is a number; it must be an image, as Base64, or a list of them",
    ),
    "an image that is no Base64": (
        422,
        "invalid_request_error",
        "inputs.image",
        "invalid_image",
        "`image` is not an image: it must be Base64, or a URL that begins with `data:image/png;base64,`; or "
        "send the file as a part of a form",
    ),
    "an image that is a link": (
        422,
        "invalid_request_error",
        "inputs.image",
        "invalid_image",
        "`image` is not an image: it must be Base64, or a URL that begins with `data:image/png;base64,`; or "
        "send the file as a part of a form",
    ),
    "an image that is text": (
        422,
        "invalid_request_error",
        "inputs.image",
        "invalid_image",
        "`image` is not an image that can be read; PNG, JPEG, WEBP are",
    ),
    "an empty list of images": (
        400,
        "invalid_request_error",
        "inputs.image",
        "invalid_type",
        "`image` is a list; it must be an image, as Base64, or a list of them",
    ),
    "a list where one image is taken": (
        400,
        "invalid_request_error",
        "inputs.mask_image",
        "invalid_type",
        "`mask_image` is a list; it must be an image, as Base64",
    ),
    "a long list of images": (
        400,
        "invalid_request_error",
        "inputs.image",
        "too_large",
        "`image` has 5 images; at most 4 are taken",
    ),
    "half an image": (
        422,
        "invalid_request_error",
        "inputs.image",
        "invalid_image",
        "`image` is not an image that can be read; PNG, JPEG, WEBP are",
    ),
    "too many pixels": (
        422,
        "invalid_request_error",
        "inputs.image",
        "image_too_large",
        "`image` has 65x64 pixels; at most 4096 are taken",
    ),
    "a tensor that is text": (
        400,
        "invalid_request_error",
        "inputs.tint",
        "invalid_type",
        "`tint` is a text; it must be a tensor",
    ),
    "an uneven tensor": (
        422,
        "invalid_request_error",
        "inputs.tint",
        "invalid_tensor",
        "`tint` is not a tensor: it must be lists of numbers, nested evenly",
    ),
    "a tensor of texts": (
        422,
        "invalid_request_error",
        "inputs.tint",
        "invalid_tensor",
        "`tint` is not a tensor: it must be lists of numbers, nested evenly",
    ),
    "a seed that is text": (
        400,
        "invalid_request_error",
        "seed",
        "invalid_type",
        "`seed` is '7'; it must be a whole number",
    ),
    "a seed that is true": (
        400,
        "invalid_request_error",
        "seed",
        "invalid_type",
        "`seed` is True; it must be a whole number",
    ),
    "a negative seed": (
        400,
        "invalid_request_error",
        "seed",
        "out_of_range",
        "`seed` is -1; it must lie between 0 and 9223372036854775807",
    ),
    "a seed too large": (
        400,
        "invalid_request_error",
        "seed",
        "out_of_range",
        "`seed` is 9223372036854775808; it must lie between 0 and 9223372036854775807",
    ),
    "an output with a slip": (
        400,
        "invalid_request_error",
        "output",
        "unknown_output",
        "no block makes a value `image_s`, did you mean `images`?; there are `callback`, `generator`, "
        "`height`, `image`, `images`, `mask_image`, `num_images_per_prompt`, `num_inference_steps`, "
        "`prompt`, `tint`, `trouble`, `value`, `width`",
    ),
    "an output that is a number": (
        400,
        "invalid_request_error",
        "output",
        "invalid_type",
        "`output` is 3; it must be the name of a value, or a list of names",
    ),
    "no outputs": (
        400,
        "invalid_request_error",
        "output",
        "invalid_type",
        "`output` is []; it must be the name of a value, or a list of names",
    ),
    "too many previews": (
        400,
        "invalid_request_error",
        "previews",
        "out_of_range",
        "`previews` is 21; it must lie between 0 and 20",
    ),
    "too high a priority": (
        400,
        "invalid_request_error",
        "priority",
        "out_of_range",
        "`priority` is 11; it must lie between -10 and 10",
    ),
    "an empty Idempotency-Key": (
        400,
        "invalid_request_error",
        "Idempotency-Key",
        "invalid_value",
        "an Idempotency-Key must be 1 to 255 printable characters of ASCII",
    ),
    "a long Idempotency-Key": (
        400,
        "invalid_request_error",
        "Idempotency-Key",
        "invalid_value",
        "an Idempotency-Key must be 1 to 255 printable characters of ASCII",
    ),
    "a form with another field": (
        400,
        "invalid_request_error",
        "jobs",
        "unknown_parameter",
        "unknown field of the form `jobs`, did you mean `job`?; there are `job`",
    ),
    "a form with JSON that is none": (
        422,
        "invalid_request_error",
        "job",
        "invalid_json",
        "the body is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "a file that no input takes": (
        400,
        "invalid_request_error",
        "inputs.../../x",
        "unknown_input",
        f"unknown input `../../x`; there are {KNOWN}",
    ),
    "a file for an input of JSON": (
        400,
        "invalid_request_error",
        "inputs.prompt",
        "invalid_type",
        "`prompt` is a file; it must be a text, in the JSON",
    ),
    "an image twice": (
        400,
        "invalid_request_error",
        "inputs.image",
        "given_twice",
        "`image` is given twice: in the JSON, and as a file",
    ),
    "two files for one image": (
        400,
        "invalid_request_error",
        "inputs.mask_image",
        "given_twice",
        "`mask_image` is given 2 times; it must be one",
    ),
    "a tensor that is an image": (
        422,
        "invalid_request_error",
        "inputs.tint",
        "invalid_tensor",
        "`tint` is not a tensor: it must be a safetensors file, or lists of numbers in JSON",
    ),
    "a broken form": (
        400,
        "invalid_request_error",
        None,
        "invalid_form",
        "the form cannot be read: Invalid multipart data.",
    ),
    "a form without a boundary": (
        400,
        "invalid_request_error",
        None,
        "invalid_form",
        "the form cannot be read: Missing boundary in multipart.",
    ),
    "a job that is not there": (
        404,
        "invalid_request_error",
        None,
        "not_found",
        "there is no job job_00000000000000000000000000000000",
    ),
    "a job with another name": (
        404,
        "invalid_request_error",
        None,
        "not_found",
        "there is nothing here; /openapi.json says what there is",
    ),
    "events of no job": (404, "invalid_request_error", None, "not_found", "there is no job x"),
    "result of no job": (404, "invalid_request_error", None, "not_found", "there is no job x"),
    "file of no job": (404, "invalid_request_error", None, "not_found", "there is no job x"),
    "cancel no job": (404, "invalid_request_error", None, "not_found", "there is no job x"),
    "pause no job": (404, "invalid_request_error", None, "not_found", "there is no job x"),
    "an unknown state": (
        400,
        "invalid_request_error",
        "status",
        "invalid_value",
        "`status` is 'done'; it must be one of queued, running, paused, succeeded, failed, cancelled",
    ),
    "a limit that is text": (
        400,
        "invalid_request_error",
        "limit",
        "invalid_type",
        "`limit` is 'x'; it must be a whole number",
    ),
    "a limit of nothing": (
        400,
        "invalid_request_error",
        "limit",
        "out_of_range",
        "`limit` is 0; it must lie between 1 and 100",
    ),
    "after no job": (404, "invalid_request_error", None, "not_found", "there is no job x"),
    "a parameter with a slip": (
        400,
        "invalid_request_error",
        "stauts",
        "unknown_parameter",
        "unknown parameter `stauts`, did you mean `status`?; there are `status`, `after`, `limit`",
    ),
    "a parameter twice": (400, "invalid_request_error", "limit", "given_twice", "`limit` is given twice"),
    "a path that is not there": (
        404,
        "invalid_request_error",
        None,
        "not_found",
        "there is nothing here; /openapi.json says what there is",
    ),
    "another method": (405, "invalid_request_error", None, "method_not_allowed", "this takes GET, POST"),
    "no such model": (
        404,
        "invalid_request_error",
        "model",
        "model_not_found",
        "there is no model `dall-e-3`; this server has `painting`",
    ),
    "a model that is a number": (
        400,
        "invalid_request_error",
        "model",
        "invalid_type",
        "`model` is 3; it must be a text",
    ),
    "a generation without a prompt": (
        400,
        "invalid_request_error",
        "prompt",
        "missing_field",
        "missing the field `prompt`",
    ),
    "a prompt that is a list": (
        400,
        "invalid_request_error",
        "prompt",
        "invalid_type",
        "`prompt` is ['red']; it must be a text",
    ),
    "a parameter of OpenAI's with a slip": (
        400,
        "invalid_request_error",
        "respnse_format",
        "unknown_parameter",
        "unknown parameter `respnse_format`, did you mean `response_format`?",
    ),
    "an unknown response_format": (
        400,
        "invalid_request_error",
        "response_format",
        "invalid_value",
        "`response_format` is 'b64', did you mean `b64_json`?; it must be one of b64_json, url",
    ),
    "a size that is none": (
        400,
        "invalid_request_error",
        "size",
        "invalid_value",
        "`size` is 'large'; it must be like `64x64`, width first, or `auto`",
    ),
    "a size of nothing": (
        400,
        "invalid_request_error",
        "size",
        "invalid_value",
        "`size` is '0x8'; it must be like `64x64`, width first, or `auto`",
    ),
    "a size too large": (
        400,
        "invalid_request_error",
        "size",
        "out_of_range",
        "`width` is 99999; it must lie between 1 and 64",
    ),
    "no images": (400, "invalid_request_error", "n", "out_of_range", "`n` is 0; it must lie between 1 and 4"),
    "too many images": (400, "invalid_request_error", "n", "out_of_range", "`n` is 5; it must lie between 1 and 4"),
    "stream that is text": (
        400,
        "invalid_request_error",
        "stream",
        "invalid_value",
        "`stream` is 'true'; it must be true or false",
    ),
    "several images as a stream": (
        422,
        "invalid_request_error",
        "n",
        "invalid_value",
        "`stream` is for a single image: leave `n` out",
    ),
    "partial images without a stream": (
        422,
        "invalid_request_error",
        "partial_images",
        "invalid_value",
        "`partial_images` needs `stream`",
    ),
    "too many partial images": (
        400,
        "invalid_request_error",
        "partial_images",
        "out_of_range",
        "`partial_images` is 4; it must lie between 0 and 3",
    ),
    "an edit without an image": (
        400,
        "invalid_request_error",
        "image",
        "missing_field",
        "missing the file `image`: what to edit",
    ),
    "an edit of a mask without alpha": (
        422,
        "invalid_request_error",
        "mask",
        "invalid_image",
        "`mask` has no alpha channel: the pixels that may change are those that are fully transparent",
    ),
    "a mask of another size": (
        422,
        "invalid_request_error",
        "mask",
        "invalid_image",
        "`mask` is 4x4 pixels, and `image` is 8x8; they must be alike",
    ),
    "an unknown file": (400, "invalid_request_error", "picture", "unknown_parameter", "unknown file `picture`"),
    "a job that the pipeline refuses": (
        422,
        "invalid_request_error",
        None,
        "invalid_input",
        "`trouble` is not wanted here, in block `begin`",
    ),
    "another host": (
        403,
        "permission_error",
        "Host",
        "unknown_host",
        "this server is not known under the name in `Host`; name it with --allow-host",
    ),
    "a page of another site": (
        403,
        "permission_error",
        "Origin",
        "unknown_origin",
        "pages of other sites may not use this server; name their origin with --allow-origin",
    ),
    "a page without an origin": (
        403,
        "permission_error",
        "Origin",
        "unknown_origin",
        "pages of other sites may not use this server; name their origin with --allow-origin",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    limits = Limits(body_bytes=20_000, image_pixels=4096, text_characters=100, steps=50, images=4)
    server = LiveServer(painting(), tmp_path_factory.mktemp("bad"), limits=limits)
    yield server
    server.stop()


def test_each_request_has_an_answer() -> None:
    assert list(ANSWERS) == list(REQUESTS)
    assert len(REQUESTS) >= 60


@pytest.mark.parametrize("name", REQUESTS)
def test_a_bad_request_is_answered_in_words_that_help(server: LiveServer, name: str) -> None:
    method, url, request = REQUESTS[name]
    status, kind, param, code, message = ANSWERS[name]
    answer = server.http.request(method, url, **request)
    assert answer.json() == {"error": {"message": message, "type": kind, "param": param, "code": code}}
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_nothing_that_was_refused_left_a_trace(server: LiveServer) -> None:
    jobs = server.http.get(J).json()["data"]
    assert [job["inputs"] for job in jobs] == [{**P, "trouble": "input"}]
    assert len(list((server.data_dir / "jobs").iterdir())) == 1


def test_what_the_other_routes_say_when_a_method_is_not_theirs(server: LiveServer) -> None:
    answer = server.http.put(J)
    assert answer.headers["allow"] == "GET, POST"
