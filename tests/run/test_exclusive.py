"""Models that are not re-entrant serve one run at a time, and every run ends as it would alone."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import peft
import pytest
import torch
import transformers
from diffusers import guiders
from diffusers.hooks import FirstBlockCacheConfig, LayerSkipConfig
from diffusers.models.cache_utils import CacheMixin
from diffusers.utils import scale_lora_layers, unscale_lora_layers

from loopwright import ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.components import turns
from loopwright.components.guarded import KEEPS_VALUES
from loopwright.errors import RunCancelledError
from loopwright.run.checkpoints.fingerprint import weights_digest
from loopwright.run.exclusive import needs_exclusive
from tests.blocks.arithmetic import AddOne, Repeat
from tests.components.simulated import until_waiting
from tests.run.blocks import PATIENCE, Do, Turnstile, in_threads, pipeline

LAYER = [LayerSkipConfig(indices=[4], fqn="transformer_blocks")]
HOOKING = [
    guiders.SkipLayerGuidance(skip_layer_config=LAYER, skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0),
    guiders.PerturbedAttentionGuidance(
        perturbed_guidance_layers=[4], perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0
    ),
    guiders.AutoGuidance(auto_guidance_config=LAYER),
    guiders.SmoothedEnergyGuidance(seg_guidance_layers=[4], seg_guidance_start=0.0, seg_guidance_stop=1.0),
]


@pytest.fixture(scope="module")
def guided(embedded: Any) -> list[Any]:
    """A pipeline for each guider, all with the same models; the last with a guider that hooks nothing."""
    made = []
    for guider in [*HOOKING, guiders.ClassifierFreeGuidance(3.0)]:
        pipe = embedded.blocks.init_pipeline()
        pipe.update_components(**{**embedded.components, "guider": guider})
        pipe.set_progress_bar_config(disable=True)
        made.append(pipe)
    return made


def hooks_of(model: torch.nn.Module) -> list[str]:
    return [name for module in model.modules() for name in getattr(module, "_diffusers_hook", _NoHooks).hooks]


class _NoHooks:
    hooks: dict[str, Any] = {}


def test_guiders_that_hook_the_model_work_at_the_same_time_as_they_do_alone(guided: list[Any], inputs: Any) -> None:
    alone = [pipe(**inputs()) for pipe in guided]
    assert len({image.tobytes() for image in alone}) == len(alone)
    together = in_threads(*[lambda pipe=pipe: pipe(**inputs()) for pipe in guided])
    assert all(map(np.array_equal, together, alone))
    runs = [pipe.start(**inputs()) for pipe in guided]
    assert all(map(np.array_equal, [run.result() for run in runs], alone))


def test_the_model_is_as_it_was_when_no_run_is_active(guided: list[Any], inputs: Any) -> None:
    models = guided[0].transformer, guided[0].vae
    before = [set(vars(model)) for model in models]
    guided[0](**inputs())
    assert [set(vars(model)) for model in models] == before
    assert hooks_of(guided[0].transformer) == []


def test_a_run_that_stands_between_two_iterations_is_in_nobodys_way(guided: list[Any], inputs: Any) -> None:
    expected = [guided[0](**inputs()), guided[1](**inputs())]
    run = guided[0].stream(**inputs())
    for event in run:
        run.pause()
        assert np.array_equal(guided[1](**inputs()), expected[1])
        assert event.peek("images").shape == expected[0].shape
        run.go_on()
    assert np.array_equal(run.result(), expected[0])


def test_a_run_that_is_paused_before_a_call_goes_on_to_the_end_of_what_it_has_alone(
    guided: list[Any], inputs: Any
) -> None:
    expected, turnstile = guided[1](**inputs()), Turnstile()
    handle = guided[0].transformer.register_forward_pre_hook(turnstile)
    run = guided[0].start(**inputs())
    turnstile.wait()
    handle.remove()
    run.pause()
    turnstile.let_go()
    assert np.array_equal(guided[1](**inputs()), expected)
    assert run.status == "paused"
    run.cancel()


def test_a_run_that_waits_for_a_model_can_be_cancelled(guided: list[Any], inputs: Any) -> None:
    turnstile = Turnstile()
    handle = guided[0].transformer.register_forward_pre_hook(turnstile)
    holding = guided[0].start(**inputs())
    turnstile.wait()
    handle.remove()
    waiting = guided[1].start(**inputs())
    waiting.cancel()
    with pytest.raises(RunCancelledError):
        waiting.result()
    assert holding.status == "running"
    turnstile.let_go()
    holding.result()


def test_a_block_that_fails_leaves_no_hook_and_no_lock(guided: list[Any], inputs: Any) -> None:
    class Careless(ModularPipelineBlocks):
        """Hooks the model, and does not clean up when its call fails."""

        expected_components = [
            ComponentSpec("transformer", torch.nn.Module),
            ComponentSpec("guider", guiders.SkipLayerGuidance),
        ]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            guider = components.guider
            guider.set_state(step=1, num_inference_steps=3, timestep=1)
            for _ in range(3):
                guider.prepare_models(components.transformer)
            assert hooks_of(components.transformer)
            raise ZeroDivisionError

    pipe = pipeline(careless=Careless)
    pipe.update_components(transformer=guided[0].transformer, guider=HOOKING[0])
    for call in (pipe, lambda: pipe.start().result()):
        with pytest.raises(ZeroDivisionError):
            call()
        assert hooks_of(guided[0].transformer) == []
    guided[1](**inputs())


class Decode(ModularPipelineBlocks):
    expected_components = [ComponentSpec("vae", torch.nn.Module)]
    inputs = [InputParam("latents", required=True)]
    intermediate_outputs = [OutputParam("video")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.video = components.vae.decode(block_state.latents, return_dict=False)[0]
        again = components.vae.encode(block_state.video, return_dict=False)[0].mode()
        block_state.video = block_state.video + again.mean()
        self.set_block_state(state, block_state)
        return components, state


@pytest.fixture(scope="module")
def video() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    pipe = pipeline(decode=Decode)
    pipe.update_components(vae=vae.eval())
    return pipe


def test_a_model_that_keeps_values_is_called_by_one_run_at_a_time(video: Any) -> None:
    latents = [torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    alone = [video(latents=each, output="video") for each in latents]
    for _ in range(3):
        together = in_threads(*[lambda each=each: video(latents=each, output="video") for each in latents])
        assert all(map(torch.equal, together, alone))
    assert not {"decode", "encode", "forward"} & vars(video.vae).keys()


class DecodeInFloat32(ModularPipelineBlocks):
    """Decodes as diffusers' blocks for SDXL do: in float32, with an autoencoder that is kept in half precision."""

    expected_components = [ComponentSpec("vae", torch.nn.Module)]
    inputs = [InputParam("latents", required=True), InputParam("fails", default=False)]
    intermediate_outputs = [OutputParam("images")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        upcast = components.vae.dtype == torch.float16 and components.vae.config.force_upcast
        if upcast:
            components.vae.to(dtype=torch.float32)
        latents = block_state.latents.to(next(iter(components.vae.post_quant_conv.parameters())).dtype)
        block_state.images = components.vae.decode(latents, return_dict=False)[0]
        if block_state.fails:
            raise ZeroDivisionError
        if upcast:
            components.vae.to(dtype=torch.float16)
        self.set_block_state(state, block_state)
        return components, state


@pytest.fixture
def half_precision() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8).eval().half()
    pipe = pipeline(decode=DecodeInFloat32)
    pipe.update_components(vae=vae)
    return pipe


def test_an_autoencoder_that_blocks_compute_with_in_float32_has_one_block_at_a_time(half_precision: Any) -> None:
    assert needs_exclusive(half_precision.components.values())
    latents = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    alone = [half_precision(latents=each, output="images") for each in latents]
    for _ in range(5):
        together = in_threads(*[lambda each=each: half_precision(latents=each, output="images") for each in latents])
        assert [images.dtype for images in together] == [torch.float32] * len(latents)
        assert all(map(torch.equal, together, alone))
    assert half_precision.vae.dtype == torch.float16


def test_nobody_takes_an_autoencoder_while_its_dtype_is_looked_at(half_precision: Any, monkeypatch: Any) -> None:
    """Otherwise a run that takes it, and computes in float32 with it, would make it look as if it were always so."""
    parameters, could = half_precision.vae.parameters, []

    def looked_at(*arguments: Any) -> Any:
        could.extend(in_threads(lambda: turns._changed.acquire(blocking=False)))
        return parameters(*arguments)

    monkeypatch.setattr(half_precision.vae, "parameters", looked_at)
    assert needs_exclusive([half_precision.vae])
    assert could == [False]


def test_weights_are_not_digested_while_a_block_computes_with_them_in_float32(half_precision: Any) -> None:
    """Or a run that begins meanwhile could not be resumed: nobody would know the weights that it began with."""
    expected, turnstile = weights_digest(half_precision.vae), Turnstile()
    decoder = half_precision.vae.decoder.register_forward_pre_hook(turnstile)
    run = half_precision.start(latents=torch.zeros(1, 4, 8, 8))
    turnstile.wait()
    decoder.remove()
    assert half_precision.vae.dtype == torch.float32
    found: list[str] = []
    digesting = threading.Thread(target=lambda: found.append(weights_digest(half_precision.vae)))
    digesting.start()
    until_waiting(1)
    turnstile.let_go()
    digesting.join(PATIENCE)
    run.result()
    assert found == [expected]


def test_a_block_that_fails_leaves_the_autoencoder_in_its_own_dtype(half_precision: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        half_precision(latents=torch.zeros(1, 4, 8, 8), fails=True)
    assert half_precision.vae.dtype == torch.float16


def test_a_block_that_fails_leaves_each_weight_in_its_own_dtype() -> None:
    """A model with adapters has several: those of the adapters are more precise than the others."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4).bfloat16(), torch.nn.Linear(4, 4))
    model.peft_config = {"default": "an adapter"}  # type: ignore[assignment]
    before = {name: weight.clone() for name, weight in model.named_parameters()}

    class Fails(Do):
        expected_components = [ComponentSpec("model", torch.nn.Module)]

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    pipe = pipeline(fails=Fails(fail))
    pipe.update_components(model=model)
    with pytest.raises(ZeroDivisionError):
        pipe()
    for name, weight in model.named_parameters():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_a_run_that_is_cancelled_leaves_adapters_as_they_were() -> None:
    """Blocks scale them, call the model, and scale them back; a run that is cancelled ends at the call."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False), model)
    model.peft_config = model[0].peft_config if hasattr(model[0], "peft_config") else {"default": None}
    model.requires_grad_(False)
    turnstile = Turnstile()

    class Scales(Do):
        expected_components = [ComponentSpec("model", torch.nn.Module)]

    def scaled(components: Any, x: Any) -> Any:
        scale_lora_layers(components.model, 0.5)
        turnstile()
        made = components.model(x)
        unscale_lora_layers(components.model, 0.5)
        return made

    pipe = pipeline(scale=Scales(scaled))
    pipe.update_components(model=model)
    x = torch.ones(1, 4)
    expected = model(x)
    run = pipe.start(x=x)
    turnstile.wait()
    assert not torch.equal(model[0].scaling["default"] * expected, expected)
    run.cancel()
    turnstile.let_go()
    with pytest.raises(RunCancelledError):
        run.result()
    assert torch.equal(model(x), expected)


class Adapted(torch.nn.Linear):
    """A model with an adapter, whose scale blocks set for the time of their work."""

    scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(x)


class Scaled(ModularPipelineBlocks):
    """Scales the adapter, calls the model, and puts the scale back, as diffusers' text encoding does."""

    expected_components = [ComponentSpec("model", Adapted)]
    inputs = [InputParam("scale", required=True), InputParam("meet")]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        components.model.scale = block_state.scale
        if block_state.meet is not None:
            block_state.meet()
        block_state.x = components.model(torch.ones(1, 1)).item()
        components.model.scale = 1.0
        self.set_block_state(state, block_state)
        return components, state


def test_a_model_with_adapters_has_one_block_at_a_time() -> None:
    model = Adapted(1, 1)
    pipe = pipeline(scaled=Scaled)
    pipe.update_components(model=model)
    assert not needs_exclusive([model])
    model.peft_config = {"default": "an adapter"}
    assert needs_exclusive([model])
    turnstile, alone = Turnstile(), [pipe(scale=scale, output="x") for scale in (2.0, 3.0)]
    first = pipe.start(scale=2.0, output="x", meet=turnstile)
    turnstile.wait()
    second = pipe.start(scale=3.0, output="x")
    assert second.status == "running"
    turnstile.let_go()
    assert [first.result(), second.result()] == alone


def test_a_copy_of_a_model_in_use_works_by_itself(video: Any) -> None:
    copies: list[Any] = []

    class Copies(Decode):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            copies.append(copy.deepcopy(components.vae))
            assert inspect.signature(components.vae.decode) == inspect.signature(copies[0].decode)
            assert list(inspect.signature(components.vae.decode).parameters) == ["z", "return_dict"]
            return super().__call__(components, state)

    pipe = pipeline(decode=Copies)
    pipe.update_components(vae=video.vae)
    pipe(latents=torch.zeros(1, 4, 1, 4, 4))
    with torch.no_grad():
        for parameter in copies[0].parameters():
            parameter.zero_()
        assert copies[0].decode(torch.ones(1, 4, 1, 4, 4)).sample.abs().sum() == 0


class Tiny(torch.nn.Module, CacheMixin):
    """A model that keeps what it saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = torch.nn.ModuleList()

    def forward(self, x: float) -> float:
        memory = self._diffusers_hook.hooks["memory"].state
        memory.seen.append(x)
        return sum(memory.seen)


class Memory:
    def __init__(self) -> None:
        self.seen: list[float] = []

    def reset(self) -> None:
        self.seen = []


class Remember(Do):
    expected_components = [ComponentSpec("model", Tiny)]


@pytest.fixture
def cached() -> Iterator[Any]:
    """A pipeline with a model that caches."""
    from diffusers.hooks import HookRegistry, ModelHook

    class Hook(ModelHook):  # type: ignore[misc]
        _is_stateful = True

        def __init__(self) -> None:
            super().__init__()
            self.state = Memory()

    model = Tiny()
    HookRegistry.check_if_exists_or_initialize(model).register_hook(Hook(), "memory")
    model._cache_config = FirstBlockCacheConfig()
    block = Remember(lambda components, x, i: components.model(x + i))
    pipe = pipeline(loop=Repeat.from_blocks_dict({"remember": block, "add": AddOne}))
    pipe.update_components(model=model)
    yield pipe
    assert model._diffusers_hook.hooks["memory"].state.seen == []


def test_what_a_model_caches_belongs_to_one_loop_of_one_run(cached: Any) -> None:
    alone = [cached(x=x, output="x") for x in range(4)]
    assert len(set(alone)) == 4
    assert [cached(x=x, output="x") for x in range(4)] == alone
    assert in_threads(*[lambda x=x: cached(x=x, output="x") for x in range(4)]) == alone


def test_a_run_that_waits_holds_no_model_that_caches(cached: Any) -> None:
    expected = [cached(x=x, output="x") for x in range(2)]
    first = cached.stream(x=0, output="x")
    for _ in first:
        second = cached.stream(x=1, output="x")
        for event in second:
            assert event.peek("x") is not None
        assert second.result() == expected[1]
    assert first.result() == expected[0]


def test_what_runs_share_freely_needs_nothing(embedded: Any) -> None:
    assert not needs_exclusive(embedded.components.values())
    assert needs_exclusive(HOOKING)
    assert not needs_exclusive([guiders.ClassifierFreeGuidance(), None, 3, torch.nn.Linear(1, 1)])


def test_the_classes_in_the_table_exist_and_have_the_methods() -> None:
    for name, methods in KEEPS_VALUES.items():
        found = getattr(diffusers, name, None) or getattr(transformers, name)
        assert all(callable(getattr(found, method)) for method in methods)
