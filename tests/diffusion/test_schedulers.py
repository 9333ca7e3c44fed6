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
from loopwright.diffusion.noise import noise_level
from loopwright.errors import InvalidInputError
from loopwright.modular_pipelines import ModularPipeline, SequentialPipelineBlocks

# from within diffusers, where tensors are handed to numpy
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

MEAN, SPREAD = 1.5, 0.5
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
V = {"prediction_type": "v_prediction"}
WHOLE = {"clip_sample": False}

SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("FlowMatchEulerDiscreteScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    ("FlowMatchHeunDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", FLOW),
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverSinglestepScheduler", FLOW),
    ("UniPCMultistepScheduler", FLOW),
    ("UniPCMultistepScheduler", V),
    ("DEISMultistepScheduler", FLOW),
    ("SASolverScheduler", {"use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", V),
    ("EulerAncestralDiscreteScheduler", {}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    ("KDPM2DiscreteScheduler", {}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    ("EDMEulerScheduler", {}),
    ("EDMDPMSolverMultistepScheduler", {}),
    ("DDIMScheduler", WHOLE),
    ("DDIMScheduler", {**WHOLE, "prediction_type": "sample"}),
    ("DDPMScheduler", WHOLE),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("TCDScheduler", WHOLE),
]
# of the common ones these need scipy or torchsde
OPTIONAL = [("LMSDiscreteScheduler", "scipy", {}), ("DPMSolverSDEScheduler", "torchsde", {})]


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


def name_of(case: Any) -> str | None:
    return case if isinstance(case, str) else "-".join(map(str, case.values())) or "defaults"


@pytest.mark.parametrize(("name", "options"), SCHEDULERS, ids=name_of)
def test_every_scheduler_ends_at_the_data(
    sampler: ModularPipeline, seeded: Any, name: str, options: dict[str, Any]
) -> None:
    noise = torch.randn(4, 8, 16, 16, generator=seeded(0))
    latents = sample(sampler, getattr(diffusers, name)(**options), seeded(1, 2, 3, 4), noise)
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(latents.std()) == pytest.approx(SPREAD, abs=0.1)


@pytest.mark.parametrize(("name", "library", "options"), OPTIONAL, ids=name_of)
def test_schedulers_of_other_libraries(
    sampler: ModularPipeline, seeded: Any, name: str, library: str, options: dict[str, Any]
) -> None:
    pytest.importorskip(library)
    noise = torch.randn(4, 8, 16, 16, generator=seeded(0))
    latents = sample(sampler, getattr(diffusers, name)(**options), seeded(1, 2, 3, 4), noise)
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.06)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("DDPMScheduler", WHOLE),
    ],
    ids=name_of,
)
def test_noise_that_a_scheduler_adds_comes_from_each_images_own_generator(
    sampler: ModularPipeline, seeded: Any, name: str, options: dict[str, Any]
) -> None:
    noise = torch.randn(2, 8, 16, 16, generator=seeded(0))
    together = sample(sampler, getattr(diffusers, name)(**options), seeded(1, 2), noise)
    alone = sample(sampler, getattr(diffusers, name)(**options), [seeded(2)], noise[1:])
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [case for case in SCHEDULERS if "SDE" not in case[0] and "EDM" not in case[0]],
    ids=name_of,
)
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.1])
def test_the_noise_level_is_that_of_the_scheduler_itself(
    name: str, options: dict[str, Any], strength: float, seeded: Any
) -> None:
    scheduler = getattr(diffusers, name)(**options)
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
            diffusers.IPNDMScheduler(),
            "`IPNDMScheduler` does not tell which prediction it expects (`prediction_type` is None); use another "
            "scheduler, such as `FlowMatchEulerDiscreteScheduler`",
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
