"""Schedulers: a model that predicts velocities works with all of them, whatever they expect.

The model here is exact, not trained: for data x0 ~ N(MEAN, SPREAD^2) the velocity has a closed form, so a scheduler
that gets what it expects ends at samples of that distribution.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from loopwright.diffusion import DenoiseLoop, PrepareLatentsStep, SetTimestepsStep, StrengthStep
from loopwright.diffusion.noise import check_scheduler, noise_level
from loopwright.diffusion.schedulers import UNSUITABLE_SCHEDULERS
from loopwright.errors import InvalidInputError
from loopwright.modular_pipelines import ModularPipeline, SequentialPipelineBlocks
from tools.scheduler_table import DRIVEN, PAGE, Driven, exported, page

pytestmark = [
    # from within diffusers, where tensors are handed to numpy
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    # the last noise level of a scheduler, rounded
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning:torchsde"),
]

MEAN, SPREAD = 1.5, 0.5
WHOLE = {"clip_sample": False}


class Gaussian(torch.nn.Module):
    """The velocity E[eps - x0 | x] of flow matching for x0 ~ N(MEAN, SPREAD^2)."""

    dtype = torch.float32
    config = SimpleNamespace(sample_size=16, patch_size=4, in_channels=8)

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1))

    def forward(self, hidden_states: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        sigma = (timestep / 1000).view(-1, 1, 1, 1)
        signal = 1 - sigma
        residual = (hidden_states - signal * MEAN) / (signal**2 * SPREAD**2 + sigma**2)
        return (sigma * residual - MEAN - signal * SPREAD**2 * residual,)


class Unsaid(diffusers.IPNDMScheduler):  # type: ignore[misc]
    """A scheduler of somebody else's."""


class Sample(SequentialPipelineBlocks):
    block_classes = [SetTimestepsStep, PrepareLatentsStep, DenoiseLoop]
    block_names = ["set_timesteps", "prepare_latents", "loop"]


@pytest.fixture
def sampler() -> ModularPipeline:
    pipe = Sample().init_pipeline()
    pipe.update_components(transformer=Gaussian())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: ModularPipeline, scheduler: Any, generator: Any, noise: Tensor) -> Tensor:
    pipe.update_components(scheduler=scheduler)
    nothing = torch.zeros(len(noise), 2, 2)
    latents: Tensor = pipe(
        noise=noise,
        generator=generator,
        num_inference_steps=30,
        prompt_embeds=nothing,
        prompt_embeds_mask=nothing[..., 0],
        negative_prompt_embeds=nothing,
        negative_prompt_embeds_mask=nothing[..., 0],
        output="latents",
    )
    return latents


def test_every_class_of_diffusers_is_driven_or_left_out() -> None:
    assert sorted({case.name for case in DRIVEN} | UNSUITABLE_SCHEDULERS.keys()) == exported()
    assert {case.name for case in DRIVEN}.isdisjoint(UNSUITABLE_SCHEDULERS)


def test_the_page_about_schedulers_is_the_one_that_its_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "`make schedulers` writes it anew"


@pytest.mark.parametrize("case", DRIVEN, ids=str)
def test_every_scheduler_ends_at_the_data(sampler: ModularPipeline, seeded: Any, case: Driven) -> None:
    pytest.importorskip(case.library or "diffusers")
    noise = torch.randn(4, 8, 16, 16, generator=seeded(0))
    latents = sample(sampler, case.make(), seeded(1, 2, 3, 4), noise)
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.06)
    spread = float(latents.std())
    assert spread == pytest.approx(SPREAD, abs=0.1) if case.keeps_spread else 0 < spread < SPREAD


@pytest.mark.parametrize("name", UNSUITABLE_SCHEDULERS)
def test_a_scheduler_that_is_left_out_is_refused_with_the_reason(name: str) -> None:
    scheduler = getattr(diffusers, name)
    with pytest.raises(InvalidInputError) as raised:
        check_scheduler(scheduler.__new__(scheduler), "flow_prediction")
    assert str(raised.value) == (
        f"`{name}` does not work with these blocks: {UNSUITABLE_SCHEDULERS[name]}; use another scheduler, such as "
        f"`FlowMatchEulerDiscreteScheduler`"
    )


@pytest.mark.parametrize("name", sorted(UNSUITABLE_SCHEDULERS))
def test_a_scheduler_that_is_left_out_would_not_work(
    sampler: ModularPipeline, seeded: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(UNSUITABLE_SCHEDULERS, name)
    noise = torch.randn(4, 8, 16, 16, generator=seeded(0))
    try:
        latents = sample(sampler, getattr(diffusers, name)(), seeded(1, 2, 3, 4), noise)
    except (InvalidInputError, AttributeError, KeyError, TypeError):
        return
    assert not abs(float(latents.mean()) - MEAN) < 0.06


@pytest.mark.parametrize(
    "case",
    [
        Driven("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
        Driven("EulerAncestralDiscreteScheduler"),
        Driven("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        Driven("DDPMScheduler", WHOLE),
    ],
    ids=str,
)
def test_noise_that_a_scheduler_adds_comes_from_each_images_own_generator(
    sampler: ModularPipeline, seeded: Any, case: Driven
) -> None:
    noise = torch.randn(2, 8, 16, 16, generator=seeded(0))
    together = sample(sampler, case.make(), seeded(1, 2), noise)
    alone = sample(sampler, case.make(), [seeded(2)], noise[1:])
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", [case for case in DRIVEN if case.library is None and "EDM" not in case.name], ids=str)
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.1])
def test_the_noise_level_is_that_of_the_scheduler_itself(case: Driven, strength: float, seeded: Any) -> None:
    scheduler = case.make()
    pipe = SequentialPipelineBlocks.from_blocks_dict(
        {"set_timesteps": SetTimestepsStep, "strength": StrengthStep}
    ).init_pipeline()
    pipe.update_components(scheduler=scheduler, transformer=Gaussian())
    clean, noise = torch.randn(2, 1, 8, 16, 16, generator=seeded(0)).unbind()
    run = pipe.start(noise=noise, num_inference_steps=10, strength=strength, output="timesteps")
    timesteps, scheduler = run.result(), run.components.scheduler
    mixed = noise_level(scheduler, timesteps).mix(clean, noise)
    if hasattr(scheduler, "scale_noise"):
        expected = scheduler.scale_noise(clean, timesteps[:1], noise)
    else:
        expected = scheduler.add_noise(clean, noise, timesteps[:1])
    # some classes round the timestep before they look the level up
    torch.testing.assert_close(mixed, expected, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"),
            "`UniPCMultistepScheduler` has `prediction_type='flow_prediction'` without flow sigmas; create it with "
            "`UniPCMultistepScheduler.from_config(config, prediction_type='flow_prediction', use_flow_sigmas=True)`",
        ),
        (
            Unsaid(),
            "`Unsaid` does not tell which prediction it expects (`prediction_type` is None); use another scheduler, "
            "such as `FlowMatchEulerDiscreteScheduler`",
        ),
    ],
    ids=["flow prediction without flow sigmas", "no prediction type"],
)
def test_a_scheduler_that_cannot_work_is_named(
    sampler: ModularPipeline, scheduler: Any, message: str, seeded: Any
) -> None:
    with pytest.raises(InvalidInputError) as raised:
        sample(sampler, scheduler, seeded(1), torch.zeros(1, 8, 16, 16))
    assert str(raised.value) == message


def test_a_model_that_predicts_noise_needs_a_scheduler_that_expects_it(sampler: ModularPipeline, seeded: Any) -> None:
    sampler.update_components(model_prediction="epsilon")
    with pytest.raises(InvalidInputError) as raised:
        sample(sampler, diffusers.FlowMatchEulerDiscreteScheduler(), seeded(1), torch.zeros(1, 8, 16, 16))
    assert str(raised.value) == (
        "the model predicts `epsilon`, and `FlowMatchEulerDiscreteScheduler` expects `flow_prediction`; create the "
        "scheduler with `prediction_type='epsilon'`"
    )


def test_a_scheduler_that_takes_no_sigmas_says_so(pipe: Any) -> None:
    pipe.update_components(scheduler=diffusers.DDIMScheduler())
    with pytest.raises(InvalidInputError) as raised:
        pipe(prompt="dog", sigmas=[1.0, 0.5])
    assert str(raised.value) == (
        "`DDIMScheduler` takes no `sigmas`; give `num_inference_steps`, or use a scheduler that takes them, such as "
        "`FlowMatchEulerDiscreteScheduler`"
    )


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler"])
def test_inpainting_keeps_the_image_with_other_schedulers(
    pipe: Any, name: str, picture: Any, right_half: Any, seeded: Any
) -> None:
    pipe.update_components(scheduler=getattr(diffusers, name)())
    state = pipe(
        prompt="dog",
        image=picture,
        mask_image=right_half,
        strength=0.8,
        num_inference_steps=3,
        generator=seeded(1),
        output_type="latent",
    )
    assert torch.equal(state.images[..., :8], state.image_latents[..., :8])
    assert torch.isfinite(state.images).all()
