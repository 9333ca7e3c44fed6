"""Who is at work with a model: several runs together, or one alone.

Each model has a gate, which those who call it pass. The gates of all models share one lock: several are taken together
or not at all, so that no two runs wait for each other.

A block may call a pipeline of its own and wait for it. Its run is then the host of that one, which passes where its
host is. A block may also have threads of its own call a model: nobody can tell whose they are, so the calls of a thread
that works for no run, a guest, pass where a run has a model alone for the time of a block; only single calls are kept
apart.

Who comes later lets those pass who have waited for longer, as soon as they can.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from loopwright.components.waits import waits_for

__all__ = [
    "acting_as",
    "alone",
    "at_work",
    "current_run",
    "has_owner",
    "is_holding",
    "is_inside",
    "is_used",
    "keep",
    "keeping",
    "lent",
    "owned",
    "plainly_acting_as",
    "together",
    "unchanged",
    "undisturbed",
    "unwrapped",
    "vacated",
]

# How often, in seconds, a run that waits looks whether it has to end.
_LOOK = 0.05


class _Gate:
    """Who is at work with a model.

    Attributes:
        owner: the run that has it alone.
        depth: how often it has taken it.
        is_open: whether guests may come in meanwhile.
        hosts: the runs that had it alone before, and wait for the owner; each with its `depth` and `is_open`.
        inside: how many calls of each run are in progress.
        waiting: the runs that wait for the others to leave, and how often.
        calling: the runs that wait to make a call, and how often.
    """

    def __init__(self) -> None:
        self.owner: Any = None
        self.depth = 0
        self.is_open = False
        self.hosts: list[tuple[Any, int, bool]] = []
        self.inside: Counter[Any] = Counter()
        self.waiting: Counter[Any] = Counter()
        self.calling: Counter[Any] = Counter()

    def others(self, run: Any, for_call: bool = False) -> set[Any]:
        """The runs that work with the model, and that a run has to wait for; a guest for fewer of them in a call."""
        owners = {self.owner, *(host for host, _, _ in self.hosts)}
        if for_call and self.is_open and _is_guest(run):
            owners = set()
        return {*self.inside, *owners} - {run, None}

    def lets_in(self, callers: set[Any]) -> bool:
        """Whether some runs, of which one waits for the others, may call the model now."""
        return self.owner in (None, *callers) or (self.is_open and any(map(_is_guest, callers)))

    def take(self, run: Any, count: int, is_open: bool = False) -> None:
        """A run has it alone, so many times more."""
        if self.owner not in (None, run):
            self.hosts.append((self.owner, self.depth, self.is_open))
            self.depth = 0
        if not self.depth:
            self.is_open = is_open
        self.owner, self.depth = run, self.depth + count

    def give_back(self, run: Any, count: int) -> None:
        """A run has it alone, so many times less."""
        if self.owner == run:
            self.depth -= count
            if not self.depth:
                self.owner, self.depth, self.is_open = self.hosts.pop() if self.hosts else (None, 0, False)
            return
        # a host that did not wait to the end
        left = ((host, depth - count if host == run else depth, is_open) for host, depth, is_open in self.hosts)
        self.hosts = [(host, depth, is_open) for host, depth, is_open in left if depth]


def _is_guest(run: Any) -> bool:
    """Whether a thread works for no run, and counts by itself."""
    return isinstance(run, int)


class _Wait(NamedTuple):
    """A run that waits.

    Attributes:
        number: smaller for those that came earlier.
        whom: tells which runs it waits for.
    """

    number: int
    whom: Callable[[], set[Any]]


_changed = threading.Condition()
_numbers = count()
_gates: WeakKeyDictionary[torch.nn.Module, _Gate] = WeakKeyDictionary()
# how many gates, of any model, a run has passed and not left
_passed: Counter[Any] = Counter()
_waits: dict[Any, _Wait] = {}
# those of them that have looked since somebody left, and still wait
_looked: set[Any] = set()
# the run that has models for which it chose, so that others choose when it is done
_vacating: list[Any] = []
# the runs that are at work: in which thread, and what raises what ends them
_at_work: dict[Any, tuple[int, Callable[[], None]]] = {}
# for each run that has met some: the runs that wait until it is done
_hosts: dict[Any, set[Any]] = {}
# the run, what raises what ends it, and the thread: one that was given the context of another works for no run
_who: ContextVar[tuple[Any, Callable[[], None], int] | None] = ContextVar("who", default=None)
# what is left when the block ends that runs
_kept: ContextVar[ExitStack | None] = ContextVar("kept", default=None)


def _current() -> tuple[Any, Callable[[], None]]:
    who, mine = _who.get(), threading.get_ident()
    # code outside of runs, such as a plain call of a model, counts by its thread
    return (mine, _go_on) if who is None or who[2] != mine else who[:2]


@contextmanager
def acting_as(run: Any, check: Callable[[], None]) -> Iterator[None]:
    """Let what this thread does count as the work of a run.

    Args:
        run: the run.
        check: called now and then while the run waits for a model; raises what ends the run.
    """
    token = _who.set((run, check, threading.get_ident()))
    try:
        yield
    finally:
        _who.reset(token)


class plainly_acting_as:
    """Let what this thread does count as the work of a plain call, unless it counts as that of a run already.

    A class, as a plain call costs no more than a few microseconds.
    """

    __slots__ = ("_call", "_token")

    def __init__(self, call: Any) -> None:
        self._call = call

    def __enter__(self) -> None:
        who, mine = _who.get(), threading.get_ident()
        is_known = who is not None and who[2] == mine
        self._token = None if is_known else _who.set((self._call, _go_on, mine))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _who.reset(self._token)


def _go_on() -> None:
    """What looks whether a plain call has to end, which it never has."""


@contextmanager
def at_work(run: Any, check: Callable[[], None]) -> Iterator[None]:
    """For the time of a run in this thread: let what it does count as the run's work.

    Those for whom the thread waits pass where the run is.

    Args:
        run: the run.
        check: as for `acting_as`; it ends the waiting of these, too.
    """
    with _changed:
        _at_work[run] = threading.get_ident(), check
    try:
        with acting_as(run, check):
            yield
    finally:
        with _changed:
            del _at_work[run]


def _find_hosts(run: Any) -> set[Any]:
    """The runs that wait until this one is done."""
    mine = threading.get_ident()
    found = {other for other, (thread, _) in _at_work.items() if other != run and waits_for(thread, mine)}
    if found:
        _hosts.setdefault(run, set()).update(found)
    return _hosts.get(run, set())


def _hosts_of(runs: Collection[Any]) -> set[Any]:
    """The runs that wait until one of some others is done."""
    threads = [_at_work[run][0] for run in runs if run in _at_work]
    found = {other for other, (thread, _) in _at_work.items() if any(waits_for(thread, each) for each in threads)}
    return found.difference(runs)


def _wait_until(condition: Callable[[], bool], whom: Callable[[], set[Any]], to_the_end: bool = False) -> None:
    """Wait for a condition.

    Args:
        condition: what is waited for; looked at again whenever somebody comes or leaves.
        whom: the runs that are waited for.
        to_the_end: whether to go on waiting also when the run, or one that waits for it, is to end.
    """
    if condition():
        return
    run, check = _current()
    if _find_hosts(run) and condition():
        return
    _waits[run] = _Wait(next(_numbers), whom)
    _looked.add(run)
    _changed.notify_all()
    try:
        while True:
            _changed.wait(_LOOK)
            hosts = _find_hosts(run) & _at_work.keys()
            for look in () if to_the_end else (check, *(_at_work[host][1] for host in hosts)):
                look()
            if condition():
                return
            _looked.add(run)
    finally:
        del _waits[run]
        _looked.discard(run)
        if run not in _passed:
            _hosts.pop(run, None)


def _somebody_goes_on(runs: Iterable[Any], run: Any) -> bool:
    """Whether one of some runs goes on without a run, or one of those that they wait for in turn."""
    seen, todo = {run}, list(runs)
    while todo:
        other = todo.pop()
        if other in seen:
            continue
        seen.add(other)
        whom = _waits[other].whom() if other in _looked else set()
        if not whom:
            return True
        todo.extend(whom)
    return False


def _earlier(runs: Iterable[Any], run: Any) -> set[Any]:
    """Those of some waiting runs that have waited for longer than a run."""
    mine = _waits.get(run)
    # who has only just come is not among those that wait
    known = ((other, _waits[other]) for other in runs if other != run and other in _waits)
    return {other for other, wait in known if mine is None or wait.number < mine.number}


def _lets_pass(run: Any, gates: Iterable[_Gate]) -> bool:
    """Whether a run lets others take some models first: they have waited for longer, and can go on now."""
    callers = {run, *_hosts.get(run, ())}
    # whoever can go on may come to wait for what these have
    if _is_guest(run) or not callers.isdisjoint(_passed):
        return False
    waiting = {other for gate in gates for other in (*gate.waiting, *gate.calling)} - callers
    return any(not _waits[other].whom() for other in _earlier(waiting, run))


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """What `torch.compile` wraps; any other model itself."""
    # not asked of the model itself, which goes through all that it has before it says no
    inner = model._modules.get("_orig_mod")
    return model if inner is None else inner


def _gate(model: torch.nn.Module) -> _Gate:
    return _gates.setdefault(unwrapped(model), _Gate())


def _others(run: Any, gates: Iterable[_Gate], for_call: bool = False) -> set[Any]:
    return {other for gate in gates for other in gate.others(run, for_call)} - _hosts.get(run, set())


def _announce(run: Any, gates: list[_Gate]) -> None:
    """Let those who come to the gates later wait until this run has had its turn."""
    for gate in gates:
        gate.waiting[run] += 1


def _withdraw(run: Any, gates: list[_Gate]) -> None:
    for gate in gates:
        gate.waiting[run] -= 1
        if not gate.waiting[run]:
            del gate.waiting[run]


def _take(run: Any, gates: list[_Gate], is_open: bool = False) -> None:
    for gate in gates:
        gate.take(run, 1, is_open)
    if gates:
        _passed[run] += len(gates)


def _give_back(run: Any, gates: list[_Gate]) -> None:
    for gate in gates:
        gate.give_back(run, 1)
    _leave(run, len(gates))


def _leave(run: Any, count: int) -> None:
    _passed[run] -= count
    if not _passed[run]:
        del _passed[run]
        _hosts.pop(run, None)
    _looked.clear()
    _changed.notify_all()


@contextmanager
def alone(
    models: Iterable[torch.nn.Module], for_block: bool = False, for_call: bool = False, made_for: Collection[Any] = ()
) -> Iterator[None]:
    """Have models alone.

    Args:
        models: the models.
        for_block: whether it is for the time of a block, which may have threads of its own: the calls of guests come in
            meanwhile.
        for_call: whether it is for the time of a call, which may be that of a guest.
        made_for: the runs that wait for a call that this is for.
    """
    run, _ = _current()

    def others() -> set[Any]:
        found = _others(run, gates, for_call)
        return found - _hosts_of(made_for) if found and made_for else found

    with _changed:
        gates = [_gate(model) for model in models]
        _announce(run, gates)
        try:
            _wait_until(lambda: not others() and not _lets_pass(run, gates), others)
        finally:
            _withdraw(run, gates)
        _take(run, gates, for_block)
    try:
        yield
    finally:
        with _changed:
            _give_back(run, gates)


@contextmanager
def together(model: torch.nn.Module, made_for: Iterable[Any] = ()) -> Iterator[None]:
    """Make a call of a model while other runs may make theirs, but none has it alone.

    Args:
        model: the model.
        made_for: the runs that wait for this call within calls of their own.
    """
    run, _ = _current()
    known = {run, *made_for}

    def is_open() -> bool:
        callers = known | _hosts.get(run, set())
        # the owner may wait for one of them
        if not gate.lets_in(callers) and gate.owner not in _hosts_of(known):
            return False
        # those who wait to have it alone, and came earlier, come first, unless they may be waiting for this run
        return not _earlier(gate.waiting, run) or gate.owner is not None or not callers.isdisjoint(_passed)

    with _changed:
        gate = _gate(model)
        gate.calling[run] += 1
        try:
            _wait_until(is_open, lambda: ({gate.owner} | _earlier(gate.waiting, run)) - {run, None})
        finally:
            gate.calling[run] -= 1
            if not gate.calling[run]:
                del gate.calling[run]
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
            turn wait for this one are left out, and for a guest those that some run has for the time of a block.
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
            if gate.inside or gate.others(run, for_call=True):
                used.append(gate)
            elif not gate.others(run):
                free[model] = gate
        _announce(run, used)
        return not _somebody_goes_on(_others(run, used, for_call=True), run)

    with _changed:
        try:
            _wait_until(is_ready, lambda: _others(run, used, for_call=True))
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


@contextmanager
def unchanged(model: torch.nn.Module) -> Iterator[None]:
    """A context in which no other run changes a model, or moves it: for who reads its weights."""
    # by itself, so not as a guest of a run that changes it meanwhile
    with acting_as(object(), _current()[1]), together(model):
        yield


def current_run() -> Any:
    """The run that this thread works for; something that stands for the thread, where it works for none."""
    return _current()[0]


def is_holding(run: Any) -> bool:
    """Whether others may be waiting for a run."""
    return run in _passed


def undisturbed() -> AbstractContextManager[Any]:
    """A context in which nobody takes a model alone, or gives one back."""
    return _changed


def has_owner(model: torch.nn.Module) -> bool:
    """Whether some run has a model alone."""
    gate = _gates.get(unwrapped(model))
    return gate is not None and gate.owner is not None


def owned() -> list[torch.nn.Module]:
    """The models that this thread, or the run that it works for, has alone."""
    run, _ = _current()
    with _changed:
        return [model for model, gate in _gates.items() if gate.owner is not None and gate.owner == run]


@contextmanager
def lent(models: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Let others have models that this run has alone or is calling, and have them as before afterwards."""
    run, _ = _current()
    with _changed:
        gates = [_gate(model) for model in models]
        depths = [gate.depth if gate.owner == run else 0 for gate in gates]
        was_open = [gate.is_open for gate in gates]
        inside = [gate.inside.pop(run, 0) for gate in gates]
        for gate, depth in zip(gates, depths, strict=True):
            if depth:
                gate.give_back(run, depth)
        _leave(run, sum(depths) + sum(inside))
    try:
        yield
    finally:
        # also where the run is to end: what it had it gives back itself
        with _changed:
            had_alone = [gate for gate, depth in zip(gates, depths, strict=True) if depth]
            _announce(run, had_alone)
            try:
                _wait_until(
                    lambda: (
                        not _others(run, had_alone)
                        and all(gate.owner in (None, run, *_hosts.get(run, ())) for gate in gates)
                    ),
                    lambda: _others(run, had_alone) | ({gate.owner for gate in gates} - {run, None}),
                    to_the_end=True,
                )
                for gate, depth, is_open in zip(gates, depths, was_open, strict=True):
                    if depth:
                        gate.take(run, depth, is_open)
            finally:
                # also where Ctrl-C ends it: those who have them give back as often as they took
                _withdraw(run, had_alone)
                for gate, calls in zip(gates, inside, strict=True):
                    if calls:
                        gate.inside[run] = calls
                _passed[run] += sum(depths) + sum(inside)


def is_inside(model: torch.nn.Module) -> bool:
    """Whether this thread, or the run that it works for, is making a call of a model."""
    gate = _gates.get(unwrapped(model))
    return gate is not None and _current()[0] in gate.inside


def is_used(model: torch.nn.Module) -> bool:
    """Whether another run works with a model, or some run is making a call of it."""
    with _changed:
        gate = _gates.get(unwrapped(model))
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
