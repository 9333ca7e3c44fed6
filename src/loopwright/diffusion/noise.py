"""How noisy a latent is, and how a model that predicts velocities serves a scheduler that expects something else.

Every scheduler moves latents of the form

    x = signal * x0 + noise * eps,    eps ~ N(0, I)

and the families of diffusers' schedulers differ in the two scales:

    flow matching         1 - sigma             sigma                    FlowMatchEuler, DPM++ with `use_flow_sigmas`
    variance exploding    1                     sigma                    Euler, Heun, LMS, KDPM2, EDM
    variance preserving   1 / hypot(1, sigma)   sigma / hypot(1, sigma)  DPM++, UniPC, DEIS, SA
    variance preserving   sqrt(abar_t)          sqrt(1 - abar_t)         DDIM, DDPM, PNDM, LCM, TCD

Divided by `signal + noise`, any such latent lies on the straight line between x0 and eps on which a flow-matching model
was trained (Lipman et al. 2023, https://arxiv.org/abs/2210.02747, section 4.1, example II). So such a model serves all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from loopwright.errors import InvalidInputError

from .schedulers import UNSUITABLE_SCHEDULERS

__all__ = ["NoiseLevel", "check_scheduler", "denoiser_input", "noise_level", "scheduler_prediction"]


class NoiseLevel(NamedTuple):
    """The scales of a noisy latent: `signal * x0 + noise * eps`. Both are 0-d tensors."""

    signal: Tensor
    noise: Tensor

    def mix(self, clean: Tensor, noise: Tensor) -> Tensor:
        """`clean` with this much of `noise`, both [B, C, h, w]."""
        return self.signal * clean + self.noise * noise


def noise_level(scheduler: Any, timesteps: Tensor) -> NoiseLevel:
    """How noisy the latents are that the scheduler would take at its next step.

    Args:
        scheduler: any scheduler that has had `set_timesteps`.
        timesteps: the timesteps that are left, [n]; none are left after the last step, and no noise is either.

    Raises:
        InvalidInputError: the scheduler does not tell.
    """
    if len(timesteps) == 0:
        return NoiseLevel(torch.tensor(1.0), torch.tensor(0.0))
    if _is_flow(scheduler):
        sigma = scheduler.sigmas[_step_index(scheduler)]
        return NoiseLevel(1 - sigma, sigma)
    one = torch.ones((), dtype=torch.float64)
    scaled = scheduler.scale_model_input(one, timesteps[0]) if hasattr(scheduler, "scale_model_input") else one
    if scaled is not one:
        # the scale is 1 / sqrt(sigma^2 + sigma_data^2); solvers of second order know their midpoints' sigma only there
        sigma_data = scheduler.config.get("sigma_data", 1.0)
        return NoiseLevel(torch.tensor(1.0), (scaled**-2 - sigma_data**2).clamp(min=0).sqrt().float())
    if hasattr(scheduler, "sigmas"):
        sigma = scheduler.sigmas[_step_index(scheduler)]
        signal = (1 + sigma**2) ** -0.5
        return NoiseLevel(signal, sigma * signal)
    if hasattr(scheduler, "alphas_cumprod"):
        abar = scheduler.alphas_cumprod[int(timesteps[0])]
        return NoiseLevel(abar**0.5, (1 - abar) ** 0.5)
    raise InvalidInputError(
        f"`{type(scheduler).__name__}` does not tell how noisy its latents are: it has no `sigmas` and no "
        f"`alphas_cumprod`; use another scheduler, such as `FlowMatchEulerDiscreteScheduler`"
    )


def check_scheduler(scheduler: Any, model_prediction: str) -> None:
    """Check that the scheduler can work with what the model predicts.

    Raises:
        InvalidInputError: it cannot; the message says what can.
    """
    name = type(scheduler).__name__
    if name in UNSUITABLE_SCHEDULERS:
        raise InvalidInputError(
            f"`{name}` does not work with these blocks: {UNSUITABLE_SCHEDULERS[name]}; use another scheduler, such as "
            f"`FlowMatchEulerDiscreteScheduler`"
        )
    expected = _expected_prediction(scheduler)
    if expected == "flow_prediction" and not _is_flow(scheduler):
        raise InvalidInputError(
            f"`{name}` has `prediction_type='flow_prediction'` without flow sigmas; create it with "
            f"`{name}.from_config(config, prediction_type='flow_prediction', use_flow_sigmas=True)`"
        )
    if model_prediction not in (expected, "flow_prediction"):
        raise InvalidInputError(
            f"the model predicts `{model_prediction}`, and `{name}` expects `{expected}`; create the scheduler with "
            f"`prediction_type='{model_prediction}'`"
        )
    if expected not in ("epsilon", "v_prediction", "sample", "original_sample", "flow_prediction"):
        raise InvalidInputError(
            f"`{name}` does not tell which prediction it expects (`prediction_type` is {expected!r}); use another "
            f"scheduler, such as `FlowMatchEulerDiscreteScheduler`"
        )


def denoiser_input(scheduler: Any, latents: Tensor, timesteps: Tensor, model_prediction: str) -> tuple[Tensor, Tensor]:
    """The scheduler's latents and the first of `timesteps` as the model takes them: latents [B, C, h, w], timestep [].

    Args:
        scheduler: the scheduler that the latents are for.
        latents: [B, C, h, w].
        timesteps: the timesteps that are left, [n].
        model_prediction: what the model predicts.
    """
    if _expected_prediction(scheduler) == model_prediction:
        if hasattr(scheduler, "scale_model_input"):
            latents = scheduler.scale_model_input(latents, timesteps[0])
        return latents, timesteps[0]
    signal, noise = noise_level(scheduler, timesteps)
    if hasattr(scheduler, "scale_model_input"):
        # some schedulers remember that they were asked, and warn if not
        scheduler.scale_model_input(latents, timesteps[0])
    total = signal + noise
    return latents / total, noise / total * scheduler.config.num_train_timesteps


def scheduler_prediction(
    scheduler: Any, prediction: Tensor, latents: Tensor, timesteps: Tensor, model_prediction: str
) -> Tensor:
    """The model's prediction as the scheduler expects it, [B, C, h, w]; the arguments are those of `denoiser_input`."""
    expected = _expected_prediction(scheduler)
    if expected == model_prediction:
        return prediction
    signal, noise = noise_level(scheduler, timesteps)
    total = signal + noise
    x, sigma = latents / total, noise / total
    x0 = x - sigma * prediction
    eps = x + (1 - sigma) * prediction
    if hasattr(scheduler, "precondition_outputs"):
        # x0 = c_skip * x + c_out * F, Karras et al. 2022, https://arxiv.org/abs/2206.00364, equation 7
        zero, one = torch.zeros(()), torch.ones(())
        c_skip: Tensor = scheduler.precondition_outputs(one, zero, noise)
        c_out: Tensor = scheduler.precondition_outputs(zero, one, noise)
        return (x0 - c_skip * latents) / c_out
    if expected == "epsilon":
        return eps
    if expected == "v_prediction":
        # Salimans and Ho 2022, https://arxiv.org/abs/2202.00512, section 4
        return (signal * eps - noise * x0) / (signal**2 + noise**2) ** 0.5
    return x0


def _is_flow(scheduler: Any) -> bool:
    # `scale_noise` is the forward process of flow matching; the other schedulers have `add_noise`
    return bool(scheduler.config.get("use_flow_sigmas")) or hasattr(scheduler, "scale_noise")


def _expected_prediction(scheduler: Any) -> str | None:
    expected: str | None = scheduler.config.get("prediction_type")
    return "flow_prediction" if expected is None and _is_flow(scheduler) else expected


def _step_index(scheduler: Any) -> int:
    for index in (scheduler.step_index, scheduler.begin_index):
        if index is not None:
            return int(index)
    return 0
