"""What a batch did: how many forwards served how many calls, what runs alone and why, and who waits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["BatchReport", "ModelReport", "Refusal"]


class Refusal(NamedTuple):
    """Calls that are not made together with others.

    Attributes:
        component: the name of the model.
        method: the method that is called.
        reason: why.
        calls: how many calls it was so far.
    """

    component: str
    method: str
    reason: str
    calls: int


@dataclass
class ModelReport:
    """The calls of one model.

    Attributes:
        calls: how many calls runs made.
        forwards: how many forwards served them.
        merged: how many of these calls shared a forward with others.
        proofs: forwards that were made only to compare.
        retries: forwards that were made again, call by call, after a shared one failed.
        halved: how often the memory of the device was not enough, so that fewer calls share a forward since.
        sizes: how many forwards served how many calls.
    """

    calls: int = 0
    forwards: int = 0
    merged: int = 0
    proofs: int = 0
    retries: int = 0
    halved: int = 0
    sizes: Counter[int] = field(default_factory=Counter)

    @property
    def alone(self) -> int:
        """How many calls had a forward for themselves."""
        return self.calls - self.merged

    @property
    def occupancy(self) -> float:
        """How many calls a forward served, on average; 0 without any."""
        return self.calls / self.forwards if self.forwards else 0.0


@dataclass(frozen=True)
class BatchReport:
    """What a batch did so far.

    Attributes:
        models: the calls of each model, by the names of the components.
        active: how many runs are going on.
        waiting: how many runs wait to begin, by the names of the clients; `None` is who gave no name.
        queued: how many calls wait for a forward.
        refusals: what is not made together, and why.
        run_bytes: how much memory a run takes, as measured; None if there is no budget, or no run has ended.
    """

    models: dict[str, ModelReport]
    active: int
    waiting: dict[str | None, int]
    queued: int
    refusals: list[Refusal]
    run_bytes: int | None = None

    @property
    def forwards(self) -> int:
        return sum(model.forwards for model in self.models.values())

    @property
    def calls(self) -> int:
        return sum(model.calls for model in self.models.values())

    @property
    def merged(self) -> int:
        """How many calls shared a forward with others."""
        return sum(model.merged for model in self.models.values())

    @property
    def alone(self) -> int:
        """How many calls had a forward for themselves."""
        return self.calls - self.merged

    @property
    def occupancy(self) -> float:
        """How many calls a forward served, on average; 0 without any."""
        return self.calls / self.forwards if self.forwards else 0.0

    def __str__(self) -> str:
        lines = [
            f"{'model':24} {'calls':>8} {'forwards':>8} {'merged':>8} {'alone':>8} {'per forward':>11} {'proofs':>7}"
        ]
        for name, model in self.models.items():
            lines.append(
                f"{name:24} {model.calls:8} {model.forwards:8} {model.merged:8} {model.alone:8} "
                f"{model.occupancy:11.2f} {model.proofs:7}"
            )
        lines.append(
            f"{self.active} runs active, {sum(self.waiting.values())} waiting to begin, {self.queued} calls queued"
        )
        lines += [
            f"alone: {refusal.component}.{refusal.method}, {refusal.calls} calls: {refusal.reason}"
            for refusal in self.refusals
        ]
        return "\n".join(lines)
