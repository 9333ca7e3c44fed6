"""Calls of models that wait for each other, and the thread that makes them.

One thread makes all merged calls of a pipeline, one after the other, so that those that come meanwhile gather. Which
are next follows from who waits: the oldest that are complete, because there are as many as fit, or because every run
that could join them waits at some call. Nothing waits for a time to pass, with one exception: a run that others wait
for and that does not come (it is in a slow block, a callback, or its reader takes its time) holds them for no longer
than a forward takes, or than four times what most runs need between two calls if that is longer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from loopwright.batching.admission import Admission, Client
from loopwright.batching.arguments import Arguments, describe
from loopwright.batching.contents import Contents
from loopwright.batching.forwards import Call, Forwards
from loopwright.batching.member import Member, current_member
from loopwright.batching.memory import RunMemory
from loopwright.batching.models import Method, WrappedModel, can_be_lent
from loopwright.batching.report import BatchReport
from loopwright.components import adapters
from loopwright.components.guarded import keeps_values, unguarded
from loopwright.components.turns import acting_as, alone, lent, owned
from loopwright.errors import RunStateError
from loopwright.run.modes import ThreadModes
from loopwright.run.torch_threads import release_torch_threads

__all__ = ["Batcher"]

# How long a run is waited for, in seconds, before it is known what is usual.
_FIRST_PATIENCE = 0.05
# How many times longer than three of four runs need, and how long at least: where processors are few, a thread may have
# to wait so long for its turn.
_PATIENCE = 4
_LEAST_PATIENCE = 0.02


class Batcher:
    """Makes calls of models together that several runs make at the same time.

    Args:
        models: the models by the names of the components.
        max_batch: how many calls share a forward at most.
        max_active: how many runs go on at once.
        memory: tells whether there is room for another run.
        deterministic: whether the bits of a result depend on its request alone.
        prove_every: after how many merged calls of a kind they are compared again.
    """

    def __init__(
        self,
        models: dict[str, torch.nn.Module],
        max_batch: int,
        max_active: int | None,
        memory: RunMemory,
        deterministic: bool,
        prove_every: int,
    ) -> None:
        self._max_batch, self._deterministic, self._memory = max_batch, deterministic, memory
        self._changed = threading.Condition()
        self._admission = Admission(max_active, memory)
        self._members: set[Member] = set()
        self._queue: list[Call] = []
        self._gaps: deque[float] = deque(maxlen=64)
        self._usual_patience = _FIRST_PATIENCE
        self._durations: dict[int, float] = {}
        self._contents = Contents()
        self._names = {id(model): name for name, model in models.items()}
        self._forwards = Forwards(self._names, max_batch, deterministic, prove_every)
        self._thread: threading.Thread | None = None
        self._is_idle = False
        self._is_over = False
        self._models = list({id(model): model for model in models.values()}.values())
        self._wrapped: list[WrappedModel] = []

    # The time of the batch.

    def begin(self) -> None:
        """Wrap the methods of the models."""
        # whoever makes a batch mostly waits for others from now on, and what is kept meanwhile slows their forwards
        release_torch_threads()
        for model in self._models:
            with unguarded(model):
                self._wrapped.append(WrappedModel(model, self._call, self._member))

    def end(self, cancel: bool) -> None:
        """Wait for the runs, and leave the models as they were.

        Args:
            cancel: whether runs are cancelled; those that halt always are.
        """
        with self._changed:
            self._is_over = True
        try:
            try:
                self._wait_for_runs(cancel)
            except BaseException:
                # such as Ctrl-C: nobody wants to wait any more
                self._wait_for_runs(cancel=True)
                raise
        finally:
            with self._changed:
                self._changed.notify_all()
            for wrapped in self._wrapped:
                with unguarded(wrapped.model):
                    wrapped.remove()
            if self._thread is not None:
                self._thread.join()

    def _wait_for_runs(self, cancel: bool) -> None:
        with self._changed:
            members = list(self._members)
        for member in members:
            # this thread takes no more of its events
            member.control.let_go(unless_wanted=True)
        while True:
            with self._changed:
                members = list(self._members)
                if not members:
                    return
                ending = members if cancel else [member for member in members if member.control.is_paused]
                if not ending:
                    self._changed.wait()
                    continue
            # not under the lock: a run tells us that it goes on while it has its own
            for member in ending:
                member.control.cancel()
            with self._changed:
                self._changed.wait_for(lambda gone=ending: not self._members & set(gone))  # type: ignore[misc]

    def presence(self, view: Any, control: Any, client: Client) -> Member:
        """What tells where a run is.

        Raises:
            RunStateError: the batch is over.
        """
        self.require_open()
        return Member(self, view, control, client)

    def require_open(self) -> None:
        if self._is_over:
            raise RunStateError("the `with batched(...)` that this pipeline is from is over: call the pipeline itself")

    @contextmanager
    def membership(self, member: Member) -> Iterator[None]:
        """Wait until a run is admitted, and count it for the time of the context."""
        self.announce(member)
        host = self._member()
        # as when it waits for a call
        release_torch_threads()
        try:
            with ExitStack() as stack:
                with member.control.waiting():
                    admitted = self._admission.admitted(
                        member.client,
                        member.control.check,
                        # a block of that run calls this pipeline, and waits for it
                        lambda: host is not None and host.is_waiting_for(member.thread),
                    )
                    member.place = stack.enter_context(admitted)
                for model in filter(adapters.has_adapters, self._models):
                    # nobody is in a block meanwhile that changes them
                    with alone([model]):
                        member.adapters[model] = adapters.read(model)
                yield
        finally:
            self.leave(member)
            release_torch_threads()

    def announce(self, member: Member) -> None:
        """Count a run that begins, or is about to.

        Raises:
            RunStateError: the batch is over.
        """
        with self._changed:
            if member not in self._members:
                self.require_open()
                self._members.add(member)

    def leave(self, member: Member) -> None:
        """A run has ended."""
        with self._changed:
            self._members.discard(member)
            self._changed.notify_all()

    def let_go(self, member: Member) -> None:
        """A run's call was answered: from now on others wait for it."""
        with self._changed:
            member.busy = False
            member.since = time.perf_counter()

    def halt(self, member: Member) -> None:
        """A run is paused: nobody waits for it, and others go on in its place."""
        assert member.place is not None
        self._admission.halt(member.place)
        self._change(member, halts=True)

    def go_on(self, member: Member) -> None:
        """A run is to go on after it was paused; waits for its turn."""
        assert member.place is not None
        self._admission.go_on(member.place, member.control.check)
        self._change(member, halts=False)

    def enter(self, member: Member, models: frozenset[int]) -> None:
        """A run is in another loop.

        Args:
            member: the run.
            models: the ids of the models at which others wait for it.
        """
        self._change(member, models=models)

    def _change(self, member: Member, **now: Any) -> None:
        with self._changed:
            for name, value in now.items():
                setattr(member, name, value)
            member.since = time.perf_counter()
            if self._queue or self._is_over:
                self._changed.notify_all()

    # The threads of the runs.

    def _member(self) -> Member | None:
        """The run of this batch that the current thread works for."""
        member = current_member()
        return member if member is not None and member.batcher is self else None

    def _call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What stands in place of a model's method."""
        member = self._member()
        # calls within calls belong to these; with gradients, a call is nobody else's
        if member is None or member.busy or torch.is_grad_enabled():
            return method(*args, **kwargs)
        call = None if self._is_by_itself(member, method) else self._queued(member, method, args, kwargs)
        try:
            if call is not None:
                # whose threads would slow those of the thread that makes the calls
                release_torch_threads()
                with self._lending(member, call):
                    call.seat.wait()
                if not call.is_declined:
                    return call.outcome()
                with self._changed:
                    member.busy = True
            with method.within(member.contexts.get(id(method.model))):
                # a call that was declined begins anew: meanwhile some other run may have come to have the model alone
                made: Any = method if call is None else getattr(method.model, method.name)
                return made(*args, **kwargs)
        finally:
            if member.busy:
                self._end_call(member, call)

    def _is_by_itself(self, member: Member, method: Method) -> bool:
        """Whether there is no other run, so that this one makes its call itself, which takes the shortest way."""
        with self._changed:
            if self._deterministic or len(self._members) > 1:
                return False
            member.busy = True
        self._forwards.count_alone(method.model)
        return True

    @contextmanager
    def _lending(self, member: Member, call: Call) -> Iterator[None]:
        """While a run waits for a call: let others have the models that it has alone because of their adapters."""
        if call.adapters is None:
            yield
            return
        models = list({id(model): model for model in [call.method.model, *owned()]}.values())
        changed = {model: adapters.read(model) for model in models if model in member.adapters}
        for model in changed:
            adapters.write(model, member.adapters[model])
        try:
            with lent(models):
                yield
        finally:
            for model, state in changed.items():
                adapters.write(model, state)

    def _end_call(self, member: Member, call: Call | None) -> None:
        """A run has made a call itself, or its thread was interrupted while it waited."""
        with self._changed:
            if call is not None:
                call.abandon()
                if call in self._queue:
                    self._queue.remove(call)
            member.busy = False
            member.since = time.perf_counter()
            if self._queue:
                self._changed.notify_all()

    def _queued(self, member: Member, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The call, in the queue; None if it is to be made at once."""
        model = method.model
        in_loop = id(model) in member.models
        reason, call = None, None
        if method.name in keeps_values(model):
            reason = "it keeps values on the model"
        elif any(not can_be_lent(other) for other in owned()) or (owned() and model not in member.adapters):
            reason = "its block has the model alone"
        elif method.name == "forward" and model.training:
            reason = "it is in training mode"
        else:
            described = describe(method.names, args, kwargs, self._contents, self._deterministic)
            if isinstance(described, Arguments):
                adapted = adapters.read(model) if model in member.adapters else None
                call = Call(
                    member,
                    method,
                    args,
                    kwargs,
                    described,
                    ThreadModes(),
                    member.contexts.get(id(model)),
                    adapted,
                    in_loop,
                )
                reason = self._forwards.refusal(call)
            else:
                reason = described
        if reason is None and self._thread is None:
            self._start_thread()
        now = time.perf_counter()
        with self._changed:
            member.busy = True
            if in_loop:
                gap = now - member.since
                member.is_prompt = gap <= self._patience(id(model))
                self._gaps.append(gap)
                if len(self._gaps) >= 8:
                    self._usual_patience = _PATIENCE * sorted(self._gaps)[3 * len(self._gaps) // 4]
            if reason is not None or call is None:
                self._forwards.count_refused(method, str(reason))
                if self._queue:
                    self._changed.notify_all()
                return None
            call.since = now
            is_first = all(other.key != call.key for other in self._queue)
            self._queue.append(call)
            # the thread is woken for the first of a kind, to see how long to wait, and when there is something to do
            if self._is_idle and (is_first or self._next(now)[0]):
                self._changed.notify_all()
        return call

    def _start_thread(self) -> None:
        with self._changed:
            if self._thread is None:
                # a daemon: a program that ends does not wait for it
                thread = threading.Thread(target=self._work, name="loopwright-batch", daemon=True)
                thread.start()
                self._thread = thread

    # The thread of the batch.

    def _work(self) -> None:
        # a thread that works for no run would pass where others have a model alone
        with acting_as(self, lambda: None):
            is_over = False
            while not is_over:
                try:
                    is_over = self._is_over_after_next()
                except BaseException as error:
                    # it is a mistake in this package; the runs end with it, as nobody would ever answer them
                    with self._changed:
                        waiting, self._queue = self._queue, []
                    for call in waiting:
                        call.answer(error=error)

    def _is_over_after_next(self) -> bool:
        """Make the next calls; returns whether there are none any more."""
        calls = self._take()
        if calls is None:
            return True
        began = time.perf_counter()
        self._forwards.serve(calls, self._queue)
        self._durations[id(calls[0].method.model)] = time.perf_counter() - began
        return False

    def _take(self) -> list[Call] | None:
        """The calls to be made next, taken from the queue; None when the batch is over."""
        with self._changed:
            while True:
                now = time.perf_counter()
                calls, wait = self._next(now)
                if calls:
                    self._note_late(calls[0], now)
                    taken = set(map(id, calls))
                    self._queue = [call for call in self._queue if id(call) not in taken]
                    return calls
                if self._is_over and not self._members:
                    return None
                if len(self._members) <= 1:
                    # a run by itself makes its calls itself
                    release_torch_threads()
                self._is_idle = True
                self._changed.wait(wait)
                self._is_idle = False

    def _next(self, now: float) -> tuple[list[Call], float | None]:
        """The calls that are to be made next, or how long to wait at most for those who are missing."""
        groups: dict[Any, list[Call]] = {}
        for call in self._queue:
            groups.setdefault(call.key, []).append(call)
        waits = []
        # in the order of their oldest calls
        for calls in groups.values():
            most = self._forwards.most(calls)
            if len(calls) >= most:
                return calls[:most], None
            model = id(calls[0].method.model)
            wait, waited, patience = self._missing(model, now), now - calls[0].since, self._patience(model)
            if wait is None or waited > 2 * patience:
                return calls, None
            waits.append(min(wait, 2 * patience - waited))
            if waited > patience:
                # those that came later have been let past for long enough
                break
        return [], min(waits, default=None)

    def _missing(self, model: int, now: float) -> float | None:
        """How long to wait at most for runs that could join a call of a model; None if there is none."""
        patience = self._patience(model)
        waits = [
            member.since + patience - now
            for member in self._members
            if model in member.models and not member.busy and not member.halts and member.is_prompt
        ]
        return max((wait for wait in waits if wait > 0), default=None)

    def _note_late(self, call: Call, now: float) -> None:
        """Remember which runs were waited for and did not come in time."""
        model = id(call.method.model)
        patience = self._patience(model)
        for member in self._members:
            if model in member.models and not member.busy and not member.halts and now - member.since >= patience:
                member.is_prompt = False

    def _patience(self, model: int) -> float:
        """How long to wait at most, in seconds, for a run that could join a call of a model."""
        return max(self._usual_patience, self._durations.get(model, 0.0), _LEAST_PATIENCE)

    # What others want to know.

    def report(self) -> BatchReport:
        """What was done so far."""
        with self._changed:
            queued = len(self._queue)
        return BatchReport(
            models=self._forwards.reports(),
            active=self._admission.active,
            waiting=self._admission.waiting,
            queued=queued,
            refusals=self._forwards.refusals(),
            run_bytes=self._memory.run_bytes,
        )
