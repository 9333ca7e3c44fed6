"""What a pipeline keeps of the work of its blocks, from one run to the next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from loopwright.errors import InvalidInputError
from loopwright.run.caching.content import Place
from loopwright.run.caching.copies import Given
from loopwright.run.caching.reads import Read

__all__ = ["BlockCache", "Entry"]

# a digest; the cache itself has an attribute `bytes`
Key = bytes


@dataclass(frozen=True)
class Entry:
    """What one call of a block left.

    Attributes:
        block: the digest of the block and of the modes under which it was called.
        reads: what it read.
        left: values, and the attributes of the run's own components, with `given` in place of what the block was given.
        given: stand for objects that the run has.
        places: where the tensors and arrays in it lie.
        deleted: the names of the values that it took out.
        groups: the groups of values when it had run.
        size: in bytes.
        seconds: how long it took.
        iterations: how many iterations of loops there were.
        pins: objects whose `id` is in a digest.
    """

    block: Key
    reads: tuple[Read, ...]
    left: Any
    given: tuple[Given, ...]
    places: tuple[Place, ...]
    deleted: tuple[str, ...]
    groups: dict[str, list[str]]
    size: int
    seconds: float
    iterations: int
    pins: tuple[Any, ...]


class BlockCache:
    """The results of blocks outside loops, and of whole loops, that later runs of a pipeline take over.

    Made by `pipe.cache()`. What was used least recently goes first when there is more than `max_bytes`.

    Attributes:
        max_bytes: how many bytes it may hold.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        # what blocks were seen to read, by their digests: each with how many entries there are
        self._reads: dict[Key, dict[tuple[Read, ...], int]] = {}
        self._bytes = 0
        self.max_bytes = 0
        self.resize(max_bytes)

    @property
    def bytes(self) -> int:
        """The bytes that it holds now."""
        return self._bytes

    def __len__(self) -> int:
        """The number of results that it holds."""
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._reads.clear()
            self._bytes = 0

    def resize(self, max_bytes: Any) -> None:
        """Change how many bytes it may hold.

        Raises:
            InvalidInputError: that is not a number of bytes.
        """
        if type(max_bytes) is not int or max_bytes < 0:
            raise InvalidInputError(
                f"`max_bytes` of a cache is {max_bytes!r}; it must be a whole number of bytes, such as `2**30` for "
                f"1 GiB, or 0 for no cache"
            )
        with self._lock:
            self.max_bytes = max_bytes
            self._shrink()

    def reads_of(self, block: Key) -> list[tuple[Read, ...]]:
        """What a block was seen to read, one time or another."""
        with self._lock:
            return list(self._reads.get(block, ()))

    def find(self, key: Key) -> Entry | None:
        """What is kept under a key; it counts as used."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep something, unless it is too large."""
        with self._lock:
            if entry.size > self.max_bytes:
                return False
            if key in self._entries:
                self._remove(key)
            self._entries[key] = entry
            counts = self._reads.setdefault(entry.block, {})
            counts[entry.reads] = counts.get(entry.reads, 0) + 1
            self._bytes += entry.size
            self._shrink()
            return True

    def _shrink(self) -> None:
        while self._bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size
        counts = self._reads[entry.block]
        counts[entry.reads] -= 1
        if not counts[entry.reads]:
            del counts[entry.reads]
        if not counts:
            del self._reads[entry.block]

    # a copy of a pipeline has a cache of its own
    def __reduce__(self) -> Any:
        return BlockCache, (self.max_bytes,)

    def __repr__(self) -> str:
        return f"<BlockCache: {len(self)} results, {self._bytes:,} of {self.max_bytes:,} bytes>"
