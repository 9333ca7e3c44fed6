"""A model hub in this process, on the loopback address, spoken to by the real client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

__all__ = ["TOKEN", "Hub", "serving", "use"]

TOKEN = "hf_test"


@dataclass
class Repo:
    """The commits of a repository, each with its files, and the names of some of them."""

    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, changes: dict[str, bytes], message: str = "") -> str:
        files = {**self.files(), **changes}
        # the time is of no use here, but two commits of the same files are two
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        self.names["main"] = oid
        self.messages.append(message)
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits.get(self.names.get(revision, revision), {})


@dataclass
class Hub:
    """A hub; `requests` has each request that it was asked, as method and path."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, name: str, folder: Path | None = None, gated: bool = False) -> Repo:
        repo = self.repos[name] = Repo(gated)
        repo.commit({".gitattributes": b""}, "initial commit")
        if folder is not None:
            files = [path for path in folder.rglob("*") if path.is_file()]
            repo.commit({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
        return repo


class _Answer(Exception):
    """An answer that is an error, with the code by which the client tells what is wrong."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        headers: dict[str, str] = {}
        try:
            status, content, headers = self._handled(path, body)
        except _Answer as error:
            status, content = error.status, b"{}"
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.code}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _handled(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if path == "/api/whoami-v2":
            return self._json({"name": "somebody", "type": "user", "orgs": []})
        if path == "/api/repos/create":
            self._require_token()
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            if name not in self.hub.repos:
                self.hub.add(name)
            return self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})
        if path == "/api/validate-yaml":
            return self._json({"warnings": [], "errors": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/(.+)", path):
            self._require_token()
            return self._upload(self.hub.repos[match[1]], match[1], match[2], body)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?.*", path):
            repo = self._repo(match[1])
            oid = self._commit(repo, match[3] or "main")
            files = repo.commits[oid]
            if match[2] == "tree":
                return self._json(
                    [{"type": "file", "path": name, "oid": "", "size": len(files[name])} for name in files]
                )
            return self._json({"id": match[1], "sha": oid, "siblings": [{"rfilename": name} for name in files]})
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None:
            raise _Answer(404, "Unknown")
        repo = self._repo(match[1])
        oid = self._commit(repo, match[2])
        if match[3] not in repo.commits[oid]:
            raise _Answer(404, "EntryNotFound")
        content = repo.commits[oid][match[3]]
        return 200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": oid}

    def _upload(self, repo: Repo, name: str, what: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        oid = repo.commit(files, lines[0]["value"]["summary"])
        return self._json({"commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "success": True})

    def _repo(self, name: str) -> Repo:
        if name not in self.hub.repos:
            raise _Answer(401, "RepoNotFound")
        if self.hub.repos[name].gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Answer(403, "GatedRepo")
        return self.hub.repos[name]

    def _commit(self, repo: Repo, revision: str) -> str:
        oid = repo.names.get(revision, revision)
        if oid not in repo.commits:
            raise _Answer(404, "RevisionNotFound")
        return oid

    def _require_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Answer(401, "Unauthorized")

    def _json(self, value: Any) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have the client of this process talk to a hub, with an empty cache, as `HF_ENDPOINT` would in a new process."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
