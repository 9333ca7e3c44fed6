"""Random trees of blocks do what a naive interpreter says they mean, and what diffusers does where it has them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import diffusers.modular_pipelines
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopwright.blocks
import loopwright.modular_pipelines
from loopwright import ModularPipeline, PipelineState
from loopwright.errors import MissingInputError
from tests.blocks import interpreter
from tests.blocks.trees import (
    MODULUS,
    NAMES,
    Auto,
    Choice,
    Composite,
    Leaf,
    Loop,
    Node,
    Read,
    blocks_of,
    build,
    composites,
    integers,
    leaves,
    nodes,
    walk,
)

OURS = blocks_of(loopwright.modular_pipelines)
THEIRS = blocks_of(diffusers.modular_pipelines)


def inputs_for(names: list[str]) -> st.SearchStrategy[dict[str, int | None]]:
    """Values for some of these inputs."""
    values = st.none() | st.integers(0, MODULUS - 1)
    return st.dictionaries(st.sampled_from(names), values) if names else st.just({})


def interpreted(tree: Node, given_inputs: dict[str, Any]) -> Any:
    try:
        return interpreter.call(tree, given_inputs)
    except interpreter.Missing:
        return "missing input"


def called(pipe: Any, given_inputs: dict[str, Any]) -> Any:
    try:
        return pipe(**given_inputs).values
    except MissingInputError:
        return "missing input"


def declared(tree: Any) -> dict[str, Any]:
    """What a tree says about itself."""
    return {
        "inputs": [(p.name, p.default, p.required, p.defaults_by_block) for p in tree.inputs],
        "required_inputs": tree.required_inputs,
        "intermediate_outputs": [(p.name, p.kwargs_type) for p in tree.intermediate_outputs],
        "expected_components": [spec.name for spec in tree.expected_components],
    }


def ran(tree: Any, values: dict[str, Any]) -> Any:
    """What a tree makes of values; an error by its type and text."""
    state = PipelineState(dict(values))
    try:
        tree(None, state)
    except Exception as error:
        return type(error), str(error)
    return state.values


@given(composites(), st.data())
def test_a_random_tree_computes_what_the_interpreter_computes(tree: Composite, data: st.DataObject) -> None:
    pipe = ModularPipeline(blocks=build(tree, OURS))
    for _ in range(2):  # the second call runs on what the first one remembered
        given_inputs = data.draw(inputs_for([param.name for param in interpreter.inputs_of(tree)]))
        assert called(pipe, given_inputs) == interpreted(tree, given_inputs)


@given(composites())
def test_a_random_tree_declares_what_follows_from_its_leaves(tree: Composite) -> None:
    blocks = build(tree, OURS)
    expected = interpreter.inputs_of(tree)
    assert [(p.name, p.default) for p in blocks.inputs] == [(p.name, p.default) for p in expected]
    assert set(blocks.required_inputs) == interpreter.required_of(tree)
    assert blocks.intermediate_output_names == interpreter.outputs_of(tree)
    assert blocks.component_names == interpreter.components_of(tree)


# The peer


@pytest.fixture
def quiet_diffusers() -> Iterator[None]:
    """diffusers logs each failing block once per level."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def has_a_branch_that_repeats_an_input(tree: Any) -> bool:
    """Whether a branch of a conditional, of diffusers, lists an input twice."""
    return any(
        len(branch.input_names) > len(set(branch.input_names))
        for _, block in loopwright.blocks.walk(tree)
        if isinstance(block, diffusers.modular_pipelines.ConditionalPipelineBlocks)
        for branch in block.sub_blocks.values()
    )


@pytest.mark.usefixtures("quiet_diffusers")
@given(composites("sequence", 3, peer=True), st.data())
def test_a_tree_that_diffusers_supports_computes_what_diffusers_computes(tree: Composite, data: st.DataObject) -> None:
    """Whatever is given, None included.

    One case is left out: in diffusers a loop lists an input twice if its wrapper and a block declare it differently. A
    conditional around that loop takes the second for a branch of its own and may find another default, so where the
    defaults of a call are not the same for that reason, the input is given.
    """
    ours, theirs = build(tree, OURS), build(tree, THEIRS)
    # there, what an earlier block writes counts as required too
    assert set(ours.required_inputs) <= set(theirs.required_inputs)
    assert ours.intermediate_output_names == theirs.intermediate_output_names
    assert ours.component_names == theirs.component_names
    # diffusers repeats an input of a loop that blocks declare differently
    assert ours.input_names == list(dict.fromkeys(theirs.input_names))

    default = {param.name: param.default for param in reversed(theirs.inputs)}
    confused = [param.name for param in ours.inputs if param.default != default[param.name]]
    assert not confused or has_a_branch_that_repeats_an_input(theirs)
    given_inputs = {**dict.fromkeys(confused, 1), **data.draw(inputs_for(ours.input_names))}
    expected: Any
    try:
        expected = theirs.init_pipeline()(**given_inputs).values
    except ValueError:
        expected = "missing input"
    assert called(ours.init_pipeline(), given_inputs) == expected


# Edits


def edit(data: st.DataObject, root: Composite, built: dict[int, Any]) -> None:
    """Change a tree and its description in the same way, somewhere."""
    node = data.draw(st.sampled_from([n for n in walk(root) if isinstance(n, Composite) or n.reads or n.writes]))
    if isinstance(node, Leaf):
        _edit_leaf(data, node, built[id(node)])
    elif isinstance(node, Choice | Auto):
        _edit_choice(data, node, built)
    else:
        _edit_sequence(data, node, built)


def _edit_leaf(data: st.DataObject, leaf: Leaf, block: Any) -> None:
    what = data.draw(st.sampled_from(["constant", "append", "writes"]))
    if what == "constant":
        leaf.constant = block.constant = data.draw(integers())
    elif what == "append":
        # in place: nothing tells the block that its list has grown
        name = data.draw(st.sampled_from(NAMES))
        if all(read.name != name for read in leaf.reads):
            read = Read(name, data.draw(integers()))
            leaf.reads.append(read)
            block.reads.append(read)
    else:
        leaf.writes = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
        block.writes = list(leaf.writes)


def _edit_choice(data: st.DataObject, node: Choice | Auto, built: dict[int, Any]) -> None:
    """Replacements only: a conditional names its blocks."""
    children = built[id(node)].sub_blocks
    name = data.draw(st.sampled_from(list(node.children)))
    new = data.draw(nodes(1, node.visible, node.inside_loop))
    block = build(new, OURS, built)
    how = data.draw(st.sampled_from(["set", "update", "or", "reassign"]))
    node.children[name] = new
    if how == "set":
        children[name] = block
    elif how == "update":
        children.update({name: block})
    elif how == "or":
        children |= {name: block}
    else:
        built[id(node)].sub_blocks = {**children, name: block}


def _edit_sequence(data: st.DataObject, node: Composite, built: dict[int, Any]) -> None:
    children, live = node.children, built[id(node)].sub_blocks
    shared = [child for child in children.values() if isinstance(child, Leaf)]
    new: Node = data.draw(
        st.one_of(nodes(1, node.visible, node.inside_loop), *([st.sampled_from(shared)] if shared else []))
    )
    block = build(new, OURS, built)
    name = data.draw(st.sampled_from([*children, "new", "newer"]))
    grow = ["insert", "set", "setdefault", "update", "or", "reassign", "clear"]
    how = data.draw(st.sampled_from([*grow, "move", "pop", "popitem", "del"] if len(children) > 1 else grow))
    if how == "insert":
        index = data.draw(st.integers(0, len(children)))
        items = [(key, child) for key, child in children.items() if key != name]
        items.insert(index, (name, new))
        children.clear()
        children.update(items)
        live.insert(name, block, index)
    elif how == "set":
        children[name] = new
        live[name] = block
    elif how == "setdefault":
        children.setdefault(name, new)
        live.setdefault(name, block)
    elif how == "update":
        children.update({name: new})
        live.update({name: block})
    elif how == "or":
        children[name] = new
        live |= {name: block}
    elif how == "reassign":
        children[name] = new
        built[id(node)].sub_blocks = {**live, name: block}
    elif how == "clear":
        children.clear()
        live.clear()
        children[name] = new
        live[name] = block
    elif how == "move":
        key = data.draw(st.sampled_from(list(children)))
        children[key] = children.pop(key)
        live.move_to_end(key)
    elif how == "popitem":
        children.popitem()
        live.popitem()
    else:
        key = data.draw(st.sampled_from(list(children)))
        del children[key]
        if how == "pop":
            live.pop(key)
        else:
            del live[key]


@given(composites(depth=3), st.data())
def test_after_edits_at_any_depth_a_tree_is_like_one_that_is_built_anew(tree: Composite, data: st.DataObject) -> None:
    built: dict[int, Any] = {}
    edited = build(tree, OURS, built)
    values = data.draw(inputs_for(list(NAMES)))
    for _ in range(data.draw(st.integers(1, 4))):
        # asked and run before the edit, so that what is remembered is there to go stale
        declared(edited)
        ran(edited, values)
        edit(data, tree, built)
        anew = build(tree, OURS)
        assert declared(edited) == declared(anew)
        assert ran(edited, values) == ran(anew, values)


@given(composites(depth=2), leaves())
def test_lists_of_declarations_belong_to_who_asked_for_them(tree: Composite, other: Leaf) -> None:
    blocks = build(tree, OURS)
    before = declared(blocks)
    for params in (blocks.inputs, blocks.intermediate_outputs, blocks.expected_components):
        params.clear()
    for param in blocks.inputs:
        param.name, param.default, param.required = "other", 99, True
    for output in blocks.intermediate_outputs:
        output.name = "other"
    assert declared(blocks) == before


# What the random trees hold together, one by one


def number(name: str, default: int | None = None) -> Read:
    return Read(name, default)


def test_a_loop_without_iterations_passes_its_inputs_through() -> None:
    loop = Loop({"body": Leaf([number("b", 1)], ["b"], 5)}, count="a")
    assert ModularPipeline(blocks=build(loop, OURS))(a=0, b=7).values == {"a": 0, "b": 7}


def test_the_nearest_loop_wins_where_two_give_a_variable_of_one_name() -> None:
    inner = Loop({"body": Leaf([], ["b"], 0, variables=("i",))}, gives=("i",), count="c", count_default=3)
    outer = Loop({"inner": inner}, gives=("i",), count="a", count_default=1)
    assert ModularPipeline(blocks=build(outer, OURS))(output="b") == 2 * 9


def test_a_block_that_names_the_variables_also_finds_them_in_the_state() -> None:
    loop = Loop({"body": Leaf([Read("i", 0)], ["b"], 0, variables=("i",))}, count="a", count_default=3)
    assert ModularPipeline(blocks=build(loop, OURS))(output="b") == 2 * 2 + 9 * 2


def test_a_loop_ends_when_the_code_after_a_yield_has_seen_enough() -> None:
    loop = Loop({"body": Leaf([number("b", 0)], ["b"], 5)}, count="a", until="b", bound=12)
    assert ModularPipeline(blocks=build(loop, OURS))(a=3, output=["b", "laps"]) == {"b": 15, "laps": 2}
