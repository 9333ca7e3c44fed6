"""One run of a batch: where it is, and whether others wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from loopwright.batching.admission import Client, Place
from loopwright.components.adapters import Adapters
from loopwright.components.waits import waits_for

if TYPE_CHECKING:
    from loopwright.batching.batcher import Batcher

__all__ = ["Member", "Seat", "current_member"]

_current: ContextVar[Member | None] = ContextVar("member", default=None)


def current_member() -> Member | None:
    """The run that this thread works for, if it belongs to a batch."""
    return _current.get()


class Member:
    """One run of a batch. Others wait for it at the models that the blocks of its innermost loop work with.

    Not while it halts or makes another call, and not for longer than a forward is worth: a run that was not back at a
    call in time is not waited for again until it is.

    Args:
        batcher: the batch.
        view: the run's view of its pipeline.
        control: what steers it from outside.
        client: who it is for.

    Attributes:
        thread: the thread that it works in, by its ident.
        place: what it has among the runs that go on, None until it is admitted.
        models: the ids of the models at which others wait for it.
        halts: whether it is paused.
        busy: whether it makes a call.
        since: when it was last let go.
        is_prompt: whether it was back in time when it was last waited for.
        adapters: what was set of the adapters of the models when it began.
        contexts: by the ids of models, the cache context that it has set: its name and the rest.
    """

    def __init__(self, batcher: Batcher, view: Any, control: Any, client: Client) -> None:
        self.batcher, self.control, self.client = batcher, control, client
        self.thread = threading.get_ident()
        self.place: Place | None = None
        self.models: frozenset[int] = frozenset()
        self.halts = False
        self.busy = False
        self.since = time.perf_counter()
        self.is_prompt = True
        self.adapters: dict[torch.nn.Module, Adapters] = {}
        self.contexts: dict[int, tuple[Any, ...] | None] = {}
        self._view = view
        self._loop: Any = None
        self._models_of: dict[int, frozenset[int]] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        self.thread = threading.get_ident()
        with self.batcher.membership(self):
            token = _current.set(self)
            try:
                yield
            finally:
                _current.reset(token)

    def halt(self) -> None:
        self.batcher.halt(self)

    def go_on(self) -> None:
        self.batcher.go_on(self)

    def is_waiting_for(self, thread: int) -> bool:
        """Whether it goes on, and stands still until a thread is done with what it does."""
        return self.place is not None and self.place.is_taken and waits_for(self.thread, thread)

    def announce(self) -> None:
        self.batcher.announce(self)

    def leave(self) -> None:
        self.batcher.leave(self)

    def in_loop(self, loop: Any) -> None:
        if loop is self._loop:
            return
        self._loop = loop
        self.batcher.enter(self, frozenset() if loop is None else self._models_in(loop))

    def _models_in(self, loop: Any) -> frozenset[int]:
        if id(loop) not in self._models_of:
            components = (getattr(self._view, name, None) for name in loop.component_names if name)
            self._models_of[id(loop)] = frozenset(id(c) for c in components if isinstance(c, torch.nn.Module))
        return self._models_of[id(loop)]


class Seat:
    """Where a thread waits for its result. It can be left only once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def let_go(self) -> None:
        self._lock.release()
