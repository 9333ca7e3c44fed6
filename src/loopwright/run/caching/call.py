"""One call of a block whose result is not known: what it reads and leaves, and whether that may be kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from loopwright.blocks import ModularPipelineBlocks
from loopwright.errors import UnsavableValueError
from loopwright.run.caching.content import Content, Incomparable, Place, aliases, clusters, digest
from loopwright.run.caching.copies import Given, copied, copied_bytes
from loopwright.run.caching.reads import ABSENT, Read, Reads, recorded
from loopwright.run.caching.resets import noticing_resets
from loopwright.run.caching.settings import random_states
from loopwright.run.caching.store import Entry
from loopwright.run.scope import is_run_scoped
from loopwright.state import PipelineState

if TYPE_CHECKING:
    from loopwright.run.caching.run_cache import RunCache
    from loopwright.run.driver import LoopDriver

__all__ = ["Call", "WatchedCall", "key_of"]

Call = Callable[..., tuple[Any, Any]]


def key_of(block: bytes, looked: list[tuple[Content, bytes]]) -> bytes:
    """The key of a result: the block, what it read, and which of that is the same object or shares memory."""
    read = b"".join(one for _, one in looked)
    return hashlib.sha256(block + read + digest(aliases([content for content, _ in looked]))).digest()


class WatchedCall:
    """One call of a block whose result is not in the cache.

    Args:
        run: the cache in the run.
        driver: the driver of the run.
        block: the block.
        state: the state that it is called with.
    """

    def __init__(self, run: RunCache, driver: LoopDriver, block: Any, state: PipelineState) -> None:
        self._run, self._driver, self._block, self._state = run, driver, block, state
        self._reads = Reads(state, self._look, lambda: driver.mark is not None)
        self._looked: dict[Read, tuple[Content, bytes]] = {}
        self._problem: str | None = None
        self._has_reset = False
        self._changed: list[str] = []
        self._seconds, self._iterations = 0.0, 0

    def _look(self, read: Read, value: Any) -> None:
        if self._problem is None:
            try:
                self._looked[read] = self._run.look(read, value)
            except Incomparable as error:
                self._problem = str(error)

    def run(self, call: Call, components: Any) -> tuple[Any, Any]:
        """Call the block, and note what it reads and writes."""
        view, driver = self._run.view, self._driver
        self._values, self._attributes, self._random = self._state.values, dict(vars(view)), random_states()
        self._iterations = driver.iterations
        driver.ended_early = False
        began = time.perf_counter()
        with recorded(view, self._state, self._reads), noticing_resets(self._note_reset):
            result = call(components, self._state)
        self._seconds = time.perf_counter() - began
        self._iterations = driver.iterations - self._iterations
        return result

    def _note_reset(self) -> None:
        # what is foreseen of the end of a run puts them back as well
        self._has_reset = self._has_reset or self._driver.mark is None

    def key(self, block: bytes) -> bytes:
        return key_of(block, list(self._looked.values()))

    def entry(self, key: bytes, result: tuple[Any, Any], head: Content) -> Entry:
        """What is to be stored.

        Args:
            key: the digest of the block and of the settings.
            result: what the block returned.
            head: the content of the block, before it was called.

        Raises:
            Incomparable: the result is not to be taken for that of another call; the message says why.
        """
        self._require_repeatable(key, result)
        self._require_unchanged()
        view, state = self._run.view, self._state
        values = {name: value for name, value in state.values.items() if name in self._reads.written}
        left = self._run.content_of_result()
        written: list[Any] = []
        for name, value in values.items():
            try:
                written.append(left.encode(value, name))
            except (UnsavableValueError, RecursionError) as error:
                raise Incomparable(f"its output `{name}` ({type(value).__name__}) cannot be copied") from error
        attributes = {name: vars(getattr(view, name)) for name in self._changed}
        written += [left.attributes(getattr(view, name), name) for name in self._changed]
        given = self._given()
        self._require_own(left, given)
        memo = {key: stand_in for key, (_, stand_in) in given.items()}
        copies = dict(memo)
        stored = copied((values, attributes), left.places, copies)
        places = [Place.of(copies[id(place.value)]) for place in left.places if id(place.value) not in memo]
        real = {id(place.value) for place in left.places if isinstance(place.value, torch.Tensor)}
        others = sum(tensor.nbytes for tensor in left.tensors.values() if id(tensor) not in real)
        tensors = [place for place in left.places if id(place.value) in real]
        return Entry(
            block=key,
            reads=tuple(self._looked),
            left=stored,
            given=tuple(memo.values()),
            places=tuple(place for place in places if place is not None),
            deleted=tuple(self._reads.deleted),
            groups={kind: list(names) for kind, names in state.kwargs_mapping.items()},
            size=copied_bytes(tensors, memo) + others + len(json.dumps(written)),
            seconds=self._seconds,
            iterations=self._iterations,
            pins=(head.pins, *(content.pins for content, _ in self._looked.values())),
        )

    def _require_repeatable(self, key: bytes, result: tuple[Any, Any]) -> None:
        """Refuse what cannot be done again from the cache."""
        view, state = self._run.view, self._state
        if self._problem is not None:
            raise Incomparable(self._problem)
        if self._reads.everything:
            raise Incomparable("it looked at all attributes of `components`")
        if random_states() != self._random:
            raise Incomparable("it drew random numbers")
        if self._has_reset:
            raise Incomparable("it put global random numbers back to where they were before, and may have drawn some")
        # what a block returns is only checked later
        returned: Any = result
        is_same = isinstance(returned, tuple) and [id(part) for part in returned] == [id(view), id(state)]
        if not is_same or state.values is not self._values:
            raise Incomparable("it put another state, or other `components`, in place of those that it was given")
        if self._driver.ended_early:
            raise Incomparable("a loop was ended before its end")
        why = self._run.why_iterate()
        if self._iterations and why is not None and why[1]:
            raise Incomparable(why[0])
        for name in {**self._attributes, **vars(view)}:
            if vars(view).get(name, ABSENT) is not self._attributes.get(name, ABSENT):
                raise Incomparable(f"it set `components.{name}`")

    def _require_unchanged(self) -> None:
        """Refuse a call that changed what it read; but the run's own components may change."""
        for read, (content, before) in self._looked.items():
            is_component = read.kind == "attribute" and read.name in self._run.view._component_specs
            if is_component:
                self._run.forget(read.name)
            value = self._reads.found[read]
            if self._run.look(read, value)[1] == before:
                continue
            if any(isinstance(part, torch.Generator) for part in content.objects):
                raise Incomparable(f"it drew random numbers from `{read.name}`")
            if is_component and is_run_scoped(value):
                self._changed.append(read.name)
            elif is_component:
                raise Incomparable(f"it changed the component `{read.name}`")
            elif read.kind == "attribute":
                raise Incomparable(f"it changed `components.{read.name}`")
            else:
                raise Incomparable(f"it changed its input `{read.name}`")

    def _given(self) -> dict[int, tuple[Any, Given]]:
        """What stands for the objects that the block was given and did not change, by their `id`."""
        view = self._run.view
        given: dict[int, tuple[Any, Given]] = {}
        for number, (read, (content, _)) in enumerate(self._looked.items()):
            if read.kind == "attribute" and read.name in self._changed:
                continue
            for position, value in enumerate(content.objects):
                given.setdefault(id(value), (value, Given(number, position)))
        for name, component in view.components.items():
            if component is not None and not isinstance(component, (bool, int, float, str)):
                given.setdefault(id(component), (component, Given(None, name)))
        return given

    def _require_own(self, left: Content, given: dict[int, tuple[Any, Given]]) -> None:
        """Refuse a result that shares memory with what the block was given, without being it or a part of it."""
        for value in left.objects:
            if id(value) in given:
                continue
            if isinstance(value, ModularPipelineBlocks) or (
                isinstance(value, Image.Image) and type(value) is not Image.Image
            ):
                raise Incomparable(f"what it made holds a {type(value).__name__}, which cannot be copied")
        own = [place for place in left.places if id(place.value) not in given]
        if not own:
            return
        theirs: list[tuple[str, Place]] = []
        for read, (content, _) in self._looked.items():
            if read.kind != "attribute" or read.name not in self._changed:
                theirs += [(f"`{read.name}`", place) for place in content.places]
        for place in own:
            parts = (given[id(whole.value)][1].within(whole, place) for _, whole in theirs)
            part = next((part for part in parts if part is not None), None)
            if part is not None:
                given[id(place.value)] = place.value, part
        own = [place for place in own if id(place.value) not in given]
        for read in self._looked:
            value = self._reads.found[read]
            if isinstance(value, torch.nn.Module):
                weights = (Place.of(tensor) for tensor in [*value.parameters(), *value.buffers()] if not tensor.is_meta)
                theirs += [(f"the weights of `{read.name}`", place) for place in weights if place is not None]
        for group in clusters([*own, *(place for _, place in theirs)]):
            if min(group) < len(own) <= max(group):
                raise Incomparable(f"what it made shares memory with {theirs[max(group) - len(own)][0]}")
