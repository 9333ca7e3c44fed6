"""Terminals for tests: a real pseudo-terminal around a command, and a screen that shows what was written to one."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
from pathlib import Path

PROGRAM = [sys.executable, "-c", "import sys; from loopwright.cli import main; sys.exit(main())"]
CTRL_C = b"\x03"
# a command that says nothing for so many seconds is taken to hang
_PATIENCE = 120


class Terminal:
    """A command in a terminal of its own, of which it is the controlled one: Ctrl-C is a key.

    Args:
        arguments: what stands after `loopwright`.
        folder: the folder to run in.
        stdin: what it reads, if not what is typed.
        **environment: variables beside those of this process.
    """

    def __init__(self, arguments: list[str], folder: Path, stdin: int | None = None, **environment: str) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.shown = ""
        self._position = 0
        self._is_open = True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        assert select.select([self._master], [], [], _PATIENCE)[0], f"nothing more is shown: {self.shown!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the command has ended
            data = b""
        self._is_open = bool(data)
        self.shown += self._decoder.decode(data)

    def wait_for(self, text: str) -> str:
        """Read until a text appears after what was waited for last; returns what comes before it."""
        while (found := self.shown.find(text, self._position)) < 0:
            assert self._is_open, f"{text!r} is not shown: {self.shown!r}"
            self._read()
        before, self._position = self.shown[self._position : found], found + len(text)
        return before

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self) -> int:
        """Read to the end; returns the exit code."""
        while self._is_open:
            self._read()
        return self.process.wait(_PATIENCE)


_PIECE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """What a terminal shows, without its colours."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns = columns
        self._rows = [""] * lines
        self._x = self._y = 0

    @property
    def lines(self) -> list[str]:
        """The lines down to the last that is not empty."""
        lines = [row.rstrip() for row in self._rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def write(self, text: str) -> None:
        for arguments, command, control, plain in _PIECE.findall(text):
            if plain:
                self._put(plain)
            elif control == "\r":
                self._x = 0
            elif control == "\n":
                self._x = 0
                self._y += 1
                if self._y == len(self._rows):
                    self._rows = [*self._rows[1:], ""]
                    self._y -= 1
            elif command == "A":
                self._y = max(self._y - int(arguments or 1), 0)
            elif command in "JK":
                self._rows[self._y] = self._rows[self._y][: self._x]
                if command == "J":
                    self._rows[self._y + 1 :] = [""] * (len(self._rows) - self._y - 1)
            else:
                assert command in "mhl", f"unexpected: {arguments}{command}"

    def _put(self, plain: str) -> None:
        row = self._rows[self._y].ljust(self._x)
        self._x += len(plain)
        assert self._x <= self.columns, f"the line is too long: {plain!r}"
        self._rows[self._y] = row[: self._x - len(plain)] + plain + row[self._x :]
