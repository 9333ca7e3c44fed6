"""What a run began with, which each of its checkpoints holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from loopwright.errors import UnsavableValueError
from loopwright.run.checkpoints.encoder import Encoder
from loopwright.state import PipelineState

__all__ = ["Start", "generators_in"]


class Start:
    """The values with which a run began, as they were then.

    Attributes:
        written: the values by name and their groups, as JSON; None if a value cannot be saved.
        tensors: the tensors that the JSON refers to.
        generators: the generators among the values, by name. They have moved on since.
    """

    def __init__(
        self,
        written: dict[str, Any] | None,
        tensors: Mapping[str, torch.Tensor],
        generators: Mapping[str, list[torch.Generator]],
    ) -> None:
        self.written, self.tensors, self.generators = written, dict(tensors), dict(generators)

    @classmethod
    def of(cls, state: PipelineState, components: Mapping[str, Any], classes: Mapping[str, type]) -> Start:
        """What a state holds before the first block runs."""
        unsaved = cls.unsaved(state)
        encoder = Encoder(components, classes, prefix="start")
        try:
            values = [[name, encoder.encode(value, name)] for name, value in state.values.items()]
        except UnsavableValueError:
            # if it is still there at the end of the first iteration, it is an error then
            return unsaved
        encoder.join()
        groups = {kind: list(names) for kind, names in state.kwargs_mapping.items()}
        tensors = {key: tensor.detach().clone() for key, tensor in encoder.tensors.items()}
        return cls({"values": values, "groups": groups}, tensors, unsaved.generators)

    @classmethod
    def unsaved(cls, state: PipelineState) -> Start:
        """What is known of the start of a run without copying its values."""
        return cls(None, {}, {name: list(generators_in(value)) for name, value in state.values.items()})


def generators_in(value: Any) -> Iterator[torch.Generator]:
    """The generators in a value, always in the same order."""
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from generators_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from generators_in(item)
