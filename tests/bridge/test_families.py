"""Every family of diffusers, on tiny components: the bits of diffusers, watched, cut short, resumed, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch

from loopwright import Checkpoint
from loopwright.bridge import from_diffusers
from loopwright.errors import RunCancelledError
from tests.bridge.families import ALL, NOT_RUN
from tests.bridge.families.case import Case

FAMILIES = list(diffusers.modular_pipelines.modular_pipeline.MODULAR_PIPELINE_MAPPING)


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
    """A case, with its pipeline in diffusers and here, and what calls of ours gave."""

    def __init__(self, case: Case) -> None:
        self.case = case
        blocks = getattr(diffusers, case.blocks)()
        blocks = blocks if case.workflow is None else blocks.get_workflow(case.workflow)
        for name in case.remove:
            blocks.sub_blocks.pop(name)
        self.theirs = blocks.init_pipeline()
        self.pipe = from_diffusers(blocks).init_pipeline()
        known = {*self.theirs._component_specs, *self.theirs._config_specs}
        # made twice: those with weight normalization cannot be copied
        for pipe in (self.theirs, self.pipe):
            given = case.components().items()
            pipe.update_components(**{name: component for name, component in given if name in known})
            pipe.set_progress_bar_config(disable=True)
        self.calls = Calls(self.pipe.components)

    @cached_property
    def result(self) -> Any:
        return self.pipe(**self.case.call())

    @cached_property
    def calls_of_result(self) -> list[str]:
        before = len(self.calls.names)
        self.pipe(**self.case.call())
        return self.calls.names[before:]

    @cached_property
    def other_prompt(self) -> Any:
        return self.pipe(**self.case.call(prompt=1))

    @cached_property
    def other_seed(self) -> Any:
        return self.pipe(**self.case.call(seed=1))


@pytest.fixture(scope="module", params=ALL, ids=str)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    return Family(request.param)


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
    """What a run was for: its pictures, frames or sounds."""
    names = ("images", "videos", "audio", "audios", "sound")
    return list(tensors({name: state.values[name] for name in names if name in state.values}).values())


def same_bits(one: Any, other: Any) -> bool:
    return len(made(one)) == len(made(other)) and all(map(torch.equal, made(one), made(other)))


def test_a_family_gives_the_bits_of_diffusers(family: Family) -> None:
    theirs = family.theirs(**family.case.call())
    assert family.result.values.keys() == theirs.values.keys()
    assert differing(family.result, theirs) == []
    assert made(family.result)
    assert not any(tensor.isnan().any() for tensor in made(family.result))


def test_a_watched_run_gives_the_same_bits_with_one_event_per_iteration(family: Family) -> None:
    run = family.pipe.stream(**family.case.call())
    events = [(event.index, event.total) for event in run]
    count = family.case.steps if family.case.iterations is None else family.case.iterations
    assert len(events) == count
    assert differing(run.result(), family.result) == []


def test_a_cancelled_run_is_resumed_with_the_calls_that_were_left(family: Family, tmp_path: Path) -> None:
    if not family.case.resumes:
        pytest.skip("its loop is within a leaf")
    expected = family.calls_of_result
    before = len(family.calls.names)
    run = family.pipe.start(**family.case.call(), checkpoint=Checkpoint(tmp_path / "run"))
    count = family.case.steps if family.case.iterations is None else family.case.iterations
    for number, _ in enumerate(run, 1):
        if number == (count + 1) // 2:
            run.cancel()
            break
    with pytest.raises(RunCancelledError):
        run.result()
    done = len(family.calls.names) - before
    assert 0 < done < len(expected)
    resumed = family.pipe.resume(tmp_path / "run").result()
    assert family.calls.names[before + done :] == expected[done:]
    assert differing(resumed, family.result) == []


def test_prompt_seed_and_steps_change_the_bits(family: Family) -> None:
    assert not same_bits(family.other_prompt, family.result)
    assert not same_bits(family.other_seed, family.result)
    assert not same_bits(family.pipe(**family.case.call(steps=family.case.steps - 1)), family.result)


def test_two_runs_at_the_same_time_give_the_bits_that_each_gives_alone(family: Family) -> None:
    one, other = family.pipe.start(**family.case.call(prompt=1)), family.pipe.start(**family.case.call(seed=1))
    assert differing(one.result(), family.other_prompt) == []
    assert differing(other.result(), family.other_seed) == []


def test_each_family_is_run_or_has_a_reason() -> None:
    assert {case.family for case in ALL} | NOT_RUN.keys() == {*FAMILIES}
    assert not {case.family for case in ALL} & NOT_RUN.keys()
