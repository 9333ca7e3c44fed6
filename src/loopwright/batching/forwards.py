"""Making calls: several in one forward where that is proven to give the same, one by one where not."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch

from loopwright.batching.arguments import Arguments, merge
from loopwright.batching.member import Member, Seat
from loopwright.batching.memory import is_out_of_memory
from loopwright.batching.models import Method, why_alone
from loopwright.batching.outputs import split
from loopwright.batching.proof import Ledger, prove, prove_fixed, shares, size_class
from loopwright.batching.report import ModelReport, Refusal
from loopwright.components.adapters import Adapters, with_adapters
from loopwright.components.turns import alone, current_run, together
from loopwright.run.modes import ThreadModes

__all__ = ["Call", "Forwards"]

# Of how many reasons it is known how many calls were made alone for it.
_MOST_REFUSALS = 1000


class Call:
    """A call that a run waits for.

    Attributes:
        member: the run.
        method: what is called.
        arguments: what there is to know of the arguments.
        context: the cache context around it.
        adapters: what its run has set of the adapters of the model, None if there are none.
        in_loop: whether it is made in a loop whose blocks work with the model.
        key: equal for calls that can be made together.
        proof_key: equal for calls for which one proof holds.
        run: by what it is known who works with the model.
        seat: where the thread of the run waits.
        since: when it came.
        is_declined: whether the run is to make the call itself.
    """

    def __init__(
        self,
        member: Member,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arguments: Arguments,
        modes: ThreadModes,
        context: tuple[Any, ...] | None,
        adapters: Adapters | None,
        in_loop: bool,
    ) -> None:
        self.member, self.method, self.args, self.kwargs = member, method, args, kwargs
        self.arguments, self.modes, self.in_loop = arguments, modes, in_loop
        self.context, self.adapters = context, adapters
        # nothing in the forward reads more of the context than its name, or the model would not be merged
        around = None if context is None else context[0], adapters
        kind = (id(method.model), method.name, in_loop, modes.key, around)
        self.key = (*kind, arguments.key)
        self.proof_key = (*kind, arguments.proof_key)
        self.run = current_run()
        self.seat = Seat()
        self.since = 0.0
        self.is_declined = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._is_answered = False

    def answer(self, value: Any = None, error: BaseException | None = None, declined: bool = False) -> None:
        """Let the run go on, with a value, an exception, or to make the call itself."""
        if not self._is_answered:
            self._is_answered = True
            self._value, self._error, self.is_declined = value, error, declined
            self.member.batcher.let_go(self.member)
            self.seat.let_go()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self._is_answered = True

    def outcome(self) -> Any:
        """The value of the call, or what it raised."""
        if self._error is not None:
            raise self._error
        return self._value


class Forwards:
    """Makes calls, and remembers what may be made together.

    Args:
        names: the names of the components by the ids of their models.
        max_batch: how many calls share a forward at most.
        deterministic: whether the shape of a forward must follow from each of its calls alone.
        prove_every: after how many merged forwards of a kind it is compared again.
    """

    def __init__(self, names: dict[int, str], max_batch: int, deterministic: bool, prove_every: int) -> None:
        self._names, self._max_batch, self._deterministic = names, max_batch, deterministic
        self._ledger = Ledger(prove_every)
        self._lock = threading.Lock()
        self._reports = {name: ModelReport() for name in names.values()}
        self._refusals: dict[tuple[str, str, str], int] = {}

    def most(self, calls: Sequence[Call]) -> int:
        """How many calls share a forward at most: of these, with equal keys, the first ones, or with more like them."""
        if self._deterministic and not calls[0].in_loop:
            return 1
        room = self._ledger.room(calls[0].proof_key)
        if room is None:
            return self._max_batch
        rows = [call.arguments.rows for call in calls]
        fitting = sum(total <= room for total in accumulate(rows))
        spare = (room - sum(rows)) // rows[0] if fitting == len(calls) else 0
        return max(1, min(self._max_batch, fitting + spare))

    def refusal(self, call: Call) -> str | None:
        """Why a call is not made together with others; None if it may be."""
        return self._ledger.refusal(call.proof_key)

    def reports(self) -> dict[str, ModelReport]:
        """What was done, by the names of the components."""
        with self._lock:
            return {name: replace(report, sizes=Counter(report.sizes)) for name, report in self._reports.items()}

    def refusals(self) -> list[Refusal]:
        """What was not made together, and why."""
        with self._lock:
            return [Refusal(*about, calls) for about, calls in sorted(self._refusals.items())]

    def count_alone(self, model: torch.nn.Module) -> None:
        """A run that has no other beside it makes a call of a model by itself."""
        self._count(model, calls=1, forwards=1, sizes=Counter([1]))

    def count_refused(self, method: Method, reason: str, calls: int = 1) -> None:
        """Runs make calls by themselves, for a reason."""
        about = self._names[id(method.model)], method.name, reason
        with self._lock:
            # those that came last are the last, and the only ones if there are very many
            self._refusals[about] = self._refusals.pop(about, 0) + calls
            if len(self._refusals) > _MOST_REFUSALS:
                del self._refusals[next(iter(self._refusals))]
        self._count(method.model, calls=calls, forwards=calls, sizes=Counter({1: calls}))

    def serve(self, calls: list[Call], others: Sequence[Call] = ()) -> None:
        """Answer calls with equal keys.

        Args:
            calls: the calls.
            others: those that wait until these are made.
        """
        waiting = []
        for call in calls:
            try:
                call.member.control.check()
                waiting.append(call)
            except BaseException as error:
                call.answer(error=error)
        if not waiting:
            return
        try:
            self._serve_in_turn(waiting, others)
        except BaseException as error:
            for call in waiting:
                call.answer(error=error)

    def _serve_in_turn(self, calls: list[Call], others: Sequence[Call]) -> None:
        """Answer calls when no run has their model alone, under their modes and with the adapters of their runs."""
        first, model = calls[0], calls[0].method.model
        if first.adapters is None:
            # an offloaded model stays where it is meanwhile, and nobody hooks it
            turn = together(model, made_for=[call.run for call in (*calls, *others)])
        else:
            # no run is in a block meanwhile that could change them
            turn = alone([model], made_for=[call.run for call in calls])
        with turn:
            # that they are refused may have been found out since they came
            reason = why_alone(model) or self.refusal(first)
            if reason is not None:
                self._decline(calls, reason)
                return
            with with_adapters(model, first.adapters):
                first.modes.call_here(lambda: self._serve(calls))

    def _decline(self, calls: Sequence[Call], reason: str) -> None:
        self.count_refused(calls[0].method, reason, len(calls))
        for call in calls:
            call.answer(declined=True)

    def _serve(self, calls: list[Call]) -> None:
        if self._deterministic and calls[0].in_loop and self._max_batch > 1:
            self._serve_fixed(calls)
            return
        while calls:
            most = self.most(calls)
            self._serve_some(calls[:most])
            calls = calls[most:]

    # By default: as many rows as there are.

    def _serve_some(self, calls: list[Call]) -> None:
        if len(calls) == 1:
            self._serve_one(calls[0])
            return
        how = self._proof(calls)
        if how is None:
            return
        arguments = [call.arguments for call in calls]
        try:
            merged = self._forward(calls[0], *merge(arguments))
            values = [split(how, merged, share) for share in shares(arguments)]
        except Exception as error:
            self._rescue(calls, error)
            return
        self._count(calls[0].method.model, calls=len(calls), forwards=1, merged=len(calls), sizes=Counter([len(calls)]))
        for call, value in zip(calls, values, strict=True):
            call.answer(value)

    def _proof(self, calls: list[Call]) -> Any:
        """How the output of a merged call is taken apart; None if the calls were answered otherwise."""
        key = calls[0].proof_key
        arguments = [call.arguments for call in calls]
        lengths = {call.length for call in arguments}
        size = size_class(sum(call.rows for call in arguments)), len(lengths) > 1
        how = self._ledger.how(key, size)
        if how is not None:
            return how
        try:
            verdict = prove(arguments, lambda args, kwargs: self._forward(calls[0], args, kwargs))
        except Exception as error:
            self._rescue(calls, error)
            return None
        self._count(calls[0].method.model, proofs=verdict.forwards)
        if verdict.reason is not None:
            self._refuse(calls, verdict.reason)
            return None
        self._ledger.trust(key, size, verdict.how)
        return verdict.how

    def _refuse(self, calls: list[Call], reason: str) -> None:
        """Run the calls alone, and all like them from now on."""
        self._ledger.refuse(calls[0].proof_key, reason)
        self._decline(calls, reason)

    def _rescue(self, calls: list[Call], error: Exception) -> None:
        """Answer calls that failed when they were made together."""
        if is_out_of_memory(error):
            error.__traceback__ = None
            _free_memory()
            self._ledger.limit(calls[0].proof_key, max(1, sum(call.arguments.rows for call in calls) // 2))
            self._count(calls[0].method.model, halved=1)
            self._serve(calls)
            return
        failed = [self._serve_one(call) for call in calls]
        self._count(calls[0].method.model, retries=len(calls))
        if not any(failed):
            self._ledger.refuse(calls[0].proof_key, f"made together, the calls fail: {type(error).__name__}: {error}")

    def _serve_one(self, call: Call) -> bool:
        """Answer a call by itself; returns whether it failed."""
        self._count(call.method.model, calls=1, forwards=1, sizes=Counter([1]))
        try:
            call.answer(self._forward(call, call.args, call.kwargs))
        except BaseException as error:
            call.answer(error=error)
            return True
        return False

    # Deterministic: always the same number of rows.

    def _serve_fixed(self, calls: list[Call]) -> None:
        key = calls[0].proof_key
        how = self._ledger.how(key, "fixed")
        if how is None:
            how = self._proof_fixed(calls)
        if how is None:
            return
        most = self.most(calls[:1])
        for start in range(0, len(calls), most):
            self._serve_filled(calls[start : start + most], most, how)

    def _proof_fixed(self, calls: list[Call]) -> Any:
        """As `_proof`; how many calls fit into the memory is found out here, and is not changed any more."""
        key, most = calls[0].proof_key, self.most(calls[:1])
        while calls:
            try:
                verdict = prove_fixed(
                    calls[0].arguments, lambda args, kwargs: self._forward(calls[0], args, kwargs), most
                )
            except Exception as error:
                if is_out_of_memory(error) and most > 1:
                    error.__traceback__ = None
                    _free_memory()
                    most //= 2
                    self._count(calls[0].method.model, halved=1)
                    continue
                # it fails alone, so it tells nothing about the others
                self._count(calls[0].method.model, calls=1, forwards=1, sizes=Counter([1]))
                calls.pop(0).answer(error=error)
                continue
            self._count(calls[0].method.model, proofs=verdict.forwards)
            if verdict.reason is not None:
                self._refuse(calls, verdict.reason)
                return None
            self._ledger.limit(key, most * calls[0].arguments.rows)
            self._ledger.trust(key, "fixed", verdict.how)
            return verdict.how
        return None

    def _serve_filled(self, calls: list[Call], count: int, how: Any, again: bool = False) -> None:
        """Answer calls in a forward with the rows of so many."""
        model, arguments = calls[0].method.model, [call.arguments for call in calls]
        total = count * arguments[0].rows
        try:
            merged = self._forward(calls[0], *merge(arguments, total, fixed=True))
            values = [split(how, merged, share) for share in shares(arguments, total, fixed=True)]
        except Exception as error:
            if len(calls) == 1 and (again or not is_out_of_memory(error)):
                self._count(model, calls=1, forwards=1, sizes=Counter([1]))
                calls[0].answer(error=error)
                return
            error.__traceback__ = None
            if is_out_of_memory(error):
                # the shape stays: fewer rows would be other bits
                _free_memory()
            self._count(model, retries=len(calls))
            for call in calls:
                self._serve_filled([call], count, how, again=True)
            return
        merged_calls = len(calls) if len(calls) > 1 else 0
        self._count(model, calls=len(calls), forwards=1, merged=merged_calls, sizes=Counter([len(calls)]))
        for call, value in zip(calls, values, strict=True):
            call.answer(value)

    def _forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # the context belongs to the run, and is set for as long as the model works for it
        with call.method.within(call.context):
            return call.method(*args, **kwargs)

    def _count(self, model: torch.nn.Module, **counts: Any) -> None:
        report = self._reports[self._names[id(model)]]
        with self._lock:
            for name, count in counts.items():
                setattr(report, name, getattr(report, name) + count)


def _free_memory() -> None:
    """Let go of what a failed forward left."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
