"""Runs whose adapters (LoRA) are equal share forwards; those that differ do not, and nobody sees another's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from loopwright import ModularPipeline
from loopwright.batching import batched
from loopwright.components import adapters
from loopwright.diffusion.denoise import GuideAndPredictStep
from tests.batching.test_batched import assert_close, inputs
from tests.run.blocks import PATIENCE, in_threads
from tools.batching_schedules import AT_ONCE


@pytest.fixture
def adapted(embedded: ModularPipeline) -> ModularPipeline:
    """The embedded model with two adapters, of which the first is active."""
    model = copy.deepcopy(embedded.transformer)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the second adapter
        torch.manual_seed(0)
        for name in ("one", "other"):
            config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
            inject_adapter_in_model(config, model, name)
    activate(model, "one")
    pipe: ModularPipeline = embedded.blocks.init_pipeline()
    pipe.update_components(**{**embedded.components, "transformer": model.eval().requires_grad_(False)})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def activate(model: Any, name: str) -> None:
    """Make an adapter the one that is active."""
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.set_adapter(name)


def scaled(pipe: ModularPipeline) -> ModularPipeline:
    """The pipeline, with a denoiser that scales the adapters by 0.5, and by 2 where the seed is odd."""
    blocks = pipe.blocks
    loop = blocks.sub_blocks["denoise"].sub_blocks["text2image"].sub_blocks["loop"]

    class ScalesFirst(GuideAndPredictStep):
        def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
            scale = 2.0 if block_state.guidance_scale == 2.0 else 0.5
            scale_lora_layers(components.transformer, scale)
            try:
                return super().__call__(components, block_state, i, t)
            finally:
                unscale_lora_layers(components.transformer, scale)

    loop.sub_blocks["denoiser"] = ScalesFirst()
    made: ModularPipeline = blocks.init_pipeline()
    made.update_components(**pipe.components)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def left_as_it_was(adapted: ModularPipeline) -> Iterator[None]:
    before = adapters.read(adapted.transformer)
    yield
    assert adapters.read(adapted.transformer) == before


@pytest.mark.usefixtures("left_as_it_was")
def test_runs_with_the_same_adapters_share_forwards(adapted: ModularPipeline, embedded: ModularPipeline) -> None:
    alone = [adapted(**inputs(n)) for n in range(AT_ONCE)]
    assert not torch.equal(alone[0]["images"], embedded(**inputs(0))["images"])
    with batched(adapted) as b:
        results = in_threads(*[lambda n=n: b(**inputs(n)) for n in range(AT_ONCE)])
        report = b.report()
    for result, expected in zip(results, alone, strict=True):
        assert_close(result, expected)
    assert report.models["transformer"].occupancy > 2
    assert report.refusals == []


def test_adapters_that_are_set_between_runs_are_those_of_the_next(adapted: ModularPipeline) -> None:
    expected = {}
    for name in ("one", "other"):
        activate(adapted.transformer, name)
        expected[name] = adapted(**inputs(0))
    with batched(adapted) as b:
        for name in ("one", "other", "one"):
            activate(adapted.transformer, name)
            for run in [b.start(**inputs(0)) for _ in range(2)]:
                assert_close(run.result(PATIENCE), expected[name])


@pytest.mark.usefixtures("left_as_it_was")
def test_adapters_that_differ_between_runs_are_not_mixed(adapted: ModularPipeline) -> None:
    pipe = scaled(adapted)

    def given(n: int) -> dict[str, Any]:
        return inputs(n, guidance_scale=2.0 if n % 2 else 4.0)

    alone = [pipe(**given(n)) for n in range(4)]
    for deterministic in (False, True):
        with batched(pipe, deterministic=deterministic) as b:
            runs = [b.start(**given(n)) for n in range(4)]
            results = [run.result(PATIENCE) for run in runs]
            transformer = b.report().models["transformer"]
        for result, expected in zip(results, alone, strict=True):
            assert_close(result, expected)
        assert transformer.merged > 0
        assert max(transformer.sizes) == 2


@pytest.mark.usefixtures("left_as_it_was")
def test_runs_outside_of_the_batch_have_the_model_in_their_turn(adapted: ModularPipeline) -> None:
    pipe = scaled(adapted)
    expected = [pipe(**inputs(n)) for n in range(4)]
    with batched(pipe) as b:
        calls = [lambda n=n, call=(b, pipe)[n % 2]: call(**inputs(n)) for n in range(4)]
        for result, wanted in zip(in_threads(*calls), expected, strict=True):
            assert_close(result, wanted)
