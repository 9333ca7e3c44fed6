"""Runs of the embedded model with every scheduler and guider that its blocks can drive."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from loopwright import Checkpoint
from tests.diffusion.test_guiders import GUIDERS
from tests.run.checkpoints.storages import Memory
from tools.scheduler_table import DRIVEN, Driven

pytestmark = [
    # from within diffusers, where tensors are handed to numpy
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    # the last noise level of a scheduler, rounded
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning:torchsde"),
]

STEPS = 5


@pytest.fixture
def forwards(pipe: Any) -> Any:
    """Grows by one at each forward of the transformer."""
    counted: list[None] = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: counted.append(None))
    yield counted
    handle.remove()


def same_bits(pipe: Any, forwards: list[None], at: int = 3, **inputs: Any) -> None:
    """A plain call, one that is watched, one that is stopped and one that is resumed after `at` iterations agree."""

    def given(**others: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(3)
        usual = {"prompt": "red apple", "num_inference_steps": STEPS, "output_type": "latent", "generator": generator}
        return {**usual, **inputs, **others}

    plain = pipe(**given())
    memory = Memory()
    forwards.clear()
    run = pipe.stream(**given(checkpoint=Checkpoint(memory, keep=None)))
    for number, event in enumerate(run, start=1):
        if number == at:
            preview, forwards_at = event.peek("images"), len(forwards)
    watched = run.result()
    left = len(forwards) - forwards_at
    assert torch.equal(watched.images, plain.images)
    assert torch.equal(watched.generator.get_state(), plain.generator.get_state())

    run = pipe.stream(**given(output="images"))
    for number, _ in enumerate(run, start=1):
        if number == at:
            run.stop_loop()
    assert torch.equal(run.result(), preview)
    assert not torch.equal(preview, plain.images)

    forwards.clear()
    # numbers that are drawn meanwhile make no difference
    torch.rand(3)
    resumed = pipe.resume(memory.until(at)).result()
    assert torch.equal(resumed.images, plain.images)
    assert torch.equal(resumed.generator.get_state(), plain.generator.get_state())
    assert len(forwards) == left


@pytest.mark.parametrize("case", DRIVEN, ids=str)
def test_every_scheduler_gives_the_same_bits_when_it_is_watched_stopped_and_resumed(
    pipe: Any, forwards: list[None], case: Driven
) -> None:
    pytest.importorskip(case.library or "diffusers")
    pipe.update_components(scheduler=case.make())
    same_bits(pipe, forwards)


@pytest.mark.parametrize(("name", "options"), GUIDERS, ids=lambda case: case if isinstance(case, str) else "")
def test_every_guider_gives_the_same_bits_when_it_is_watched_stopped_and_resumed(
    pipe: Any, forwards: list[None], name: str, options: dict[str, Any]
) -> None:
    pipe.update_components(guider=getattr(diffusers.guiders, name)(**options))
    same_bits(pipe, forwards, at=2)


def test_the_guider_of_a_call_goes_on_with_its_history(pipe: Any, forwards: list[None]) -> None:
    pipe.update_components(
        guider=diffusers.guiders.AdaptiveProjectedGuidance(adaptive_projected_guidance_momentum=-0.5)
    )
    same_bits(pipe, forwards, guidance_scale=4.0)


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
    assert len(forwards) == 2
    other = pipe.branch(memory, at=3, prompt="green tree", output="images").result()
    scaled = pipe.branch(memory, at=3, guidance_scale=1.0, output="images").result()
    assert torch.isfinite(other).all()
    assert not torch.equal(other, whole)
    assert not torch.equal(scaled, whole)
    assert len(forwards) == 6
