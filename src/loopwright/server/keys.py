"""API keys: made once and shown once; what is kept is their hash."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import InvalidInputError, StorageError, did_you_mean
from loopwright.run.checkpoints import LocalFolder

__all__ = ["KEYS_FILE", "ROLES", "Key", "Keys"]

KEYS_FILE = "keys.json"
# `user` may do everything with jobs of its own, `monitor` only look, at those of all, and at the metrics
ROLES = ("user", "monitor")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORMAT = 1


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: whose it is; jobs belong to that name.
        role: one of `ROLES`.
        hash: the SHA-256 of the key. A key is 256 random bits, so no guessing comes near it.
    """

    name: str
    role: str
    hash: str


class Keys:
    """The keys of a data folder. A file that was changed is read again.

    Args:
        folder: the data folder.

    Raises:
        StorageError: the file of keys cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEYS_FILE
        self._lock = threading.Lock()
        self._stamp: Any = None
        self._keys: tuple[Key, ...] = ()
        self._are_needed = False
        self.all()

    @property
    def are_needed(self) -> bool:
        """Whether nobody is let in without a key: from the first key on, also when all have been removed."""
        self.all()
        return self._are_needed

    def all(self) -> tuple[Key, ...]:
        """The keys that there are now."""
        with self._lock:
            try:
                status = os.stat(self._path)
            except FileNotFoundError:
                self._stamp, self._keys = None, ()
                return ()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            self._are_needed = True
            if stamp != self._stamp:
                self._keys, self._stamp = self._read(), stamp
            return self._keys

    def _read(self) -> tuple[Key, ...]:
        try:
            written = json.loads(self._path.read_bytes())
            if written["format"] != _FORMAT:
                raise ValueError("a newer version of loopwright wrote it")
            return tuple(Key(**key) for key in written["keys"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            # without its keys a server would be open to everybody
            raise StorageError(f"the API keys in {self._path} cannot be read: {error}") from error

    def find(self, secret: str) -> Key | None:
        """Whose key it is. All are compared, each in constant time."""
        digest = _hash(secret)
        found = None
        for key in self.all():
            if hmac.compare_digest(key.hash, digest):
                found = key
        return found

    def add(self, name: str, role: str = "user") -> str:
        """Make a key, and return it: nobody can look it up later.

        Raises:
            InvalidInputError: the name is taken, or cannot be one, or there is no such role.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"{name!r} cannot be the name of a key: it must be letters, digits, `.`, `-` and `_`, at most 64"
            )
        if role not in ROLES:
            raise InvalidInputError(f"there is no role {role!r}{did_you_mean(role, ROLES)}; there are {_listed(ROLES)}")
        keys = self.all()
        if any(key.name == name for key in keys):
            raise InvalidInputError(f"there is a key {name!r} already; remove it first, or take another name")
        secret = f"lw-{secrets.token_urlsafe(32)}"
        self._write((*keys, Key(name, role, _hash(secret))))
        return secret

    def remove(self, name: str) -> None:
        """Make a key useless.

        Raises:
            InvalidInputError: there is none of that name.
        """
        keys = self.all()
        names = [key.name for key in keys]
        if name not in names:
            raise InvalidInputError(
                f"there is no key {name!r}{did_you_mean(name, names)}; "
                + (f"there are {_listed(names)}" if names else "there are none")
            )
        self._write(tuple(key for key in keys if key.name != name))

    def _write(self, keys: tuple[Key, ...]) -> None:
        record = {"format": _FORMAT, "keys": [asdict(key) for key in keys]}
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        LocalFolder(self._path.parent).write(self._path.name, json.dumps(record, indent=2).encode())
        self._path.chmod(0o600)
        if os.name == "posix" and os.geteuid() == 0:
            # the server may run as another user, whose folder it is then
            folder = self._path.parent.stat()
            os.chown(self._path, folder.st_uid, folder.st_gid, follow_symlinks=False)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", errors="surrogatepass")).hexdigest()


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
