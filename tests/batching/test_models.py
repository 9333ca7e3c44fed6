"""Models whose calls depend on who makes them are left to their runs."""

from __future__ import annotations

import copy
import inspect
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, guiders
from diffusers.hooks import FirstBlockCacheConfig, LayerSkipConfig

from loopwright import ModularPipeline
from loopwright.batching import batched
from loopwright.batching.models import why_alone
from tests.batching.blocks import Gathered, pipeline, row
from tests.batching.test_batched import CLOSE, inputs
from tests.run.blocks import PATIENCE


def run_two(b: Any, **options: Any) -> list[Any]:
    together = Gathered(2)
    runs = [b.start(x=row(n), around=together, output="x", **options) for n in range(2)]
    return [run.result(PATIENCE) for run in runs]


def assert_alone_and_right(pipe: Any, reason: str) -> None:
    with batched(pipe) as b:
        assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(run_two(b)))
        report = b.report()
    assert report.models["model"].merged == 0
    # the last calls of the one who is left are nobody else's anyway
    assert [(refusal.reason, refusal.calls >= 3) for refusal in report.refusals] == [(reason, True)]


def test_a_model_in_training_mode() -> None:
    pipe = pipeline(lambda x: 2 * x)
    pipe.model.train()
    assert_alone_and_right(pipe, "it is in training mode")


def test_a_model_with_forward_hooks_at_any_depth(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    pipe.model.inner = torch.nn.Sequential(torch.nn.Identity())
    for module in (pipe.model, pipe.model.inner[0]):
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            handle = register(lambda *_: None)
            assert_alone_and_right(pipe, "it has forward hooks")
            handle.remove()
    with batched(pipe) as b:
        run_two(b)
        assert b.report().models["model"].merged == 6


def test_a_hook_that_comes_while_runs_go_on_ends_sharing(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe) as b:
        run_two(b)
        assert b.report().models["model"].merged == 6
        handle = pipe.model.register_forward_hook(lambda *_: None)
        run_two(b)
        assert b.report().models["model"].merged == 6
        handle.remove()
        run_two(b)
        assert b.report().models["model"].merged == 12


def test_a_method_that_was_put_on_the_model_is_called_and_comes_back(clock: Any) -> None:
    pipe = pipeline(lambda x: x)
    own = pipe.model.forward = lambda x: 2 * x
    with batched(pipe) as b:
        assert pipe.model.forward is not own
        assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(run_two(b)))
        assert b.report().models["model"].merged == 6
    assert pipe.model.forward is own


def test_a_deep_copy_made_meanwhile_is_not_batched() -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe):
        copied = copy.deepcopy(pipe.model)
        assert torch.equal(copied(row(1)), 2 * row(1))
        assert inspect.signature(pipe.model.forward) == inspect.signature(type(pipe.model).forward.__get__(copied))
    assert (pipe.model.rows, copied.rows) == ([], [1])
    assert torch.equal(copied(row(1)), 2 * row(1))


def test_a_call_with_gradients_is_made_by_itself() -> None:
    def with_gradient(i: int) -> dict[str, Any]:
        torch.set_grad_enabled(True)
        return {}

    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe) as b:
        run_two(b, extra=with_gradient)
        assert b.report().calls == 0
        assert pipe.model.rows == [1] * 6


def test_guiders_that_hook_the_model_and_those_that_do_not_get_what_they_get_alone(embedded: ModularPipeline) -> None:
    layer = [LayerSkipConfig(indices=[4], fqn="transformer_blocks")]
    hooking = guiders.SkipLayerGuidance(
        skip_layer_config=layer, skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0
    )
    skipping = embedded.blocks.init_pipeline()
    skipping.update_components(**{**embedded.components, "guider": hooking})
    skipping.set_progress_bar_config(disable=True)
    expected = [skipping(**inputs(0)), embedded(**inputs(0))]
    assert not torch.equal(expected[0]["latents"], expected[1]["latents"])
    with batched(skipping) as b, batched(embedded) as c:
        runs = [pipe.start(**inputs(0)) for pipe in (b, b, c, c)]
        results = [run.result(PATIENCE) for run in runs]
        assert [refusal.reason for refusal in b.report().refusals] == ["its block has the model alone"]
    for result, wanted in zip(results, [expected[0]] * 2 + [expected[1]] * 2, strict=True):
        assert (result["latents"] - wanted["latents"]).abs().max() <= CLOSE * wanted["latents"].abs().max()


def tiny_flux(cls: Any = FluxTransformer2DModel) -> Any:
    return cls(
        num_layers=0, num_single_layers=0, attention_head_dim=8, num_attention_heads=1, axes_dims_rope=[2, 2, 4]
    ).eval()


def test_a_model_with_caching_enabled_is_left_to_its_runs() -> None:
    model = tiny_flux()
    assert why_alone(model) is None
    with model.cache_context("cond"):
        pass
    # which leaves a registry without hooks
    assert why_alone(model) is None
    model._cache_config = FirstBlockCacheConfig()
    assert why_alone(model) == "its caching is enabled"


def test_the_cache_context_of_a_call_belongs_to_its_run(clock: Any) -> None:
    set_: list[str] = []
    seen: list[tuple[int, tuple[str, ...]]] = []

    class Cached(FluxTransformer2DModel):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((len(x), tuple(set_)))
            return 2 * x

        @contextmanager
        def cache_context(self, name: str, **kwargs: Any) -> Any:
            set_.append(name)
            try:
                yield
            finally:
                set_.remove(name)

    def around(n: int) -> Any:
        def enter(i: int) -> None:
            together(i)
            if i == 0:
                entered.append(pipe.model.cache_context(("cond", "uncond")[n % 2]))
                entered[-1].__enter__()

        return enter

    entered: list[Any] = []

    pipe = pipeline(lambda x: x)
    model = tiny_flux(Cached)
    pipe.update_components(model=model)
    together = Gathered(4)
    with batched(pipe) as b:
        runs = [b.start(x=row(n), around=around(n), steps=4, output="x") for n in range(4)]
        results = [run.result(PATIENCE) for run in runs]
        assert b.report().models["model"].merged == 16
    assert all(torch.equal(x, 16 * row(n)) for n, x in enumerate(results))
    # never both, and always the one that the runs had set
    assert {names for _, names in seen} == {("cond",), ("uncond",)}
    assert "cache_context" not in vars(model)
