"""Who is at work with a model: several runs together, or one alone.

Each model has a gate, which those who call it pass. The gates of all models share one lock: several are taken together
or not at all, so that no two runs wait for each other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch

__all__ = [
    "acting_as",
    "alone",
    "has_owner",
    "is_holding",
    "is_inside",
    "is_used",
    "keep",
    "keeping",
    "owns",
    "together",
    "vacated",
]

# How often, in seconds, a run that waits looks whether it has to end.
_LOOK = 0.05


class _Gate:
    """Who is at work with a model.

    Attributes:
        owner: the run that has it alone.
        depth: how often it has taken it.
        inside: how many calls of each run are in progress.
        waiting: the runs that wait for the others to leave, and how often.
    """

    def __init__(self) -> None:
        self.owner: Any = None
        self.depth = 0
        self.inside: Counter[Any] = Counter()
        self.waiting: Counter[Any] = Counter()

    def others(self, run: Any) -> set[Any]:
        """The runs that work with the model, but for one."""
        return {*self.inside, self.owner} - {run, None}


_changed = threading.Condition()
_gates: WeakKeyDictionary[torch.nn.Module, _Gate] = WeakKeyDictionary()
# how many gates, of any model, a run has passed and not left
_passed: Counter[Any] = Counter()
# for each run that waits: tells which runs it waits for
_waits: dict[Any, Callable[[], set[Any]]] = {}
# those of them that have looked since somebody left, and still wait
_looked: set[Any] = set()
# the run that has models for which it chose, so that others choose when it is done
_vacating: list[Any] = []
_who: ContextVar[tuple[Any, Callable[[], None]] | None] = ContextVar("who", default=None)
# what is left when the block ends that runs
_kept: ContextVar[ExitStack | None] = ContextVar("kept", default=None)


def _current() -> tuple[Any, Callable[[], None]]:
    # code outside of runs, such as a plain call of a model, counts by its thread
    return _who.get() or (threading.get_ident(), lambda: None)


@contextmanager
def acting_as(run: Any, check: Callable[[], None]) -> Iterator[None]:
    """Let what this thread does count as the work of a run.

    Args:
        run: the run.
        check: called now and then while the run waits for a model; raises what ends the run.
    """
    token = _who.set((run, check))
    try:
        yield
    finally:
        _who.reset(token)


def _wait_until(condition: Callable[[], bool], whom: Callable[[], set[Any]]) -> None:
    """Wait for a condition.

    Args:
        condition: what is waited for; looked at again whenever somebody comes or leaves.
        whom: the runs that are waited for.
    """
    if condition():
        return
    run, check = _current()
    _waits[run] = whom
    _looked.add(run)
    _changed.notify_all()
    try:
        while True:
            _changed.wait(_LOOK)
            check()
            if condition():
                return
            _looked.add(run)
    finally:
        del _waits[run]
        _looked.discard(run)


def _can_go_on(run: Any, seen: frozenset[Any]) -> bool:
    """Whether a run goes on without those who have been seen."""
    whom = _waits[run]() if run in _looked else set()
    return not whom or any(_can_go_on(other, seen | {run}) for other in whom - seen - {run})


def _gate(model: torch.nn.Module) -> _Gate:
    return _gates.setdefault(model, _Gate())


def _others(run: Any, gates: Iterable[_Gate]) -> set[Any]:
    return {other for gate in gates for other in gate.others(run)}


def _announce(run: Any, gates: list[_Gate]) -> None:
    """Let those who come to the gates later wait until this run has had its turn."""
    for gate in gates:
        gate.waiting[run] += 1


def _withdraw(run: Any, gates: list[_Gate]) -> None:
    for gate in gates:
        gate.waiting[run] -= 1
        if not gate.waiting[run]:
            del gate.waiting[run]


def _take(run: Any, gates: list[_Gate]) -> None:
    for gate in gates:
        gate.owner = run
        gate.depth += 1
    _passed[run] += len(gates)


def _give_back(run: Any, gates: list[_Gate]) -> None:
    for gate in gates:
        gate.depth -= 1
        if not gate.depth:
            gate.owner = None
    _leave(run, len(gates))


def _leave(run: Any, count: int) -> None:
    _passed[run] -= count
    if not _passed[run]:
        del _passed[run]
    _looked.clear()
    _changed.notify_all()


@contextmanager
def alone(models: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Have models alone."""
    run, _ = _current()
    with _changed:
        gates = [_gate(model) for model in models]
        _announce(run, gates)
        try:
            _wait_until(lambda: not _others(run, gates), lambda: _others(run, gates))
        finally:
            _withdraw(run, gates)
        _take(run, gates)
    try:
        yield
    finally:
        with _changed:
            _give_back(run, gates)


@contextmanager
def together(model: torch.nn.Module) -> Iterator[None]:
    """Make a call of a model while other runs may make theirs, but none has it alone."""
    run, _ = _current()
    with _changed:
        gate = _gate(model)
        # those who wait to have it alone come first, unless they may be waiting for this run
        _wait_until(
            lambda: gate.owner in (None, run) and (not gate.waiting or run in _passed),
            lambda: {gate.owner, *gate.waiting} - {run, None},
        )
        gate.inside[run] += 1
        _passed[run] += 1
    try:
        yield
    finally:
        with _changed:
            gate.inside[run] -= 1
            if not gate.inside[run]:
                del gate.inside[run]
            _leave(run, 1)


@contextmanager
def vacated(choose: Callable[[], Iterable[torch.nn.Module]]) -> Iterator[list[torch.nn.Module]]:
    """Have models alone that nobody is calling, this run neither. One run at a time has some in this way.

    Args:
        choose: the models to have. Asked again whenever somebody comes or leaves. Those that are used by runs which in
            turn wait for this one are left out.
    """
    run, _ = _current()
    free: dict[torch.nn.Module, _Gate] = {}
    used: list[_Gate] = []

    def is_ready() -> bool:
        _withdraw(run, used)
        free.clear()
        used.clear()
        if _vacating:
            return False
        for model in choose():
            gate = _gate(model)
            if gate.inside or gate.others(run):
                used.append(gate)
            else:
                free[model] = gate
        _announce(run, used)
        return not any(_can_go_on(other, frozenset({run})) for other in _others(run, used))

    with _changed:
        try:
            _wait_until(is_ready, lambda: _others(run, used))
        finally:
            _withdraw(run, used)
        _vacating.append(run)
        _take(run, list(free.values()))
    try:
        yield list(free)
    finally:
        with _changed:
            _vacating.clear()
            _give_back(run, list(free.values()))


def is_holding(run: Any) -> bool:
    """Whether others may be waiting for a run."""
    return run in _passed


def has_owner(model: torch.nn.Module) -> bool:
    """Whether some run has a model alone."""
    gate = _gates.get(model)
    return gate is not None and gate.owner is not None


def owns(model: torch.nn.Module) -> bool:
    """Whether this thread, or the run that it works for, has a model alone."""
    gate = _gates.get(model)
    return gate is not None and gate.owner is not None and gate.owner == _current()[0]


def is_inside(model: torch.nn.Module) -> bool:
    """Whether this thread, or the run that it works for, is making a call of a model."""
    gate = _gates.get(model)
    return gate is not None and _current()[0] in gate.inside


def is_used(model: torch.nn.Module) -> bool:
    """Whether another run works with a model, or some run is making a call of it."""
    gate = _gates.get(model)
    return gate is not None and bool(gate.inside or gate.others(_current()[0]))


@contextmanager
def keeping() -> Iterator[None]:
    """For the time of a block: `keep` counts models as in use until it ends."""
    with ExitStack() as stack:
        token = _kept.set(stack)
        try:
            yield
        finally:
            _kept.reset(token)


def keep(model: torch.nn.Module) -> AbstractContextManager[None]:
    """Count a model as in use: until the block ends that runs, or else for the time of the context."""
    stack = _kept.get()
    if stack is None:
        return together(model)
    stack.enter_context(together(model))
    return nullcontext()
