"""Structured logs: a JSON object in each line, with the request and the job that it is about.

What clients send is not in them: no prompt, no input. Messages of exceptions and warnings may quote inputs, so they are
left out as well, unless the operator asks for them; what remains says which exception it was, and where.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from contextvars import ContextVar
from typing import Any, TextIO

__all__ = ["LOGGER", "REQUEST_ID", "log", "log_failure", "set_up_logs"]

LOGGER = logging.getLogger("loopwright.server")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
_OTHERS = ("uvicorn", "uvicorn.error", "asyncio", "py.warnings")
# what follows shows objects, such as an exception
_SHOWN = re.compile(r"[(<\n]")


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line.

    Args:
        event: what happened, always in the same words.
        level: how important it is.
        **fields: what about; nothing that a client sent, but for names that were checked.
    """
    LOGGER.log(level, event, extra={"fields": fields})


def log_failure(event: str, error: BaseException, level: int = logging.ERROR, **fields: Any) -> None:
    """Write a line about an exception."""
    LOGGER.log(level, event, exc_info=error, extra={"fields": fields})


def set_up_logs(stream: TextIO = sys.stderr, level: int = logging.INFO, with_texts: bool = False) -> None:
    """Send the logs of the server, of uvicorn, and Python's warnings to a stream, as lines of JSON.

    Args:
        stream: where to.
        level: the least important that is written.
        with_texts: whether the messages of exceptions and warnings are written, which may quote prompts.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines(with_texts))
    logging.captureWarnings(True)
    for logger in (LOGGER, *map(logging.getLogger, _OTHERS)):
        logger.handlers = [handler]
        logger.propagate = False
    LOGGER.setLevel(level)
    for name in _OTHERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _Lines(logging.Formatter):
    def __init__(self, with_texts: bool) -> None:
        super().__init__()
        self._with_texts = with_texts

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": self._event(record),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            line["request_id"] = request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            line.update(self._exception(record.exc_info[1]))
        return json.dumps(line, default=str)

    def _event(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name == "py.warnings" and not self._with_texts:
            # the first line of a warning is "file:line: Category: message"
            return ":".join(message.split(":", 3)[:3])
        if record.name == "asyncio" and not self._with_texts:
            return _SHOWN.split(message, maxsplit=1)[0].strip()
        return message

    def _exception(self, error: BaseException) -> dict[str, Any]:
        frames = [
            f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        location = getattr(error, "loopwright", None)
        described: dict[str, Any] = {"error": type(error).__name__, "frames": frames}
        if location is not None and location.path:
            described["block"] = location.path
        if self._with_texts:
            described["message"] = str(error)
        return described
