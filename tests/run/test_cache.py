"""The cache gives what the blocks would have given, and runs them where it cannot."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st

from loopwright import Checkpoint, ComponentSpec, InputParam, ModularPipelineBlocks, OutputParam
from loopwright.errors import InvalidInputError
from loopwright.run.cache import CacheReport
from tests.blocks.arithmetic import AddOne, Repeat
from tests.run.blocks import in_threads, pipeline


class Counted(ModularPipelineBlocks):
    """A leaf that counts how often it runs, outside of itself."""

    inputs = [InputParam("x"), InputParam("y", default=0)]
    intermediate_outputs = [OutputParam("x")]
    runs: list[Any] = []

    def work(self, state: Any, x: Any) -> Any:
        return x + 1

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        self.runs.append(type(self).__name__)
        block_state = self.get_block_state(state)
        block_state.x = self.work(state, block_state.x)
        self.set_block_state(state, block_state)
        return components, state


@pytest.fixture(autouse=True)
def no_runs() -> None:
    Counted.runs.clear()


def cached(work: Callable[..., Any] | None = None, **blocks: Any) -> Any:
    """A pipeline with a cache; of one counted leaf that does `work(state, x)`, if no blocks are given."""

    class Leaf(Counted):
        def work(self, state: Any, x: Any) -> Any:
            return x + 1 if work is None else work(state, x)

    pipe = pipeline(**(blocks or {"leaf": Leaf}))
    pipe.cache()
    return pipe


def outcomes(pipe: Any, **inputs: Any) -> list[tuple[str, str]]:
    run = pipe.start(**inputs)
    run.result()
    return [(row.outcome, row.reason) for row in run.cache_report()]


# The embedded model


@pytest.fixture
def model(embedded: Any) -> Any:
    pipe = copy.copy(embedded)
    pipe.cache()
    return pipe


@pytest.fixture
def calls(embedded: Any) -> Any:
    """How often the text encoder and the transformer were called."""
    counts = {"text_encoder": 0, "transformer": 0}

    def count(name: str) -> Any:
        return getattr(embedded, name).register_forward_pre_hook(lambda *_: counts.__setitem__(name, counts[name] + 1))

    handles = [count(name) for name in counts]
    yield counts
    for handle in handles:
        handle.remove()


def images(pipe: Any, seed: int = 1, **inputs: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    given = {"prompt": "red apple", "num_inference_steps": 3, "output_type": "pt", "generator": generator, **inputs}
    found: torch.Tensor = pipe(**given, output="images")
    return found


def test_another_seed_does_not_encode_the_prompt_again(embedded: Any, model: Any, calls: Any) -> None:
    expected = [images(embedded, seed) for seed in (1, 2)]
    first, calls["text_encoder"] = images(model, 1), 0
    second = images(model, 2)
    assert calls["text_encoder"] == 0
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])
    assert not torch.equal(first, second)


def test_another_decoder_does_not_run_the_loop_again(embedded: Any, model: Any, calls: Any) -> None:
    torch.manual_seed(0)
    other = AutoencoderKL.from_config(embedded.vae.config).eval()
    changed = copy.copy(embedded)
    changed.update_components(vae=other)
    expected = images(changed)
    images(model)
    model.update_components(vae=other)
    calls.update(text_encoder=0, transformer=0)
    assert torch.equal(images(model), expected)
    assert calls == {"text_encoder": 0, "transformer": 0}


def test_the_scheduler_of_the_run_is_as_if_the_loop_had_run(embedded: Any, model: Any) -> None:
    def run(pipe: Any) -> Any:
        run = pipe.start(
            prompt="red apple", num_inference_steps=3, generator=torch.Generator().manual_seed(1), progress=False
        )
        run.result()
        return run.components.scheduler

    plain, first, second = run(embedded), run(model), run(model)
    for scheduler in (first, second):
        assert scheduler.step_index == plain.step_index
        assert torch.equal(scheduler.timesteps, plain.timesteps)


# What is kept


def test_the_same_call_is_a_hit_and_another_input_is_not() -> None:
    pipe = cached()
    assert pipe(x=1, output="x") == pipe(x=1, output="x") == 2
    assert pipe(x=2, output="x") == 3
    assert pipe(x=True, output="x") == 2
    assert len(Counted.runs) == 3


def test_without_a_cache_every_call_runs_and_the_report_is_empty() -> None:
    pipe = cached()
    pipe.cache(max_bytes=0)
    run = pipe.start(x=1)
    run.result()
    assert run.cache_report() == CacheReport() == []
    pipe(x=1)
    assert len(Counted.runs) == 2


def test_the_report_says_what_happened() -> None:
    pipe = cached(first=Counted, loop=Repeat.from_blocks_dict({"add": AddOne}))
    assert outcomes(pipe, x=1) == [("stored", ""), ("stored", "")]
    run = pipe.start(x=1)
    run.result()
    assert [row.outcome for row in run.cache_report()] == ["hit", "hit"]
    assert [line.split()[0] for line in str(run.cache_report()).splitlines()] == ["first", "loop"]


def test_a_loop_from_the_cache_has_no_events() -> None:
    pipe = cached(loop=Repeat.from_blocks_dict({"add": AddOne}))
    events = [len(list(pipe.stream(x=1))) for _ in range(2)]
    assert events[0] > 0
    assert events[1] == 0


def test_a_value_that_is_read_undeclared_counts() -> None:
    pipe = cached(lambda state, x: x + (state.get("y") or 0) + len(state.values))
    assert pipe(x=1, y=5, output="x") == 1 + 5 + 2
    assert pipe(x=1, y=6, output="x") == 1 + 6 + 2


def test_content_counts_and_not_identity() -> None:
    pipe = cached()
    tensors = [torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([1.0], dtype=torch.float64)]
    results = [pipe(x=tensor, output="x") for tensor in tensors]
    assert [result.item() for result in results] == [2, 2, 3, 2]
    assert results[3].dtype == torch.float64
    assert len(Counted.runs) == 3


def test_the_modes_of_the_caller_count() -> None:
    pipe = cached(lambda state, x: torch.get_default_dtype())
    assert pipe(x=0, output="x") == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert pipe(x=0, output="x") == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_a_caller_writes_into_a_result_does_not_reach_the_cache() -> None:
    pipe = cached(lambda state, x: [x])
    for _ in range(3):
        result = pipe(x=1, output="x")
        assert result == [1]
        result.append(2)


def test_a_component_that_is_replaced_or_changed_counts() -> None:
    class Uses(Counted):
        expected_components = [ComponentSpec("model", torch.nn.Linear)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            block_state.x = components.model(torch.ones(1, 1)).item()
            self.set_block_state(state, block_state)
            return components, state

    pipe = cached(uses=Uses)
    model = torch.nn.Linear(1, 1)
    pipe.update_components(model=model)
    results = [pipe(x=0, output="x")]
    with torch.no_grad():
        model.weight.add_(1)
    results.append(pipe(x=0, output="x"))
    pipe.update_components(model=torch.nn.Linear(1, 1))
    results.append(pipe(x=0, output="x"))
    assert len(set(results)) == 3
    assert outcomes(pipe, x=0) == [("hit", "")]


# What is not kept


def test_an_error_is_never_kept() -> None:
    fails = [True, False]

    def work(state: Any, x: Any) -> Any:
        if fails.pop(0):
            raise ZeroDivisionError
        return x + 1

    pipe = cached(work)
    with pytest.raises(ZeroDivisionError):
        pipe(x=1)
    assert pipe(x=1, output="x") == 2


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda state, x: torch.rand(1), "it drew random numbers"),
        (lambda state, x: random.random(), "it drew random numbers"),
        (lambda state, x: state.get("y").append(1), "it changed its input `y`"),
        (lambda state, x: [state.get("y")], "its output `x` shares memory with a value that was there before"),
    ],
)
def test_what_does_more_than_set_values_is_not_kept(work: Any, reason: str) -> None:
    pipe = cached(work)
    for _ in range(2):
        assert outcomes(pipe, x=1, y=[0]) == [("not cached", reason)]


def test_a_generator_that_is_drawn_from_is_not_kept() -> None:
    pipe = cached(lambda state, x: torch.rand(1, generator=state.get("y")))
    drawn = [pipe(x=0, y=torch.Generator().manual_seed(1), output="x") for _ in range(2)]
    assert torch.equal(*drawn)
    assert outcomes(pipe, x=0, y=torch.Generator()) == [("not cached", "it drew random numbers from `y`")]


def test_a_block_that_changes_itself_is_not_kept() -> None:
    class Counts(Counted):
        count = 0

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            self.count = self.count + 1
            state.set("x", self.count)
            return components, state

    pipe = cached(counts=Counts)
    assert [pipe(x=0, output="x") for _ in range(3)] == [1, 2, 3]


def test_an_attribute_that_a_block_sets_on_the_pipeline_is_there_each_time() -> None:
    class Sets(Counted):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            components._scale = 3
            return components, state

    pipe = cached(sets=Sets)
    assert outcomes(pipe, x=0) == [("not cached", "it set the attribute `_scale` of the pipeline")]


def test_a_value_that_cannot_be_compared_is_named() -> None:
    pipe = cached(lambda state, x: 1)
    (outcome,) = outcomes(pipe, x=iter([1]))
    assert outcome[0] == "not cached"
    assert "list_iterator" in outcome[1]


def test_a_loop_that_was_stopped_is_not_kept() -> None:
    pipe = cached(loop=Repeat.from_blocks_dict({"add": AddOne}))
    run = pipe.stream(x=0)
    for _ in run:
        run.stop_loop()
    stopped = run.result().x
    whole = pipe(x=0, output="x")
    assert stopped < whole
    assert outcomes(pipe, x=0) == [("hit", "")]


def test_an_output_that_is_another_value_by_name_stays_that_value() -> None:
    class Alias(Counted):
        intermediate_outputs = [OutputParam("same")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("same", state.get("y"))
            return components, state

    pipe = cached(alias=Alias)
    for outcome in ("stored", "hit"):
        run = pipe.start(x=0, y=[1])
        state = run.result()
        assert run.cache_report()[0].outcome == outcome
        assert state.same is state.y


# Its bounds


def test_the_least_recently_used_gives_way() -> None:
    pipe = cached(lambda state, x: torch.full((100,), float(x)))
    cache = pipe.cache(max_bytes=1000)
    for x in (1, 2, 1, 3):
        pipe(x=x)
    assert cache.bytes <= 1000
    Counted.runs.clear()
    pipe(x=1)
    assert Counted.runs == []
    pipe(x=2)
    assert len(Counted.runs) == 1
    cache.clear()
    assert cache.bytes == 0


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    pipe = cached(lambda state, x: torch.zeros(100))
    pipe.cache(max_bytes=100)
    assert outcomes(pipe, x=0) == [("not cached", "its outputs are larger than the 100 bytes of the cache")]


def test_a_bound_must_be_a_number_of_bytes() -> None:
    for wrong in ("1GB", -1, True):
        with pytest.raises(InvalidInputError, match="`max_bytes` is"):
            cached().cache(max_bytes=wrong)


# With all else


def test_a_run_that_is_saved_resumes_to_the_same_end(tmp_path: Any) -> None:
    pipe = cached(first=Counted, loop=Repeat.from_blocks_dict({"add": AddOne}), last=Counted)
    expected = pipe(x=1, output="x")
    pipe.cache(max_bytes=0)
    pipe.cache()
    run = pipe.stream(x=1, checkpoint=Checkpoint(tmp_path / "run"))
    next(iter(run))
    run.cancel()
    assert pipe.resume(tmp_path / "run", output="x").result() == expected


def test_threads_share_a_cache() -> None:
    pipe = cached(first=Counted, loop=Repeat.from_blocks_dict({"add": AddOne}))
    expected = [pipe(x=x, output="x") for x in range(4)]
    assert in_threads(*[lambda x=x: pipe(x=x % 4, output="x") for x in range(16)]) == [
        expected[x % 4] for x in range(16)
    ]


WORKS: list[Callable[[Any, dict[str, Any]], None]] = [
    lambda state, own: state.set("x", state.get("x") + 1),
    lambda state, own: state.set("x", state.get("x") * 2 + len(state.get("log"))),
    lambda state, own: state.get("log").append(state.get("x")),
    lambda state, own: state.set("log", [*state.get("log"), 1]),
    lambda state, own: state.set("x", state.get("x") + int(torch.randint(9, (1,), generator=state.get("generator")))),
    lambda state, own: state.set("x", state.get("x") + sum(state.get("log"))),
    lambda state, own: state.set("y", state.get("log")),
    lambda state, own: state.get("y") is not None and state.get("y").append(7),
    lambda state, own: state.set("x", own["amount"] + state.get("x")),
]


class Work(ModularPipelineBlocks):
    inputs = [InputParam("x"), InputParam("log"), InputParam("generator"), InputParam("y")]

    def __init__(self, number: int, amount: int) -> None:
        super().__init__()
        self.number, self.amount = number, amount

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        WORKS[self.number](state, {"amount": self.amount})
        return components, state


works = st.builds(Work, st.integers(0, len(WORKS) - 1), st.integers(0, 2))


class Twice(Repeat):
    loop_inputs = [*Work.inputs, InputParam("steps", default=2)]


@given(st.data())
def test_a_pipeline_with_a_cache_gives_what_it_gives_without(data: Any) -> None:
    def made(blocks: list[Any]) -> dict[str, Any]:
        return {f"block_{n}": Twice.from_blocks_dict({"inner": b}) if n % 3 == 2 else b for n, b in enumerate(blocks)}

    blocks = data.draw(st.lists(works, min_size=1, max_size=5))
    plain, pipe = pipeline(**made(blocks)), cached(**made(blocks))
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            name, block = data.draw(st.sampled_from(list(plain._blocks.sub_blocks))), data.draw(works)
            for edited in (plain, pipe):
                edited._blocks.sub_blocks[name] = copy.deepcopy(block)
        x, log, seed = data.draw(st.integers(0, 1)), data.draw(st.sampled_from([[], [1]])), data.draw(st.integers(0, 1))

        def call(pipe: Any, x: int = x, log: list[int] = log, seed: int = seed) -> Any:
            state = pipe(x=x, log=list(log), generator=torch.Generator().manual_seed(seed))
            values = state.values
            return values["x"], values["log"], values.get("y"), values["generator"].get_state().tolist()

        assert call(pipe) == call(plain)
