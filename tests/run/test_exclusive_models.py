"""Runs that work at the same time with a model of each class that is not re-entrant end as they do alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.modular_pipelines.ideogram4.encoders import Ideogram4PromptUpsampleStep
from diffusers.pipelines.cosmos.mixed_precision import (
    Cosmos3MixedPrecisionConfig,
    apply_cosmos3_mixed_precision_step,
    reset_cosmos3_mixed_precision,
)
from diffusers.pipelines.ideogram4.prompt_enhancer import Ideogram4PromptEnhancerHead

from loopwright import ComponentSpec, InputParam, LoopSequentialPipelineBlocks, ModularPipelineBlocks, OutputParam
from loopwright.bridge import from_diffusers
from loopwright.components.guarded import KEEPS_VALUES, keeps_values
from loopwright.errors import RunCancelledError
from loopwright.run.exclusive import KEEPS_A_MODEL, SWITCHES_PRECISION, needs_exclusive
from tests.bridge.families.case import seeded
from tests.bridge.families.qwen_image import qwen_autoencoder, qwen_image_21
from tests.bridge.families.text import WIDTH, qwen_tokenizer
from tests.bridge.families.videos import CASES as LTX
from tests.bridge.families.vision import qwen2_5_vl, qwen3_vl
from tests.bridge.families.wan import wan_autoencoder
from tests.run.blocks import Turnstile, in_threads, pipeline

COUNT = 3  # runs at a time


@pytest.fixture(autouse=True)
def often_switched() -> Iterator[None]:
    """Threads take turns within a call of a small model."""
    before, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(before)
    torch.set_num_threads(threads)


class CallModel(ModularPipelineBlocks):
    """Lets a function call the model."""

    expected_components = [ComponentSpec("model", torch.nn.Module)]
    inputs = [InputParam("value", required=True)]
    intermediate_outputs = [OutputParam("made")]

    def __init__(self, call: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.call = call

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.made = self.call(components.model, block_state.value)
        self.set_block_state(state, block_state)
        return components, state


def assert_same_as_alone(pipe: Any, values: list[dict[str, Any]], output: str, times: int = 3) -> None:
    """Runs in threads of the caller, and runs in threads of their own, end as calls one after the other."""
    alone = [pipe(**value(), output=output) for value in values]
    assert not any(np.array_equal(made, alone[0]) for made in alone[1:])
    for _ in range(times):
        together = in_threads(*[lambda value=value: pipe(**value(), output=output) for value in values])
        assert all(map(np.array_equal, together, alone))
    runs = [pipe.start(**value(), output=output) for value in values]
    assert all(np.array_equal(run.result(), made) for run, made in zip(runs, alone, strict=True))


def with_model(model: torch.nn.Module, call: Callable[[Any, Any], Any]) -> Any:
    pipe = pipeline(call=CallModel(call))
    pipe.update_components(model=model)
    assert pipe._needs_exclusive()
    return pipe


def random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def magvit_autoencoder() -> Any:
    config = {
        "latent_channels": 4,
        "block_out_channels": (8, 8),
        "down_block_types": ("SpatialDownBlock3D", "SpatialTemporalDownBlock3D"),
        "up_block_types": ("SpatialUpBlock3D", "SpatialTemporalUpBlock3D"),
        "layers_per_block": 1,
        "norm_num_groups": 2,
    }
    return seeded(diffusers.AutoencoderKLMagvit, **config)


def vidtok_autoencoder() -> Any:
    config = {"ch": 32, "ch_mult": [1, 1], "spatial_ds": [0], "spatial_us": [1], "tempo_ds": [0], "tempo_us": [1]}
    return seeded(diffusers.AutoencoderVidTok, z_channels=4, num_res_blocks=1, **config)


AUTOENCODERS: dict[str, tuple[Callable[[], Any], int]] = {
    "AutoencoderKLMagvit": (magvit_autoencoder, 4),
    "AutoencoderKLQwenImage": (qwen_autoencoder, 4),
    "AutoencoderKLQwenImage21": (lambda: qwen_image_21()["vae"], 4),
    "AutoencoderKLWan": (wan_autoencoder, 16),
    "AutoencoderVidTok": (vidtok_autoencoder, 4),
}


def decode(model: Any, latents: torch.Tensor) -> torch.Tensor:
    decoded = model.decode(latents)
    return getattr(decoded, "sample", decoded)  # type: ignore[no-any-return]


def encode(model: Any, video: torch.Tensor) -> torch.Tensor:
    encoded: torch.Tensor = model.encode(video).latent_dist.mode()
    return encoded


def forward(model: Any, video: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = model(video, sample_posterior=False).sample
    return made


@pytest.mark.parametrize("call", [decode, encode, forward])
@pytest.mark.parametrize("name", KEEPS_VALUES)
def test_autoencoders_that_keep_values(name: str, call: Callable[[Any, Any], Any]) -> None:
    make, channels = AUTOENCODERS[name]
    model = make()
    assert type(model).__name__ == name
    frames = 1 if name == "AutoencoderKLQwenImage21" else 3
    colours = getattr(model.encoder.conv_in, "in_channels", 3)
    shape = (1, channels, frames, 4, 4) if call is decode else (1, colours, 1 + 4 * (frames - 1), 32, 32)
    pipe = with_model(model, call)
    assert_same_as_alone(pipe, [lambda seed=seed: {"value": random(shape, seed)} for seed in range(COUNT)], "made")
    assert not {"decode", "encode", "forward"} & vars(model).keys()


def qwen2_vl(cls: Any = transformers.Qwen2VLForConditionalGeneration) -> Any:
    given = qwen2_5_vl().config.to_dict()
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 1, "num_heads": 2, "patch_size": 14}
    config = transformers.Qwen2VLConfig(
        text_config={**given["text_config"], "model_type": "qwen2_vl_text"}, vision_config=vision
    )
    return seeded(cls, config, seed=3)


READERS = {
    "Qwen2VL": qwen2_vl,
    "Qwen2_5_VL": qwen2_5_vl,
    "Qwen3VL": qwen3_vl,
}


def tokens(seed: int) -> dict[str, torch.Tensor]:
    """Tokens of which the first are padding: as many as the seed says, so that positions differ."""
    ids = torch.randint(0, 250, (1, 8), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[:, :seed] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", READERS)
def test_models_that_keep_positions_generate(name: str) -> None:
    model = READERS[name]()
    assert type(model).__name__ == f"{name}ForConditionalGeneration"
    assert keeps_values(model) == ("forward", "generate")

    def generate(model: Any, given: dict[str, Any]) -> torch.Tensor:
        made = model.generate(
            **given,
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
        )
        return torch.stack(made.scores)

    pipe = with_model(model, generate)
    assert_same_as_alone(pipe, [lambda seed=seed: {"value": tokens(seed)} for seed in range(COUNT)], "made")
    assert not {"generate", "forward"} & vars(model).keys()


@pytest.mark.parametrize("name", READERS)
def test_models_that_keep_positions_encode(name: str) -> None:
    model = READERS[name](getattr(transformers, f"{name}Model"))
    assert keeps_values(model) == ("forward", "generate")
    pipe = with_model(model, lambda model, given: model(**given).last_hidden_state)
    assert_same_as_alone(pipe, [lambda seed=seed: {"value": tokens(seed)} for seed in range(COUNT)], "made")


def test_a_block_that_keeps_a_model_of_its_own() -> None:
    assert Ideogram4PromptUpsampleStep.__name__ in KEEPS_A_MODEL
    encoder = qwen3_vl(transformers.Qwen3VLModel)
    pipe = pipeline(upsample=Ideogram4PromptUpsampleStep)
    pipe.update_components(
        text_encoder=encoder,
        tokenizer=qwen_tokenizer(),
        prompt_enhancer_head=seeded(Ideogram4PromptEnhancerHead, hidden_size=WIDTH, vocab_size=300),
    )

    def values(prompt: str) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "prompt_upsampling": True,
            "max_sequence_length": 6,
            "generator": torch.Generator().manual_seed(len(prompt)),
            "height": 32,
            "width": 32,
        }

    prompts = ["red apple", "a ship", "three blue stars"]
    alone = [pipe(**values(prompt), output="prompt") for prompt in prompts]
    assert len({made for [made] in alone}) == len(prompts)
    for _ in range(3):
        together = in_threads(*[lambda prompt=prompt: pipe(**values(prompt), output="prompt") for prompt in prompts])
        assert together == alone


def test_a_transformer_that_caches_between_iterations() -> None:
    case = next(case for case in LTX if case.family == "ltx")
    theirs = getattr(diffusers.modular_pipelines, case.blocks)().get_workflow(case.workflow).init_pipeline()
    theirs.update_components(**case.components())
    without = theirs(**case.call(steps=6), output="videos")
    theirs.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    pipe = from_diffusers(theirs)
    pipe.set_progress_bar_config(disable=True)
    assert pipe._needs_exclusive()
    made = pipe(**case.call(steps=6), output="videos")
    theirs.transformer._reset_stateful_cache()
    assert torch.equal(made, theirs(**case.call(steps=6), output="videos"))
    assert not torch.equal(made, without)
    values = [lambda seed=seed: case.call(seed=seed, steps=6) for seed in range(COUNT)]
    assert_same_as_alone(pipe, values, "videos", times=1)


class Quantized(torch.nn.Module):
    """A linear layer with weights in float8: it rounds what it is given, unless it is told not to."""

    _should_run_real_quant_gemm = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        weight = random((4, 4), seed).to(torch.float8_e4m3fn)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.bias = None
        self.weight_quantizer = SimpleNamespace(is_enabled=True, _scale=torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x.to(torch.float8_e4m3fn).float(), self.weight.float())


class Cosmos3OmniTransformer(torch.nn.Module):
    """As many layers of that model as there are kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict()
        self.layers["self_attn"] = torch.nn.ModuleDict({"to_q": Quantized(0)})
        self.layers["mlp"] = torch.nn.ModuleDict({"up": Quantized(1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layers["mlp"]["up"](self.layers["self_attn"]["to_q"](x)))


class Denoise(ModularPipelineBlocks):
    expected_components = [ComponentSpec("transformer", torch.nn.Module)]
    inputs = [InputParam("x", required=True), InputParam("meet")]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any, i: int) -> tuple[Any, Any]:
        if state.meet is not None and i == 0:
            state.meet()
        state.x = components.transformer(state.x)
        return components, state


class Switching(LoopSequentialPipelineBlocks):
    """Sets the precision of each iteration, as the loop of diffusers for Cosmos does."""

    block_classes = [Denoise]
    block_names = ["denoise"]
    loop_expected_components = [ComponentSpec("transformer", torch.nn.Module)]
    loop_inputs = [InputParam("first", default=1)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        precision = Cosmos3MixedPrecisionConfig(format="fp8", first_steps=block_state.first, last_steps=0)
        try:
            for i in range(4):
                apply_cosmos3_mixed_precision_step(components.transformer, precision, i, 4)
                components, block_state = self.loop_step(components, block_state, i=i)
        finally:
            reset_cosmos3_mixed_precision(components.transformer, precision)
        self.set_block_state(state, block_state)
        return components, state


@pytest.fixture
def switching() -> Any:
    assert (Cosmos3OmniTransformer.__name__,) == SWITCHES_PRECISION
    pipe = pipeline(denoise=Switching)
    pipe.update_components(transformer=Cosmos3OmniTransformer())
    assert needs_exclusive([pipe.transformer])
    return pipe


def test_a_transformer_whose_precision_is_set_before_each_iteration(switching: Any) -> None:
    values = [lambda first=first: {"x": random((2, 4), 0), "first": first} for first in range(4)]
    assert_same_as_alone(switching, values, "x")


def test_other_runs_set_the_precision_while_one_stands_between_iterations(switching: Any) -> None:
    x = random((2, 4), 0)
    expected = [switching(x=x, first=first, output="x") for first in (1, 3)]
    run = switching.stream(x=x, first=1, output="x")
    for _ in run:
        run.pause()
        assert torch.equal(switching(x=x, first=3, output="x"), expected[1])
        run.go_on()
    assert torch.equal(run.result(), expected[0])


def test_no_other_run_sets_the_precision_within_an_iteration(switching: Any) -> None:
    x, turnstile = random((2, 4), 0), Turnstile()
    expected = [switching(x=x, first=first, output="x") for first in (1, 3)]
    first = switching.start(x=x, first=1, output="x", meet=turnstile)
    turnstile.wait()
    second, cancelled = (switching.start(x=x, first=3, output="x") for _ in range(2))
    cancelled.cancel()
    with pytest.raises(RunCancelledError):
        cancelled.result()
    turnstile.let_go()
    assert torch.equal(first.result(), expected[0])
    assert torch.equal(second.result(), expected[1])


def test_a_run_that_is_cancelled_between_iterations_disturbs_no_other(switching: Any) -> None:
    x, turnstile = random((2, 4), 0), Turnstile()
    expected = switching(x=x, first=1, output="x")
    cancelled = switching.stream(x=x, first=3)
    events = iter(cancelled)
    next(events)  # it stands still while the event is in hand
    run = switching.start(x=x, first=1, output="x", meet=turnstile)
    turnstile.wait()
    cancelled.cancel()
    turnstile.let_go()
    assert torch.equal(run.result(), expected)
    with pytest.raises(RunCancelledError):
        cancelled.result()
