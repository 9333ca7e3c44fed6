"""A device with little memory, simulated on the CPU: `cpu:0`, to which models are moved by their own `to`.

A model on it has stayed on the CPU, and says otherwise. Every call of a model and every move of one is recorded.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch

from loopwright.components import turns
from tests.run.blocks import PATIENCE

DEVICE = torch.device("cpu", 0)


class Simulated:
    """The device.

    Args:
        budget: its memory, in bytes.

    Attributes:
        places: where each model is; on the CPU if it was never moved.
        moves: the models that were moved, by name, and where to, in the order of the moves.
        calls: how often each model was called.
        most: the most memory that was taken at a time.
        together: how many calls of each model were made at a time, at most.
        faults: what must not happen: a model that was moved in a call, or called elsewhere.
        during: called in each call of a model, by its name.
        full: whether a model that is moved there fails when a part of it has come.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
        self.budget = budget
        self.taken: dict[str, int] = {}
        self.places: WeakKeyDictionary[Any, torch.device] = WeakKeyDictionary()
        self.moves: list[tuple[str, str]] = []
        self.calls: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self.most = 0
        self.together: Counter[str] = Counter()
        self.faults: list[str] = []
        self.during: dict[str, Callable[[], Any]] = {}
        self.full = False
        self.lock = threading.Lock()
        monkeypatch.setattr(torch.cpu, "mem_get_info", lambda index: (self.free, self.budget), raising=False)

    @property
    def free(self) -> int:
        return self.budget - sum(self.taken.values())

    def put(self, model: Any, name: str, calls: tuple[str, ...] = ("forward",)) -> Any:
        """Make a model one that is moved to this device and away; it stays what it is otherwise.

        Args:
            model: the model.
            name: what it is called in the records.
            calls: the methods that are recorded.
        """
        simulated, cls = self, type(model)
        size = sum(weight.nbytes for weight in model.parameters())

        def to(model: Any, *args: Any, **kwargs: Any) -> Any:
            place = kwargs.get("device", args[0] if args else None)
            if isinstance(place, torch.dtype) or place is None:
                return cls.to(model, *args, **kwargs)
            simulated.moved(model, name, torch.device(place), size)
            return model

        def recorded(method: str) -> Any:
            def call(model: Any, *args: Any, **kwargs: Any) -> Any:
                simulated.begun(model, name)
                try:
                    simulated.during.get(name, lambda: None)()
                    return getattr(cls, method)(model, *args, **kwargs)
                finally:
                    simulated.ended(name)

            return call

        members = {method: recorded(method) for method in calls} | {"get_memory_footprint": lambda model: size}
        place = property(lambda model: simulated.places.get(model, torch.device("cpu")))
        model.__class__ = type(cls.__name__, (cls,), {"to": to, "device": place, **members})
        return model

    def moved(self, model: Any, name: str, place: torch.device, size: int) -> None:
        with self.lock:
            if place == model.device:
                return
            if self.inside[name]:
                self.faults.append(f"{name} was moved to {place} in a call")
            self.moves.append((name, str(place)))
            if place == DEVICE:
                self.taken[name] = size
            else:
                del self.taken[name]
            self.most = max(self.most, sum(self.taken.values()))
            self.places[model] = place
            if self.full and place == DEVICE:
                raise torch.OutOfMemoryError("no memory is left")

    def begun(self, model: Any, name: str) -> None:
        with self.lock:
            if model.device != DEVICE:
                self.faults.append(f"{name} was called on {model.device}")
            self.calls[name] += 1
            self.inside[name] += 1
            self.together[name] = max(self.together[name], self.inside[name])

    def ended(self, name: str) -> None:
        with self.lock:
            self.inside[name] -= 1


def until_waiting(count: int) -> None:
    """Until so many runs wait for models."""
    with turns._changed:
        assert turns._changed.wait_for(lambda: len(turns._waits) >= count, PATIENCE)


def linear(seed: int, size: int = 8) -> torch.nn.Linear:
    """A model of `size * size` floats."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Linear(size, size, bias=False).requires_grad_(False)


def hook(model_id: str, size: int, **more: Any) -> Any:
    """What a strategy sees of a model of so many bytes."""
    return SimpleNamespace(model_id=model_id, model=SimpleNamespace(get_memory_footprint=lambda: size), **more)
