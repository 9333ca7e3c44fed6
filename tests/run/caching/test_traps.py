"""With a cache, a pipeline gives what it gives without one: each test is a way in which that could fail."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image

from loopwright import Checkpoint, ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.errors import DefinitionError, InvalidInputError
from tests.blocks.arithmetic import AddOne, Double, Repeat
from tests.run.blocks import HoldsLoop, Steps, pipeline


def leaf(work: Callable[[Any, Any], Any], *expects: Any) -> ModularPipelineBlocks:
    """A block that does `work(components, state)`, and declares nothing that it reads or writes."""

    class Leaf(ModularPipelineBlocks):
        inputs = [InputParam(name) for name in "xyz"]
        expected_components = list(expects)

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            work(components, state)
            return components, state

    return Leaf()


def made(pipe: Any, name: str, *args: Any, **inputs: Any) -> Any:
    return pipe(*args, **inputs).values[name]


def puts(name: str, work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda components, state: state.set(name, work(components, state))


def cached(**blocks: Any) -> Any:
    pipe = pipeline(**blocks)
    pipe.cache()
    return pipe


NEEDS_MODEL = leaf(lambda components, state: None, ComponentSpec("model", torch.nn.Module))


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.inner = torch.nn.Dropout(0.0)

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.factor


def test_component_read_without_being_declared() -> None:
    pipe = cached(needs=NEEDS_MODEL, work=leaf(puts("x", lambda c, s: c.model.weight.sum().item())))
    found = []
    for value in (1.0, 2.0):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, value)
        pipe.update_components(model=model)
        found.append(made(pipe, "x"))
    assert found == [1.0, 2.0]


def test_attribute_of_the_pipeline_read() -> None:
    pipe = cached(work=leaf(puts("x", lambda c, s: getattr(c, "_scale", 1))))
    found = [made(pipe, "x")]
    pipe._scale = 2
    assert [*found, made(pipe, "x")] == [1, 2]


def test_plain_attribute_of_a_model_changed() -> None:
    work = leaf(puts("x", lambda c, s: c.model(torch.ones(1)).item()), ComponentSpec("model", torch.nn.Module))
    pipe = cached(work=work)
    pipe.update_components(model=Scaled(1.0))
    found = [made(pipe, "x")]
    pipe.model.factor = 2.0
    assert [*found, made(pipe, "x")] == [1.0, 2.0]


def set_embedding(weight: Any) -> None:
    """As textual inversion does; no version counts it."""
    weight.data[500] = 3.0


def swap_embeddings(weight: Any) -> None:
    weight.data[[500, 501]] = weight.data[[501, 500]]


@pytest.mark.parametrize("change", [set_embedding, swap_embeddings])
def test_embedding_of_one_token_written_through_its_data(change: Any) -> None:
    work = leaf(puts("x", lambda c, s: c.model(torch.tensor([500])).tolist()), ComponentSpec("model", torch.nn.Module))
    pipe = cached(work=work)
    pipe.update_components(model=torch.nn.Embedding(1000, 48))
    before = made(pipe, "x")
    assert made(pipe, "x") == before
    change(pipe.model.weight)
    assert made(pipe, "x") == [pipe.model.weight[500].tolist()] != before


def test_hook_put_on_a_model() -> None:
    work = leaf(puts("x", lambda c, s: c.model(torch.ones(1)).item()), ComponentSpec("model", torch.nn.Module))
    pipe = cached(work=work)
    pipe.update_components(model=Scaled(1.0))
    found = [made(pipe, "x")]
    pipe.model.register_forward_hook(lambda module, arguments, result: result * 3)
    assert [*found, made(pipe, "x")] == [1.0, 3.0]


def test_attribute_of_a_component_without_weights_changed() -> None:
    class Tokenizer:
        length = 3

    work = leaf(puts("x", lambda c, s: c.tokenizer.length), ComponentSpec("tokenizer", Tokenizer))
    pipe = cached(work=work)
    pipe.update_components(tokenizer=Tokenizer())
    found = [made(pipe, "x")]
    pipe.tokenizer.length = 5
    assert [*found, made(pipe, "x")] == [3, 5]


def test_method_of_a_block_class_exchanged() -> None:
    class Work(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("x")]

        def made(self) -> int:
            return 1

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("x", self.made())
            return components, state

    pipe = cached(work=Work)
    found = [made(pipe, "x")]
    Work.made = lambda self: 2  # type: ignore[method-assign]
    assert [*found, made(pipe, "x")] == [1, 2]


def test_attribute_of_a_block_class_changed() -> None:
    class Work(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("x")]
        factor = 1

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("x", self.factor)
            return components, state

    pipe = cached(work=Work)
    found = [made(pipe, "x")]
    Work.factor = 2
    assert [*found, made(pipe, "x")] == [1, 2]


def test_mutable_object_that_a_block_holds_changed() -> None:
    class Settings:
        factor = 1

    class Work(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("x")]

        def __init__(self) -> None:
            super().__init__()
            self.settings = Settings()

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("x", self.settings.factor)
            return components, state

    pipe = cached(work=Work)
    found = [made(pipe, "x")]
    pipe._blocks.sub_blocks["work"].settings.factor = 2
    assert [*found, made(pipe, "x")] == [1, 2]


@pytest.mark.parametrize(
    "work",
    [
        lambda c, s: len(s.values),
        lambda c, s: "y" in s.values,
        lambda c, s: sorted(s.values),
        lambda c, s: sorted(k for k, v in s.to_dict()["values"].items() if v is not None),
        lambda c, s: dict(s.values).get("y"),
        lambda c, s: {**s.values}.get("y"),
        lambda c, s: copy.deepcopy(s).get("y"),
        lambda c, s: (s.values | {}).get("y"),
        lambda c, s: s.values == {"x": 1, "y": 5},
        lambda c, s: next(reversed(s.values)),
        lambda c, s: s.y if "y" in s else None,
        lambda c, s: str(s),
        lambda c, s: repr(s.values),
        lambda c, s: s.values.setdefault("y", 9),
    ],
)
def test_every_way_to_read_the_state_counts(work: Any) -> None:
    class Reads(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("found", work(components, state))
            return components, state

    from loopwright import PipelineState

    plain, pipe = pipeline(work=Reads), cached(work=Reads)
    for values in ({"x": 1}, {"x": 1, "y": 5}, {"x": 1, "y": 6}, {"x": 1, "y": 5}, {"x": 1}):
        a, b = (made(one, "found", PipelineState(dict(values))) for one in (plain, pipe))
        assert a == b


@pytest.mark.parametrize(
    "work",
    [
        lambda c, s: s.values.pop("y", None),
        lambda c, s: s.values.pop("y", None) and s.set("y", 3),
        lambda c, s: s.values.clear(),
        lambda c, s: s.values.popitem(),
        lambda c, s: s.values.__delitem__("y"),
        lambda c, s: s.values.update(y=4, w=5),
        lambda c, s: s.values.__ior__({"y": 7}),
        lambda c, s: s.set("w", 1, "group"),
        lambda c, s: s.kwargs_mapping.setdefault("group", []).append("y"),
    ],
)
def test_every_way_to_write_the_state_is_done_again(work: Any) -> None:
    plain, pipe = pipeline(work=leaf(work)), cached(work=leaf(work))
    for _ in range(3):
        a, b = plain(x=1, y=2), pipe(x=1, y=2)
        assert list(a.values.items()) == list(b.values.items())
        assert a.kwargs_mapping == b.kwargs_mapping


def two_views(components: Any, state: Any) -> None:
    whole = torch.arange(4.0) + state.get("x")
    state.set("a", whole)
    state.set("b", whole[1:3])


def test_outputs_that_share_memory_still_do() -> None:
    pipe = cached(views=leaf(two_views), write=leaf(lambda c, s: s.get("a").fill_(7)))
    for _ in range(3):
        assert pipe(x=0).b.tolist() == [7, 7]


def test_output_that_is_an_array_over_an_input() -> None:
    pipe = cached(
        view=leaf(puts("a", lambda c, s: s.get("x")[1:])), write=leaf(lambda c, s: s.get("x").__setitem__(1, 7))
    )
    for _ in range(3):
        assert pipe(x=np.zeros(3)).a.tolist() == [7, 0]


def test_output_that_is_a_tensor_over_an_array() -> None:
    pipe = cached(
        view=leaf(puts("a", lambda c, s: torch.from_numpy(s.get("x")))),
        write=leaf(lambda c, s: s.get("x").__setitem__(1, 7)),
    )
    for _ in range(3):
        assert pipe(x=np.zeros(3)).a.tolist() == [0, 7, 0]


def test_output_that_holds_an_input() -> None:
    pipe = cached(hold=leaf(puts("a", lambda c, s: {"in": s.get("x")})), write=leaf(lambda c, s: s.get("x").append(1)))
    for _ in range(3):
        assert pipe(x=[0]).a == {"in": [0, 1]}


def test_strides_of_outputs_are_kept() -> None:
    pipe = cached(work=leaf(puts("a", lambda c, s: torch.arange(24.0).reshape(4, 6)[:, ::2])))
    assert [pipe(x=0).a.stride() for _ in range(3)] == [(6, 2)] * 3


def test_scheduler_that_the_state_refers_to() -> None:
    spec = ComponentSpec("scheduler", EulerDiscreteScheduler)
    pipe = cached(
        refer=leaf(puts("a", lambda c, s: c.scheduler), spec),
        change=leaf(lambda c, s: c.scheduler.set_timesteps(3), spec),
        look=leaf(puts("b", lambda c, s: (s.get("a") is c.scheduler, len(s.get("a").timesteps))), spec),
    )
    pipe.update_components(scheduler=EulerDiscreteScheduler())
    assert [made(pipe, "b") for _ in range(3)] == [(True, 3)] * 3


def test_output_that_is_a_scheduler_made_by_a_block() -> None:
    pipe = cached(
        make=leaf(puts("a", lambda c, s: EulerDiscreteScheduler())),
        change=leaf(lambda c, s: s.get("a").set_timesteps(3)),
        look=leaf(puts("b", lambda c, s: len(s.get("a").timesteps))),
    )
    assert [made(pipe, "b") for _ in range(3)] == [3] * 3


def test_orientation_of_a_picture_counts() -> None:
    upright = Image.new("RGB", (2, 3))
    turned = upright.copy()
    turned.getexif()[0x0112] = 6
    pipe = cached(work=leaf(puts("a", lambda c, s: s.get("x").getexif().get(0x0112))))
    assert [made(pipe, "a", x=image) for image in (upright, turned)] == [None, 6]


def test_block_that_returns_nothing_is_explained_in_the_same_way() -> None:
    class Nothing(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> Any:
            return None

    texts = []
    for pipe in (pipeline(work=Nothing), cached(work=Nothing)):
        with pytest.raises((DefinitionError, TypeError)) as caught:
            pipe()
        texts.append((type(caught.value).__name__, str(caught.value)))
    assert texts[0] == texts[1]


def loop() -> Any:
    return Steps.from_blocks_dict({"add": AddOne})


def test_callback_that_changes_values_is_called_though_the_loop_is_known() -> None:
    pipe = cached(loop=loop())
    assert pipe(x=0, steps=3, output="x") == 3
    change = {
        "callback_on_step_end": lambda pipe, i, t, values: {"x": values["x"] + 10},
        "callback_on_step_end_tensor_inputs": ["x"],
    }
    assert pipe(x=0, steps=3, output="x", callbacks=change) == 33
    assert pipe(x=0, steps=3, output="x") == 3


def test_callback_of_events_is_called_though_the_loop_is_known() -> None:
    pipe = cached(loop=loop())
    pipe(x=0, steps=3)
    seen: list[int] = []
    pipe(x=0, steps=3, callbacks=lambda event: seen.append(event.index))
    assert seen == [0, 1, 2]


def test_loop_that_was_to_be_stopped_before_it_began() -> None:
    pipe = cached(loop=loop())
    pipe(x=0, steps=3)
    run = pipe.stream(x=0, steps=3)
    run.stop_loop("loop")
    assert run.result().x == 1
    assert pipe(x=0, steps=3, output="x") == 3


def test_saved_run_of_a_known_loop_has_checkpoints(tmp_path: Any) -> None:
    pipe = cached(loop=loop(), after=Double)
    assert pipe(x=0, steps=3, output="x") == 6
    pipe(x=0, steps=3, checkpoint=Checkpoint(tmp_path / "run"))
    assert pipe.resume(tmp_path / "run", output="x").result() == 6


def test_loop_that_a_leaf_holds_is_seen_by_callbacks() -> None:
    pipe = cached(holds=HoldsLoop(loop()))
    pipe(x=0)
    seen: list[int] = []
    pipe(x=0, callbacks=lambda event: seen.append(event.index))
    assert seen == [0, 1]


def test_copy_of_a_pipeline_with_a_cache() -> None:
    pipe = cached(work=leaf(puts("a", lambda c, s: 1)))
    assert made(copy.deepcopy(pipe), "a") == 1


def test_torch_mode_of_the_caller_sees_the_work() -> None:
    from torch.overrides import TorchFunctionMode

    class Doubling(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            return made * 2 if function is torch.ones else made

    pipe = cached(work=leaf(puts("a", lambda c, s: torch.ones(1).item())))
    found = [made(pipe, "a")]
    with Doubling():
        found.append(made(pipe, "a"))
    assert found == [1, 2]


def test_root_that_is_a_loop_or_a_leaf_is_cached() -> None:
    pipe = Repeat.from_blocks_dict({"add": AddOne}).init_pipeline()
    pipe.cache()
    for outcome in ("stored", "hit"):
        run = pipe.start(x=1)
        assert run.result().x == 4
        rows = run.cache_report()
        assert [row.outcome for row in rows] == [outcome]


def test_output_that_is_a_weight() -> None:
    work = leaf(puts("a", lambda c, s: c.model.weight.detach()), ComponentSpec("model", torch.nn.Module))
    pipe = cached(work=work)
    pipe.update_components(model=torch.nn.Linear(1, 1))
    assert [made(pipe, "a").data_ptr() == pipe.model.weight.data_ptr() for _ in range(2)] == [True, True]


def test_failing_block_leaves_an_ordinary_state() -> None:
    def fail(components: Any, state: Any) -> None:
        kept.append(state)
        raise ZeroDivisionError

    kept: list[Any] = []
    pipe = cached(work=leaf(fail))
    with pytest.raises(ZeroDivisionError):
        pipe(x=1)
    assert type(kept[0].values) is dict


def test_in_place_write_into_a_default_or_constant() -> None:
    pipe = cached(work=leaf(lambda c, s: s.get("x").add_(1)))
    assert [pipe(x=torch.zeros(1), output="x").item() for _ in range(3)] == [1, 1, 1]


def test_values_that_differ_only_in_sign_of_zero_or_dtype() -> None:
    pipe = cached(work=leaf(puts("a", lambda c, s: repr(s.get("x")))))
    values = [0.0, -0.0, 0, False, "0", float("nan"), 1e300, np.float32(0), np.float64(0), [0], (0,), {0: 1}, {"0": 1}]
    assert [made(pipe, "a", x=value) for value in values for _ in range(2)] == [
        repr(v) for v in values for _ in range(2)
    ]


def outcomes(pipe: Any, **inputs: Any) -> list[tuple[str, str]]:
    run = pipe.start(**inputs)
    run.result()
    return [(row.outcome, row.reason) for row in run.cache_report()]


def draw_under_fork_rng(components: Any, state: Any) -> Any:
    with torch.random.fork_rng():
        return torch.rand(1)


def draw_and_put_back_of_numpy(components: Any, state: Any) -> Any:
    before = np.random.get_state()
    drawn = np.random.rand()
    np.random.set_state(before)
    return drawn


def draw_and_put_back_of_python(components: Any, state: Any) -> Any:
    before = random.getstate()
    drawn = random.random()
    random.setstate(before)
    return drawn


RESET = "it put global random numbers back to where they were before, and may have drawn some"


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (puts("x", lambda c, s: torch.rand(1)), "it drew random numbers"),
        (puts("x", lambda c, s: np.random.rand()), "it drew random numbers"),
        (puts("x", lambda c, s: torch.rand(1, generator=s.get("z"))), "it drew random numbers from `z`"),
        (puts("x", draw_under_fork_rng), RESET),
        (puts("x", draw_and_put_back_of_numpy), RESET),
        (puts("x", draw_and_put_back_of_python), RESET),
        (lambda c, s: s.get("y").append(1), "it changed its input `y`"),
        (lambda c, s: s.get("x"), "the value `x` (list_iterator) cannot be compared"),
        (puts("x", lambda c, s: iter([])), "its output `x` (list_iterator) cannot be copied"),
        (lambda c, s: setattr(c, "_scale", 1), "it set `components._scale`"),
        (lambda c, s: vars(c).get("model"), "it looked at all attributes of `components`"),
        (puts("x", lambda c, s: torch.zeros(1000)), "its result takes 4.1 KiB, and the cache holds 1.0 KiB"),
    ],
)
def test_the_report_says_why_a_block_is_not_cached(work: Any, reason: str) -> None:
    pipe = cached(work=leaf(work))
    pipe.cache(max_bytes=1024)
    for _ in range(2):
        assert outcomes(pipe, x=iter([]), y=[0], z=torch.Generator()) == [("not cached", reason)]


@pytest.mark.parametrize("draw", [draw_under_fork_rng, draw_and_put_back_of_numpy, draw_and_put_back_of_python])
def test_another_seed_gives_other_numbers_though_they_are_put_back(draw: Any) -> None:
    pipe, plain = cached(work=leaf(puts("x", draw))), pipeline(work=leaf(puts("x", draw)))

    def drawn(made_by: Any, seed: int) -> Any:
        for seeded in (torch.manual_seed, np.random.seed, random.seed):
            seeded(seed)
        return made(made_by, "x")

    assert [drawn(pipe, seed) for seed in (1, 2, 1)] == [drawn(plain, seed) for seed in (1, 2, 1)]


def test_what_tells_that_random_numbers_are_put_back_goes_away() -> None:
    places = [torch.set_rng_state, torch.random.set_rng_state, np.random.set_state, random.setstate]
    seen = []
    pipe = cached(work=leaf(lambda c, s: seen.append(torch.set_rng_state) or made(inner, "x")))
    inner = cached(work=leaf(puts("x", lambda c, s: 1)))
    made(inner, "x")
    pipe()
    assert seen[0] is not places[0]
    assert [torch.set_rng_state, torch.random.set_rng_state, np.random.set_state, random.setstate] == places


def test_a_look_at_the_end_of_a_run_does_not_keep_a_loop_from_being_cached() -> None:
    pipe = cached(loop=Steps.from_blocks_dict({"double": Double}))
    peeked: list[int] = []
    pipe(x=1, callbacks=lambda event: peeked.append(event.peek("x")))
    assert peeked == [2, 4, 8]
    assert outcomes(pipe, x=1) == [("hit", "")]


def test_a_block_that_fails_is_not_cached() -> None:
    fails = [True, False]

    def work(components: Any, state: Any) -> None:
        if fails.pop():
            state.set("x", 1)
            raise ZeroDivisionError

    fails.reverse()
    pipe = cached(work=leaf(work))
    with pytest.raises(ZeroDivisionError):
        pipe(x=0)
    assert pipe(x=0).x == 0


def test_a_loop_that_its_watcher_stopped_is_not_cached() -> None:
    pipe = cached(loop=loop())
    run = pipe.stream(x=0, steps=3)
    for _ in run:
        run.stop_loop()
    assert run.result().x == 1
    assert next(iter(run.cache_report())).reason == "a loop was ended before its end"
    assert pipe(x=0, steps=3).x == 3


def test_the_least_recently_used_result_goes_first() -> None:
    pipe = cached(work=leaf(puts("y", lambda c, s: torch.full((100,), float(s.get("x"))))))
    cache = pipe.cache(max_bytes=1500)
    found = [outcomes(pipe, x=x)[0][0] for x in (1, 2, 1, 3, 1, 2)]
    assert found == ["stored", "stored", "hit", "stored", "hit", "stored"]
    assert 0 < cache.bytes <= 1500
    cache.clear()
    assert cache.bytes == len(cache) == 0


def test_off_it_reports_nothing_and_says_so() -> None:
    pipe = pipeline(work=leaf(lambda c, s: None))
    run = pipe.start(x=1)
    run.result()
    assert len(run.cache_report()) == 0
    assert str(run.cache_report()) == "the cache is off: `pipe.cache()` turns it on"


@pytest.mark.parametrize("wrong", ["1GB", -1, True, 1.5])
def test_a_bound_that_is_no_number_of_bytes(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="`max_bytes` of a cache is"):
        cached(work=leaf(lambda c, s: None)).cache(max_bytes=wrong)
