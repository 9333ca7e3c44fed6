"""Guiders: diffusers' classes as they are, also those that change the model between predictions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import guiders
from diffusers.hooks import LayerSkipConfig

from loopwright.errors import InvalidInputError

STEPS = 3
LAYER = [LayerSkipConfig(indices=[4], fqn="transformer_blocks")]

GUIDERS: list[tuple[str, dict[str, Any]]] = [
    ("ClassifierFreeGuidance", {"guidance_scale": 7.5}),
    ("ClassifierFreeGuidance", {"use_original_formulation": True}),
    ("ClassifierFreeGuidance", {"guidance_rescale": 0.7}),
    ("ClassifierFreeGuidance", {"start": 0.5}),
    ("ClassifierFreeGuidance", {"enabled": False}),
    ("ClassifierFreeZeroStarGuidance", {}),
    ("TangentialClassifierFreeGuidance", {}),
    ("AdaptiveProjectedGuidance", {"adaptive_projected_guidance_rescale": 5.0}),
    ("AutoGuidance", {"auto_guidance_config": LAYER}),
    ("PerturbedAttentionGuidance", {"perturbed_guidance_layers": [4], "perturbed_guidance_start": 0.0}),
    ("SkipLayerGuidance", {"skip_layer_config": LAYER, "skip_layer_guidance_start": 0.0}),
    ("SmoothedEnergyGuidance", {"seg_guidance_layers": [4], "seg_guidance_start": 0.0}),
]


def latents(pipe: Any, generator: Any, **inputs: Any) -> torch.Tensor:
    found: torch.Tensor = pipe(
        prompt="red apple",
        num_inference_steps=STEPS,
        generator=generator,
        output_type="latent",
        output="images",
        **inputs,
    )
    return found


@pytest.mark.parametrize(("name", "options"), GUIDERS, ids=lambda case: case if isinstance(case, str) else "")
def test_every_guider_works_and_leaves_the_model_as_it_was(
    pipe: Any, seeded: Any, name: str, options: dict[str, Any]
) -> None:
    before = latents(pipe, seeded(1))
    usual = pipe.guider
    pipe.update_components(guider=getattr(guiders, name)(**options))
    guided = latents(pipe, seeded(1))
    pipe.update_components(guider=usual)
    assert torch.isfinite(guided).all()
    assert not torch.equal(guided, before)
    assert torch.equal(latents(pipe, seeded(1)), before)


def test_conditions_are_predicted_in_one_forward_unless_the_guider_changes_the_model(pipe: Any, seeded: Any) -> None:
    forwards: list[int] = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda _, __, inputs: forwards.append(len(inputs["hidden_states"])), with_kwargs=True
    )
    try:
        latents(pipe, seeded(1))
        assert forwards == [2] * STEPS
        forwards.clear()
        pipe.update_components(guider=guiders.AutoGuidance(auto_guidance_config=LAYER))
        latents(pipe, seeded(1))
        assert forwards == [1, 1] * STEPS
    finally:
        handle.remove()


def test_one_image_of_a_batch_is_guided_as_it_is_alone(pipe: Any, seeded: Any) -> None:
    pipe.update_components(guider=guiders.PerturbedAttentionGuidance(perturbed_guidance_layers=[4]))
    together = latents(pipe, seeded(1, 2), num_images_per_prompt=2)
    torch.testing.assert_close(together[1:], latents(pipe, [seeded(2)]), rtol=0, atol=1e-3)


def test_a_scale_of_the_call_keeps_the_guiders_other_settings(pipe: Any, seeded: Any) -> None:
    pipe.update_components(guider=guiders.ClassifierFreeGuidance(guidance_scale=2.0, guidance_rescale=0.5))
    in_the_call = latents(pipe, seeded(1), guidance_scale=4.0)
    pipe.update_components(guider=guiders.ClassifierFreeGuidance(guidance_scale=4.0, guidance_rescale=0.5))
    assert torch.equal(in_the_call, latents(pipe, seeded(1)))


def test_a_scale_of_the_call_does_not_switch_a_guider_on(pipe: Any, seeded: Any) -> None:
    pipe.update_components(guider=guiders.ClassifierFreeGuidance(guidance_scale=2.0))
    pipe.guider.disable()
    assert torch.equal(latents(pipe, seeded(1), guidance_scale=4.0), latents(pipe, seeded(1)))


def test_a_guider_without_a_scale_says_so(pipe: Any, seeded: Any) -> None:
    class NoScale(guiders.ClassifierFreeGuidance):  # type: ignore[misc]
        @property
        def config(self) -> dict[str, Any]:
            return {"strengths": [1.0]}

    pipe.update_components(guider=NoScale())
    with pytest.raises(InvalidInputError) as raised:
        latents(pipe, seeded(1), guidance_scale=4.0)
    assert str(raised.value) == (
        "`NoScale` has no `guidance_scale`; give the pipeline a guider that you configured: "
        "`pipe.update_components(guider=...)`"
    )


def test_guidance_without_an_unconditional_prompt_says_so(pipe: Any, seeded: Any) -> None:
    blocks = pipe.blocks.get_workflow("text2image")
    blocks.sub_blocks.pop("text_encoder")
    bare = blocks.init_pipeline()
    bare.update_components(**{name: pipe.components[name] for name in bare.pretrained_component_names})
    bare.set_progress_bar_config(disable=True)
    width = pipe.transformer.config.caption_channels
    embeds = {"prompt_embeds": torch.zeros(1, 12, width), "prompt_embeds_mask": torch.ones(1, 12)}
    with pytest.raises(InvalidInputError) as raised:
        bare(prompt="dog", num_inference_steps=1, **embeds)
    assert str(raised.value) == (
        "the guider needs an unconditional prediction, and there is no `negative_prompt_embeds`; give it, or call with "
        "`guidance_scale=1.0`"
    )
    assert len(bare(prompt="dog", num_inference_steps=1, guidance_scale=1.0, **embeds, output="images")) == 1
