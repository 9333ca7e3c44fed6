"""The embedded model, resumed from the middle with every scheduler that its blocks can drive."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from loopwright import Checkpoint
from loopwright.diffusion import embedded_pipeline
from tests.diffusion.test_guiders import GUIDERS
from tests.diffusion.test_schedulers import OPTIONAL, SCHEDULERS, name_of
from tests.run.checkpoints.storages import Memory

# from within diffusers, where tensors are handed to numpy
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

STEPS = 6
STOCHASTIC = ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True})


@pytest.fixture(scope="module")
def loaded() -> Any:
    pipe = embedded_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded: Any) -> Any:
    before = loaded.components
    yield loaded
    loaded.register_components(**before)


@pytest.fixture
def forwards(pipe: Any) -> Any:
    """Grows by one at each forward of the transformer."""
    counted: list[None] = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: counted.append(None))
    yield counted
    handle.remove()


def resumed_and_whole(pipe: Any, forwards: list[None], at: int, **inputs: Any) -> None:
    memory = Memory()
    count_at: dict[int, int] = {}
    whole = pipe(
        prompt="red apple",
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        checkpoint=Checkpoint(memory, keep=None),
        callbacks=lambda event: count_at.setdefault(len(count_at) + 1, len(forwards)),
        **inputs,
    )
    left = len(forwards) - count_at[at]
    forwards.clear()
    # numbers that are drawn meanwhile make no difference
    torch.rand(3)
    resumed = pipe.resume(memory.until(at)).result()
    assert torch.equal(resumed.images, whole.images)
    assert torch.equal(resumed.generator.get_state(), whole.generator.get_state())
    assert len(forwards) == left


@pytest.mark.parametrize(("name", "options"), [*SCHEDULERS, STOCHASTIC], ids=name_of)
def test_every_scheduler_goes_on_with_its_history(
    pipe: Any, forwards: list[None], name: str, options: dict[str, Any]
) -> None:
    pipe.update_components(scheduler=getattr(diffusers, name)(**options))
    resumed_and_whole(pipe, forwards, at=3)


@pytest.mark.parametrize(("name", "library", "options"), OPTIONAL, ids=name_of)
def test_schedulers_of_other_libraries_go_on(
    pipe: Any, forwards: list[None], name: str, library: str, options: dict[str, Any]
) -> None:
    pytest.importorskip(library)
    pipe.update_components(scheduler=getattr(diffusers, name)(**options))
    resumed_and_whole(pipe, forwards, at=3)


@pytest.mark.parametrize(("name", "options"), GUIDERS, ids=lambda case: case if isinstance(case, str) else "")
def test_every_guider_goes_on_with_its_history(
    pipe: Any, forwards: list[None], name: str, options: dict[str, Any]
) -> None:
    pipe.update_components(guider=getattr(diffusers.guiders, name)(**options))
    resumed_and_whole(pipe, forwards, at=2)


def test_the_guider_of_a_call_goes_on_with_its_history(pipe: Any, forwards: list[None]) -> None:
    pipe.update_components(
        guider=diffusers.guiders.AdaptiveProjectedGuidance(adaptive_projected_guidance_momentum=-0.5)
    )
    resumed_and_whole(pipe, forwards, at=3, guidance_scale=4.0)


def test_another_prompt_from_the_middle_on_is_a_picture_of_its_own(pipe: Any, forwards: list[None]) -> None:
    memory = Memory()
    inputs = {"num_inference_steps": STEPS, "output_type": "latent", "output": "images"}
    whole = pipe(
        prompt="red apple",
        generator=torch.Generator().manual_seed(3),
        checkpoint=Checkpoint(memory, keep=None),
        **inputs,
    )
    forwards.clear()
    assert torch.equal(pipe.branch(memory, at=3, output="images").result(), whole)
    assert len(forwards) == 3
    other = pipe.branch(memory, at=3, prompt="green tree", output="images").result()
    scaled = pipe.branch(memory, at=3, guidance_scale=1.0, output="images").result()
    assert torch.isfinite(other).all()
    assert not torch.equal(other, whole)
    assert not torch.equal(scaled, whole)
    assert len(forwards) == 9
