"""Which schedulers of diffusers the embedded model's blocks drive, and docs/schedulers.md, which says so.

`DRIVEN` and `UNSUITABLE_SCHEDULERS` are the one list: the tests run every entry of both, and
`python -m tools.scheduler_table` writes the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import diffusers
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from loopwright.diffusion.schedulers import UNSUITABLE_SCHEDULERS

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

A call with one of these is an error that says why. The tests also check that they would not work.

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
        rows_left_out="\n".join(f"| `{name}` | {why} |" for name, why in UNSUITABLE_SCHEDULERS.items()),
    )


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in options.items())


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    driven = {case.name for case in DRIVEN}
    print(f"wrote {PAGE.name}: {len(driven)} classes driven, {len(UNSUITABLE_SCHEDULERS)} left out")


if __name__ == "__main__":
    main()
