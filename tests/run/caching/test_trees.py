"""Random trees, calls, edits and components: a pipeline with a cache gives what one without it gives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

import loopwright.modular_pipelines
from loopwright import InputParam, ModularPipeline, ModularPipelineBlocks, SequentialPipelineBlocks
from loopwright.blocks import walk
from tests.blocks.trees import MODULUS, NAMES, blocks_of, build, nodes

CLASSES = blocks_of(loopwright.modular_pipelines)


class Impure(ModularPipelineBlocks):
    """Does something that a cache has to notice; reads and writes more than it declares."""

    inputs = [InputParam("log"), InputParam("generator"), InputParam("numbers")]

    def __init__(self, work: str, name: str, other: str) -> None:
        super().__init__()
        self.work, self.name, self.other = work, name, other

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        value, other = state.get(self.name) or 0, state.get(self.other) or 0
        log, numbers, generator = state.get("log"), state.get("numbers"), state.get("generator")
        match self.work:
            case "appends":
                log.append(value)
            case "writes in place":
                numbers.add_(value)
            case "writes into a part":
                numbers[1:].add_(value)
            case "makes a part":
                state.set("part", numbers[1:])
            case "writes into the part":
                if state.get("part") is not None:
                    state.get("part").fill_(value)
            case "makes two parts":
                whole = numbers + value
                state.set("numbers", whole)
                state.set("part", whole[:2])
            case "draws":
                state.set(self.name, int(torch.randint(MODULUS, (), generator=generator)))
            case "draws from the process":
                state.set(self.name, int(torch.randint(MODULUS, ())))
            case "names again":
                state.set("again", log)
            case "holds":
                state.set("again", [log, numbers])
            case "reads undeclared":
                state.set(self.name, (value + 2 * other) % MODULUS)
            case "goes through all":
                total = sum(v for v in state.to_dict()["values"].values() if isinstance(v, int))
                state.set(self.name, total % MODULUS)
            case "sums":
                state.set(self.name, (sum(log) + int(numbers.sum())) % MODULUS)
            case "takes away" if hasattr(state, "values"):
                state.values.pop("again", None)
            case "remembers":
                components._remembered = value
            case "recalls":
                state.set(self.name, getattr(components, "_remembered", 0))
            case "model undeclared":
                state.set(self.name, (value + (getattr(components, "model", None) or 0)) % MODULUS)
            case "groups":
                state.set(self.name, value, "group")
            case "group":
                state.set(self.other, sum(v or 0 for v in state.get_by_kwargs("group").values()) % MODULUS)
        return components, state


WORKS = [
    *("appends", "writes in place", "writes into a part", "makes a part", "writes into the part", "makes two parts"),
    *("draws", "draws from the process", "names again", "holds", "reads undeclared", "goes through all", "sums"),
    *("takes away", "remembers", "recalls", "model undeclared", "groups", "group"),
]


@st.composite
def blocks(draw: st.DrawFn, works: list[str], names: list[str]) -> Any:
    if works and draw(st.integers(0, 3)):
        return Impure(draw(st.sampled_from(works)), draw(st.sampled_from(names)), draw(st.sampled_from(names)))
    return build(draw(nodes(2)), CLASSES)


def called(pipe: ModularPipeline, numbers: dict[str, Any], seed: int, log: list[int]) -> Any:
    torch.manual_seed(seed)
    given_inputs = {
        **{name: value for name, value in numbers.items() if name in pipe._blocks.input_names},
        "log": list(log),
        "generator": torch.Generator().manual_seed(seed),
        "numbers": torch.arange(3) + len(log),
    }
    try:
        run = pipe.start(**given_inputs)
        state = run.result()
    except Exception as error:
        return type(error), str(error), Counter()
    # which names are one object is a part of the result
    first: dict[int, str] = {}
    same = {name: first.setdefault(id(value), name) for name, value in state.values.items() if type(value) is list}
    rows = run.cache_report()
    found = {
        name: value.get_state().tolist() if isinstance(value, torch.Generator) else repr(value)
        for name, value in state.values.items()
    }
    outcomes = Counter(row.outcome for row in rows)
    return found, (same, state.kwargs_mapping, torch.get_rng_state().tolist()), outcomes


OUTCOMES: Counter[str] = Counter()


@given(st.data())
def test_random_trees_edits_and_components(data: Any) -> None:
    # few kinds of work on few names in one example, so that they meet
    works = data.draw(st.lists(st.sampled_from(WORKS), max_size=4, unique=True))
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True))
    tree = SequentialPipelineBlocks.from_blocks_dict(
        {"first": Impure("sums", "a", "b")}
        | {f"b{n}": data.draw(blocks(works, names)) for n in range(data.draw(st.integers(1, 5)))}
    )
    inputs = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=2)

    def pipelines() -> list[ModularPipeline]:
        return [ModularPipeline(blocks=tree) for _ in range(2)]

    components = {"model": 1, "scheduler": 1}

    def fit(pipe: ModularPipeline) -> None:
        pipe.update_components(**{n: v for n, v in components.items() if n in pipe._component_specs})

    plain, pipe = pipelines()
    pipe.cache()
    for one in (plain, pipe):
        fit(one)
    for _ in range(data.draw(st.integers(2, 6))):
        what = data.draw(st.sampled_from(["call", "call", "call", "edit", "component", "bound"]))
        if what == "component":
            components[data.draw(st.sampled_from(list(components)))] = data.draw(st.integers(0, 2))
        elif what == "bound":
            pipe.cache(max_bytes=data.draw(st.sampled_from([1, 500, 2**30])))
        elif what == "edit":
            composites = [block for _, block in walk(tree) if type(block) is SequentialPipelineBlocks]
            subs = data.draw(st.sampled_from(composites)).sub_blocks
            match data.draw(st.sampled_from(["replace", "insert", "pop"])):
                case "replace" if len(subs):
                    subs[data.draw(st.sampled_from(list(subs)))] = data.draw(blocks(works, names))
                case "pop" if len(subs) > 1:
                    subs.pop(data.draw(st.sampled_from(list(subs)[1:] if subs is tree.sub_blocks else list(subs))))
                case _:
                    subs.insert(f"n{len(subs)}", data.draw(blocks(works, names)), len(subs))
            # what the pipelines know of their components follows from the blocks that they were made with
            kept = pipe._block_cache
            plain, pipe = pipelines()
            pipe._block_cache = kept
        for one in (plain, pipe):
            fit(one)
        given_inputs, seed = data.draw(inputs), data.draw(st.integers(0, 1))
        log = data.draw(st.sampled_from([[], [1]]))
        for _ in range(data.draw(st.integers(1, 2))):
            expected, got = called(plain, given_inputs, seed, log), called(pipe, given_inputs, seed, log)
            OUTCOMES.update(got[2])
            assert got[:2] == expected[:2]


def test_most_of_these_calls_meet_the_cache() -> None:
    assert all(OUTCOMES[outcome] for outcome in ("hit", "stored", "not cached")), OUTCOMES
