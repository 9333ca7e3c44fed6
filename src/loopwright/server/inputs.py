"""The inputs of a pipeline as a request gives them, checked against what its blocks declare."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loopwright.blocks import walk
from loopwright.check import CALL_OPTIONS
from loopwright.errors import RequestRefusedError, brief, did_you_mean
from loopwright.run.request import required_inputs
from loopwright.server.jobs import Upload
from loopwright.server.kinds import ANY, Kind, kind_of_hint, kind_of_input
from loopwright.server.limits import Limits
from loopwright.server.uploads import decoded, listed_tensor, read_image, read_tensor

__all__ = ["SEEDS", "Given", "PipelineInputs"]

# seeds that are not given are drawn below this, so that programs of all languages can hold them
SEEDS = 2**32
_GENERATOR = "generator"
_STEPS, _PER_PROMPT, _PROMPT = "num_inference_steps", "num_images_per_prompt", "prompt"
_SIDES = ("width", "height")
# results that people look at, of which a pipeline that has one makes nothing else
_PICTURES = ("images", "videos", "frames", "image", "video")


@dataclass
class Given:
    """The inputs of one request, checked.

    Attributes:
        inputs: those that stay JSON.
        uploads: the others.
        contents: the bytes of each upload by the name of its file.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    uploads: list[Upload] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, kind: str, data: bytes, listed: bool) -> None:
        suffix = "png" if kind == "image" else "safetensors"
        upload = Upload(name, f"input-{len(self.uploads)}.{suffix}", kind, listed)
        self.uploads.append(upload)
        self.contents[upload.file] = data


class PipelineInputs:
    """What the blocks of a pipeline declare as inputs, and how requests give them.

    Args:
        blocks: the blocks.
        limits: what a request may ask for.
        side_multiple: widths and heights must be multiples of it, in pixels.

    Attributes:
        kinds: how each input travels, by its name.
        required: the inputs that a request must give.
        has_seed: whether the pipeline draws random numbers from a generator that a request can seed.
        output: the names of the values that are the result of a job that names none.
        outputs: the names of the values that may be asked for.
    """

    def __init__(self, blocks: Any, limits: Limits, side_multiple: int = 1) -> None:
        self._limits, self._side_multiple = limits, side_multiple
        declared = {param.name: param for param in blocks.inputs if param.name is not None}
        # the values of a group are not declared one by one
        self._groups = {param.kwargs_type for param in blocks.inputs if param.name is None and param.kwargs_type}
        self.has_seed = _GENERATOR in declared
        self._declared = {name: param for name, param in declared.items() if name != _GENERATOR}
        self.kinds: dict[str, Kind] = {
            name: kind_of_input(name, param.type_hint) for name, param in self._declared.items()
        }
        self.kinds.update((group, kind_of_hint(dict)) for group in self._groups)
        self._needs = required_inputs(blocks)
        self.required = [name for name in self._declared if name in self._needs]
        self.takes_images_per_prompt = _PER_PROMPT in declared
        outputs = [param.name for param in blocks.outputs]
        self.output = tuple(name for name in _PICTURES if name in outputs)[:1] or tuple(outputs)
        made = {name for _, block in walk(blocks) for name in (*block.intermediate_output_names, *block.output_names)}
        self.outputs = sorted({*made, *outputs, *declared})

    @property
    def names(self) -> list[str]:
        """The inputs that a request can give."""
        return [name for name, kind in self.kinds.items() if kind.carrier is not None]

    def takes_image(self, name: str) -> bool:
        """Whether there is an input of that name, and it is an image."""
        return name in self.kinds and self.kinds[name].carrier == "image"

    def read(self, inputs: Any, files: Mapping[str, Sequence[bytes]] | None = None, where: str = "inputs.") -> Given:
        """The inputs of a request, checked.

        Args:
            inputs: those in its JSON.
            files: those that came as parts of a form, by their names.
            where: what stands before the name of an input where an answer names it.

        Raises:
            RequestRefusedError: one is unknown, missing, of another type, or more than is allowed.
        """
        files = files or {}
        if not isinstance(inputs, dict):
            raise RequestRefusedError(
                f"`inputs` is {_json_kind(inputs)}; it must be an object with the inputs of the pipeline by name",
                code="invalid_type",
                param="inputs",
            )
        given = Given()
        for name, value in inputs.items():
            self._require_known(name, where)
            if name in files:
                raise RequestRefusedError(
                    f"`{name}` is given twice: in the JSON, and as a file", param=where + name, code="given_twice"
                )
            self._take(given, name, value, where)
        for name, parts in files.items():
            self._require_known(name, where)
            self._take_files(given, name, parts, where)
        here = {*given.inputs, *(upload.input for upload in given.uploads)}
        for name in self.required:
            if name not in here or (name in given.inputs and given.inputs[name] is None):
                raise RequestRefusedError(
                    f"missing the required input `{name}`, which block `{self._needs[name]}` needs: it must be "
                    f"{self.kinds[name].says}",
                    code="missing_input",
                    param=where + name,
                )
        self._check_amounts(given.inputs, where)
        return given

    def images_of(self, inputs: Mapping[str, Any]) -> int:
        """How many images a job with these inputs makes, as far as they tell: one for each prompt and repetition."""
        prompts = inputs.get(_PROMPT)
        repeated = inputs.get(_PER_PROMPT) or 1
        return (len(prompts) if isinstance(prompts, list) else 1) * (repeated if isinstance(repeated, int) else 1)

    def read_output(self, output: Any) -> tuple[str, ...]:
        """The names of the values that a request wants as its result.

        Raises:
            RequestRefusedError: they are no names, or no block makes a value of one.
        """
        if output is None:
            return self.output
        names = [output] if isinstance(output, str) else output
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RequestRefusedError(
                f"`output` is {brief(output)}; it must be the name of a value, or a list of names",
                code="invalid_type",
                param="output",
            )
        for name in names:
            if name not in self.outputs:
                raise RequestRefusedError(
                    f"no block makes a value `{brief(name)[1:-1]}`{did_you_mean(name, self.outputs)}; "
                    f"there are {_listed(self.outputs)}",
                    code="unknown_output",
                    param="output",
                )
        return tuple(dict.fromkeys(names))

    def json_schema(self) -> dict[str, Any]:
        """The inputs as a JSON Schema, for the description of the API."""
        properties = {}
        for name in self.names:
            schema = self._schema(name)
            param = self._declared.get(name)
            if param is not None and param.description:
                schema["description"] = param.description
            if param is not None and isinstance(param.default, (str, int, float, bool)):
                schema["default"] = param.default
            properties[name] = schema
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**schema, "required": self.required} if self.required else schema

    def _schema(self, name: str) -> dict[str, Any]:
        kind, limits = self.kinds[name], self._limits
        schema = _bounded(kind.schema, limits)
        if kind.carrier == "image":
            text = {"type": "string", "contentEncoding": "base64", "maxLength": limits.body_bytes}
            several = {"type": "array", "items": text, "minItems": 1, "maxItems": limits.images}
            schema = {"anyOf": [text, several]} if kind.many else text
        elif kind.carrier == "json" and kind is not ANY:
            most = self._most(name)
            if most is not None and schema.get("type") == "integer":
                schema.update(minimum=1, maximum=most)
                if name in _SIDES and self._side_multiple > 1:
                    schema["multipleOf"] = self._side_multiple
            if _PROMPT in name and schema.get("type") == "string":
                several = {"type": "array", "items": schema, "minItems": 1, "maxItems": limits.images}
                schema = {"anyOf": [schema, several]}
        if kind is not ANY and name not in self.required:
            schema = {"anyOf": [schema, {"type": "null"}]}
        return schema

    def _require_known(self, name: str, where: str) -> None:
        kind = self.kinds.get(name)
        if kind is not None and kind.carrier is not None:
            return
        shown = brief(name)[1:-1]
        if name == _GENERATOR:
            message = "`generator` cannot be sent: give `seed`, from which the server makes one"
        elif name in CALL_OPTIONS and kind is None:
            message = f"`{name}` is an option of a call in Python, not an input of the pipeline"
        elif kind is not None:
            message = f"`{name}` cannot be sent: it is {kind.says}, which neither JSON nor a file can carry"
        else:
            message = f"unknown input `{shown}`{did_you_mean(name, self.names)}; there are {_listed(self.names)}"
        raise RequestRefusedError(message, code="unknown_input", param=where + shown)

    def _take(self, given: Given, name: str, value: Any, where: str) -> None:
        kind = self.kinds[name]
        if value is None and name not in self.required:
            given.inputs[name] = None
            return
        if kind.carrier == "image":
            self._take_images(given, name, value, where)
            return
        if kind.schema.get("type") == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        wrong = kind.test(value)
        if wrong is not None and not _is_several_texts(name, kind, value):
            raise RequestRefusedError(
                f"`{name}` is {_json_kind(value)}; it must be {wrong}", code="invalid_type", param=where + name
            )
        if kind.carrier == "tensor":
            given.add(name, "tensor", _named(lambda: listed_tensor(value, name), where + name), False)
            return
        given.inputs[name] = value

    def _take_images(self, given: Given, name: str, value: Any, where: str) -> None:
        listed = isinstance(value, list)
        texts = value if listed else [value]
        kind = self.kinds[name]
        if (listed and not (kind.many and value)) or not all(isinstance(text, str) for text in texts):
            says = "an image, as Base64" + (", or a list of them" if kind.many else "")
            raise RequestRefusedError(
                f"`{name}` is {_json_kind(value)}; it must be {says}", code="invalid_type", param=where + name
            )
        self._check_images(name, len(texts), where)
        for text in texts:
            data = _named(lambda text=text: read_image(decoded(text, name), name, self._limits), where + name)
            given.add(name, "image", data, listed)

    def _take_files(self, given: Given, name: str, parts: Sequence[bytes], where: str) -> None:
        kind = self.kinds[name]
        if kind.carrier not in ("image", "tensor"):
            must = "in the JSON, as its block does not declare it as an image or a tensor"
            if kind is not ANY:
                must = f"{kind.says}, in the JSON"
            raise RequestRefusedError(f"`{name}` is a file; it must be {must}", code="invalid_type", param=where + name)
        if len(parts) > 1 and not kind.many:
            raise RequestRefusedError(
                f"`{name}` is given {len(parts)} times; it must be one", code="given_twice", param=where + name
            )
        self._check_images(name, len(parts), where)
        for data in parts:
            if kind.carrier == "image":
                read = _named(lambda data=data: read_image(data, name, self._limits), where + name)
            else:
                read = _named(lambda data=data: read_tensor(data, name), where + name)
            given.add(name, kind.carrier, read, len(parts) > 1)

    def _check_images(self, name: str, count: int, where: str) -> None:
        """Files that are small may hold pictures that are large, and all of them are in memory while the job runs."""
        if count > self._limits.images:
            raise RequestRefusedError(
                f"`{name}` has {count} images; at most {self._limits.images} are taken",
                code="too_large",
                param=where + name,
            )

    def _most(self, name: str) -> int | None:
        """The largest value of an input that counts something, or is a length in pixels."""
        if name == _PER_PROMPT:
            return self._limits.images
        if name in _SIDES:
            return math.isqrt(self._limits.image_pixels)
        return self._limits.steps if name.startswith("num_") else None

    def _check_amounts(self, inputs: Mapping[str, Any], where: str) -> None:
        limits = self._limits

        def too_much(name: str, message: str) -> RequestRefusedError:
            return RequestRefusedError(f"`{name}` {message}", code="too_large", param=where + name)

        for name, value in inputs.items():
            most = self._most(name)
            if most is not None and isinstance(value, int) and not 1 <= value <= most:
                raise RequestRefusedError(
                    f"`{name}` is {brief(value)}; it must lie between 1 and {most}",
                    code="out_of_range",
                    param=where + name,
                )
            if name in _SIDES and isinstance(value, int) and value % self._side_multiple:
                raise RequestRefusedError(
                    f"`{name}` is {value}; it must be a multiple of {self._side_multiple} pixels, as the model has no "
                    f"other sizes",
                    status=422,
                    code="out_of_range",
                    param=where + name,
                )
            for text in _texts(value):
                if len(text) > limits.text_characters:
                    raise too_much(name, f"has {len(text)} characters; at most {limits.text_characters} are taken")
            items = limits.images if _PROMPT in name else limits.steps
            if self.kinds[name].carrier == "json" and isinstance(value, list) and len(value) > items:
                raise too_much(name, f"has {len(value)} items; at most {items} are taken")
        size = len(json.dumps(inputs))
        if size > limits.json_bytes:
            raise RequestRefusedError(
                f"the inputs beside images and tensors have {size} bytes; at most {limits.json_bytes} are taken",
                status=422,
                code="too_large",
                param=where.rstrip(".") or None,
            )
        count = self.images_of(inputs)
        if count > limits.images:
            raise RequestRefusedError(
                f"`{_PROMPT}` and `{_PER_PROMPT}` ask for {count} images; at most {limits.images} are made by a job",
                status=422,
                code="too_large",
                param=where + _PROMPT,
            )


def _is_several_texts(name: str, kind: Kind, value: Any) -> bool:
    """Several prompts: pipelines take them, and their declarations speak of one."""
    fits = isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
    return fits and _PROMPT in name and kind.schema.get("type") == "string"


def _named(read: Any, param: str) -> Any:
    """What a function returns; what it refuses, under the name that the request has for it."""
    try:
        return read()
    except RequestRefusedError as error:
        error.param = param
        raise


def _bounded(schema: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """A schema with the limits of texts and lists."""
    bounded = dict(schema)
    if bounded.get("type") == "string":
        bounded["maxLength"] = limits.text_characters
    if bounded.get("type") == "array":
        bounded["maxItems"] = limits.steps
        bounded["items"] = _bounded(bounded.get("items", {}), limits)
    if "anyOf" in bounded:
        bounded["anyOf"] = [_bounded(each, limits) for each in bounded["anyOf"]]
    return bounded


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *_texts(item))]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


def _json_kind(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return "a number beyond what a computer calculates with"
    return "null" if value is None else "a text" if isinstance(value, str) else "a number"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
