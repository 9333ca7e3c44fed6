"""What a block reads while it works: values of the state, attributes of the pipeline.

A block reads more than it declares: it probes names, goes through the state, asks for properties of the pipeline. So
what counts is what it really asks for. Each value is looked at when the block first asks for it, before it can change
it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

from loopwright.state import PipelineState

__all__ = ["ABSENT", "Read", "Reads", "recorded"]


class _Absent:
    """Stands for what is not there."""


ABSENT: Any = _Absent()

# what runs themselves ask of their view of a pipeline
_OF_THE_RUN = frozenset({"_blocks", "_component_specs", "_config_specs", "_driver", "_originals"})


class Read(NamedTuple):
    """Something that a block asked for.

    Attributes:
        kind: `value` for a value of the state, `names` for the names of all of them, `attribute` for an attribute of
            the pipeline.
        name: its name; empty for `names`.
    """

    kind: str
    name: str


class Reads:
    """What one call of a block reads, and which values it writes.

    Args:
        state: the state that it is called with.
        look: called with each thing that is read, when it is first read.
        paused: whether something else than the block is at work, whose reads do not count.

    Attributes:
        found: what was read, and the object that was there.
        written: the names of the values that were set.
        deleted: the names of those that were deleted at some time.
        everything: whether all attributes of the pipeline were looked at.
    """

    def __init__(self, state: PipelineState, look: Callable[[Read, Any], None], paused: Callable[[], bool]) -> None:
        self.before = dict(state.values)
        self.found: dict[Read, Any] = {}
        self.written: set[str] = set()
        self.deleted: set[str] = set()
        self.everything = False
        self._look, self._paused = look, paused
        self._lock = threading.RLock()
        self._busy = False

    def note(self, read: Read, value: Any) -> None:
        """Something was read."""
        with self._lock:
            if self._busy or self._paused() or read in self.found:
                return
            self.found[read] = value
            self._busy = True
            try:
                self._look(read, value)
            finally:
                self._busy = False

    def value(self, name: Any) -> None:
        """A value was asked for; one that the block set itself is not an input."""
        if name not in self.written and name not in self.deleted and isinstance(name, str):
            self.note(Read("value", name), self.before.get(name, ABSENT))

    def all_values(self) -> None:
        """The block went through the state."""
        self.note(Read("names", ""), list(self.before))
        for name, value in self.before.items():
            self.note(Read("value", name), value)

    def attribute(self, name: str, get: Callable[[], Any], last: bool) -> Any:
        """An attribute of the pipeline was asked for; what a property asks for in turn does not count.

        Args:
            name: its name.
            get: finds it.
            last: whether it is absent if it is not found here.
        """
        with self._lock:
            if self._busy or self._paused():
                return get()
            if name == "__dict__":
                self.everything = True
            if name in _OF_THE_RUN or name.startswith("__"):
                return get()
            self._busy = True
            try:
                value = get()
            except AttributeError:
                self._busy = False
                if last:
                    self.note(Read("attribute", name), ABSENT)
                raise
            finally:
                self._busy = False
            # what a method asks for is noted when it is called
            if not isinstance(value, MethodType):
                self.note(Read("attribute", name), value)
            return value


class _Values(dict[str, Any]):
    """The values of a state, which tell what is asked of them."""

    def __init__(self, values: dict[str, Any], reads: Reads) -> None:
        super().__init__(values)
        self._reads = reads

    def __getitem__(self, name: str) -> Any:
        self._reads.value(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._reads.value(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self._reads.value(name)
        return super().__contains__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._reads.written.add(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self._reads.value(name)
        super().__delitem__(name)
        self._reads.deleted.add(name)
        self._reads.written.discard(name)

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, name: str, *default: Any) -> Any:
        if name not in self and default:
            return default[0]
        value = self[name]
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        self._reads.all_values()
        name, value = super().popitem()
        self._reads.deleted.add(name)
        self._reads.written.discard(name)
        return name, value

    def clear(self) -> None:
        for name in list(self):
            del self[name]

    def update(self, *others: Any, **values: Any) -> None:
        for name, value in dict(*others, **values).items():
            self[name] = value

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        self._reads.all_values()
        return dict(super().items())

    def __iter__(self) -> Iterator[str]:
        self._reads.all_values()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._reads.all_values()
        return super().__reversed__()

    def __len__(self) -> int:
        self._reads.all_values()
        return super().__len__()

    def keys(self) -> Any:
        self._reads.all_values()
        return super().keys()

    def values(self) -> Any:
        self._reads.all_values()
        return super().values()

    def items(self) -> Any:
        self._reads.all_values()
        return super().items()

    def __eq__(self, other: object) -> bool:
        return self.copy() == other

    def __ne__(self, other: object) -> bool:
        return self.copy() != other

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __repr__(self) -> str:
        return repr(self.copy())

    # a copy is an ordinary dict
    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (list(self.copy().items()),)

    __hash__ = None


# the reads that are recorded on a view at the moment, by its `id`
_recording: dict[int, Reads] = {}
_classes: dict[type, type] = {}


def _recording_class(cls: Any) -> type:
    """A class of pipelines like another, whose objects tell what is asked of them."""
    if cls not in _classes:

        def __getattribute__(self: Any, name: str) -> Any:
            if name == "__class__":
                return cls
            reads = _recording.get(id(self))
            if reads is None:
                return cls.__getattribute__(self, name)
            # what is not found here is looked for by `__getattr__`
            return reads.attribute(name, lambda: cls.__getattribute__(self, name), last=False)

        def __getattr__(self: Any, name: str) -> Any:
            find: Any = cls.__getattr__
            reads = _recording.get(id(self))
            return find(self, name) if reads is None else reads.attribute(name, lambda: find(self, name), last=True)

        namespace = {"__getattribute__": __getattribute__, "__getattr__": __getattr__, "__module__": cls.__module__}
        _classes[cls] = type(cls.__name__, (cls,), {**namespace, "__qualname__": cls.__qualname__})
    return _classes[cls]


@contextmanager
def recorded(view: Any, state: PipelineState, reads: Reads) -> Iterator[None]:
    """For the call of a block: note what it reads of the run's view of the pipeline, and of the state."""
    cls, values = type(view), state.values
    recording = state.values = _Values(values, reads)
    view.__class__ = _recording_class(cls)
    _recording[id(view)] = reads
    try:
        yield
    finally:
        del _recording[id(view)]
        view.__class__ = cls
        if state.values is recording:
            now = dict(dict.items(recording))
            values.clear()
            values.update(now)
            state.values = values
