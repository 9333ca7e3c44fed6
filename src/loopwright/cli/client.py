"""A server of jobs, as the command line talks to it."""

from __future__ import annotations

import http
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from loopwright.errors import InvalidInputError

__all__ = ["Client", "ServerEvent"]

# seconds without a byte after which a connection is dead; a server sends a comment in every 15
_SILENCE = 45.0
# between two attempts to reach a server that is gone, and how many of them, in a row, before giving up
_PAUSE, _ATTEMPTS = 1.0, 60


class ServerEvent(NamedTuple):
    """One event of a job.

    Attributes:
        kind: `job`, `queue`, `progress` or `preview`.
        data: what it says.
    """

    kind: str
    data: dict[str, Any]


class _Away(InvalidInputError):
    """The server is about to end, or cannot work now; it may be back soon."""


class Client:
    """Asks a server.

    Args:
        url: where it is.
        key: the API key; None without one.

    Raises:
        InvalidInputError: the URL is none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidInputError(f"--server must be a URL such as http://127.0.0.1:8000, not {url!r}")
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def ask(self, path: str, method: str = "GET") -> Any:
        """The JSON that the server answers with.

        Raises:
            InvalidInputError: it cannot be reached, or refuses; the message is its own.
        """
        return json.loads(self.fetch(path, method))

    def fetch(self, path: str, method: str = "GET") -> bytes:
        """The bytes that the server answers with; raises as `ask`."""
        try:
            with self._open(path, method) as answer:
                body: bytes = answer.read()
                return body
        except (URLError, http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from error

    def job(self, job_id: str, action: str = "", method: str = "GET") -> Any:
        """A job, after something was done to it."""
        return self.ask(f"/v1/jobs/{quote(job_id, safe='')}{action}", method)

    def events(self, job_id: str) -> Iterator[ServerEvent]:
        """The events of a job until its end. A connection that is lost is made again where it was.

        Raises:
            InvalidInputError: there is no such job, or the server does not come back.
        """
        last_id: str | None = None
        failures = 0
        while last_id != "end":
            try:
                headers = {} if last_id is None else {"Last-Event-ID": last_id}
                with self._open(f"/v1/jobs/{quote(job_id, safe='')}/events", headers=headers) as stream:
                    for event_id, event in _parsed(stream):
                        last_id, failures = event_id, 0
                        yield event
            except (_Away, URLError, http.client.HTTPException, OSError) as error:
                failures += 1
                if failures > _ATTEMPTS:
                    raise self._unreachable(error) from error
            if last_id != "end":
                time.sleep(_PAUSE)

    def _open(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
        request = Request(self._url + path, method=method, headers={**self._headers, **(headers or {})})
        try:
            return urlopen(request, timeout=_SILENCE)
        except HTTPError as error:
            refusal = _Away if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE else InvalidInputError
            raise refusal(f"the server refuses: {_message(error)}") from error

    def _unreachable(self, error: Exception) -> InvalidInputError:
        reason = getattr(error, "reason", None) or error
        said = getattr(reason, "strerror", None) or reason
        return InvalidInputError(
            f"no server answers at {self._url}: {said}; `loopwright serve` begins one, --server names another"
        )


def _message(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.code} {error.reason}"


def _parsed(stream: Any) -> Iterator[tuple[str, ServerEvent]]:
    """The events in a stream with their ids, by https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    fields: dict[str, str] = {}
    for line in stream:
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield fields.get("id", ""), ServerEvent(fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}
