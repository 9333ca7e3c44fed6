"""Runs that share forwards end as they do alone, however they are started."""

from __future__ import annotations

import asyncio
import copy
import threading
from typing import Any

import diffusers
import pytest
import torch

from loopwright import Checkpoint, ModularPipeline
from loopwright.batching import batched
from loopwright.diffusion import embedded_pipeline
from loopwright.errors import DefinitionError, InvalidInputError, RunCancelledError, RunStateError
from tests.batching.blocks import Gathered, pipeline, row
from tests.bridge.families.case import mask, picture
from tests.run.blocks import PATIENCE, Turnstile, in_threads

CLOSE = 1e-4  # what `docs/batching.md` states for float32


def inputs(number: int, **others: Any) -> dict[str, Any]:
    usual = {
        "prompt": ("red apple", "green pear", "blue bird")[number % 3],
        "num_inference_steps": 4 + number,
        "generator": torch.Generator().manual_seed(number),
        "output": ["latents", "images"],
        "output_type": "pt",
    }
    return {**usual, **others}


def painted(number: int, **others: Any) -> dict[str, Any]:
    return inputs(number, image=picture(64, 64), mask_image=mask(64, 64), strength=1.0, **others)


def assert_close(result: dict[str, Any], alone: dict[str, Any]) -> None:
    for name, value in alone.items():
        assert (result[name] - value).abs().max() <= CLOSE * value.abs().max()


@pytest.fixture(scope="module")
def alone(embedded: ModularPipeline) -> list[dict[str, Any]]:
    """What each of eight runs is alone."""
    return [embedded(**inputs(number)) for number in range(8)]


def test_eight_threads_of_mixed_steps_share_forwards_and_get_what_they_get_alone(
    embedded: ModularPipeline, alone: list[Any], clock: Any
) -> None:
    with batched(embedded, max_batch=8) as b:
        results = in_threads(*[lambda n=n: b(**inputs(n)) for n in range(8)])
        report = b.report()
    for result, expected in zip(results, alone, strict=True):
        assert_close(result, expected)
    transformer = report.models["transformer"]
    assert transformer.calls == sum(4 + n for n in range(8))
    # those that come late make a few of their first calls alone
    assert transformer.forwards <= 1.25 * 11 + 2
    assert transformer.occupancy > 3
    assert report.refusals == []


def test_every_way_to_call_shares_forwards(embedded: ModularPipeline, alone: list[Any]) -> None:
    def streamed(n: int) -> Any:
        run = b.stream(**inputs(n))
        assert len([event.index for event in run]) == 4 + n
        return run.result()

    def as_task(n: int) -> Any:
        return asyncio.run(b.acall(**inputs(n)))

    ways = [lambda n: b(**inputs(n)), lambda n: b.start(**inputs(n)).result(), streamed, as_task]
    with batched(embedded) as b:
        results = in_threads(*[lambda n=n, way=way: way(n) for n, way in enumerate(ways)])
        assert b.report().models["transformer"].merged > 0
    for result, expected in zip(results, alone, strict=False):
        assert_close(result, expected)


def test_workflows_share_the_calls_of_their_model(embedded: ModularPipeline, alone: list[Any], clock: Any) -> None:
    expected = embedded(**painted(1))
    with batched(embedded) as b:
        runs = [b.start(**inputs(1)), b.start(**painted(1)), b.start(**inputs(2)), b.start(**painted(1))]
        results = [run.result() for run in runs]
        transformer = b.report().models["transformer"]
    for result, wanted in zip(results, [alone[1], expected, alone[2], expected], strict=True):
        assert_close(result, wanted)
    assert transformer.forwards <= 1.25 * 6 + 2
    assert transformer.merged > transformer.calls / 2


def test_schedulers_noise_and_state_keep_their_bits(embedded: ModularPipeline, alone: list[Any]) -> None:
    for deterministic in (False, True):
        with batched(embedded, deterministic=deterministic) as b:
            runs = [b.start(**inputs(n, output=None)) for n in range(4)]
            states = [run.result() for run in runs]
        for n, state in enumerate(states):
            expected = embedded(**inputs(n, output=None))
            assert torch.equal(state.timesteps, expected.timesteps)
            assert torch.equal(state.noise, expected.noise)
            assert torch.equal(state.generator.get_state(), expected.generator.get_state())
            assert torch.equal(runs[n].components.scheduler.sigmas, runs[n].components.scheduler.sigmas)
            assert state.values.keys() == expected.values.keys()


def test_a_batched_pipeline_is_a_pipeline_of_the_same_class_with_the_same_models(embedded: ModularPipeline) -> None:
    with batched(embedded) as b:
        assert type(b) is type(embedded)
        assert isinstance(b.client("one"), type(embedded))
        for name in ("transformer", "vae", "text_encoder"):
            assert getattr(b, name) is getattr(embedded, name)


def test_the_models_keep_identity_type_hooks_and_config_and_are_left_as_they_were(embedded: ModularPipeline) -> None:
    model = embedded.transformer
    before, cls, config, forward = dict(vars(model)), type(model), model.config, model.forward
    with batched(embedded) as b:
        assert type(model) is cls
        assert model.config is config
        assert b.transformer.forward.__func__.__wrapped__ is forward.__func__
        b(**inputs(0))
        assert not model._forward_pre_hooks
    assert vars(model) == before
    assert not vars(embedded.vae).keys() & {"forward", "encode", "decode"}


def test_a_deep_copy_of_a_model_works_on_its_own(embedded: ModularPipeline) -> None:
    arguments = {"return_dict": False}
    latents = torch.randn(1, 8, 8, 8)
    with batched(embedded), torch.no_grad():
        copied = copy.deepcopy(embedded.vae)
        expected = embedded.vae.decode(latents, **arguments)[0]
        for weight in copied.parameters():
            weight.zero_()
        assert not torch.equal(copied.decode(latents, **arguments)[0], expected)
        assert torch.equal(embedded.vae.decode(latents, **arguments)[0], expected)
    assert copied.decode(latents, **arguments)[0].isfinite().all()


def test_calls_from_outside_of_runs_are_not_held(embedded: ModularPipeline) -> None:
    latents = torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        expected = embedded.vae.decode(latents).sample
    with batched(embedded) as b, torch.no_grad():
        assert torch.equal(embedded.vae.decode(latents).sample, expected)
        assert b.report().calls == 0


def test_a_saved_run_goes_on_in_a_batch(embedded: ModularPipeline, alone: list[Any], tmp_path: Any) -> None:
    with batched(embedded, deterministic=True) as b:
        expected = b(**inputs(2))
        run = b.start(**inputs(2), checkpoint=Checkpoint(tmp_path / "run"))
        for event in run:
            if event.index == 2:
                run.cancel()
                break
        with pytest.raises(RunCancelledError):
            run.result()
        others = [b.start(**inputs(n)) for n in (0, 1)]
        resumed = b.resume(tmp_path / "run", output=["latents", "images"]).result()
        assert all(torch.equal(resumed[name], value) for name, value in expected.items())
        for n, other in enumerate(others):
            assert_close(other.result(), alone[n])


def test_peek_is_answered_while_others_work(embedded: ModularPipeline, alone: list[Any]) -> None:
    with batched(embedded) as b:
        others = [b.start(**inputs(n)) for n in (0, 1)]
        run = b.stream(**inputs(2))
        pictures = [event.peek("images") for event in run]
        assert len(pictures) == 6
        assert_close(run.result(), alone[2])
        for n, other in enumerate(others):
            assert_close(other.result(), alone[n])


def test_leaving_waits_for_runs_and_cancels_those_that_halt() -> None:
    pipe, turnstile = pipeline(lambda x: x + 1), Turnstile()
    with batched(pipe) as b:
        run = b.start(x=row(0), output="x")
        halted = b.start(x=row(0), around=lambda i: turnstile() if i == 1 else None)
        turnstile.wait()
        halted.pause()
        turnstile.let_go()
    assert torch.equal(run.result(), row(0) + 3)
    with pytest.raises(RunCancelledError):
        halted.result()


def test_leaving_lets_runs_go_whose_events_this_thread_takes_no_more() -> None:
    with batched(pipeline(lambda x: 2 * x)) as b:
        run = b.stream(x=row(1), output="x")
        events = iter(run)
        assert next(events).index == 0
    assert torch.equal(run.result(PATIENCE), 8 * row(1))


def test_an_interruption_while_runs_are_waited_for_cancels_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from loopwright.batching.batcher import Batcher

    def interrupted(batcher: Batcher, cancel: bool) -> None:
        if not cancel:
            raise KeyboardInterrupt
        original(batcher, cancel)

    original = Batcher._wait_for_runs
    monkeypatch.setattr(Batcher, "_wait_for_runs", interrupted)
    with pytest.raises(KeyboardInterrupt), batched(pipeline(lambda x: x + 1)) as b:
        run = b.start(x=row(0), steps=10**9)
    with pytest.raises(RunCancelledError):
        run.result(PATIENCE)


def test_an_exception_that_leaves_cancels_the_runs() -> None:
    pipe, runs = pipeline(lambda x: x + 1), []

    def leave() -> None:
        with batched(pipe) as b:
            runs.append(b.start(x=row(0), steps=10**9))
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    with pytest.raises(RunCancelledError):
        runs[0].result()


def test_a_batch_that_is_over_takes_no_runs() -> None:
    pipe = pipeline(lambda x: x + 1)
    with batched(pipe) as b:
        held = b.stream(x=row(0))
    with pytest.raises(RunStateError, match="is over: call the pipeline itself"):
        b(x=row(0))
    with pytest.raises(RunStateError, match="is over"):
        held.result()
    assert torch.equal(pipe(x=row(0), output="x"), row(0) + 3)


def test_two_batches_of_pipelines_that_share_a_model_do_not_disturb_each_other() -> None:
    pipe = pipeline(lambda x: 2 * x)
    other = pipe.blocks.init_pipeline()
    other.update_components(model=pipe.model)
    with batched(pipe) as b, batched(other) as c:
        together = Gathered(4)
        runs = [made.start(x=row(n), around=together, output="x") for n in range(2) for made in (b, c)]
        results = [run.result(PATIENCE) for run in runs]
        assert (b.report().models["model"].calls, c.report().models["model"].calls) == (6, 6)
    assert all(torch.equal(result, 8 * row(n // 2)) for n, result in enumerate(results))
    assert "forward" not in vars(pipe.model)


def test_batches_that_end_in_the_order_in_which_they_began_leave_the_model_as_it_was() -> None:
    pipe = pipeline(lambda x: 2 * x)
    own = pipe.model.encode = lambda x: x
    batches = [batched(pipe) for _ in range(3)]
    for batch in batches:
        batch.__enter__()
    for batch in batches:
        batch.__exit__(None, None, None)
    assert "forward" not in vars(pipe.model)
    assert pipe.model.encode is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "`max_batch` is 0; it must be a whole number, at least 1"),
        ({"max_active": 2.5}, "`max_active` is 2.5"),
        ({"memory_budget": True}, "`memory_budget` is True"),
        ({"prove_every": "often"}, "`prove_every` is 'often'"),
        ({"deterministic": 1}, "`deterministic` is 1; it must be True or False"),
        ({"memory_budget": "lots"}, "`memory_budget` is 'lots'; it must be a number of bytes, or text, such as '3GB'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        batched(pipeline(lambda x: x), **options)


def test_a_budget_may_be_text() -> None:
    with batched(pipeline(lambda x: x), memory_budget="1GB") as b:
        assert b(x=row(1), output="x") is not None


def test_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="`pipe` is an int; it must be a pipeline"):
        batched(1)


@pytest.mark.parametrize("name", ["DDPMPipeline", "ModularPipeline"])
def test_a_pipeline_of_diffusers_is_refused_with_what_makes_it_ours(name: str) -> None:
    theirs = getattr(diffusers, name)
    pipe = theirs(diffusers.FluxAutoBlocks()) if name == "ModularPipeline" else theirs(None, None)
    with pytest.raises(InvalidInputError) as caught:
        batched(pipe)
    assert str(caught.value) == (
        f"`pipe` is a {name} of diffusers; make it one of ours: `batched(from_diffusers(pipe))`, with `from "
        f"loopwright.bridge import from_diffusers`"
    )


def test_it_is_a_context_and_says_so() -> None:
    unopened = batched(pipeline(lambda x: x))
    for use in (lambda: unopened(x=row(1)), lambda: unopened.start(x=row(1)), lambda: unopened.client("one")):
        with pytest.raises(
            RunStateError, match=r"^`batched\(pipe\)` is a context: `with batched\(pipe\) as b: b\(...\)`"
        ):
            use()

    async def opened() -> None:
        async with unopened:
            pass

    with pytest.raises(RunStateError, match="a plain `with` is right in coroutines too"):
        asyncio.run(opened())
    with pytest.raises(AttributeError):
        unopened.strat  # noqa: B018


def test_a_client_is_not_made_after_the_batch() -> None:
    with batched(pipeline(lambda x: x)) as b:
        assert repr(b.client).startswith("<function client at")
    with pytest.raises(RunStateError, match="is over: call the pipeline itself"):
        b.client("one")


def test_a_component_whose_name_a_batched_pipeline_needs_is_refused() -> None:
    from loopwright import ComponentSpec
    from tests.run.blocks import Do
    from tests.run.blocks import pipeline as of_blocks

    class Reports(Do):
        expected_components = [ComponentSpec("report", torch.nn.Module)]

    with pytest.raises(DefinitionError, match="`report`"), batched(of_blocks(block=Reports(lambda *_: None))):
        pass


def test_in_half_precision_the_bits_depend_on_the_request_alone_as_well() -> None:
    pipe = embedded_pipeline(dtype=torch.bfloat16, workflow="text2image")
    pipe.set_progress_bar_config(disable=True)
    with batched(pipe, deterministic=True) as b:
        alone = [b(**inputs(n)) for n in range(4)]
    with batched(pipe, deterministic=True) as b:
        together = in_threads(*[lambda n=n: b(**inputs(n)) for n in reversed(range(4))])
        assert b.report().models["transformer"].merged > 0
        # the autoencoder computes in float32 for the time of its block, which has it alone
        assert {refusal.component for refusal in b.report().refusals} <= {"vae"}
    for result, expected in zip(reversed(together), alone, strict=True):
        assert all(torch.equal(result[name], value) for name, value in expected.items())


def test_a_run_for_which_there_is_no_thread_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with batched(pipeline(lambda x: 2 * x)) as b:
        run = b.stream(x=row(1), output="x")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                run.result(PATIENCE)
        assert run.status == "waiting"
        # it can begin later
        assert torch.equal(run.result(PATIENCE), 8 * row(1))
        held = b.stream(x=row(1))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError):
                held.result(PATIENCE)
