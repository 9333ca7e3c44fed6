"""The real client of OpenAI, against a real server."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import httpx
import openai
import pytest
from PIL import Image

from loopwright.server import Limits
from loopwright.server.keys import Keys
from tests.server.conftest import Start
from tests.server.live import LiveServer
from tests.server.pipelines import PATIENCE, SIDE, TURNSTILE

MODEL = "painting"


def png(mode: str = "RGB", colour: object = "red") -> bytes:
    written = io.BytesIO()
    Image.new(mode, (SIDE, SIDE), colour).save(written, format="PNG")  # type: ignore[arg-type]
    return written.getvalue()


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.fixture(scope="module")
def client(shared: LiveServer) -> Iterator[openai.OpenAI]:
    with openai_client(shared) as made:
        yield made


def openai_client(server: LiveServer, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


def test_models_are_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == (MODEL, "loopwright")
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_picture_is_made(client: openai.OpenAI) -> None:
    answer = client.images.generate(model=MODEL, prompt="red", size="16x8", response_format="b64_json")
    assert (answer.size, answer.output_format) == ("16x8", "png")
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (16, 8)


def test_several_pictures_are_made(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="red", n=3)
    assert answer.data is not None
    assert len(answer.data) == 3


def test_a_picture_is_given_as_a_link(client: openai.OpenAI, shared: LiveServer) -> None:
    answer = client.images.generate(prompt="red", response_format="url")
    assert answer.data is not None
    link = answer.data[0].url
    assert link is not None
    assert link.startswith(shared.url)
    assert httpx.get(link).headers["content-type"] == "image/png"


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_picture_comes_in_other_formats(client: openai.OpenAI, form: str) -> None:
    answer = client.images.generate(prompt="red", output_format=form, output_compression=80)  # type: ignore[arg-type]
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).format == form.upper()


def test_inputs_of_the_pipeline_are_taken_under_their_own_names(client: openai.OpenAI) -> None:
    more = {"seed": 7, "num_inference_steps": 2}
    pictures = [client.images.generate(prompt="red", extra_body=more).data for _ in range(2)]
    assert pictures[0] is not None
    assert pictures[1] is not None
    assert pictures[0][0].b64_json == pictures[1][0].b64_json


def test_a_picture_itself_is_the_answer_to_those_who_ask_for_one(shared: LiveServer) -> None:
    answer = shared.http.post("/v1/images/generations", json={"prompt": "red"}, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (SIDE, SIDE)


def test_partial_images_are_streamed(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="red", stream=True, partial_images=3))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]  # type: ignore[union-attr]
    for event in events:
        assert opened(event.b64_json).size == (SIDE, SIDE)
        assert (event.size, event.output_format) == (f"{SIDE}x{SIDE}", "png")


def test_an_image_is_edited_where_the_mask_is_transparent(client: openai.OpenAI) -> None:
    answer = client.images.edit(image=png(), mask=png("RGBA", (0, 0, 0, 0)), prompt="blue", n=2, size="8x8")
    assert answer.data is not None
    assert len(answer.data) == 2
    events = list(client.images.edit(image=png(), prompt="blue", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert client.images.edit(image=[png(), png()], prompt="blue").data


def test_a_wrong_parameter_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="red", size="large")  # type: ignore[call-overload]
    assert caught.value.param == "size"
    assert caught.value.code == "invalid_value"
    assert caught.value.type == "invalid_request_error"


def test_what_the_blocks_refuse_cannot_be_processed(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="`trouble` is not wanted here"):
        client.images.generate(prompt="red", extra_body={"trouble": "input"})


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="red", model="dall-e-3")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("dall-e-3")


def test_a_pipeline_that_fails_is_a_server_error_that_keeps_its_secrets(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="red", extra_body={"trouble": "crash"})
    assert "secret" not in str(caught.value)
    with pytest.raises(openai.APIError, match="the pipeline failed: ValueError"):
        list(client.images.generate(prompt="red", stream=True, extra_body={"trouble": "crash"}))


def test_another_request_under_the_same_key_is_a_conflict(client: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "openai"}
    first = client.images.generate(prompt="red", extra_headers=headers)
    assert client.images.generate(prompt="red", extra_headers=headers) == first
    with pytest.raises(openai.ConflictError):
        client.images.generate(prompt="blue", extra_headers=headers)


def test_keys_that_are_wrong_missing_or_may_not(start: Start) -> None:
    server = start()
    keys = Keys(server.data_dir)
    user, monitor = keys.add("ann"), keys.add("watch", "monitor")
    with openai_client(server, user) as client:
        assert client.images.generate(prompt="red").data
    with openai_client(server, "lw-nobody") as client, pytest.raises(openai.AuthenticationError) as unknown:
        client.models.list()
    assert unknown.value.code == "invalid_api_key"
    with openai_client(server, monitor) as client:
        assert client.models.list().data
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            client.images.generate(prompt="red")
    assert forbidden.value.code == "read_only_key"


def test_a_full_queue_is_a_rate_limit(start: Start) -> None:
    server = start(limits=Limits(queue=1))
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    server.submit()
    with openai_client(server) as client, pytest.raises(openai.RateLimitError) as caught:
        client.images.generate(prompt="red")
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_client_that_waits_no_longer_cancels_its_job(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    with openai_client(server) as client:
        for more in ({}, {"stream": True}):
            with pytest.raises(openai.APITimeoutError):
                list(client.images.generate(prompt="red", timeout=0.5, **more))  # type: ignore[call-overload]
    for job in server.http.get("/v1/jobs").json()["data"]:
        assert server.wait(job["id"])["status"] == "cancelled"


def test_a_server_that_is_not_there_is_a_connection_error(start: Start) -> None:
    server = start()
    client = openai_client(server)
    server.stop()
    with client, pytest.raises(openai.APIConnectionError):
        client.models.list()
