"""Reusing what blocks outside loops have made, when they, what they read and what they work with are the same.

The unit is a leaf or a whole loop. What it reads is watched while it runs, and found again by content. A block is left
out if what it did cannot be had by putting its outputs into the state: it drew random numbers, wrote into a value,
changed itself or a model, or somebody intervened in its loop.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from loopwright.blocks import walk
from loopwright.errors import InvalidInputError, UnsavableValueError
from loopwright.run.checkpoints import classes_of
from loopwright.run.checkpoints.codec import Encoder, class_key, tensor_bytes
from loopwright.run.checkpoints.fingerprint import component_fingerprint
from loopwright.run.scope import is_run_scoped
from loopwright.state import PipelineState, fork_values

__all__ = ["BlockCache", "CacheReport", "CacheRow", "CachedRun"]

# attributes of blocks that are not part of what they do
_INTERNAL = frozenset({"_cache", "_sub_blocks", "_progress_bar_config", "block_classes", "block_names", "description"})


class NotCacheable(Exception):
    """Says why what a block made is not kept."""


@dataclass(frozen=True)
class CacheRow:
    """What the cache did for one block.

    Attributes:
        path: the path of the block.
        outcome: `hit`, `stored` or `not cached`.
        reason: why it was not cached.
        size: bytes that were stored, or served.
        seconds: how long the block took when it ran.
    """

    path: str
    outcome: str
    reason: str = ""
    size: int = 0
    seconds: float = 0.0


class CacheReport(list[CacheRow]):
    """What the cache did for each block of a run, in order; as text a table."""

    def __str__(self) -> str:
        width = max([len(row.path) for row in self], default=0)
        return "\n".join(
            f"{row.path:{width}}  {row.outcome:10}  {row.size:>12,} bytes  {row.seconds:8.3f} s  {row.reason}".rstrip()
            for row in self
        )


@dataclass
class _Entry:
    """What a block left behind.

    Attributes:
        outputs: copies of the values that it wrote.
        aliases: names that it gave to values that were there, with the names that these had.
        deleted: names that it took away.
        groups: the groups of the state afterwards.
        components: copies of the run-scoped components that it changed.
        kept: objects that are told apart by identity in the key, and so must stay.
    """

    outputs: dict[str, Any]
    aliases: dict[str, str]
    deleted: list[str]
    groups: dict[str, list[str]]
    components: dict[str, Any]
    kept: list[Any]
    size: int
    seconds: float


class BlockCache:
    """Outputs of blocks, by what they were made from; the least recently used give way.

    Args:
        max_bytes: how many bytes of outputs it holds at most.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        # the sets of names that a block was seen to read
        self._reads: dict[str, list[tuple[str, ...]]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """How many bytes it holds."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._reads.clear()
            self._bytes = 0

    def resize(self, max_bytes: int) -> None:
        """Change the bound."""
        with self._lock:
            self.max_bytes = max_bytes
            self._make_room(0)

    def __repr__(self) -> str:
        return f"<BlockCache: {len(self._entries)} entries, {self._bytes:,} of {self.max_bytes:,} bytes>"

    def reads(self, block: str) -> list[tuple[str, ...]]:
        with self._lock:
            return list(self._reads.get(block, ()))

    def get(self, key: str) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, block: str, names: tuple[str, ...], key: str, entry: _Entry) -> None:
        """Raises `NotCacheable` if the entry is larger than the cache."""
        if entry.size > self.max_bytes:
            raise NotCacheable(f"its outputs are larger than the {self.max_bytes:,} bytes of the cache")
        with self._lock:
            known = self._reads.setdefault(block, [])
            if names not in known:
                known.append(names)
            old = self._entries.pop(key, None)
            if old is not None:
                self._bytes -= old.size
            self._make_room(entry.size)
            self._entries[key] = entry
            self._bytes += entry.size

    def _make_room(self, size: int) -> None:
        while self._entries and self._bytes + size > self.max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1].size


class CachedRun:
    """The cache as one run uses it.

    Args:
        cache: the cache.
        pipeline: the pipeline.
        view: the run's view of it.

    Attributes:
        report: what it did so far.
        interventions: how often somebody changed what a loop does: stopped it, or changed its values in a callback.
    """

    def __init__(self, cache: BlockCache, pipeline: Any, view: Any) -> None:
        self.report = CacheReport()
        self.interventions = 0
        self._cache = cache
        self._pipeline, self._view = pipeline, view
        self._classes = classes_of(pipeline, ())

    def serving(self, path: str, block: Any, call: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
        """The call of a block, which takes its outputs from the cache if they are there."""

        def served(components: Any, state: Any) -> tuple[Any, Any]:
            if type(state) is not PipelineState:
                return call(components, state)  # type: ignore[no-any-return]
            try:
                before = _Before(self, block, state)
            except NotCacheable as reason:
                self.report.append(CacheRow(path, "not cached", str(reason)))
                return call(components, state)  # type: ignore[no-any-return]
            for names in self._cache.reads(before.block):
                try:
                    entry = self._cache.get(before.key(names))
                except NotCacheable:
                    continue
                if entry is not None:
                    self._serve(entry, state)
                    self.report.append(CacheRow(path, "hit", "", entry.size, entry.seconds))
                    return components, state
            return self._run(path, before, call, components, state)

        return served

    def _run(
        self, path: str, before: _Before, call: Callable[..., Any], components: Any, state: PipelineState
    ) -> tuple[Any, Any]:
        interventions = self.interventions
        before.remember()
        watched = state.values = _Watched(state.values)
        start = time.perf_counter()
        try:
            returned = call(components, state)
        finally:
            state.values = dict(dict.items(watched))
        seconds = time.perf_counter() - start
        try:
            if self.interventions != interventions:
                raise NotCacheable("its loop was stopped, or a callback changed its values")
            if returned[0] is not components or returned[1] is not state:
                raise NotCacheable("it returned another state, or other components")
            names = tuple(sorted(name for name in watched.read))
            before.check(names)
            key = before.key(names)
            entry = before.entry(state, names, watched.written, seconds)
            self._cache.put(before.block, names, key, entry)
            self.report.append(CacheRow(path, "stored", "", entry.size, seconds))
        except NotCacheable as reason:
            self.report.append(CacheRow(path, "not cached", str(reason), 0, seconds))
        return returned  # type: ignore[no-any-return]

    def _serve(self, entry: _Entry, state: PipelineState) -> None:
        memo: dict[int, Any] = {}
        old = dict(state.values)
        state.values.update(fork_values(entry.outputs, memo))
        state.values.update((name, old[other]) for name, other in entry.aliases.items())
        for name in entry.deleted:
            state.values.pop(name, None)
        state.kwargs_mapping.clear()
        state.kwargs_mapping.update((kind, list(names)) for kind, names in entry.groups.items())
        for name, component in entry.components.items():
            self._view.__dict__[name] = deepcopy(component, memo)

    # What the key is made of.

    def _encoded(self, value: Any, what: str) -> str:
        """A digest of a value's content.

        Raises:
            NotCacheable: there is no telling whether two such values are the same.
        """
        encoder = Encoder({}, self._classes)
        try:
            if is_run_scoped(value):
                written = [class_key(type(value)), encoder.attributes(value, what)]
            else:
                written = encoder.encode(value, what)
        except UnsavableValueError as error:
            raise NotCacheable(f"{error}".replace("cannot be saved", "cannot be compared")) from error
        digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode())
        for name, tensor in encoder.tensors.items():
            digest.update(name.encode() + str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor_bytes(tensor).data)
        return digest.hexdigest()


class _Watched(dict[str, Any]):
    """The values of a state.

    Attributes:
        read: the names that were asked for before they were written.
        written: the names that were written, be it what was there before.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._there = frozenset(values)
        self.written: set[str] = set()
        self.read: set[str] = set()

    def _note(self, name: Any) -> None:
        if name not in self.written and isinstance(name, str):
            self.read.add(name)

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self._note(name)
        return super().__contains__(name)

    def setdefault(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().setdefault(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self._note(name)
        return super().pop(name, *default)

    def __setitem__(self, name: str, value: Any) -> None:
        self.written.add(name)
        super().__setitem__(name, value)

    def update(self, *values: Any, **named: Any) -> None:
        for name, value in dict(*values, **named).items():
            self[name] = value

    def _note_all(self) -> None:
        self.read.update(self._there)

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def keys(self) -> Any:
        self._note_all()
        return super().keys()

    def values(self) -> Any:
        self._note_all()
        return super().values()

    def items(self) -> Any:
        self._note_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        self._note_all()
        return dict(dict.items(self))


@dataclass
class _Before:
    """What a block is about to see.

    Attributes:
        run: the run's cache.
        unit: the block.
        state: the state.
        block: a digest of the block, of what it works with, and of the modes it runs under.
    """

    run: CachedRun
    unit: Any
    state: PipelineState
    block: str = field(init=False)

    def __post_init__(self) -> None:
        self.kept: list[Any] = []
        self.values = dict(self.state.values)
        self.groups = {kind: list(names) for kind, names in self.state.kwargs_mapping.items()}
        self.names = [name for name in self.unit.component_names if name]
        self._view = self.run._view
        self._digests: dict[str, str] | None = None
        self.scoped = self._scoped()
        self._itself = self._block()
        self._fixed = self._components()
        self.block = _digest(self._itself, self._fixed, self.scoped, self.groups, _modes(), self._configs())

    def key(self, names: tuple[str, ...]) -> str:
        """What stands for the block and the values of these names; several names of one object count as that."""
        read = {name: self.values[name] for name in names if name in self.values}
        return _digest(self.block, names, self.run._encoded(read, "the state"))

    def check(self, names: tuple[str, ...]) -> None:
        """Raises `NotCacheable` if the block did more than set values of the state."""
        if self._random != _random_numbers():
            raise NotCacheable("it drew random numbers")
        for name, digest in self.contents.items():
            if digest != self._content(name):
                generator = isinstance(self.values[name], torch.Generator)
                raise NotCacheable(
                    f"it drew random numbers from `{name}`" if generator else f"it changed its input `{name}`"
                )
        if self._itself != self._block():
            raise NotCacheable("the block changed itself")
        if self._fixed != self._components():
            raise NotCacheable("it changed a model")
        own = self._attributes()
        for name in own.keys() | self._before.keys():
            if own.get(name) is not self._before.get(name):
                raise NotCacheable(f"it set the attribute `{name}` of the pipeline")

    def entry(self, state: PipelineState, names: tuple[str, ...], written: set[str], seconds: float) -> _Entry:
        """What the block left behind. Raises `NotCacheable` if a copy of it would not be the same."""
        changed = {name: value for name, value in state.values.items() if name in written}
        read = {name: self.values[name] for name in names if name in self.values}
        known = {id(value): name for name, value in read.items() if _is_mutable(value)}
        aliases = {name: known[id(value)] for name, value in changed.items() if id(value) in known}
        outputs = {name: value for name, value in changed.items() if name not in aliases}
        theirs = {part for value in self.values.values() for part in _parts(value)}
        for name, value in outputs.items():
            if any(part in theirs for part in _parts(value)):
                raise NotCacheable(f"its output `{name}` shares memory with a value that was there before")
        memo: dict[int, Any] = {}
        try:
            copies = fork_values(outputs, memo)
            components = {
                name: deepcopy(self._view.__dict__[name], memo)
                for name, digest in self._scoped().items()
                if digest != self.scoped.get(name)
            }
        except Exception as error:
            raise NotCacheable(str(error)) from error
        return _Entry(
            copies,
            aliases,
            [name for name in self.values if name not in state.values],
            {kind: list(names) for kind, names in state.kwargs_mapping.items()},
            components,
            self.kept,
            sum(_size(value) for value in copies.values()) + sum(_size(vars(c)) for c in components.values()),
            seconds,
        )

    def remember(self) -> None:
        """What the block may change: looked at only where it has to run."""
        self.contents = {name: self._content(name) for name in self.values}
        self._random = _random_numbers()
        self._before = self._attributes()

    def _content(self, name: str) -> str:
        try:
            return self.run._encoded(self.values[name], name)
        except NotCacheable:
            return ""

    def _attributes(self) -> dict[str, Any]:
        scoped = self._view._component_specs
        return {
            name: value for name, value in self._view.__dict__.items() if not (name in scoped and is_run_scoped(value))
        }

    def _scoped(self) -> dict[str, str]:
        """The state of each component that the run has to itself."""
        components = {name: self._peeked(name) for name in self.names}
        return {name: self.run._encoded(c, name) for name, c in components.items() if is_run_scoped(c)}

    def _components(self) -> dict[str, str]:
        return {
            name: component_fingerprint(component) + self._identity(component)
            for name in self.names
            if not is_run_scoped(component := self._peeked(name))
        }

    def _peeked(self, name: str) -> Any:
        """A component, without making the run's own copy of it."""
        own = self._view.__dict__
        return own[name] if name in own else own.get("_originals", {}).get(name)

    def _identity(self, component: Any) -> str:
        """What tells apart components that no fingerprint does: those with neither weights nor a configuration."""
        if isinstance(component, torch.nn.Module):
            return f" {component.training}"
        if component is None or hasattr(component, "config"):
            return ""
        self.kept.append(component)
        return f" {id(component)}"

    def _configs(self) -> str:
        return self.run._encoded({n: getattr(self._view, n) for n in self._view._config_specs}, "the configuration")

    def _block(self) -> list[Any]:
        described: list[Any] = []
        for path, block in walk(self.unit):
            self.kept.append(type(block))
            described.append((path, id(type(block))))
            for name, value in vars(block).items():
                if name in _INTERNAL:
                    continue
                try:
                    described.append((name, self.run._encoded(value, name)))
                except NotCacheable:
                    self.kept.append(value)
                    described.append((name, id(value)))
        return described


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _modes() -> tuple[Any, ...]:
    """What else bits depend on."""
    autocast = [
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        for kind in ("cpu", "cuda", "mps")
        if torch.is_autocast_enabled(kind)
    ]
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        autocast,
        torch.get_default_dtype(),
        str(torch.get_default_device()),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
    )


def _random_numbers() -> str:
    """Where the global random generators are."""
    cuda = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    numpy_state: Any = np.random.get_state()
    return _digest(
        random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch.get_rng_state().numpy().tobytes(), cuda
    )


def _is_mutable(value: Any) -> bool:
    return not isinstance(value, (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device))


def _parts(value: Any) -> Iterator[Any]:
    """What would be shared by two values that share memory: objects by identity, tensors by their storage."""
    if isinstance(value, torch.Tensor):
        if value.numel():
            yield "storage", value.untyped_storage().data_ptr()
    elif isinstance(value, torch.nn.Module):
        return
    elif isinstance(value, Mapping):
        yield id(value)
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        if not isinstance(value, (tuple, frozenset)):
            yield id(value)
        for item in value:
            yield from _parts(item)
    elif _is_mutable(value):
        yield id(value)


def _size(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.nbytes
    if isinstance(value, Image.Image):
        return value.width * value.height * len(value.getbands())
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Mapping):
        return 64 + sum(_size(item) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return 64 + sum(_size(item) for item in value)
    return 64


def resized(cache: BlockCache | None, max_bytes: Any) -> BlockCache | None:
    """The cache with another bound, made if there is none; None for a bound of 0.

    Raises:
        InvalidInputError: the bound is not a number of bytes.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
        raise InvalidInputError(f"`max_bytes` is {max_bytes!r}; it must be a number of bytes, 0 to turn the cache off")
    if max_bytes == 0:
        return None
    if cache is None:
        return BlockCache(max_bytes)
    cache.resize(max_bytes)
    return cache
