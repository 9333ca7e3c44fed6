"""What both trainings share: a schedule by the clock, averaged weights, checkpoints, a log, a clean stop.

A training has a budget of minutes. Learning rates follow the part of it that is used up, and that part is kept in the
checkpoint, so that a machine whose speed drifts still ends on time and a resumed training goes on where it stopped.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from types import FrameType

import torch
from torch import nn


class AveragedModel:
    """An exponential moving average of a model's weights, slow only once there is something to average."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1 - decay)


class Training:
    """One training: the model, its average, its optimizers, and how much of the budget is used up."""

    def __init__(
        self,
        checkpoint: Path,
        log: Path,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        *,
        minutes: float,
        decay: float,
        warm_up: float = 0.02,
        save_every: float = 150.0,
        report_every: float = 60.0,
    ) -> None:
        self.model, self.optimizers = model, optimizers
        self.average = AveragedModel(model, decay)
        self.budget = minutes * 60
        self.warm_up, self.save_every, self.report_every = warm_up, save_every, report_every
        self.elapsed = 0.0
        self.step = 0
        self._checkpoint, self._log = checkpoint, log
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self._stop = False
        if checkpoint.exists():
            self._load()

    @property
    def progress(self) -> float:
        """How much of the budget is used up, 0..1."""
        return min(1.0, self.elapsed / self.budget)

    def steps(self, images: int) -> Iterator[int]:
        """Counts the steps until the budget is used up or the user stops; saves and reports on the way.

        `images` is the batch size, for the rate. The body of the loop computes the loss and calls `descend`.
        """
        previous = signal.signal(signal.SIGINT, self._ask_to_stop), signal.signal(signal.SIGTERM, self._ask_to_stop)
        saved = reported = self.elapsed
        done = self.step
        self._losses: list[torch.Tensor] = []
        try:
            while self.elapsed < self.budget and not self._stop:
                self._set_rates()
                start = time.monotonic()
                yield self.step
                self.step += 1
                self.elapsed += time.monotonic() - start
                if self.elapsed - reported >= self.report_every:
                    rate = (self.step - done) * images / (self.elapsed - reported)
                    left = (self.budget - self.elapsed) / 60
                    loss = float(torch.stack(self._losses).mean()) if self._losses else math.nan
                    self.note(f"step {self.step}  loss {loss:.4f}  {rate:.0f} images/s  {left:.1f} minutes left")
                    reported, done, self._losses = self.elapsed, self.step, []
                if self.elapsed - saved >= self.save_every:
                    self.save()
                    saved = self.elapsed
        finally:
            signal.signal(signal.SIGINT, previous[0])
            signal.signal(signal.SIGTERM, previous[1])
        self.save()
        self.note("stopped, to be resumed" if self._stop else "finished")
        if self._stop:
            raise SystemExit(130)

    def descend(self, loss: torch.Tensor, clip: float, pool: Executor | None = None) -> None:
        """One step of every optimizer along the gradients of `loss`, side by side in `pool`; then of the average."""
        nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        list((pool.map if pool else map)(lambda optimizer: optimizer.step(), self.optimizers))
        self.average.update(self.model, self.step)
        self._losses.append(loss.detach())

    def note(self, line: str) -> None:
        """Prints a line and adds it to the log, with the minutes trained so far."""
        line = f"{self.elapsed / 60:6.1f} min  {line}"
        print(line, flush=True)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def save(self) -> None:
        """Writes the checkpoint whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "elapsed": self.elapsed,
            "step": self.step,
            "random": torch.get_rng_state(),
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self._checkpoint)

    def _load(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.elapsed, self.step = state["elapsed"], state["step"]
        torch.set_rng_state(state["random"])
        self.note(f"resumed at step {self.step}")

    def _set_rates(self) -> None:
        """A linear warm-up, then half a cosine down to 0."""
        factor = min(1.0, self.progress / self.warm_up) * (1 + math.cos(math.pi * self.progress)) / 2
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True
