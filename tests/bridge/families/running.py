"""A case of a family, as the tests run it: its pipeline in diffusers and here, and what calls of ours gave."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import torch

from loopwright.bridge import from_diffusers
from tests.bridge.families.case import Case

__all__ = ["Calls", "Family", "differing", "distance", "made", "requests", "same_bits", "tensors"]


class Calls:
    """Counts the calls of models by the names of the components.

    Args:
        components: the components of a pipeline.
    """

    def __init__(self, components: dict[str, Any]) -> None:
        self.names: list[str] = []
        for name, component in components.items():
            if isinstance(component, torch.nn.Module):
                # an autoencoder is called by other methods than `forward`
                for part in [component, *(getattr(component, part, None) for part in ("encoder", "decoder"))]:
                    if isinstance(part, torch.nn.Module):
                        part.register_forward_pre_hook(self._noting(name))

    def _noting(self, name: str) -> Any:
        return lambda *_: self.names.append(name)


class Family:
    """A case, with its pipeline in diffusers and here, and what calls of ours gave.

    Args:
        case: the case.

    Attributes:
        theirs: the pipeline in diffusers.
        pipe: the pipeline here.
        calls: the calls of the models of ours.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.theirs = self._with_components(self.blocks())
        self.pipe = self._with_components(from_diffusers(self.blocks()))
        self.calls = Calls(self.pipe.components)

    def blocks(self) -> Any:
        """New blocks of diffusers."""
        blocks = getattr(diffusers, self.case.blocks)()
        blocks = blocks if self.case.workflow is None else blocks.get_workflow(self.case.workflow)
        for name in self.case.remove:
            blocks.sub_blocks.pop(name)
        return blocks

    def _with_components(self, blocks: Any) -> Any:
        pipe = blocks.init_pipeline()
        known = {*pipe._component_specs, *pipe._config_specs}
        # made twice: those with weight normalization cannot be copied
        pipe.update_components(**{name: value for name, value in self.case.components().items() if name in known})
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def _call(self) -> tuple[Any, list[str]]:
        before = len(self.calls.names)
        return self.pipe(**self.case.call()), self.calls.names[before:]

    @property
    def result(self) -> Any:
        """The state that a call leaves."""
        return self._call[0]

    @property
    def calls_of_result(self) -> list[str]:
        """The names of the components that it called."""
        return self._call[1]

    @cached_property
    def other_prompt(self) -> Any:
        return self.pipe(**self.case.call(prompt=1))

    @cached_property
    def other_seed(self) -> Any:
        return self.pipe(**self.case.call(seed=1))


def requests(case: Case, *seeds: int) -> dict[str, Any]:
    """The inputs of a call of several requests, each with a prompt and a seed of its own.

    Their prompts are of one length, so that none has to be padded for the other.
    """
    prompts = [case.prompts[0] if seed == 0 else case.prompts[0][::-1] for seed in seeds]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    one = len(seeds) == 1
    return {
        **case.call(),
        case.prompt: prompts[0] if one else prompts,
        "generator": generators[0] if one else generators,
        **case.together(len(seeds)),
    }


def distance(together: Any, alone: list[Any]) -> float:
    """How far what several requests made in one call is from what each made alone, at most."""
    return max(
        float((both[number : number + 1].float() - one.float()).abs().max())
        for number, state in enumerate(alone)
        for both, one in zip(made(together), made(state), strict=True)
    )


def tensors(value: Any, path: str = "") -> dict[str, torch.Tensor]:
    """All tensors, arrays and pictures in a value, by where they are."""
    if isinstance(value, torch.Tensor):
        return {path: value}
    if isinstance(value, (np.ndarray, PIL.Image.Image)):
        return {path: torch.from_numpy(np.array(value))}
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return {}
    return {where: found for key, part in items for where, found in tensors(part, f"{path}.{key}").items()}


def differing(one: Any, other: Any) -> list[str]:
    """Where the values of two states differ."""
    ones, others = tensors(one.values), tensors(other.values)
    return [
        path
        for path in {**ones, **others}
        if path not in ones
        or path not in others
        or ones[path].dtype != others[path].dtype
        or not torch.equal(ones[path], others[path])
    ]


def made(state: Any) -> list[torch.Tensor]:
    """What a run was for: its pictures, frames, sounds or actions."""
    names = ("images", "videos", "audio", "audios", "sound", "action")
    return list(tensors({name: state.values[name] for name in names if name in state.values}).values())


def same_bits(one: Any, other: Any) -> bool:
    """Whether two runs made the same."""
    return len(made(one)) == len(made(other)) and all(map(torch.equal, made(one), made(other)))
