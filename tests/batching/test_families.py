"""Families of diffusers, unmodified and on tiny components: concurrent runs share their forwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch

from loopwright.batching import batched
from loopwright.bridge import from_diffusers
from tests.batching.test_batched import CLOSE
from tests.bridge.families import ALL
from tests.bridge.families.case import Case, mask, picture
from tests.run.blocks import PATIENCE

# the name of the case, that of the model, and how many calls of it a step makes
FAMILIES = {
    "FluxAuto-text2image": ("transformer", 1),
    "StableDiffusionXLAuto-text2image": ("unet", 2),
    "StableDiffusion3Auto-text2image": ("transformer", 2),
    "Wan": ("transformer", 2),
    "QwenImageAuto-text2image": ("transformer", 2),
    "ZImageAuto-text2image": ("transformer", 1),
}
RUNS = 8


class Family:
    """A case with its pipeline, and what each of eight runs of mixed steps gives alone."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model, self.calls_of_step = FAMILIES[str(case)]
        blocks = getattr(diffusers, case.blocks)()
        blocks = blocks if case.workflow is None else blocks.get_workflow(case.workflow)
        self.pipe = from_diffusers(blocks).init_pipeline()
        known = {*self.pipe._component_specs, *self.pipe._config_specs}
        self.pipe.update_components(**{name: made for name, made in case.components().items() if name in known})
        self.pipe.set_progress_bar_config(disable=True)
        self.alone = [made(self.pipe(**self.inputs(n))) for n in range(RUNS)]

    def inputs(self, number: int) -> dict[str, Any]:
        """Two prompts, of different lengths, and 11 to 25 steps."""
        return self.case.call(prompt=number % 2, seed=number, steps=11 + 2 * number)


def made(state: Any) -> torch.Tensor:
    name = "images" if "images" in state.values else "videos"
    value: torch.Tensor = state.values[name]
    return value


@pytest.fixture(scope="module", params=[case for case in ALL if str(case) in FAMILIES], ids=str)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    return Family(request.param)


def run_all(b: Any, family: Family) -> list[torch.Tensor]:
    runs = [b.start(**family.inputs(n)) for n in range(RUNS)]
    return [made(run.result(PATIENCE)) for run in runs]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def test_the_families_of_the_bar_are_there() -> None:
    assert {str(case) for case in ALL} >= FAMILIES.keys()


def test_runs_of_mixed_steps_share_forwards_and_give_what_they_give_alone(family: Family, clock: Any) -> None:
    with batched(family.pipe, max_batch=RUNS) as b:
        results = run_all(b, family)
        report = b.report()
    longest = (11 + 2 * (RUNS - 1)) * family.calls_of_step
    model = report.models[family.model]
    assert model.calls == sum(11 + 2 * n for n in range(RUNS)) * family.calls_of_step
    assert model.forwards <= 1.25 * longest
    assert family.model not in {refusal.component for refusal in report.refusals}
    assert max(map(apart, results, family.alone)) <= CLOSE


def test_in_deterministic_mode_each_run_gives_the_bits_that_it_gives_alone(family: Family) -> None:
    with batched(family.pipe, max_batch=RUNS, deterministic=True) as b:
        together = run_all(b, family)
        assert b.report().models[family.model].merged > 0
    with batched(family.pipe, max_batch=RUNS, deterministic=True) as b:
        alone = [made(b(**family.inputs(n))) for n in range(3)]
    assert all(map(torch.equal, together, alone))
    assert max(map(apart, together, family.alone)) <= CLOSE


def test_text_to_image_and_inpainting_share_the_calls_of_an_unmodified_family(clock: Any) -> None:
    cases = {str(case): case for case in ALL}
    text, paint = (cases[f"StableDiffusionXLAuto-{name}"] for name in ("text2image", "inpainting"))
    pipe = from_diffusers(diffusers.StableDiffusionXLAutoBlocks()).init_pipeline()
    pipe.update_components(**{name: made for name, made in text.components().items() if name in pipe._component_specs})
    pipe.set_progress_bar_config(disable=True)

    def inputs(number: int) -> dict[str, Any]:
        if number % 2:
            painted = paint.call(seed=number, steps=20)
            return {**painted, "image": picture(seed=number), "mask_image": mask()}
        return text.call(seed=number, steps=16)

    alone = [made(pipe(**inputs(n))) for n in range(4)]
    with batched(pipe) as b:
        runs = [b.start(**inputs(n)) for n in range(4)]
        results = [made(run.result(PATIENCE)) for run in runs]
        unet = b.report().models["unet"]
    assert unet.calls == 4 * 2 * 16
    assert unet.forwards <= 1.25 * 2 * 16
    assert max(map(apart, results, alone)) <= CLOSE
