"""`InsertableDict` and the children of a composite: what is changed there holds from the next question and call on."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright import InsertableDict, SequentialPipelineBlocks
from loopwright.errors import BlockTypeError
from tests.blocks.arithmetic import Add, AddIndex, AddOne, Copy, Double, DoubleOrAddOne, Repeat


@pytest.fixture
def tree() -> SequentialPipelineBlocks:
    """A leaf, and a loop in which a conditional and a sequence are; asked and run before."""
    deep = SequentialPipelineBlocks.from_blocks_dict({"double": Double})
    loop = Repeat.from_blocks_dict({"choice": DoubleOrAddOne, "deep": deep})
    made = SequentialPipelineBlocks.from_blocks_dict({"add": AddOne, "loop": loop})
    assert (made.input_names, made.output_names) == (["x", "steps"], ["x"])
    assert run(made) == (1 + 1) * 2 + 2 * 1
    return made


def run(blocks: Any) -> int:
    """One iteration, from 1."""
    return int(blocks.init_pipeline()(x=1, steps=1, output="x"))


def at(blocks: Any, *path: str) -> Any:
    for name in path:
        blocks = blocks.sub_blocks[name]
    return blocks


PLACES = pytest.mark.parametrize("path", [(), ("loop",), ("loop", "deep")], ids=lambda path: ".".join(path) or "root")


@PLACES
def test_a_block_that_is_inserted_runs_and_its_declarations_count(
    tree: SequentialPipelineBlocks, path: tuple[str, ...]
) -> None:
    at(tree, *path).sub_blocks.insert("copy", Copy("y", "z"), 0)
    assert set(tree.input_names) == {"x", "steps", "y"}
    assert set(tree.output_names) == {"x", "z"}
    assert tree.init_pipeline()(x=1, y=5, output="z") == 5


@PLACES
def test_a_block_that_is_popped_runs_no_more(tree: SequentialPipelineBlocks, path: tuple[str, ...]) -> None:
    children = at(tree, *path).sub_blocks
    children["copy"] = Copy("y", "z")
    assert "y" in tree.input_names
    assert isinstance(children.pop("copy"), Copy)
    assert (tree.input_names, tree.output_names) == (["x", "steps"], ["x"])
    assert run(tree) == 6


@pytest.mark.parametrize(
    ("path", "x"),
    [(("add",), 24), (("loop", "choice", "add_one"), 24), (("loop", "deep", "double"), 13), (("loop", "deep"), 13)],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_a_block_that_is_replaced_runs_in_its_place(
    tree: SequentialPipelineBlocks, path: tuple[str, ...], x: int
) -> None:
    at(tree, *path[:-1]).sub_blocks[path[-1]] = Add(10)
    assert run(tree) == x


def test_a_block_that_takes_other_loop_variables_is_given_them() -> None:
    loop = Repeat.from_blocks_dict({"add": AddIndex})
    assert loop.init_pipeline()(x=0, output="x") == 3
    loop.sub_blocks["double"] = Double
    assert loop.init_pipeline()(x=0, output="x") == 8
    del loop.sub_blocks["add"]
    assert loop.init_pipeline()(x=1, output="x") == 8


def test_a_change_of_the_blocks_of_a_pipeline_in_place_holds_from_its_next_call_on(
    tree: SequentialPipelineBlocks,
) -> None:
    pipe = tree.init_pipeline()
    assert pipe(x=1, steps=1, output="x") == 6
    at(pipe._blocks, "loop", "deep").sub_blocks["copy"] = Copy("y", "z", default=4)
    assert pipe(x=1, steps=1, output="z") == 4
    assert run(tree) == 6


def test_one_block_in_two_places_is_changed_in_both() -> None:
    shared = Add(1)
    tree = SequentialPipelineBlocks.from_blocks_dict({"first": shared, "second": shared})
    assert tree.init_pipeline()(x=1, output="x") == 3
    shared.amount = 5
    assert tree.init_pipeline()(x=1, output="x") == 11


def test_a_class_becomes_an_instance_however_it_is_put_in() -> None:
    blocks = SequentialPipelineBlocks()
    blocks.sub_blocks = {"assigned": AddOne}  # type: ignore[assignment]
    blocks.sub_blocks["set"] = AddOne
    blocks.sub_blocks.insert("inserted", AddOne, 0)
    blocks.sub_blocks.update(updated=AddOne)
    blocks.sub_blocks.setdefault("defaulted", AddOne)
    assert list(blocks.sub_blocks) == ["inserted", "assigned", "set", "updated", "defaulted"]
    assert all(isinstance(block, AddOne) for block in blocks.sub_blocks.values())


def test_what_is_not_a_block_is_refused_and_changes_nothing(tree: SequentialPipelineBlocks) -> None:
    for wrong in (3, int, "add", None):
        with pytest.raises(BlockTypeError, match="sub-block `add`"):
            tree.sub_blocks["add"] = wrong
    assert run(tree) == 6


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 5])
def test_insert_puts_an_item_where_a_list_would(index: int) -> None:
    items: InsertableDict = InsertableDict(a=1, b=2)
    expected = ["a", "b"]
    expected.insert(index, "new")
    assert list(items.insert("new", 3, index)) == expected


def test_an_item_of_the_same_name_is_moved_when_it_is_inserted() -> None:
    items: InsertableDict = InsertableDict(a=1, b=2, c=3)
    assert items.insert("a", 4, 2) is items
    assert list(items.items()) == [("b", 2), ("c", 3), ("a", 4)]


def test_the_repr_lists_the_blocks_in_their_order() -> None:
    assert repr(InsertableDict(first=AddOne(), second=AddOne)) == (
        "InsertableDict([\n"
        "  0: ('first', <obj 'tests.blocks.arithmetic.AddOne'>),\n"
        "  1: ('second', <class 'tests.blocks.arithmetic.AddOne'>)\n"
        "])"
    )
