"""Models wait on the CPU for their calls, and no run moves one that another uses."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.modular_pipelines import components_manager
from hypothesis import given
from hypothesis import strategies as st

from loopwright import ComponentsManager, ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.batching import batched
from loopwright.components import turns
from loopwright.components.offload import AutoOffloadStrategy, is_offloaded
from loopwright.diffusion import embedded_pipeline
from loopwright.errors import InvalidInputError, RunCancelledError, RunStateError, RunTimeoutError
from loopwright.run import Run
from loopwright.run.exclusive import needs_exclusive
from tests.components.simulated import DEVICE, Simulated, hook, linear, until_waiting
from tests.run.blocks import PATIENCE, Steps, Turnstile, in_threads, join_run_threads, pipeline

SIZE = 8 * 8 * 4  # bytes of one of the models
ROOM = SIZE + 1  # what a strategy takes for enough is a little more
NAMES = ("first", "second", "third")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    yield
    join_run_threads()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    """A device with room for two of the models."""
    return Simulated(monkeypatch, 2 * ROOM)


class Call(ModularPipelineBlocks):
    """Calls a model: `x` becomes what it returns, and keeps its size."""

    inputs = [InputParam("x", required=True), InputParam("meet")]
    intermediate_outputs = [OutputParam("x")]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec(self.name, torch.nn.Linear)]

    def __call__(self, components: Any, state: Any, **_: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x = torch.tanh(getattr(components, self.name)(block_state.x))
        self.set_block_state(state, block_state)
        return components, state


def calling(manager: ComponentsManager, *names: str, **models: Any) -> Any:
    """A pipeline that calls the first model, then all of them in each of three iterations, and then the last."""
    names = names or NAMES
    loop = Steps.from_blocks_dict({name: Call(name) for name in names})
    blocks = {"before": Call(names[0]), "loop": loop, "after": Call(names[-1])}
    made = pipeline(**blocks).blocks.init_pipeline(components_manager=manager)
    made.update_components(**models)
    made.set_progress_bar_config(disable=True)
    return made


def models_of(device: Simulated, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {name: device.put(linear(seed), name) for seed, name in enumerate(names)}


def starts(count: int) -> list[torch.Tensor]:
    return [torch.randn(2, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


def offloading(**options: Any) -> ComponentsManager:
    manager = ComponentsManager()
    manager.enable_auto_cpu_offload(DEVICE, **{"memory_reserve_margin": 0, **options})
    return manager


@pytest.mark.parametrize("budget", [1, 2])
def test_runs_share_models_that_do_not_fit_together(
    device: Simulated, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    device.budget = budget * ROOM
    alone = calling(ComponentsManager(), **{name: linear(seed) for seed, name in enumerate(NAMES)})
    expected = [alone(x=x, output="x") for x in starts(4)]
    pipe = calling(offloading(), **models_of(device))
    runs = [pipe.start(x=x, output="x") for x in starts(4)]
    assert all(torch.equal(run.result(), value) for run, value in zip(runs, expected, strict=True))
    assert device.faults == []
    assert device.most <= device.budget
    assert device.calls == {"first": 16, "second": 12, "third": 16}
    # one model goes for each that comes, but for the last that stay
    assert {name for name, _ in device.moves} == set(NAMES)
    assert len(device.taken) == budget


def test_plain_calls_in_threads_count_as_uses(device: Simulated) -> None:
    device.budget = ROOM
    manager, models = offloading(), models_of(device)
    for name, model in models.items():
        manager.add(name, model)
    expected = {name: linear(seed)(starts(1)[0]) for seed, name in enumerate(NAMES)}

    def call(name: str) -> bool:
        return all(torch.equal(models[name](starts(1)[0]), expected[name]) for _ in range(20))

    assert all(in_threads(*[lambda name=name: call(name) for name in NAMES * 2]))
    assert device.faults == []
    assert device.most <= device.budget


def two(device: Simulated, manager: ComponentsManager) -> tuple[Any, Any]:
    """Two pipelines with a model each, that do not fit together on the device."""
    device.budget = ROOM
    models = models_of(device, NAMES[:2])
    first, second = (calling(manager, name, **{name: model}) for name, model in models.items())
    return first, second


def test_a_call_waits_while_all_that_is_there_is_in_use(device: Simulated) -> None:
    first, second = two(device, offloading())
    [x] = starts(1)
    expected = [pipe(x=x, output="x") for pipe in (first, second, first)]
    device.moves.clear()
    device.during["first"] = turnstile = Turnstile()
    holding = first.start(x=x, output="x")
    turnstile.wait()
    waiting, cancelled = second.start(x=x, output="x"), second.start(x=x, output="x")
    cancelled.cancel()
    with pytest.raises(RunCancelledError):
        cancelled.result()
    with pytest.raises(RunTimeoutError):
        second(x=x, timeout=0.01)
    assert device.moves == []
    assert waiting.status == "running"
    turnstile.let_go(100)
    assert [torch.equal(run.result(), value) for run, value in zip((holding, waiting), expected, strict=False)] == [
        True,
        True,
    ]
    assert device.faults == []


def test_runs_that_are_cancelled_leave_nothing_behind(device: Simulated) -> None:
    device.budget = ROOM
    pipe = calling(offloading(), **models_of(device))
    [x] = starts(1)
    expected = pipe(x=x, output="x")
    runs = [pipe.start(x=x, output="x") for _ in range(9)]
    for run in runs[::3]:
        run.cancel()
    for event in runs[1]:
        if event.index == 1:
            runs[1].cancel()
    for number, run in enumerate(runs):
        if number % 3 and number != 1:
            assert torch.equal(run.result(), expected)
    join_run_threads()
    assert not turns._waits
    assert not turns._passed
    assert device.faults == []
    assert device.most <= device.budget


def test_a_call_that_fails_is_no_use_any_more(device: Simulated) -> None:
    first, second = two(device, offloading())
    [x] = starts(1)

    def fail() -> None:
        raise ZeroDivisionError

    device.during["first"] = fail
    with pytest.raises(ZeroDivisionError):
        first(x=x)
    second(x=x)
    assert list(device.taken) == ["second"]


def test_a_move_that_fails_leaves_the_model_whole(device: Simulated) -> None:
    manager, model = offloading(), models_of(device)["first"]
    component_id = manager.add("first", model)
    device.full = True
    with pytest.raises(torch.OutOfMemoryError) as failed:
        model(starts(1)[0])
    assert failed.value.__notes__ == [f"while model `{component_id}` was brought to cpu:0"]
    assert model.device == torch.device("cpu")
    device.full = False
    model(starts(1)[0])
    assert device.faults == []


class Nested(torch.nn.Linear):
    """A model that calls another, which is not a part of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return vars(self)["other"][0](super().forward(x))


def test_calls_that_wait_for_each_other_go_on(device: Simulated) -> None:
    """Each of two models is in use, and calls another for which there is no room while the two are."""
    models = models_of(device)
    outer = []
    for name, inner in (("left", "first"), ("right", "second")):
        made = Nested(8, 8, bias=False).requires_grad_(False)
        vars(made)["other"] = [models[inner]]
        outer.append(device.put(made, name))
    manager = offloading()
    for name, model in [*models.items(), *zip(("left", "right"), outer, strict=True)]:
        manager.add(name, model)
    [x] = starts(1)
    expected = [model(x) for model in outer]
    manager.disable_auto_cpu_offload()
    manager.enable_auto_cpu_offload(DEVICE, memory_reserve_margin=0)
    together = threading.Barrier(2)
    device.during = dict.fromkeys(("left", "right"), lambda: together.wait(PATIENCE))
    made = in_threads(*[lambda model=model: model(x) for model in outer])
    assert all(map(torch.equal, made, expected))
    assert device.faults == []
    # more than there is for a moment, as with one run alone that needs two models at once
    assert device.most == 3 * SIZE


class CallsPart(Call):
    """Fires the hook of a model by hand, and calls a part of it twice, as diffusers' blocks for MiniMax do."""

    def __call__(self, components: Any, state: Any, **_: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        model = getattr(components, self.name)
        model._hf_hook.pre_forward(model)
        for _ in range(2):
            assert model.device == DEVICE
            block_state.x = model[0](block_state.x)
            block_state.meet()
        self.set_block_state(state, block_state)
        return components, state


def test_a_model_whose_parts_are_called_stays_until_the_block_ends(device: Simulated) -> None:
    device.budget = ROOM
    manager, turnstile = offloading(), Turnstile()
    model = device.put(torch.nn.Sequential(linear(0)), "first")
    second = calling(manager, "second", second=models_of(device)["second"])
    parts = pipeline(part=CallsPart("first")).blocks.init_pipeline(components_manager=manager)
    parts._component_specs["first"].type_hint = torch.nn.Sequential
    parts.update_components(first=model)
    [x] = starts(1)
    run = parts.start(x=x, meet=turnstile)
    turnstile.wait()
    waiting = second.start(x=x, output="x")
    turnstile.let_go()
    turnstile.wait()
    assert device.moves == [("first", "cpu:0")]
    turnstile.let_go()
    run.result()
    waiting.result()
    assert device.moves == [("first", "cpu:0"), ("first", "cpu"), ("second", "cpu:0")]


@pytest.mark.parametrize("method", ["decode", "encode"])
def test_encoding_and_decoding_are_calls(device: Simulated, method: str) -> None:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8).requires_grad_(False)
    manager, turnstile = offloading(), Turnstile()
    size = sum(weight.nbytes for weight in vae.parameters())
    device.budget = size + 1
    values = torch.randn(1, *{"decode": (4, 8, 8), "encode": (3, 8, 8)}[method])
    expected = getattr(vae, method)(values, return_dict=False)[0]
    manager.add("vae", device.put(vae, "vae", (method,)))
    second = calling(manager, "second", second=models_of(device)["second"])
    device.during["vae"] = turnstile
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(getattr(vae, method)(values, return_dict=False)))
    thread.start()
    turnstile.wait()
    waiting = second.start(x=starts(1)[0])
    waiting.cancel()
    with pytest.raises(RunCancelledError):
        waiting.result()
    turnstile.let_go()
    thread.join(PATIENCE)
    made = results[0] if method == "decode" else results[0].mode()
    assert torch.equal(made, expected if method == "decode" else expected.mode())
    assert device.moves == [("vae", "cpu:0")]
    assert device.faults == []


def test_a_strategy_of_ones_own_is_asked_until_what_it_names_is_free(device: Simulated) -> None:
    asked: list[tuple[list[str], str]] = []

    def first_comes_first(hooks: Any, model_id: str, model: Any, execution_device: torch.device) -> list[Any]:
        assert execution_device == DEVICE
        hooks = list(hooks)
        asked.append(([hook.model_id.partition("_")[0] for hook in hooks], model_id.partition("_")[0]))
        return hooks

    manager = offloading(offload_strategy=first_comes_first)
    first, second = two(device, manager)
    [x] = starts(1)
    device.during["first"] = turnstile = Turnstile()
    holding = first.start(x=x)
    turnstile.wait()
    waiting = second.start(x=x)
    device.during.clear()
    turnstile.let_go()
    holding.result()
    waiting.result()
    assert asked[0] == ([], "first")
    assert (["first"], "second") in asked
    assert device.faults == []


def test_a_strategy_can_be_replaced_while_models_are_offloaded(device: Simulated) -> None:
    manager = offloading()
    for name, model in models_of(device).items():
        manager.add(name, model)
    manager.set_offload_strategy(lambda hooks, **_: [])
    for name in NAMES:
        manager.get_one(name=name)(starts(1)[0])
    assert list(device.taken) == list(NAMES)
    late = device.put(linear(9), "late")
    manager.add("late", late)
    late(starts(1)[0])
    assert list(device.taken) == [*NAMES, "late"]
    manager.disable_auto_cpu_offload()
    assert device.taken == {}
    with pytest.raises(RunStateError, match="models are not offloaded"):
        manager.set_offload_strategy(AutoOffloadStrategy())


def test_models_come_and_go_while_others_are_offloaded(device: Simulated) -> None:
    manager, models = offloading(), models_of(device)
    ids = {name: manager.add(name, model) for name, model in models.items()}
    [x] = starts(1)
    before = set(vars(linear(0))) | {"forward"}
    models["first"](x), models["second"](x)
    manager.remove(ids["first"])
    assert not is_offloaded(models["first"])
    assert set(vars(models["first"])) <= before
    assert list(device.taken) == ["second"]  # the others stay where they are
    assert [hook.model_id for hook in manager.model_hooks or []] == [ids["second"], ids["third"]]
    manager.add("first", models["first"])
    assert is_offloaded(models["first"])
    models["first"](x), models["third"](x)
    assert sorted(device.taken) in (["first", "third"], ["second", "third"])
    manager.disable_auto_cpu_offload()
    assert device.taken == {}
    assert not any(map(is_offloaded, models.values()))
    assert device.faults == []


@contextmanager
def offloading_ends_in_a_call(device: Simulated) -> Iterator[tuple[Any, torch.Tensor, Run]]:
    """Offloading is told to end while a run is in a call of the first model, and waits for the end of that.

    Gives the pipeline, its input and the run; the call goes on, and offloading ends, when the context does.
    """
    manager = offloading()
    pipe, _ = two(device, manager)
    [x] = starts(1)
    device.during["first"] = turnstile = Turnstile()
    run = pipe.start(x=x, output="x")
    turnstile.wait()
    ending = threading.Thread(target=manager.disable_auto_cpu_offload)
    ending.start()
    until_waiting(1)
    yield pipe, x, run
    device.during.clear()
    turnstile.let_go()
    ending.join(PATIENCE)
    assert not ending.is_alive()


def test_a_model_leaves_only_when_no_run_uses_it(device: Simulated) -> None:
    with offloading_ends_in_a_call(device) as (_, _, run):
        pass
    run.result()
    # called on the CPU after that, where it is at home
    assert all("was called on cpu" in fault for fault in device.faults)
    assert device.taken == {}


def test_a_call_that_waits_while_offloading_ends_goes_on(device: Simulated) -> None:
    with offloading_ends_in_a_call(device) as (pipe, x, holding):
        waiting = pipe.start(x=x, output="x")
        until_waiting(2)
    assert torch.equal(waiting.result(), holding.result())
    assert not is_offloaded(pipe.first)


def test_a_model_that_a_block_changes_is_not_moved_meanwhile(device: Simulated) -> None:
    """Nobody calls it at that moment; but the block has it alone."""
    manager, turnstile = offloading(), Turnstile()
    model = models_of(device)["first"]
    model.peft_config = {"default": "an adapter"}

    class Changes(Call):
        def __call__(self, components: Any, state: Any, **_: Any) -> tuple[Any, Any]:
            super().__call__(components, state)
            turnstile()
            return super().__call__(components, state)

    pipe = pipeline(change=Changes("first")).blocks.init_pipeline(components_manager=manager)
    pipe.update_components(first=model)
    run = pipe.start(x=starts(1)[0])
    turnstile.wait()
    ending = threading.Thread(target=manager.disable_auto_cpu_offload)
    ending.start()
    until_waiting(1)
    assert device.moves == [("first", "cpu:0")]
    turnstile.let_go()
    run.result()
    ending.join(PATIENCE)
    assert device.moves == [("first", "cpu:0"), ("first", "cpu")]
    assert device.faults == []


class Holds(torch.nn.Module):
    """A model that has another as a part, and calls it."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.own, self.part = linear(5), part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.part(self.own(x))
        return made


@pytest.mark.parametrize("names", [("part", "whole"), ("whole", "part")])
def test_a_model_whose_part_is_in_use_is_not_moved(device: Simulated, names: tuple[str, ...]) -> None:
    part = device.put(linear(0), "part")
    models = {"part": part, "whole": device.put(Holds(part), "whole"), "second": device.put(linear(1), "second")}
    manager = offloading()
    for name in (*names, "second"):
        manager.add(name, models[name])
    assert all(map(is_offloaded, models.values()))
    [x] = starts(1)
    models["whole"](x)
    device.budget = 0
    device.moves.clear()
    device.during["part"] = turnstile = Turnstile()
    calling = threading.Thread(target=lambda: part(x))
    calling.start()
    turnstile.wait()
    coming = threading.Thread(target=lambda: models["second"](x))
    coming.start()
    until_waiting(1)
    assert device.moves == []
    turnstile.let_go()
    calling.join(PATIENCE)
    coming.join(PATIENCE)
    assert list(device.taken) == ["second"]
    assert device.faults == []


def test_a_model_of_two_managers_is_offloaded_as_long_as_by_one(device: Simulated) -> None:
    model, [x] = models_of(device)["first"], starts(1)
    one, other = offloading(), offloading()
    for manager in (one, other):
        manager.add("first", model)
    for ending, staying in ((one, other), (other, one)):
        ending.disable_auto_cpu_offload()
        assert is_offloaded(model)
        model(x)
        assert list(device.taken) == ["first"]
        staying.disable_auto_cpu_offload()
        assert not is_offloaded(model)
        assert device.taken == {}
        for manager in (one, other):
            manager.enable_auto_cpu_offload(DEVICE, memory_reserve_margin=0)
    assert device.faults == []


def test_a_model_that_accelerate_offloads_is_taken_over(device: Simulated) -> None:
    manager = ComponentsManager()
    model, [x] = torch.nn.Sequential(linear(0), linear(1)), starts(1)
    expected = model(x)
    accelerate.cpu_offload(model, torch.device("cpu"))
    assert next(model.parameters()).is_meta
    manager.add("first", model)
    manager.enable_auto_cpu_offload(DEVICE, memory_reserve_margin=0)
    assert not next(model.parameters()).is_meta
    assert torch.equal(model(x), expected)


class Immovable(torch.nn.Linear):
    """As some quantized models are."""

    def to(self, *_: Any, **__: Any) -> Any:
        raise ValueError("`.to` is not supported for this model")


def test_a_model_that_cannot_be_moved_is_named_and_nothing_is_offloaded(device: Simulated) -> None:
    manager, models = ComponentsManager(), {**models_of(device), "fixed": Immovable(1, 1)}
    ids = [manager.add(name, model) for name, model in models.items()]
    before = set(vars(linear(0))) | {"forward"}
    with pytest.raises(ValueError, match=r"`\.to` is not supported") as raised:
        manager.enable_auto_cpu_offload(DEVICE)
    assert raised.value.__notes__ == [f"while model `{ids[-1]}` was moved to the CPU, to be offloaded"]
    assert manager.model_hooks is None
    assert all(set(vars(model)) <= before for model in models.values())
    manager.remove(ids[-1])
    manager.enable_auto_cpu_offload(DEVICE)
    with pytest.raises(ValueError, match="not supported"):
        manager.add("fixed", models["fixed"], "some")
    assert list(manager.components) == ids[:-1]
    assert manager.get_ids(collection="some") == []


def test_a_strategy_that_returns_nothing_is_named(device: Simulated) -> None:
    manager = offloading(offload_strategy=lambda hooks, **_: None)
    manager.add("first", models_of(device)["first"])
    with pytest.raises(InvalidInputError) as raised:
        manager.get_one(name="first")(starts(1)[0])
    assert str(raised.value) == (
        "the offload strategy returned None; it must return the hooks of the models that have to go, of those that it "
        "was given"
    )


def test_a_manager_that_nobody_holds_keeps_no_model(device: Simulated) -> None:
    manager = offloading()
    models = models_of(device)
    for name, model in models.items():
        manager.add(name, model)
        model(starts(1)[0])
    known = [weakref.ref(model) for model in models.values()]
    del manager, models, model
    gc.collect()
    assert [model() for model in known] == [None] * 3


def test_results_that_a_cache_keeps_are_found_wherever_the_models_wait(device: Simulated) -> None:
    device.budget = ROOM
    pipe = calling(offloading(), **models_of(device))
    pipe.cache()
    [x] = starts(1)
    first = pipe(x=x, output="x")
    counted = device.calls.copy()
    assert torch.equal(pipe(x=x, output="x"), first)
    assert device.calls == counted
    assert device.faults == []


def test_a_model_under_two_names_has_one_hook(device: Simulated) -> None:
    manager, model = ComponentsManager(), models_of(device)["first"]
    ids = [manager.add(name, model) for name in ("text_encoder", "prompt_reader")]
    manager.enable_auto_cpu_offload(DEVICE)
    assert [hook.model_id for hook in manager.model_hooks or []] == ids[:1]
    manager.remove(ids[0])
    assert is_offloaded(model)
    manager.remove(ids[1])
    assert not is_offloaded(model)
    assert manager.model_hooks == []


def test_a_copy_of_an_offloaded_model_is_a_model_of_its_own(device: Simulated) -> None:
    manager, models = offloading(), models_of(device)
    for name, model in models.items():
        manager.add(name, model)
    copied = copy.deepcopy(models["first"])
    assert copied._hf_hook.other_hooks is manager.model_hooks
    copied.weight.zero_()
    assert copied(starts(1)[0]).abs().sum() == 0
    assert models["first"](starts(1)[0]).abs().sum() > 0


INPUTS = {"prompt": "red apple", "num_inference_steps": 2, "output": "images", "output_type": "np"}


@pytest.fixture
def pictures(device: Simulated) -> Any:
    """The embedded model on a device with room for its largest component, and a picture that it makes elsewhere."""
    embedded = embedded_pipeline(workflow="text2image")
    embedded.set_progress_bar_config(disable=True)
    expected = embedded(**INPUTS, generator=torch.Generator().manual_seed(1))
    models = {
        name: device.put(component, name, ("forward", "decode") if name == "vae" else ("forward",))
        for name, component in embedded.components.items()
        if isinstance(component, torch.nn.Module)
    }
    device.budget = max(sum(weight.nbytes for weight in model.parameters()) for model in models.values()) + 1
    pipe = embedded.blocks.init_pipeline(components_manager=offloading())
    pipe.set_progress_bar_config(disable=True)
    pipe.update_components(**embedded.components)
    return pipe, expected


def test_a_pipeline_runs_where_its_models_are_brought(device: Simulated, pictures: Any) -> None:
    pipe, expected = pictures
    assert pipe._execution_device == DEVICE
    runs = [pipe.start(**INPUTS, generator=torch.Generator().manual_seed(1)) for _ in range(3)]
    assert all(np.array_equal(run.result(), expected) for run in runs)
    assert device.faults == []
    assert device.most <= device.budget


def test_calls_of_an_offloaded_model_are_merged_where_it_is_brought(device: Simulated, pictures: Any) -> None:
    pipe, expected = pictures
    with batched(pipe, max_batch=3) as batch:
        runs = [batch.start(**INPUTS, generator=torch.Generator().manual_seed(1)) for _ in range(3)]
        assert all(np.allclose(run.result(), expected, atol=1e-4) for run in runs)
    assert device.faults == []
    assert device.most <= device.budget


@pytest.mark.parametrize("sizes", [{"a": 5, "b": 3, "c": 2}, {"a": 4, "b": 4, "c": 1}])
def test_idle_models_make_room_first(device: Simulated, sizes: dict[str, int]) -> None:
    strategy = AutoOffloadStrategy(memory_reserve_margin=0)
    device.budget = 0
    used = [hook(name, size, is_used=name == "c") for name, size in sizes.items()]
    chosen = strategy(used, "new", hook("new", 1).model, DEVICE)
    assert [found.model_id for found in chosen] == ["b" if sizes["b"] == 3 else "a"]
    chosen = strategy(used, "new", hook("new", sum(sizes.values())).model, DEVICE)
    assert {found.model_id for found in chosen} == set(sizes)


@given(
    sizes=st.lists(st.integers(1, 30), max_size=6),
    needs=st.integers(0, 100),
    free=st.integers(0, 60),
    margin=st.integers(0, 9),
)
def test_room_is_made_as_in_diffusers(sizes: list[int], needs: int, free: int, margin: int) -> None:
    hooks = [hook(str(number), size) for number, size in enumerate(sizes)]
    place = torch.device("cuda:0")
    with mock.patch.object(torch.cuda, "mem_get_info", return_value=(free, 100)):
        ours, theirs = (
            strategy(memory_reserve_margin=margin)(hooks, "new", hook("new", needs).model, place)
            for strategy in (AutoOffloadStrategy, components_manager.AutoOffloadStrategy)
        )
    assert sorted(found.model_id for found in ours) == sorted(found.model_id for found in theirs)


def test_a_pipeline_with_offloaded_models_is_not_moved(device: Simulated) -> None:
    pipe = calling(offloading(), **models_of(device))
    with pytest.raises(RunStateError) as raised:
        pipe.to("cpu")
    assert str(raised.value) == (
        "`first` is offloaded, so it moves to its device when it is called: leave it to that, or call "
        "`disable_auto_cpu_offload()` of the `ComponentsManager` before"
    )
    pipe.to(torch.float64)
    assert pipe.first.weight.dtype == torch.float64


def test_a_model_that_is_offloaded_in_groups_places_itself(device: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    device.budget = ROOM
    models = models_of(device, NAMES[:2])
    apply_group_offloading(models["first"], onload_device=torch.device("cpu"), offload_type="leaf_level")
    manager = ComponentsManager()
    for name, model in models.items():
        manager.add(name, model)
    with pytest.warns(UserWarning, match="one that is offloaded in groups takes less of the device"):
        manager.enable_auto_cpu_offload(DEVICE, memory_reserve_margin=0)
    [x] = starts(1)
    models["second"](x)
    assert torch.equal(models["first"](x), linear(0)(x))
    # it made room, and was not moved itself
    assert device.moves == [("second", "cpu:0"), ("second", "cpu")]
    assert device.faults == ["first was called on cpu"]


def test_models_that_are_offloaded_by_a_manager_of_diffusers_are_called_one_at_a_time(device: Simulated) -> None:
    """Its hooks move what others use: two runs that call its models at the same time would disturb each other."""
    device.budget = ROOM
    models = models_of(device)
    alone = calling(ComponentsManager(), **{name: linear(seed) for seed, name in enumerate(NAMES)})
    expected = [alone(x=x, output="x") for x in starts(4)]
    theirs = components_manager.ComponentsManager()
    for name, model in models.items():
        theirs.add(name, model)
    theirs.enable_auto_cpu_offload(DEVICE, memory_reserve_margin=0)
    pipe = calling(ComponentsManager(), **models)
    assert pipe._needs_exclusive()
    device.during["first"] = turnstile = Turnstile()
    runs = [pipe.start(x=starts(1)[0], output="x")]
    turnstile.wait()
    another = calling(ComponentsManager(), "second", second=models["second"]).start(x=starts(1)[0])
    until_waiting(1)
    runs += [pipe.start(x=x, output="x") for x in starts(4)[1:]]
    turnstile.let_go(100)
    another.result()
    assert all(torch.equal(run.result(), value) for run, value in zip(runs, expected, strict=True))
    assert device.faults == []
    assert device.most <= device.budget


def test_a_block_that_has_such_a_model_alone_does_not_wait_for_a_call_that_waits_for_it(device: Simulated) -> None:
    models, turnstile = models_of(device, NAMES[:2]), Turnstile()
    theirs = components_manager.ComponentsManager()
    for name, model in models.items():
        theirs.add(name, model)
    theirs.enable_auto_cpu_offload(DEVICE, memory_reserve_margin=0)
    models["first"].peft_config = {"default": "an adapter"}

    class Waits(Call):
        def __call__(self, components: Any, state: Any, **_: Any) -> tuple[Any, Any]:
            turnstile()
            return super().__call__(components, state)

    pipe = pipeline(use=Waits("first")).blocks.init_pipeline()
    pipe.update_components(first=models["first"])
    [x] = starts(1)
    run = pipe.start(x=x)
    turnstile.wait()
    calls_it = Nested(8, 8, bias=False).requires_grad_(False)
    vars(calls_it)["other"] = [models["first"]]
    # of another run: its call waits until the block ends
    other = calling(ComponentsManager(), "outer", outer=calls_it).start(x=x)
    until_waiting(1)
    turnstile.let_go()
    run.result(PATIENCE)
    other.result(PATIENCE)
    assert device.faults == []


def test_a_model_whose_parts_are_brought_in_its_call_is_called_by_one_run_at_a_time(
    device: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopwright.components.guarded._has_accelerator", lambda: True)
    models = models_of(device)
    pipe = calling(ComponentsManager(), **models)
    assert not pipe._needs_exclusive()
    apply_group_offloading(models["first"], onload_device=torch.device("cpu"), offload_type="leaf_level")
    hooked = accelerate.cpu_offload(torch.nn.Sequential(linear(1)), torch.device("cpu"))
    assert needs_exclusive([models["first"]])
    assert needs_exclusive([hooked])
    assert not needs_exclusive([accelerate.dispatch_model(linear(1), {"": "cpu"}, force_hooks=True)])
    assert pipe._needs_exclusive()
    device.during["first"] = turnstile = Turnstile()
    runs = [pipe.start(x=x) for x in starts(3)]
    turnstile.wait()
    turnstile.let_go(100)
    for run in runs:
        run.result()
    assert device.together["first"] == 1


def test_a_device_that_does_not_tell_its_memory_is_refused_at_once() -> None:
    with pytest.raises(InvalidInputError, match="models cannot be offloaded from cpu, as torch does not tell"):
        ComponentsManager().enable_auto_cpu_offload("cpu")
