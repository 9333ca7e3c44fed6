"""What a server keeps to itself, and whom it lets in."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
from pathlib import Path

import httpx
import pytest
from PIL import Image

from loopwright.errors import InvalidInputError, StorageError
from loopwright.server.keys import Keys
from loopwright.server.logs import LOGGER, log, log_failure, set_up_logs
from tests.server.conftest import Start
from tests.server.live import LiveServer

SECRET = "a prompt that nobody else may read"


@pytest.fixture
def lines() -> io.StringIO:
    names = ("uvicorn", "uvicorn.error", "asyncio", "py.warnings")
    loggers = [LOGGER, *(logging.getLogger(name) for name in names)]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    yield stream
    logging.captureWarnings(False)
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_keys_are_kept_as_hashes_and_found_again(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    secret = keys.add("ann")
    written = tmp_path / "keys.json"
    assert secret not in written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) & 0o077 == 0
    found = Keys(tmp_path).find(secret)
    assert found is not None
    assert (found.name, found.role) == ("ann", "user")
    assert keys.find(secret + "x") is None
    keys.remove("ann")
    assert keys.find(secret) is None


def test_keys_that_root_makes_belong_to_the_user_of_the_server(tmp_path: Path) -> None:
    nobody = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, nobody, -1)
    Keys(tmp_path).add("ann")
    written = (tmp_path / "keys.json").stat()
    assert (written.st_uid, stat.S_IMODE(written.st_mode)) == (nobody, 0o600)


def test_mistakes_with_keys_say_what_to_do(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.add("ann")
    for attempt, message in (
        (lambda: keys.add("ann"), "there is a key 'ann' already; remove it first, or take another name"),
        (lambda: keys.add("a b"), "'a b' cannot be the name of a key"),
        (lambda: keys.add("bob", "usr"), "there is no role 'usr', did you mean `user`?; there are `user`, `monitor`"),
        (lambda: keys.remove("anna"), "there is no key 'anna', did you mean `ann`?; there are `ann`"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            attempt()
        assert str(caught.value).startswith(message)
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(StorageError, match=r"the API keys in .* cannot be read"):
        Keys(tmp_path)


def test_a_server_without_keys_is_not_open_to_the_network(start: Start, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        start(host="0.0.0.0")
    assert str(caught.value) == (
        "0.0.0.0 can be reached from other machines, and there is no API key: make one with `loopwright keys add "
        f"NAME --data-dir {tmp_path / 'data'}`, or let everybody in with --open"
    )


def test_a_server_that_cannot_have_its_port_leaves_no_folder(start: Start, tmp_path: Path) -> None:
    taken = httpx.URL(start().url).port
    with pytest.raises(InvalidInputError, match=f"cannot listen at 127.0.0.1:{taken}: "):
        start(port=taken, data_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("mode", "count"), [(0o755, 1), (0o700, 0)])
def test_a_data_folder_that_others_can_look_into_is_in_the_log(
    start: Start, tmp_path: Path, lines: io.StringIO, mode: int, count: int
) -> None:
    set_up_logs(lines)
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    start().stop()
    assert lines.getvalue().count("data folder is open to other users of this machine: chmod 700") == count


def test_each_key_sees_its_own_jobs_and_a_monitor_sees_all(start: Start) -> None:
    server = start()
    keys = Keys(server.data_dir)
    secrets = {name: keys.add(name, role) for name, role in (("ann", "user"), ("bob", "user"), ("eve", "monitor"))}

    def ask(name: str, method: str, path: str, **more: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {secrets[name]}"}
        return server.http.request(method, path, headers=headers, **more)  # type: ignore[arg-type]

    job = ask("ann", "POST", "/v1/jobs", json={"inputs": {"prompt": "red"}}).json()["id"]
    for name, status in (("ann", 200), ("bob", 404), ("eve", 200)):
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events"):
            assert ask(name, "GET", path).status_code == status
    assert [len(ask(name, "GET", "/v1/jobs").json()["data"]) for name in secrets] == [1, 0, 1]
    assert ask("bob", "DELETE", f"/v1/jobs/{job}").status_code == 404
    assert ask("eve", "DELETE", f"/v1/jobs/{job}").status_code == 403
    assert server.http.get("/metrics").status_code == 401
    assert server.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("how", ["removed", "deleted"])
def test_a_server_whose_last_key_is_gone_lets_nobody_in(start: Start, how: str) -> None:
    server = start()
    keys = Keys(server.data_dir)
    headers = {"Authorization": f"Bearer {keys.add('ann')}"}
    assert server.http.get("/v1/jobs", headers=headers).status_code == 200
    keys.remove("ann")
    if how == "deleted":
        (server.data_dir / "keys.json").unlink()
    for given in (headers, {}):
        assert server.http.get("/v1/jobs", headers=given).status_code == 401


def test_every_route_wants_a_key_but_for_those_that_say_nothing_of_jobs(start: Start) -> None:
    server = start()
    Keys(server.data_dir).add("ann")
    described = server.http.get("/openapi.json").json()
    for path, item in described["paths"].items():
        for method in item.keys() - {"parameters"}:
            answer = server.http.request(method.upper(), path.replace("{", "").replace("}", ""))
            is_open = path in ("/healthz", "/readyz", "/openapi.json")
            assert (answer.status_code == 200) if is_open else (answer.status_code == 401), (method, path)


def test_names_from_clients_do_not_reach_the_disk(start: Start) -> None:
    server = start()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, format="PNG")
    answer = server.http.post(
        "/v1/jobs",
        data={"job": json.dumps({"inputs": {"prompt": "../../prompt"}})},
        files={"image": ("../../../evil.png", picture.getvalue())},
        headers={"Idempotency-Key": "../../key"},
    )
    job = answer.json()["id"]
    server.wait(job)
    names = {path.name for path in server.data_dir.rglob("*")}
    known = {"jobs", "lock", "jobs.db", "jobs.db-wal", "jobs.db-shm"}
    assert names - known == {job, "request.json", "outcome.json", "files", "result-0-0.png"}
    for name in ("..%2frequest.json", "../request.json", "request.json", "result-0-0.png%00", "RESULT.png"):
        assert server.http.get(f"/v1/jobs/{job}/files/{name}").status_code == 404


def test_pages_of_other_sites_are_let_in_where_they_are_named(start: Start) -> None:
    site = "https://pages.example"
    server = start(origins=(site,), hosts=("studio.example",))
    headers = {"Origin": site, "Access-Control-Request-Method": "POST"}
    allowed = server.http.options("/v1/jobs", headers=headers)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, site)
    assert server.http.get("/v1/jobs", headers={"Origin": site}).status_code == 200
    assert server.http.get("/v1/jobs", headers={"Host": "studio.example:1"}).status_code == 200
    assert server.http.get("/v1/jobs", headers={"Origin": "https://other.example"}).status_code == 403


def test_pages_of_other_sites_get_no_permission_where_none_is_named(shared: LiveServer) -> None:
    headers = {"Origin": "https://pages.example", "Access-Control-Request-Method": "POST"}
    answer = shared.http.options("/v1/jobs", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_the_log_has_lines_of_json_with_the_request_and_without_what_was_asked(
    start: Start, lines: io.StringIO
) -> None:
    set_up_logs(lines)
    server = start()
    answer = server.http.post(
        "/v1/jobs", json={"inputs": {"prompt": SECRET, "trouble": "crash"}}, headers={"X-Request-ID": "mine-1"}
    )
    assert answer.headers["x-request-id"] == "mine-1"
    server.wait(answer.json()["id"])
    server.http.post("/v1/jobs", json={"inputs": {SECRET: SECRET}})
    server.http.get(f"/{SECRET}")
    server.stop()
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert SECRET not in lines.getvalue()
    assert "a secret of the server" not in lines.getvalue()
    requests = [line for line in logged if line["event"] == "request" and line.get("request_id") == "mine-1"]
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [("POST", "/v1/jobs", 202)]
    (failed,) = (line for line in logged if line["event"] == "job failed")
    assert (failed["error"], failed["block"]) == ("ValueError", "begin")


def test_what_other_libraries_log_is_without_texts(lines: io.StringIO) -> None:
    set_up_logs(lines)
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task %s>", SECRET)
    logging.getLogger("py.warnings").warning("x.py:1: UserWarning: %s\n  a line", SECRET)
    failed, warned = (json.loads(line) for line in lines.getvalue().splitlines())
    assert failed["event"] == "Task exception was never retrieved"
    assert warned["event"].endswith("UserWarning")


def test_an_id_of_a_request_that_is_no_name_is_replaced(shared: LiveServer) -> None:
    answer = shared.http.get("/healthz", headers={"X-Request-ID": 'x" onload="'})
    assert len(answer.headers["x-request-id"]) == 16


def test_texts_are_in_the_log_where_the_operator_wants_them(lines: io.StringIO) -> None:
    set_up_logs(lines, with_texts=True)
    log("something", job="job_1")
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        log_failure("it failed", error)
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["event"], first["job"], first["level"]) == ("something", "job_1", "info")
    assert (second["error"], second["message"]) == ("ValueError", SECRET)


def test_metrics_count_what_happens(start: Start) -> None:
    server = start()
    server.wait(server.submit())
    server.http.post("/v1/jobs", json={})
    text = server.http.get("/metrics").text
    for line in (
        "loopwright_jobs_submitted_total 1.0",
        'loopwright_jobs_ended_total{status="succeeded"} 1.0',
        "loopwright_steps_total 4.0",
        'loopwright_rejected_total{code="missing_field"} 1.0',
        'loopwright_http_requests_total{method="POST",route="/v1/jobs",status="202"} 1.0',
        'loopwright_jobs{status="queued"} 0.0',
        "loopwright_storage_ok 1.0",
    ):
        assert f"{line}\n" in text
