"""The cache in one run: which blocks it serves, what it stores, and why it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loopwright.errors import UnsavableValueError
from loopwright.run.caching.call import Call, WatchedCall, key_of
from loopwright.run.caching.content import Classes, Content, Incomparable, digest
from loopwright.run.caching.copies import copied
from loopwright.run.caching.description import description
from loopwright.run.caching.reads import ABSENT, Read
from loopwright.run.caching.report import CachedBlock, CacheReport, in_units
from loopwright.run.caching.settings import settings
from loopwright.run.caching.store import BlockCache, Entry
from loopwright.run.checkpoints import classes_of
from loopwright.run.scope import is_run_scoped
from loopwright.state import PipelineState

if TYPE_CHECKING:
    from loopwright.run.driver import LoopDriver

__all__ = ["RunCache"]


class RunCache:
    """Lets the blocks of one run that are outside loops, and its loops as a whole, take their results from the cache.

    A result is taken if the block, everything that it read when the result was stored, and the settings of torch are
    the same, bit for bit. A block that draws random numbers, changes its inputs, or does anything else that a later
    block could notice and that cannot be done again from the cache, is not stored.

    Args:
        cache: what the pipeline keeps.
        pipeline: the pipeline.
        view: the run's view of it.
        why_iterate: why the run has to go through the iterations of its loops, and whether these may change something;
            None if there is no reason.
    """

    def __init__(
        self, cache: BlockCache, pipeline: Any, view: Any, why_iterate: Callable[[], tuple[str, bool] | None]
    ) -> None:
        self._cache, self._pipeline, self._view, self._why_iterate = cache, pipeline, view, why_iterate
        self._is_inside = False
        self._blocks: list[CachedBlock] = []
        self._known_classes: Classes | None = None
        self._known_descriptions: dict[str, tuple[Any, str, list[Any]]] = {}
        self._describing: list[str] = []

    @property
    def report(self) -> CacheReport:
        """What became of each block so far."""
        return CacheReport(tuple(self._blocks))

    def through(self, driver: LoopDriver, path: str, block: Any, call: Call) -> Call:
        """A call of a leaf or a loop that takes the result from the cache, if it is there.

        Args:
            driver: the driver of the run.
            path: the path of the block.
            block: the block.
            call: calls it.
        """

        def cached(components: Any, state: Any, **variables: Any) -> tuple[Any, Any]:
            # what a block calls by itself is a part of it
            if self._is_inside or driver.frames or variables or type(state) is not PipelineState:
                return call(components, state, **variables)
            self._is_inside = True
            try:
                return self._call(driver, path, block, call, components, state)
            finally:
                self._is_inside = False

        return cached

    def _call(
        self, driver: LoopDriver, path: str, block: Any, call: Call, components: Any, state: PipelineState
    ) -> tuple[Any, Any]:
        began = time.perf_counter()
        try:
            if driver.replay is not None:
                raise Incomparable("the run goes on from a checkpoint")
            if components is not self._view:
                raise Incomparable("it does not get the `components` of the run")
            head = self._content()
            itself = self._digest_of(block, head)
            groups = {kind: list(names) for kind, names in state.kwargs_mapping.items()}
            key = itself + digest([head.pin(type(self._view)), settings(), groups])
        except Incomparable as error:
            self._blocks.append(CachedBlock(path, "not cached", str(error)))
            return call(components, state)
        found = self._find(key, state)
        if found is not None:
            entry, contents = found
            if not entry.iterations or self._why_iterate() is None:
                self._take(entry, contents, state)
                saved = entry.seconds - (time.perf_counter() - began)
                self._blocks.append(CachedBlock(path, "hit", "", entry.size, saved))
                return components, state
        call_of_block = WatchedCall(self, driver, block, state)
        result = call_of_block.run(call, components)
        try:
            if self._digest_of(block, self._content()) != itself:
                raise Incomparable("it changed its own attributes")
            entry = call_of_block.entry(key, result, head)
            if not self._cache.put(call_of_block.key(key), entry):
                raise Incomparable(
                    f"its result takes {in_units(entry.size)}, and the cache holds {in_units(self._cache.max_bytes)}"
                )
            self._blocks.append(CachedBlock(path, "stored", "", entry.size))
        except Incomparable as error:
            self._blocks.append(CachedBlock(path, "not cached", str(error)))
        return result

    def _digest_of(self, block: Any, content: Content) -> bytes:
        try:
            return digest(content.block(block, ""))
        except RecursionError as error:
            raise Incomparable("its attributes are nested too deeply to be compared") from error

    # Looking up

    def _find(self, block: bytes, state: PipelineState) -> tuple[Entry, list[Content]] | None:
        """What is stored for a block and this state, and what the state holds of what the block read then."""
        known: dict[Read, tuple[Content, bytes]] = {}
        for reads in self._cache.reads_of(block):
            try:
                for read in reads:
                    if read not in known:
                        known[read] = self.look(read, self._now(read, state))
            except Incomparable:
                continue
            entry = self._cache.find(key_of(block, [known[read] for read in reads]))
            if entry is not None:
                return entry, [known[read][0] for read in reads]
        return None

    def _now(self, read: Read, state: PipelineState) -> Any:
        if read.kind == "value":
            return state.values.get(read.name, ABSENT)
        if read.kind == "names":
            return list(state.values)
        try:
            return getattr(self._view, read.name, ABSENT)
        except Exception as error:
            raise Incomparable(f"`components.{read.name}` raises {type(error).__name__}") from error

    def _take(self, entry: Entry, contents: list[Content], state: PipelineState) -> None:
        """Do to the run what the block would have done."""
        memo = {
            id(given): getattr(self._view, str(given.number))
            if given.content is None
            else given.resolved(contents[given.content].objects[int(given.number)])
            for given in entry.given
        }
        values, components = copied(entry.left, entry.places, memo)
        for name in entry.deleted:
            state.values.pop(name, None)
        state.values.update(values)
        state.kwargs_mapping.clear()
        state.kwargs_mapping.update({kind: list(names) for kind, names in entry.groups.items()})
        for name, attributes in components.items():
            own = vars(getattr(self._view, name))
            own.clear()
            own.update(attributes)

    # What is compared

    def look(self, read: Read, value: Any) -> tuple[Content, bytes]:
        """What was read, and its digest.

        Raises:
            Incomparable: there is no telling whether it is the same as something else.
        """
        content = self._content()
        is_component = read.kind == "attribute" and read.name in self._view._component_specs
        try:
            if value is ABSENT:
                written: Any = "absent"
            elif is_component and is_run_scoped(value):
                written = [content.pin(type(value)), content.attributes(value, read.name)]
            elif is_component and value is not None:
                written = self.describe(read.name, content.pins)
            else:
                written = [content.encode(value, read.name)]
        except (UnsavableValueError, RecursionError) as error:
            what = {"value": "the value ", "attribute": "the component " if is_component else "`components` has "}
            raise Incomparable(
                f"{what.get(read.kind, '')}`{read.name}` ({type(value).__name__}) cannot be compared"
            ) from error
        return content, digest([read.kind, read.name, written])

    def _content(self, hashing: bool = True) -> Content:
        if self._known_classes is None:
            self._known_classes = classes_of(self._pipeline, ())
        return Content(self._view.components, self._known_classes, self.describe, hashing)

    def describe(self, name: str, pins: list[Any]) -> str:
        """The description of a component of the run, which holds until `forget`."""
        component = getattr(self._view, name)
        if is_run_scoped(component):
            if name in self._describing:
                return "itself"
            self._describing.append(name)
            try:
                content = self._content()
                written = [content.pin(type(component)), content.attributes(component, name)]
            finally:
                self._describing.pop()
            pins += content.pins
            return digest(written).hex()
        known = self._known_descriptions.get(name)
        if known is None or known[0] is not component:
            kept: list[Any] = []
            known = self._known_descriptions[name] = component, description(component, kept), kept
        pins.append(known[2])
        return known[1]

    def forget(self, name: str) -> None:
        """A component may have changed."""
        self._known_descriptions.pop(name, None)

    @property
    def view(self) -> Any:
        return self._view

    def content_of_result(self) -> Content:
        return self._content(hashing=False)

    def why_iterate(self) -> tuple[str, bool] | None:
        return self._why_iterate()
