"""The description of the API, by OpenAPI 3.1: made for the pipeline that is served."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from loopwright.server.context import Context
from loopwright.server.jobs import STATUSES
from loopwright.server.native_api import MOST_LISTED, MOST_PRIORITY, MOST_SEED
from loopwright.server.openai_api import CHOICES, HIDDEN, KINDS, MOST_PARTIAL, SIZE

__all__ = ["description"]

Schema = dict[str, Any]
_JOB_ID = "^job_[0-9a-f]{32}$"


def description(context: Context) -> Schema:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Loopwright",
            "version": version("loopwright"),
            "description": f"Jobs of the model `{context.model}`, and OpenAI's images API.",
        },
        "paths": {**_job_paths(context), **_openai_paths(context), **_operator_paths()},
        "components": {
            "schemas": {**_schemas(), "Inputs": context.inputs.json_schema(), "NewJob": _new_job(context)},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        **({"security": [{"key": []}]} if context.keys.are_needed else {}),
    }


# What paths are made of.


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema, **more: Any) -> Schema:
    return {"application/json": {"schema": schema, **more}}


def _answer(text: str, content: Schema | None = None, headers: Schema | None = None) -> Schema:
    answer: Schema = {"description": text}
    if content is not None:
        answer["content"] = content
    if headers is not None:
        answer["headers"] = headers
    return answer


_ERRORS = {
    400: "The request is not of the form that is described here.",
    401: "No API key, or an unknown one.",
    403: "The key, the host or the origin may not do this.",
    404: "There is nothing of that name.",
    406: "There is no picture.",
    409: "The job is not in a state in which this can be done, or an Idempotency-Key was used for another request.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "The request is of the right form, and cannot be done: it holds no image, or the model has no such size.",
    429: "There are too many jobs or streams.",
    500: "The server or the pipeline failed.",
    503: "The server is about to end, or its data folder cannot be used.",
    507: "The disk is full.",
}
_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}


def _errors(*statuses: int) -> Schema:
    always = (401, 403, 500, 503)
    return {
        str(status): _answer(_ERRORS[status], _json(_ref("Error")), _RETRY if status in (429, 503, 507) else None)
        for status in sorted({*always, *statuses})
    }


def _parameter(name: str, where: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": text}


_ID = _parameter("job_id", "path", {"type": "string", "pattern": _JOB_ID}, "The job.")
_KEY = _parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "The same request under the same key is one job.",
)


def _operation(name: str, text: str, responses: Schema, **more: Any) -> Schema:
    return {"operationId": name, "summary": text, "responses": responses, **more}


# Jobs.


def _job_paths(context: Context) -> Schema:
    job = _json(_ref("Job"))
    links = {
        name: {"operationId": operation, "parameters": {"job_id": "$response.body#/id"}}
        for name, operation in {
            "job": "getJob",
            "pause": "pauseJob",
            "goOn": "goOn",
            "stopLoop": "stopLoop",
            "cancel": "cancelJob",
            "result": "getResult",
        }.items()
    }
    location = {"Location": {"schema": {"type": "string"}, "description": "The job."}}
    form = {
        "type": "object",
        "properties": {
            "job": {"type": "string", "contentMediaType": "application/json", "contentSchema": _ref("NewJob")},
            **{
                name: {"type": "string", "contentMediaType": "application/octet-stream"}
                for name in context.inputs.names
                if context.inputs.kinds[name].carrier in ("image", "tensor")
            },
        },
        "required": ["job"],
        "additionalProperties": False,
    }
    submit = _operation(
        "submitJob",
        "Submit a job; it is on disk before it is answered for.",
        {
            "200": _answer("The job that was submitted under this Idempotency-Key.", job, location),
            "202": {**_answer("The job.", job, location), "links": links},
            **_errors(400, 409, 413, 415, 422, 429, 507),
        },
        parameters=[_KEY],
        requestBody={
            "required": True,
            "content": {
                **_json(_ref("NewJob"), examples=_job_examples(context)),
                "multipart/form-data": {"schema": form},
            },
        },
    )
    listing = _operation(
        "listJobs",
        "The jobs of this key, the newest first.",
        {"200": _answer("A page of jobs.", _json(_ref("JobList"))), **_errors(400, 404)},
        parameters=[
            _parameter("status", "query", {"type": "string", "enum": list(STATUSES)}, "Only those in this state."),
            _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}, "At most so many."),
            _parameter("after", "query", {"type": "string", "pattern": _JOB_ID}, "Only those older than this job."),
        ],
    )
    last_id = _parameter("Last-Event-ID", "header", {"type": "string"}, "The last event that the reader has.")
    stream = {"text/event-stream": {"schema": _event("job", "queue", "progress", "preview")}}
    name = _parameter("name", "path", {"type": "string"}, "The name of the file, as the result has it.")
    loop = {"type": "object", "properties": {"loop": _loop(context)}, "additionalProperties": False}
    return {
        "/v1/jobs": {"post": submit, "get": listing},
        "/v1/jobs/{job_id}": {
            "parameters": [_ID],
            "get": _operation("getJob", "One job.", {"200": _answer("The job.", job), **_errors(404)}),
            "delete": _operation(
                "cancelJob",
                "Cancel a job; it can still be looked at.",
                {"200": _answer("The job.", job), **_errors(404, 409, 507)},
            ),
        },
        "/v1/jobs/{job_id}/events": {
            "parameters": [_ID],
            "get": _operation(
                "getEvents",
                "What happens to a job, as server-sent events: `job`, `queue`, `progress`, `preview`. The last one has "
                "the id `end`.",
                {
                    "200": _answer("The events.", stream),
                    "204": _answer("The reader has them all."),
                    **_errors(404, 429),
                },
                parameters=[last_id],
            ),
        },
        "/v1/jobs/{job_id}/result": {
            "parameters": [_ID],
            "get": _operation(
                "getResult",
                "What came out; with `Accept: image/png` its first picture.",
                {
                    "200": _answer("The result.", {**_json(_ref("Result")), "image/png": {"schema": _BINARY}}),
                    **_errors(404, 406, 409),
                },
            ),
        },
        "/v1/jobs/{job_id}/files/{name}": {
            "parameters": [_ID, name],
            "get": _operation(
                "getFile",
                "A picture or tensor of the result, or a preview.",
                {
                    "200": _answer(
                        "The file.",
                        {kind: {"schema": _BINARY} for kind in ("image/png", "image/webp", "application/octet-stream")},
                    ),
                    **_errors(404),
                },
            ),
        },
        "/v1/jobs/{job_id}/pause": _steering("pauseJob", "Have a job stand still, and free its slot.", job),
        "/v1/jobs/{job_id}/go-on": _steering("goOn", "Let a paused job go on.", job),
        "/v1/jobs/{job_id}/stop-loop": _steering(
            "stopLoop",
            "End a loop of a running job after its current iteration; what follows it runs.",
            job,
            {"required": False, "content": _json(loop, example={})},
            413,
            415,
            422,
        ),
    }


def _event(*names: str) -> Schema:
    """One event of a stream; its data is JSON."""
    text: Schema = {"type": "string"}
    return _object({"data": text}, event={"enum": list(names)}, id=text)


_BINARY: Schema = {"type": "string", "format": "binary"}


def _loop(context: Context) -> Schema:
    text = "The path of the loop; the innermost that runs if not given."
    kinds: list[Schema] = [{"type": "string", "enum": context.loops}] if context.loops else []
    return {"description": text, "anyOf": [*kinds, {"type": "null"}]}


def _steering(name: str, text: str, job: Schema, body: Schema | None = None, *statuses: int) -> Schema:
    responses = {"200": _answer("The job.", job), **_errors(400, 404, 409, 507, *statuses)}
    more = {} if body is None else {"requestBody": body}
    return {"parameters": [_ID], "post": _operation(name, text, responses, **more)}


def _new_job(context: Context) -> Schema:
    inputs, limits = context.inputs, context.limits
    properties: Schema = {
        "inputs": _ref("Inputs"),
        "output": {
            "description": f"The values that are the result; {', '.join(inputs.output)} if not given.",
            "anyOf": [
                {"type": "string", "enum": inputs.outputs},
                {"type": "array", "items": {"type": "string", "enum": inputs.outputs}, "minItems": 1},
                {"type": "null"},
            ],
        },
        "previews": _number("How many pictures of how it forms are wanted.", 0, limits.previews),
        "priority": _number("Of the jobs of one key, those of a higher one go first.", -MOST_PRIORITY, MOST_PRIORITY),
    }
    if inputs.has_seed:
        properties["seed"] = _number("What the random numbers begin with; a random one if not given.", 0, MOST_SEED)
    return {"type": "object", "properties": properties, "required": ["inputs"], "additionalProperties": False}


def _number(text: str, least: int, most: int) -> Schema:
    return {"description": text, "anyOf": [{"type": "integer", "minimum": least, "maximum": most}, {"type": "null"}]}


def _job_examples(context: Context) -> Schema:
    if "prompt" not in context.inputs.names:
        return {"smallest": {"value": {"inputs": {}}}}
    inputs = {"prompt": "red apple", "num_inference_steps": 20}
    taken = {name: value for name, value in inputs.items() if name in context.inputs.names}
    return {
        "smallest": {"value": {"inputs": {"prompt": "red apple"}}},
        "watched": {"value": {"inputs": taken, "previews": 4}},
    }


# OpenAI's.


def _openai_paths(context: Context) -> Schema:
    pictures = {
        **_json(_ref("Images")),
        **{kind: {"schema": _BINARY} for kind in ("image/png", "image/jpeg", "image/webp")},
        "text/event-stream": {
            "schema": _event(*(f"{kind}.{what}" for kind in KINDS for what in ("partial_image", "completed")), "error")
        },
    }
    made = {"200": _answer("The pictures.", pictures)}
    refused = _errors(400, 404, 409, 413, 415, 422, 429, 507)
    model = _json(_ref("Model"))
    paths: Schema = {
        "/v1/models": {
            "get": _operation("listModels", "The model.", {"200": _answer("One.", _json(_ref("Models"))), **_errors()})
        },
        "/v1/models/{model}": {
            "parameters": [_parameter("model", "path", {"type": "string"}, "Its name.")],
            "get": _operation("getModel", "The model.", {"200": _answer("It.", model), **_errors(404)}),
        },
    }
    if "prompt" not in context.inputs.names:
        return paths
    generation = _generation(context)
    kinds = context.inputs.kinds
    paths["/v1/images/generations"] = {
        "post": _operation(
            "createImage",
            "Make pictures from a prompt, and wait for them. With `Accept: image/png` the answer is the first.",
            {**made, **refused},
            parameters=[_KEY],
            requestBody={"required": True, "content": _json(generation, example={"prompt": "red apple"})},
        )
    }
    if context.inputs.takes_image("image"):
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        form = {
            **generation,
            "properties": {
                **_of_form(generation["properties"]),
                **{name: file for name in generation["properties"] if name in kinds and kinds[name].carrier != "json"},
                "image": file,
                **({"mask": file} if context.inputs.takes_image("mask_image") else {}),
            },
            "required": ["prompt", "image"],
        }
        paths["/v1/images/edits"] = {
            "post": _operation(
                "editImage",
                "Make a picture anew where a mask is transparent; without a mask, all of it.",
                {**made, **refused},
                parameters=[_KEY],
                requestBody={"required": True, "content": {"multipart/form-data": {"schema": form}}},
            )
        }
    return paths


def _of_form(properties: Schema) -> Schema:
    """Properties as a form has them: what is not given is left out."""
    made = {}
    for name, schema in properties.items():
        if "enum" in schema:
            schema = {**schema, "enum": [value for value in schema["enum"] if value is not None]}
        if "anyOf" in schema:
            kind, *_ = schema["anyOf"]
            schema = {**{key: value for key, value in schema.items() if key != "anyOf"}, **kind}
        if isinstance(schema.get("type"), list):
            schema = {**schema, "type": schema["type"][0]}
        made[name] = schema
    return made


def _generation(context: Context) -> Schema:
    limits = context.limits
    properties: Schema = {
        "prompt": {"type": "string", "maxLength": limits.text_characters},
        "model": {"enum": [context.model, None]},
        "n": _number("How many.", 1, limits.images),
        "size": {"anyOf": [{"type": "string", "pattern": SIZE}, {"type": "null"}]},
        "stream": {"type": ["boolean", "null"], "description": "Send events, the last with the picture."},
        "partial_images": _number("How many pictures of how it forms; needs `stream`.", 0, MOST_PARTIAL),
        "output_compression": _number("The quality of JPEG and WebP.", 0, 100),
        "user": {"type": ["string", "null"], "description": "Taken, and not used."},
        **{name: {"enum": [*choices, None]} for name, choices in CHOICES.items()},
    }
    if context.inputs.has_seed:
        properties["seed"] = _number("What the random numbers begin with.", 0, MOST_SEED)
    inputs = context.inputs.json_schema()["properties"]
    properties.update((name, inputs[name]) for name in context.inputs.names if name not in (*HIDDEN, "image"))
    return {"type": "object", "properties": properties, "required": ["prompt"], "additionalProperties": False}


# What operators want to know.


def _operator_paths() -> Schema:
    state = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    readiness = {
        "type": "object",
        "properties": {
            "status": {"enum": ["ok", "unready"]},
            "problems": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["status", "problems"],
    }
    opened: Schema = {"security": []}
    forbidden = {status: answer for status, answer in _errors().items() if status in ("403", "500")}
    return {
        "/healthz": {
            "get": _operation(
                "isHealthy",
                "Whether the process answers.",
                {"200": _answer("It does.", _json(state)), **forbidden},
                **opened,
            )
        },
        "/readyz": {
            "get": _operation(
                "isReady",
                "Whether jobs may be sent.",
                {
                    "200": _answer("They may.", _json(readiness)),
                    "503": _answer("They may not, for these reasons.", _json(readiness)),
                    **forbidden,
                },
                **opened,
            )
        },
        "/metrics": {
            "get": _operation(
                "getMetrics",
                "Counts and times, for Prometheus.",
                {"200": _answer("They.", {"text/plain": {"schema": {"type": "string"}}}), **_errors(400)},
            )
        },
        "/openapi.json": {
            "get": _operation(
                "getDescription",
                "This description.",
                {"200": _answer("It.", _json({"type": "object"})), **forbidden},
                **opened,
            )
        },
    }


# What answers are made of.


def _object(required: Schema, **optional: Any) -> Schema:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _schemas() -> Schema:
    text: Schema = {"type": "string"}
    number: Schema = {"type": "number"}
    whole: Schema = {"type": "integer"}
    texts: Schema = {"type": "array", "items": text}
    position = {"type": "array", "items": _object({"loop": text, "index": whole})}
    progress = _object({"loop": text, "step": whole, "total": _or_null(whole), "position": position})
    error = _object({"message": text, "type": text, "param": _or_null(text), "code": _or_null(text)})
    job = _object(
        {
            "id": {"type": "string", "pattern": _JOB_ID},
            "object": {"const": "job"},
            "status": {"enum": list(STATUSES)},
            "created_at": number,
            "started_at": _or_null(number),
            "first_step_at": _or_null(number),
            "ended_at": _or_null(number),
            "queue_place": _or_null(whole),
            "progress": _or_null(progress),
            "previews": {"type": "array", "items": _object({"step": whole, "images": texts})},
            "inputs": {"type": "object"},
            "uploads": texts,
            "seed": _or_null(whole),
            "output": texts,
            "priority": whole,
            "pause_reason": {"enum": ["client", "storage", None]},
            "error": _or_null(error),
            "notes": texts,
            "events_url": text,
            "result_url": _or_null(text),
        }
    )
    file = _object({"url": text, "type": text})
    output = _object({"files": {"type": "array", "items": file}, "value": {}})
    model = _object({"id": text, "object": {"const": "model"}, "created": whole, "owned_by": text})
    picture = {"type": "object", "properties": {"b64_json": text, "url": text}}
    return {
        "Error": _object({"error": error}),
        "Job": job,
        "JobList": _object(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": _ref("Job")},
                "has_more": {"type": "boolean"},
            }
        ),
        "Result": _object(
            {
                "id": text,
                "object": {"const": "job.result"},
                "seed": _or_null(whole),
                "outputs": {"type": "object", "additionalProperties": output},
            }
        ),
        "Model": model,
        "Models": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}),
        "Images": _object({"created": whole, "data": {"type": "array", "items": picture}}),
    }
