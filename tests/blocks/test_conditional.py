"""`ConditionalPipelineBlocks` and `AutoPipelineBlocks`: which block runs, and what the choice declares."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import diffusers.modular_pipelines
import pytest

import loopwright.modular_pipelines
from loopwright import AutoPipelineBlocks, ConditionalPipelineBlocks, SequentialPipelineBlocks
from loopwright.errors import DefinitionError
from tests.blocks.arithmetic import Add, AddOne, Copy, Double, DoubleIfAsked, DoubleOrAddOne, Repeat

BOTH = pytest.mark.parametrize(
    "library", [loopwright.modular_pipelines, diffusers.modular_pipelines], ids=["loopwright", "diffusers"]
)


class ByCount(ConditionalPipelineBlocks):
    """Nothing without `a` and `b`, one block for one of them, another for both."""

    block_classes = [Add(1), Add(10)]
    block_names = ["one", "two"]
    block_trigger_inputs = ["a", "b"]

    def select_block(self, **given: Any) -> str | None:
        count = sum(value is not None for value in given.values())
        return [None, "one", "two"][count]


class ByCountOrDefault(ByCount):
    default_block_name = "two"


class Nested(AutoPipelineBlocks):
    block_classes = [ByCount, SequentialPipelineBlocks.from_blocks_dict({"by_count": ByCount, "add": Add(100)})]
    block_names = ["conditional", "sequence"]
    block_trigger_inputs = ["c", None]


def ran(blocks: Any, **given: Any) -> int:
    """What the blocks make of 0, also inside a loop of one iteration."""
    state = loopwright.PipelineState({"x": 0, **given})
    blocks(None, state)
    loop = Repeat.from_blocks_dict({"choice": blocks})
    in_loop = loopwright.PipelineState({"x": 0, "steps": 1, **given})
    loop(None, in_loop)
    assert in_loop.x == state.x
    return int(state.x)


# The choice


@pytest.mark.parametrize(
    ("given", "x"), [({}, 0), ({"a": 1}, 1), ({"b": 1}, 1), ({"a": 1, "b": 1}, 10), ({"a": 1, "b": None}, 1)]
)
def test_select_block_is_given_the_triggers_and_names_the_block(given: dict[str, Any], x: int) -> None:
    assert ran(ByCount(), **given) == x


@pytest.mark.parametrize(("given", "x"), [({}, 10), ({"a": 1}, 1)])
def test_the_default_block_runs_where_none_is_selected(given: dict[str, Any], x: int) -> None:
    assert ran(ByCountOrDefault(), **given) == x


@pytest.mark.parametrize("value", [0, False, "", []])
def test_a_trigger_is_given_unless_it_is_none(value: Any) -> None:
    assert ran(ByCount(), a=value) == 1
    assert ran(ByCount(), a=None) == 0


def test_the_first_block_whose_trigger_is_given_runs() -> None:
    class First(AutoPipelineBlocks):
        block_classes = [Add(1), Add(10), Add(100)]
        block_names = ["mask", "image", "text"]
        block_trigger_inputs = ["mask", "image", None]

    assert [ran(First(), **given) for given in ({"mask": 1, "image": 1}, {"image": 1}, {})] == [1, 10, 100]


def test_a_trigger_may_be_what_an_earlier_block_wrote() -> None:
    pipe = SequentialPipelineBlocks.from_blocks_dict(
        {"copy": Copy("y", "twice"), "choice": DoubleOrAddOne}
    ).init_pipeline()
    assert pipe(x=5, output="x") == 6
    assert pipe(x=5, y=1, output="x") == 10


def test_a_block_that_is_skipped_leaves_the_state_as_it_is() -> None:
    state = loopwright.PipelineState({"x": 1})
    DoubleIfAsked()(None, state)
    assert state.values == {"x": 1}


def test_a_trigger_is_no_input_unless_a_block_reads_it() -> None:
    assert DoubleOrAddOne().input_names == ["x"]
    assert DoubleOrAddOne.from_blocks_dict({"double": Copy("twice", "x"), "add_one": AddOne}).input_names == [
        "twice",
        "x",
    ]


def test_a_block_that_is_put_in_the_place_of_another_is_chosen_in_its_place() -> None:
    choice = DoubleOrAddOne()
    choice.sub_blocks["double"] = Add(7)
    assert ran(choice, twice=True) == 7


def test_a_name_that_is_no_block_is_refused() -> None:
    class Wrong(ByCount):
        def select_block(self, **given: Any) -> str | None:
            return "tow"

    with pytest.raises(DefinitionError, match="did you mean `two`"):
        ran(Wrong())


# What would run


def test_the_block_that_would_run_is_looked_for_through_choices_in_choices() -> None:
    nested = Nested()
    found = nested.get_execution_blocks(c=1, a=1, b=1)
    assert found is nested.sub_blocks["conditional"].sub_blocks["two"]


def test_the_blocks_of_a_sequence_that_would_run_are_a_sequence_without_choices() -> None:
    nested = Nested()
    found: Any = nested.get_execution_blocks(a=1)
    assert list(found.sub_blocks) == ["by_count", "add"]
    assert found.sub_blocks["by_count"] is nested.sub_blocks["sequence"].sub_blocks["by_count"].sub_blocks["one"]


def test_nothing_would_run_where_the_choice_falls_on_no_block() -> None:
    assert Nested().get_execution_blocks(c=1) is None


def test_the_loop_that_would_run_stays_whole() -> None:
    loop = Repeat.from_blocks_dict({"choice": DoubleOrAddOne})
    choice = DoubleOrAddOne.from_blocks_dict({"double": loop, "add_one": AddOne})
    assert choice.get_execution_blocks(twice=True) is loop


# What a choice declares


def defaults(library: ModuleType, *branches: tuple[Any, bool], default: bool = True) -> Any:
    """An auto block whose branches read `x` with a default, or require it."""

    def branch(value: Any, required: bool) -> Any:
        class Branch(library.ModularPipelineBlocks):  # type: ignore[misc, name-defined]
            @property
            def inputs(self) -> list[Any]:
                return [library.InputParam("x", default=value, required=required)]

            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                block_state = self.get_block_state(state)
                self.set_block_state(state, block_state)
                return components, state

        return Branch

    names = [f"branch{k}" for k in range(len(branches))]
    return type(
        "Choice",
        (library.AutoPipelineBlocks,),
        {
            "block_classes": [value if isinstance(value, type) else branch(value, req) for value, req in branches],
            "block_names": names,
            "block_trigger_inputs": [*(f"t{k}" for k in range(1, len(branches))), None if default else "t"],
        },
    )


def declared(blocks: Any) -> list[tuple[str, Any, bool, Any]]:
    return [(param.name, param.default, param.required, param.defaults_by_block) for param in blocks.inputs]


@BOTH
def test_one_default_of_all_branches_is_the_default(library: ModuleType) -> None:
    assert declared(defaults(library, (3, False), (3, False))()) == [("x", 3, False, None)]


@BOTH
def test_different_defaults_are_listed_by_branch(library: ModuleType) -> None:
    by_block = {"branch0": 3, "branch1": 4}
    assert declared(defaults(library, (3, False), (4, False))()) == [("x", None, False, by_block)]


@BOTH
def test_different_defaults_of_a_choice_in_a_choice_are_listed_by_path(library: ModuleType) -> None:
    inner = defaults(library, (3, False), (4, False))
    by_block = {"branch0": 5, "branch1.branch0": 3, "branch1.branch1": 4}
    assert declared(defaults(library, (5, False), (inner, False))()) == [("x", None, False, by_block)]


@BOTH
@pytest.mark.parametrize(("given", "x"), [({"t1": 1}, 3), ({}, 4), ({"t1": 1, "x": None}, 3), ({"x": 9}, 9)])
def test_of_different_defaults_that_of_the_branch_that_runs_counts(
    library: ModuleType, given: dict[str, Any], x: int
) -> None:
    choice = defaults(library, (3, False), (4, False))()
    blocks = library.SequentialPipelineBlocks.from_blocks_dict({"trigger": reads("t1", library), "choice": choice})
    assert blocks.init_pipeline()(**given, output="x") == x


def reads(name: str, library: ModuleType) -> Any:
    class Reads(library.ModularPipelineBlocks):  # type: ignore[misc, name-defined]
        @property
        def inputs(self) -> list[Any]:
            return [library.InputParam(name)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            return components, state

    return Reads()


@BOTH
def test_an_input_is_required_if_all_branches_require_it(library: ModuleType) -> None:
    assert defaults(library, (None, True), (None, True))().required_inputs == ["x"]
    assert defaults(library, (None, True), (None, False))().required_inputs == []


@BOTH
def test_nothing_is_required_of_a_choice_that_may_fall_on_no_branch(library: ModuleType) -> None:
    assert defaults(library, (None, True), (None, True), default=False)().required_inputs == []


def test_only_the_branch_that_runs_misses_its_input() -> None:
    choice = DoubleOrAddOne.from_blocks_dict({"double": Copy("y", "x"), "add_one": Double})
    blocks = SequentialPipelineBlocks.from_blocks_dict({"trigger": reads("twice", loopwright), "choice": choice})
    pipe = blocks.init_pipeline()
    assert pipe(twice=True, output="x") is None
    with pytest.raises(ValueError, match=r"required input `x`, which block `choice\.add_one` needs"):
        pipe()
