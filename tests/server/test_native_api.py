"""Jobs: submitted, watched, steered, and what comes out."""

from __future__ import annotations

import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from loopwright.errors import RequestRefusedError
from loopwright.server import Keeping, Limits
from loopwright.server.jobs import Job, Request
from loopwright.server.uploads import load_image, read_image
from tests.server.conftest import Start
from tests.server.live import LiveServer
from tests.server.pipelines import PATIENCE, SIDE, TURNSTILE, Begin, Count, Paint, Painting


def png(colour: str = "red", mode: str = "RGB") -> bytes:
    written = io.BytesIO()
    Image.new(mode, (SIDE, SIDE), colour).save(written, format="PNG")
    return written.getvalue()


def test_a_job_goes_from_the_queue_to_a_picture(shared: LiveServer) -> None:
    answer = shared.http.post("/v1/jobs", json={"inputs": {"prompt": "red"}, "seed": 7})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] in ("queued", "running")
    ended = shared.wait(job["id"])
    assert (ended["status"], ended["seed"], ended["inputs"]) == ("succeeded", 7, {"prompt": "red"})
    assert ended["progress"]["step"] == ended["progress"]["total"] == 4
    result = shared.http.get(ended["result_url"]).json()
    (file,) = result["outputs"]["images"]["files"]
    assert (file["type"], file["width"], file["height"]) == ("image/png", SIDE, SIDE)
    picture = shared.http.get(file["url"])
    assert picture.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.size == (SIDE, SIDE)


def test_the_same_seed_is_the_same_picture_and_another_is_another(shared: LiveServer) -> None:
    pictures = []
    for seed in (7, 7, 8):
        job = shared.submit(seed=seed)
        shared.wait(job)
        pictures.append(shared.picture(job))
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_job_without_a_seed_gets_one_that_makes_the_same_picture_again(shared: LiveServer) -> None:
    job = shared.submit()
    seed = shared.wait(job)["seed"]
    again = shared.submit(seed=seed)
    shared.wait(again)
    assert shared.picture(job) == shared.picture(again)


def test_the_result_itself_is_a_picture_for_those_who_ask_for_one(shared: LiveServer) -> None:
    job = shared.submit(seed=1)
    shared.wait(job)
    answer = shared.http.get(f"/v1/jobs/{job}/result", headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == shared.picture(job)


def test_images_come_as_base64_as_data_urls_and_as_files(shared: LiveServer) -> None:
    text = base64.b64encode(png()).decode()
    for value in (text, f"data:image/png;base64,{text}", [text, text]):
        job = shared.submit(image=value)
        assert shared.wait(job)["uploads"] == ["image"]
    answer = shared.http.post(
        "/v1/jobs",
        data={"job": json.dumps({"inputs": {"prompt": "red"}})},
        files=[("image", png()), ("image", png()), ("tint", save({"x": torch.ones(3)}))],
    )
    assert answer.status_code == 202, answer.text
    ended = shared.wait(answer.json()["id"])
    assert (ended["status"], ended["uploads"]) == ("succeeded", ["image", "tint"])


def test_a_photo_is_upright_and_its_sixteen_bits_are_eight() -> None:
    limits = Limits()
    held = Image.new("RGB", (4, 2), "blue")
    held.paste("red", (0, 0, 2, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the left of the file is the top of what was seen
    written = io.BytesIO()
    held.save(written, format="PNG", exif=exif, icc_profile=b"a profile")
    seen = load_image(read_image(written.getvalue(), "image", limits))
    assert (seen.size, seen.getpixel((0, 0)), seen.getpixel((0, 3))) == ((2, 4), (255, 0, 0), (0, 0, 255))
    assert not seen.info
    written = io.BytesIO()
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(written, format="PNG")
    grey = load_image(read_image(written.getvalue(), "image", limits)).convert("L")
    assert [grey.getpixel((x, 0)) for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_images_of_every_mode_are_read(mode: str, form: str) -> None:
    written = io.BytesIO()
    try:
        Image.new(mode, (SIDE, SIDE)).save(written, format=form)
    except OSError:
        return  # there are no such files
    assert load_image(read_image(written.getvalue(), "image", Limits())).size == (SIDE, SIDE)
    for length in range(0, len(written.getvalue()) // 2, 5):
        with pytest.raises(RequestRefusedError, match="is not an image that can be read"):
            read_image(written.getvalue()[:length], "image", Limits())


def test_a_tensor_comes_as_lists_and_as_a_file_and_means_the_same(shared: LiveServer) -> None:
    listed = shared.submit(seed=3, tint=[0.1, 0.2, 0.3])
    answer = shared.http.post(
        "/v1/jobs",
        data={"job": json.dumps({"inputs": {"prompt": "red"}, "seed": 3})},
        files={"tint": save({"x": torch.tensor([0.1, 0.2, 0.3])})},
    )
    plain = shared.submit(seed=3)
    jobs = (listed, answer.json()["id"], plain)
    for job in jobs:
        shared.wait(job)
    assert [shared.job(job)["uploads"] for job in jobs] == [["tint"], ["tint"], []]
    assert shared.job(listed)["inputs"] == {"prompt": "red"}
    pictures = [shared.picture(job) for job in jobs]
    assert pictures[0] == pictures[1] != pictures[2]


def test_other_values_than_pictures_come_out_as_json_and_as_tensors(shared: LiveServer) -> None:
    job = shared.submit(output=["value", "num_inference_steps"])
    shared.wait(job)
    outputs = shared.http.get(f"/v1/jobs/{job}/result").json()["outputs"]
    assert outputs["num_inference_steps"] == {"files": [], "value": 4}
    (file,) = outputs["value"]["files"]
    assert (file["type"], file["shape"], file["dtype"]) == ("application/octet-stream", [3], "torch.float32")
    answer = shared.http.get(f"/v1/jobs/{job}/result", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (406, "no_picture")


def test_jobs_are_listed_newest_first_by_pages_and_by_state(start: Start) -> None:
    server = start()
    jobs = [server.submit() for _ in range(5)]
    for job in jobs:
        server.wait(job)
    first = server.http.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == jobs[:2:-1]
    assert first["has_more"]
    rest = server.http.get("/v1/jobs", params={"after": jobs[3]}).json()
    assert [job["id"] for job in rest["data"]] == jobs[2::-1]
    assert not rest["has_more"]
    assert server.http.get("/v1/jobs", params={"status": "failed"}).json()["data"] == []


def test_a_paused_job_frees_its_slot_and_goes_on_to_the_same_picture(start: Start) -> None:
    server = start()
    expected = server.submit(seed=5)
    server.wait(expected)
    TURNSTILE.close()
    job = server.submit(seed=5)
    TURNSTILE.let(2)
    server.wait_for_step(job, 2)
    assert server.http.post(f"/v1/jobs/{job}/pause").json()["status"] == "paused"
    TURNSTILE.let(1)
    TURNSTILE.open()
    other = server.submit(seed=6)
    assert server.wait(other)["status"] == "succeeded"
    paused = server.job(job)
    assert (paused["status"], paused["pause_reason"], paused["progress"]["step"]) == ("paused", "client", 3)
    passed = TURNSTILE.passed
    assert server.http.post(f"/v1/jobs/{job}/go-on").json()["status"] in ("queued", "running")
    assert server.wait(job)["status"] == "succeeded"
    assert TURNSTILE.passed == passed + 1  # nothing that was done is done again
    assert server.picture(job) == server.picture(expected)


def test_a_queued_job_is_paused_and_goes_on(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    first, second = server.submit(), server.submit()
    assert server.http.post(f"/v1/jobs/{second}/pause").json()["queue_place"] is None
    TURNSTILE.open()
    server.wait(first)
    assert server.job(second)["status"] == "paused"
    server.http.post(f"/v1/jobs/{second}/go-on")
    assert server.wait(second)["status"] == "succeeded"


def test_a_cancelled_job_ends_at_once_and_its_slot_is_free(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    running, queued, next_one = server.submit(), server.submit(), server.submit()
    TURNSTILE.let(1)
    server.wait_for_step(running, 1)
    for job in (running, queued):
        assert server.http.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"
        assert server.http.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"
    TURNSTILE.open()
    assert server.wait(next_one)["status"] == "succeeded"
    assert [server.job(job)["status"] for job in (running, queued)] == ["cancelled", "cancelled"]
    answer = server.http.get(f"/v1/jobs/{running}/result")
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == f"job {running} is cancelled: it has none"


def test_a_loop_that_is_stopped_ends_and_what_follows_runs(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    job = server.submit(num_inference_steps=50)
    TURNSTILE.let(2)
    server.wait_for_step(job, 2)
    TURNSTILE.wait()
    assert server.http.post(f"/v1/jobs/{job}/stop-loop").status_code == 200
    TURNSTILE.open()
    ended = server.wait(job)
    assert (ended["status"], ended["progress"]["step"]) == ("succeeded", 3)


def test_the_queue_says_each_job_its_place(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    first, second, third = (server.submit() for _ in range(3))
    server.wait(first, lambda job: job["status"] == "running")
    assert [server.job(job)["queue_place"] for job in (first, second, third)] == [None, 1, 2]
    server.http.delete(f"/v1/jobs/{second}")
    assert server.job(third)["queue_place"] == 1


def test_jobs_of_a_higher_priority_go_first(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    low, high = server.submit(priority=-1), server.submit(priority=1)
    assert [server.job(job)["queue_place"] for job in (low, high)] == [2, 1]


def test_a_full_queue_says_when_to_come_back(start: Start) -> None:
    server = start(limits=Limits(queue=2))
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    server.submit(), server.submit()
    answer = server.http.post("/v1/jobs", json={"inputs": {"prompt": "red"}})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json() == {
        "error": {
            "message": "the queue is full: 2 jobs wait; try again later",
            "type": "rate_limit_error",
            "param": None,
            "code": "queue_full",
        }
    }


def test_a_request_that_comes_twice_under_one_key_is_one_job(start: Start) -> None:
    server = start()
    body, headers = {"inputs": {"prompt": "red"}}, {"Idempotency-Key": "one"}
    first = server.http.post("/v1/jobs", json=body, headers=headers)
    server.wait(first.json()["id"])
    second = server.http.post("/v1/jobs", json=body, headers=headers)
    assert (second.status_code, second.headers["idempotent-replayed"]) == (200, "true")
    assert second.json()["id"] == first.json()["id"]
    other = server.http.post("/v1/jobs", json={"inputs": {"prompt": "blue"}}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert len(server.http.get("/v1/jobs").json()["data"]) == 1


def test_requests_that_come_at_once_under_one_key_are_one_job(start: Start) -> None:
    server = start(limits=Limits(queue=1000))
    request = Request({"prompt": "red"}, seed=1)
    together = threading.Barrier(4)

    def submit(number: int) -> Job:
        together.wait(PATIENCE)
        return server.service.submit(request, {}, "", f"key {number}", "digest")[0]

    with ThreadPoolExecutor(4) as threads:
        for number in range(20):
            jobs = list(threads.map(submit, [number] * 4))
            # the same object: what is known of it later is known to all
            assert all(job is jobs[0] for job in jobs[1:]) or jobs[0].has_ended
    assert len(server.http.get("/v1/jobs", params={"limit": 100}).json()["data"]) == 20


def test_jobs_that_are_paused_count_as_waiting(start: Start) -> None:
    server = start(limits=Limits(queue=2))
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    for job in (server.submit(), server.submit()):
        assert server.http.post(f"/v1/jobs/{job}/pause").status_code == 200
    assert server.http.post("/v1/jobs", json={"inputs": {"prompt": "red"}}).status_code == 429


def test_a_file_that_is_gone_from_the_data_folder_fails_its_job_alone(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    running = server.submit()
    server.wait(running, lambda job: job["status"] == "running")
    job = server.submit(tint=[0.1, 0.2, 0.3])
    (server.data_dir / "jobs" / job / "inputs" / "input-0.safetensors").unlink()
    TURNSTILE.open()
    assert server.wait(job)["error"]["message"] == (
        "the file of `tint` is no longer in the data folder; submit the job again"
    )


@pytest.mark.parametrize(
    ("mode", "previews", "error"),
    [
        ("RGB", 1, None),
        (
            "YCbCr",
            0,
            "the pipeline made a picture of mode `YCbCr` and 8x8 pixels, which cannot be written as PNG: "
            "cannot write mode YCbCr as PNG",
        ),
        ("only at the end", 1, None),
    ],
)
def test_pictures_that_cannot_be_written_or_shown_are_no_trouble_of_the_disk(
    start: Start, mode: str, previews: int, error: str | None
) -> None:
    class PaintSo(Paint):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            components, state = super().__call__(components, state)
            if mode != "only at the end":
                state.set("images", [image.convert(mode) for image in state.get("images")])
            elif TURNSTILE.passed < 4:
                raise ValueError("not yet")
            return components, state

    class PaintingSo(Painting):
        block_classes = [Begin, Count, PaintSo]

    server = start(PaintingSo().init_pipeline())
    ended = server.wait(server.submit(previews=previews))
    assert (ended["error"] or {}).get("message") == error
    assert bool(ended["notes"]) is (mode == "only at the end")
    assert server.http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (
            "input",
            {
                "message": "`trouble` is not wanted here, in block `begin`",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_input",
            },
        ),
        (
            "crash",
            {
                "message": "the pipeline failed: ValueError, in block `begin`",
                "type": "server_error",
                "param": None,
                "code": "run_failed",
            },
        ),
        (
            "memory",
            {
                "message": "there is not enough memory for this job, in block `begin`",
                "type": "server_error",
                "param": None,
                "code": "out_of_memory",
            },
        ),
    ],
)
def test_a_job_that_fails_says_why_and_fails_alone(shared: LiveServer, trouble: str, error: dict[str, str]) -> None:
    failing, fine = shared.submit(trouble=trouble), shared.submit()
    assert shared.wait(failing)["error"] == error
    assert shared.job(failing)["status"] == "failed"
    assert shared.wait(fine)["status"] == "succeeded"


def test_previews_are_made_evenly_and_kept(start: Start) -> None:
    server = start()
    TURNSTILE.close()
    job = server.submit(previews=3, num_inference_steps=8)
    TURNSTILE.open()
    server.wait(job)
    previews = server.job(job)["previews"]
    assert [preview["step"] for preview in previews] == [2, 4, 6]
    for preview in previews:
        (link,) = preview["images"]
        assert server.http.get(link).content.startswith(b"\x89PNG")


def test_results_are_kept_for_a_number_of_jobs_and_then_forgotten(tmp_path: Path, start: Start) -> None:
    server = start(keeping=Keeping(jobs=1))
    jobs = [server.submit() for _ in range(3)]
    for job in jobs:
        server.wait(job)
    server.stop()
    server = start(keeping=Keeping(jobs=1))
    assert [server.http.get(f"/v1/jobs/{job}").status_code for job in jobs] == [404, 404, 200]
    assert [path.name for path in (tmp_path / "data" / "jobs").iterdir()] == jobs[2:]


def test_of_the_size_of_a_job_only_what_is_kept_counts(start: Start) -> None:
    server = start()
    job = server.submit(tint=[0.1, 0.2, 0.3])
    server.wait(job)
    known = server.service.get(job, None)
    kept = sum(path.stat().st_size for path in (server.data_dir / "jobs" / job).rglob("*") if path.is_file())
    outcome = (server.data_dir / "jobs" / job / "outcome.json").stat().st_size
    assert known.bytes == kept - outcome
