"""A model folder of a family whose blocks declare most inputs without a type is served with all its workflows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from diffusers import FluxPipeline
from PIL import Image

from loopwright.server.models import load_model
from tests.bridge.families import flux
from tests.bridge.families.case import picture
from tests.server.live import LiveServer

FEW = {"num_inference_steps": 2, "max_sequence_length": 16}
SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("models") / "tinyflux"
    components = flux.components()
    del components["image_processor"]
    FluxPipeline(**components).save_pretrained(folder)
    pipeline, name = load_model(str(folder))
    server = LiveServer(pipeline, tmp_path_factory.mktemp("served"), model=name, max_batch=2)
    yield server
    server.stop()


def png() -> bytes:
    written = io.BytesIO()
    picture().save(written, "PNG")
    return written.getvalue()


def in_json() -> str:
    return "data:image/png;base64," + base64.b64encode(png()).decode()


def result(served: LiveServer, job: str) -> bytes:
    assert served.wait(job)["status"] == "succeeded"
    return served.picture(job)


def test_an_image_without_a_type_comes_in_json_or_as_a_file(served: LiveServer) -> None:
    given = {**FEW, **SIZE, "strength": 1.0}
    drawn = result(served, served.submit(seed=1, **FEW, **SIZE))
    in_text = result(served, served.submit(seed=1, image=in_json(), **{**given, "strength": 0.6}))
    listed = result(served, served.submit(seed=1, image=[in_json()], **{**given, "strength": 0.6}))
    answer = served.http.post(
        "/v1/jobs",
        data={
            "job": '{"inputs": {"prompt": "red", "strength": 0.6, "num_inference_steps": 2, "height": 32, '
            '"width": 32, "max_sequence_length": 16}, "seed": 1}'
        },
        files={"image": png()},
    )
    assert answer.status_code == 202, answer.text
    assert result(served, answer.json()["id"]) == in_text == listed != drawn


def test_openais_client_edits_an_image_and_is_told_that_there_are_no_masks(served: LiveServer) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    extra = {**FEW, "seed": 1, "strength": 0.6}
    answer = client.images.edit(image=png(), prompt="red", size="32x32", extra_body=extra)
    found = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
    assert found.size == (32, 32)
    with pytest.raises(openai.BadRequestError, match="unknown file `mask`"):
        client.images.edit(image=png(), mask=png(), prompt="red", size="32x32", extra_body=extra)


def test_the_description_of_the_api_has_the_images(served: LiveServer) -> None:
    api = served.http.get("/openapi.json").json()
    form = api["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "image" in form["properties"]
    assert "mask" not in form["properties"]
    inputs = api["components"]["schemas"]["Inputs"]["properties"]
    assert inputs["image"]["anyOf"][0]["anyOf"][0]["contentEncoding"] == "base64"
    assert inputs["width"]["anyOf"][0]["multipleOf"] == 2


@pytest.mark.parametrize(
    ("name", "value", "status", "message"),
    [
        ("image", "no image", 422, "`image` is not an image: "),
        ("image", {}, 400, "`image` is an object; it must be an image, as Base64, or a list of them"),
        ("image_latents", "a text", 400, "`image_latents` is a text; it must be a tensor"),
        ("width", "wide", 400, "`width` is a text; it must be a whole number"),
        ("width", 33, 422, "`width` is 33; it must be a multiple of 2 pixels, as the model has no other sizes"),
        ("height", 1, 422, "`height` is 1; it must be a multiple of 2 pixels, as the model has no other sizes"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_job(
    served: LiveServer, name: str, value: object, status: int, message: str
) -> None:
    answer = served.http.post("/v1/jobs", json={"inputs": {"prompt": "red", **FEW, **SIZE, name: value}})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, f"inputs.{name}")
    assert error["message"].startswith(message)


def test_a_file_for_an_input_that_is_none_says_so(served: LiveServer) -> None:
    answer = served.http.post("/v1/jobs", data={"job": '{"inputs": {"prompt": "red"}}'}, files={"timesteps": png()})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "`timesteps` is a file; it must be in the JSON, as its block does not declare it as an image or a tensor"
    )


def test_a_size_that_the_model_does_not_have_is_an_error_of_the_request(served: LiveServer) -> None:
    answer = served.http.post("/v1/images/generations", json={"prompt": "red", "size": "1x1", **FEW})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "size")
