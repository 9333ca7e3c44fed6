"""What sequences, conditionals and loops share: how they are made, copied and called, and how errors leave them."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

from loopwright import InputParam, ModularPipelineBlocks, OutputParam, PipelineState, SequentialPipelineBlocks
from tests.blocks.arithmetic import (
    Add,
    AddIndex,
    AddOne,
    Divide,
    Double,
    DoubleOrAddOne,
    Repeat,
    RepeatByHand,
    RepeatRows,
)

EVERY_COMPOSITE = pytest.mark.parametrize(
    ("composite", "x"),
    # what becomes of 1: by the two blocks in turn, three times over, or by the second alone
    [(SequentialPipelineBlocks, 7), (Repeat, 43), (RepeatByHand, 43), (DoubleOrAddOne, 6)],
    ids=lambda value: getattr(value, "__name__", ""),
)


def nested() -> SequentialPipelineBlocks:
    """A loop in a loop in a sequence."""
    inner = Repeat.from_blocks_dict({"divide": Divide, "add": Add(-1)})
    rows = RepeatRows.from_blocks_dict({"inner": inner})
    return SequentialPipelineBlocks.from_blocks_dict({"rows": rows})


# How they are made


@EVERY_COMPOSITE
def test_it_is_made_of_classes_and_instances_mixed(composite: Any, x: int) -> None:
    made = composite.from_blocks_dict({"double": Double, "add_one": Add(5)})
    assert list(made.sub_blocks) == made.block_names == ["double", "add_one"]
    assert made.block_classes == [Double, Add]
    assert all(isinstance(block, ModularPipelineBlocks) for block in made.sub_blocks.values())
    assert made.init_pipeline()(x=1, output="x") == x


@EVERY_COMPOSITE
def test_it_is_made_with_a_description(composite: Any, x: int) -> None:
    made = composite.from_blocks_dict({"double": Double, "add_one": Add(5)}, description="as described")
    assert made.description == "as described"
    assert composite().description == ""
    assert made.init_pipeline().blocks.description == "as described"


@EVERY_COMPOSITE
def test_a_class_lists_classes_and_instances_mixed(composite: Any, x: int) -> None:
    listed = type("Listed", (composite,), {"block_names": ["double", "add_one"], "block_classes": [Double, Add(5)]})
    assert listed().init_pipeline()(x=1, output="x") == x


def test_two_composites_of_one_class_have_blocks_of_their_own() -> None:
    assert DoubleOrAddOne().sub_blocks["double"] is not DoubleOrAddOne().sub_blocks["double"]


# Copies


@EVERY_COMPOSITE
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_a_deep_copy_runs_alike_and_its_blocks_are_its_own(composite: Any, x: int, copied: Any) -> None:
    made = composite.from_blocks_dict({"double": Double, "add_one": Add(5)}, description="as described")
    made.init_pipeline()(x=1)
    other = copied(made)
    assert other.description == "as described"
    assert other.init_pipeline()(x=1, output="x") == x
    other.sub_blocks["add_one"].amount = 0
    other.sub_blocks["double"] = AddOne
    assert made.init_pipeline()(x=1, output="x") == x


def test_a_deep_copy_of_a_nested_tree_calls_its_own_blocks() -> None:
    tree = SequentialPipelineBlocks.from_blocks_dict({"loop": Repeat.from_blocks_dict({"add": Add(1)})})
    tree(None, tree.init_pipeline()(x=0))
    other = copy.deepcopy(tree)
    other.sub_blocks["loop"].sub_blocks["add"].amount = 10
    assert other.init_pipeline()(x=0, output="x") == 30
    assert tree.init_pipeline()(x=0, output="x") == 3


# Errors


def test_an_error_is_the_one_that_the_block_raised() -> None:
    raised = RuntimeError("boom")

    class Raises(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            raise raised

    tree = RepeatRows.from_blocks_dict({"inner": SequentialPipelineBlocks.from_blocks_dict({"raises": Raises})})
    with pytest.raises(RuntimeError, match="boom") as caught:
        tree.init_pipeline()()
    assert caught.value is raised
    assert raised.__cause__ is raised.__context__ is None


def test_an_error_has_one_note_of_its_path_and_of_the_iteration_of_each_loop() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        nested().init_pipeline()(x=4)
    assert caught.value.__notes__ == [
        "in block `rows.inner.divide`, iteration 1 of loop `rows.inner` (row=1, i=1), "
        "iteration 1 of loop `rows` (row=1)"
    ]


def test_an_error_tells_its_place_to_code() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        nested().init_pipeline()(x=1)
    location: Any = caught.value.loopwright  # type: ignore[attr-defined]
    assert location.path == "rows.inner.divide"
    assert location.iterations == [("rows", 0, {"row": 0}), ("rows.inner", 1, {"row": 0, "i": 1})]


def test_an_error_in_the_chosen_block_of_a_conditional_names_that_block() -> None:
    tree = SequentialPipelineBlocks.from_blocks_dict(
        {"choice": DoubleOrAddOne.from_blocks_dict({"double": Divide, "add_one": AddOne})}
    )
    with pytest.raises(ZeroDivisionError) as caught:
        tree(None, PipelineState({"x": 0, "twice": True}))
    assert caught.value.__notes__ == ["in block `choice.double`"]


def test_an_error_that_a_block_of_a_loop_handles_leaves_no_trace() -> None:
    class Handles(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("y")]

        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            try:
                Divide()(components, block_state)
            except ZeroDivisionError:
                block_state.y = None
            return components, block_state

    tree = Repeat.from_blocks_dict({"handles": Handles, "add": AddOne})
    assert tree.init_pipeline()(x=0, output=["x", "y"]) == {"x": 3, "y": 6}


def test_an_error_out_of_a_pipeline_that_a_block_calls_has_a_note_of_both_places() -> None:
    inner = SequentialPipelineBlocks.from_blocks_dict({"divide": Divide}).init_pipeline()

    class Calls(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            inner(x=0)
            return components, state

    with pytest.raises(ZeroDivisionError) as caught:
        SequentialPipelineBlocks.from_blocks_dict({"calls": Calls}).init_pipeline()()
    assert caught.value.__notes__ == ["in block `divide`", "in block `calls`"]


# Threads


def test_threads_that_call_one_tree_at_once_do_not_disturb_each_other() -> None:
    together = Barrier(2, timeout=60)

    class Meet(ModularPipelineBlocks):
        """Both threads arrive here before one goes on."""

        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            together.wait()
            return components, block_state

    inner = Repeat.from_blocks_dict({"add": AddIndex, "double": Double})
    pipe = SequentialPipelineBlocks.from_blocks_dict({"rows": RepeatRows.from_blocks_dict({"inner": inner})})
    alone = [pipe.init_pipeline()(x=x, output="x") for x in (1, 1000)]
    inner.sub_blocks.insert("meet", Meet, 1)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda x: pipe(None, PipelineState({"x": x}))[1].x, (1, 1000))) == alone


def test_a_declaration_may_depend_on_an_object_that_the_block_holds() -> None:
    class Masks(ModularPipelineBlocks):
        def __init__(self) -> None:
            super().__init__()
            self.settings = SimpleNamespace(mask=False)

        @property
        def inputs(self) -> list[InputParam]:
            return [InputParam("x"), *([InputParam("mask")] if self.settings.mask else [])]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            return components, state

    blocks = SequentialPipelineBlocks.from_blocks_dict({"masks": Masks})
    assert blocks.input_names == ["x"]
    blocks.sub_blocks["masks"].settings.mask = True
    assert blocks.input_names == ["x", "mask"]
