"""Adapters of models (LoRA): what a run has set of them.

Blocks change the adapters of a model that all runs share: which are active, and their scales. They have the model alone
for that, and one that fails leaves them as it found them. In a batch, a run that waits for its call lends the model to
the others, with the adapters as they were when it began; what it has set is part of the call, and is set again for the
forward.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["Adapters", "has_adapters", "read", "with_adapters", "write"]

# For each layer with adapters: which are active, whether they are off, and their scales.
Adapters = tuple[tuple[Any, bool, tuple[tuple[str, float], ...]], ...]


def has_adapters(model: torch.nn.Module) -> bool:
    """Whether a model has adapters, active or not."""
    return bool(vars(model).get("peft_config"))


def _layers(model: torch.nn.Module) -> list[Any]:
    # a model has such layers only if this was imported
    peft: Any = sys.modules.get("peft.tuners.tuners_utils")
    return [] if peft is None else [module for module in model.modules() if isinstance(module, peft.BaseTunerLayer)]


def read(model: torch.nn.Module) -> Adapters:
    """What is set of the adapters of a model."""
    found = []
    for layer in _layers(model):
        active = layer._active_adapter
        names = tuple(active) if isinstance(active, list) else active
        scales = tuple(getattr(layer, "scaling", {}).items())
        found.append((names, bool(layer._disable_adapters), scales))
    return tuple(found)


def write(model: torch.nn.Module, adapters: Adapters) -> None:
    """Set what was read."""
    for layer, (names, is_off, scales) in zip(_layers(model), adapters, strict=True):
        layer._active_adapter = list(names) if isinstance(names, tuple) else names
        layer._disable_adapters = is_off
        if scales:
            layer.scaling.update(scales)


@contextmanager
def with_adapters(model: torch.nn.Module, adapters: Adapters | None) -> Iterator[None]:
    """Set the adapters of a model for the time of the context; None leaves them."""
    if adapters is None:
        yield
        return
    before = read(model)
    if before == adapters:
        yield
        return
    write(model, adapters)
    try:
        yield
    finally:
        write(model, before)
