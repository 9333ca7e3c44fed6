"""Which schedulers of diffusers the embedded model's blocks drive, and docs/schedulers.md, which says so.

`DRIVEN` and `LEFT_OUT` are the one list: the tests run every entry of both, and `python -m tools.scheduler_table`
writes the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import diffusers
from diffusers.schedulers.scheduling_utils import SchedulerMixin

PAGE = Path(__file__).parent.parent / "docs" / "schedulers.md"


class Driven(NamedTuple):
    """A scheduler as the tests run it.

    Attributes:
        name: the name of its class.
        options: what it is made with.
        library: what it needs beside diffusers.
        keeps_spread: False for those that jump to the model's mean and add new noise at each step, as is meant for
            models that were distilled into few steps: with others the samples vary less than the data.
    """

    name: str
    options: dict[str, Any] = {}
    library: str | None = None
    keeps_spread: bool = True

    def make(self) -> Any:
        return getattr(diffusers, self.name)(**self.options)

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.options.values())])


FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
V = {"prediction_type": "v_prediction"}
WHOLE = {"clip_sample": False}

DRIVEN = [
    Driven("CogVideoXDDIMScheduler"),
    Driven("CosineDPMSolverMultistepScheduler", library="torchsde"),
    Driven("DDIMParallelScheduler", WHOLE),
    Driven("DDIMScheduler", WHOLE),
    Driven("DDIMScheduler", {**WHOLE, "prediction_type": "sample"}),
    Driven("DDPMParallelScheduler", WHOLE),
    Driven("DDPMScheduler", WHOLE),
    Driven("DEISMultistepScheduler", FLOW),
    Driven("DPMSolverMultistepScheduler"),
    Driven("DPMSolverMultistepScheduler", FLOW),
    Driven("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Driven("DPMSolverSDEScheduler", {"noise_sampler_seed": 0}, library="torchsde"),
    Driven("DPMSolverSinglestepScheduler", FLOW),
    Driven("EDMDPMSolverMultistepScheduler"),
    Driven("EDMEulerScheduler"),
    Driven("EulerAncestralDiscreteScheduler"),
    Driven("EulerDiscreteScheduler"),
    Driven("EulerDiscreteScheduler", V),
    Driven("FlowMapEulerDiscreteScheduler"),
    Driven("FlowMatchEulerDiscreteScheduler"),
    Driven("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    Driven("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    Driven("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, keeps_spread=False),
    Driven("FlowMatchHeunDiscreteScheduler"),
    Driven("FlowMatchLCMScheduler", keeps_spread=False),
    Driven("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    Driven("KDPM2AncestralDiscreteScheduler"),
    Driven("KDPM2DiscreteScheduler"),
    Driven("LCMScheduler", WHOLE, keeps_spread=False),
    Driven("LMSDiscreteScheduler", library="scipy"),
    Driven("PNDMScheduler", {"skip_prk_steps": True}),
    Driven("SASolverScheduler", {"use_karras_sigmas": True}),
    Driven("TCDScheduler", WHOLE),
    Driven("UniPCMultistepScheduler", FLOW),
    Driven("UniPCMultistepScheduler", V),
]

_TOKENS = "its samples are tokens, not latents"
_NO_PREDICTION = "it does not say what the model is to predict (it has no `prediction_type`)"
LEFT_OUT = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": f"{_NO_PREDICTION}; it is for consistency models",
    "CogVideoXDPMScheduler": "its `step` also takes the timestep before and the prediction before",
    "DDIMInverseScheduler": "it goes from an image to its noise, not from noise to an image",
    "DDPMWuerstchenScheduler": "it has timesteps between 0 and 1, and no `num_train_timesteps`",
    "DPMSolverMultistepInverseScheduler": "it goes from an image to its noise, not from noise to an image",
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "HeliosDMDScheduler": "it has several stages, of growing resolution, with timesteps of their own",
    "HeliosScheduler": "it has several stages, of growing resolution, with timesteps of their own",
    "IPNDMScheduler": _NO_PREDICTION,
    "KarrasVeScheduler": "it calls the model several times for a step, and has `step_correct` beside `step`",
    "LTXEulerAncestralRFScheduler": _NO_PREDICTION,
    "MiniMaxH3Scheduler": "its time runs from 0 to 1, and it expects the velocity with the opposite sign",
    "PiflowScheduler": "it takes several predictions from one call of a model that was distilled for it",
    "RFD4ProteinaScheduler": "it moves the atoms of a protein, not latents",
    "RePaintScheduler": "its `step` also takes an image and a mask",
    "SCMScheduler": "it expects a prediction of its own kind (`trigflow`)",
    "ScoreSdeVeScheduler": "it has `step_pred` and `step_correct` instead of `step`",
    "UnCLIPScheduler": "its `step` must be told the next timestep (`prev_timestep`)",
    "VQDiffusionScheduler": _TOKENS,
}


def exported() -> list[str]:
    """The names of all scheduler classes that diffusers exports, in order."""
    classes = {name: getattr(diffusers, name) for name in dir(diffusers) if "Scheduler" in name}
    return sorted(
        name
        for name, found in classes.items()
        if isinstance(found, type) and issubclass(found, SchedulerMixin) and found is not SchedulerMixin
    )


PAGE_TEXT = """\
# Schedulers

<!-- Written by `python -m tools.scheduler_table` (`make schedulers`). Do not edit by hand. -->

diffusers {version} has {exported} scheduler classes. The blocks of `loopwright.diffusion` drive {driven} of them
with the embedded model, which predicts velocities: what a scheduler expects instead is computed from them. To use one:

```python
from diffusers import DPMSolverMultistepScheduler

from loopwright.diffusion import embedded_pipeline

pipe = embedded_pipeline()
pipe.update_components(scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"))
image = pipe(prompt="red apple", num_inference_steps=4, progress=False, output="images")[0]
```

## Driven

The tests run every line, with the options shown, and check:

- *samples*: with an exact model, the samples have the mean and the spread of the data;
- *watched*: a streamed run, with a preview on the way, gives the same bits as the plain call;
- *stopped*: a run whose loop is ended early gives the same bits as the preview at that iteration;
- *resumed*: a run that goes on from a checkpoint gives the same bits as the plain call, and does not run the iterations
  before the checkpoint again.

| class | options | needs | samples | watched | stopped | resumed |
|---|---|---|---|---|---|---|
{rows_driven}

`mean`: these jump to the mean of what the model expects and add new noise at each step. They are meant for models that
were distilled into few steps. With other models the pictures vary less.

`DPMSolverSDEScheduler` does not take its noise from the generator of the call. Give it a `noise_sampler_seed`; without
one, two calls give two pictures.

## Left out

The tests also check that these do not work.

| class | why |
|---|---|
{rows_left_out}
"""


def page() -> str:
    """The text of docs/schedulers.md."""
    rows_driven = [
        f"| `{case.name}` | {_listed(case.options)} | {case.library or ''} "
        f"| {'yes' if case.keeps_spread else 'mean'} | yes | yes | yes |"
        for case in DRIVEN
    ]
    return PAGE_TEXT.format(
        version=diffusers.__version__,
        exported=len(exported()),
        driven=len({case.name for case in DRIVEN}),
        rows_driven="\n".join(rows_driven),
        rows_left_out="\n".join(f"| `{name}` | {why} |" for name, why in LEFT_OUT.items()),
    )


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in options.items())


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}: {len({case.name for case in DRIVEN})} classes driven, {len(LEFT_OUT)} left out")


if __name__ == "__main__":
    main()
