"""The description as a Mermaid flowchart.

Mermaid itself is not here to read it. Instead there is a reader of the few kinds of statements that are written, which
knows no others, so that nothing else is written by mistake.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from textwrap import dedent, indent
from typing import Any

import pytest
from hypothesis import given

import loopwright.modular_pipelines
from loopwright import AutoPipelineBlocks, InputParam, SequentialPipelineBlocks, describe
from tests.blocks.trees import Composite, blocks_of, build, composites
from tests.describe.samples import (
    HOSTILE,
    Add,
    Auto,
    Choose,
    Count,
    KeepEach,
    Load,
    hostile,
    loop,
    loop_in_loop,
    sequence,
)

BLOCKS = blocks_of(loopwright.modular_pipelines)

BEGIN = """\
%%{init: {"flowchart": {"wrappingWidth": 500, "rankSpacing": 28}}}%%
flowchart TB
"""
STYLES = """\
    classDef in fill:none,stroke:#2f81f7,stroke-width:2px
    classDef out fill:none,stroke:#2da44e,stroke-width:2px
    classDef sequence fill:none,stroke:#8b949e
    classDef choice fill:none,stroke:#bf8700,stroke-width:2px
    classDef loop fill:none,stroke:#8957e5,stroke-width:3px
"""


def assert_described(blocks: Any, statements: str, boxes: str = "") -> None:
    expected = BEGIN + indent(dedent(statements).lstrip(), "    ") + STYLES + indent(dedent(boxes).lstrip(), "    ")
    assert describe(blocks, format="mermaid") == expected.rstrip()


def test_a_sequence_is_a_chain_from_the_inputs_to_the_outputs() -> None:
    assert_described(
        sequence(),
        """
        inputs(["inputs<br/>path<br/>optional step"]):::in
        b0["load · Load<br/>reads path<br/>writes x<br/>uses reader, strict"]
        b1["add · Add<br/>reads x<br/>may read step<br/>writes x"]
        b0 --> b1
        outputs(["outputs<br/>x"]):::out
        inputs --> b0
        b1 --> outputs
        """,
    )


def test_a_sequence_in_a_sequence_is_a_box() -> None:
    assert_described(
        SequentialPipelineBlocks.from_blocks_dict({"inner": sequence()}),
        """
        inputs(["inputs<br/>path<br/>optional step"]):::in
        subgraph b0[" "]
            b0_head(["inner · SequentialPipelineBlocks"]):::sequence
            b0_0["load · Load<br/>reads path<br/>writes x<br/>uses reader, strict"]
            b0_1["add · Add<br/>reads x<br/>may read step<br/>writes x"]
            b0_0 --> b0_1
            b0_head --> b0_0
        end
        outputs(["outputs<br/>x"]):::out
        inputs --> b0_head
        b0_1 --> outputs
        """,
        """
        class b0 sequence
        """,
    )


def test_a_loop_is_a_cycle_with_what_it_carries_on_the_way_back() -> None:
    assert_described(
        loop(),
        """
        inputs(["inputs<br/>x<br/>optional n, step, **extra"]):::in
        subgraph b0[" "]
            b0_head{{"Count<br/>↻ each i<br/>may read n"}}:::loop
            b0_0["add · Add<br/>reads x<br/>may read step<br/>writes x"]
            b0_1["keep · Keep<br/>takes i<br/>reads x<br/>may read **extra<br/>writes kept"]
            b0_0 --> b0_1
            b0_head --> b0_0
            b0_1 -. "x" .-> b0_head
        end
        outputs(["outputs<br/>x, kept"]):::out
        inputs --> b0_head
        b0_1 --> outputs
        """,
        """
        class b0 loop
        """,
    )


def test_a_loop_in_a_loop_is_a_cycle_in_a_cycle() -> None:
    assert_described(
        loop_in_loop(),
        """
        inputs(["inputs<br/>path, rows<br/>optional n, step, **extra"]):::in
        b0["load · Load<br/>reads path<br/>writes x<br/>uses reader, strict"]
        subgraph b1[" "]
            b1_head{{"rows · Rows<br/>↻ each j<br/>reads rows<br/>writes table"}}:::loop
            subgraph b1_0[" "]
                b1_0_head{{"count · Count<br/>↻ each i<br/>may read n"}}:::loop
                b1_0_0["add · Add<br/>reads x<br/>may read step<br/>writes x"]
                b1_0_head --> b1_0_0
                b1_0_0 -. "x" .-> b1_0_head
            end
            b1_1["keep · Keep<br/>takes j<br/>reads x<br/>may read **extra<br/>writes kept"]
            b1_0_0 --> b1_1
            b1_head --> b1_0_head
            b1_1 -. "x" .-> b1_head
        end
        b0 --> b1_head
        outputs(["outputs<br/>x, kept, table"]):::out
        inputs --> b0
        b1_1 --> outputs
        """,
        """
        class b1 loop
        class b1_0 loop
        """,
    )


def test_an_empty_loop_has_no_blocks() -> None:
    assert_described(
        Count,
        """
        inputs(["inputs<br/>optional n"]):::in
        subgraph b0[" "]
            b0_head{{"Count<br/>↻ each i<br/>may read n"}}:::loop
            b0_none["no blocks"]
            b0_head --> b0_none
            b0_none -. "next" .-> b0_head
        end
        outputs(["outputs"]):::out
        inputs --> b0_head
        b0_none --> outputs
        """,
        """
        class b0 loop
        """,
    )


def test_the_ways_of_a_conditional_part_and_meet() -> None:
    assert_described(
        Choose,
        """
        inputs(["inputs<br/>optional path, x, step"]):::in
        subgraph b0[" "]
            b0_head{"Choose<br/>by path"}:::choice
            b0_0["load · Load<br/>reads path<br/>writes x<br/>uses reader, strict"]
            b0_head -- "if chosen" --> b0_0
            b0_0 --> b0_end
            b0_1["add · Add<br/>reads x<br/>may read step<br/>writes x"]
            b0_head -- "by default" --> b0_1
            b0_1 --> b0_end
            b0_end(( ))
        end
        outputs(["outputs<br/>x"]):::out
        inputs --> b0_head
        b0_end --> outputs
        """,
        """
        class b0 choice
        """,
    )


def test_an_auto_block_says_when_each_block_runs() -> None:
    assert_described(
        Auto,
        """
        inputs(["inputs<br/>optional path, x, step"]):::in
        subgraph b0[" "]
            b0_head{"Auto<br/>by path, step"}:::choice
            b0_0["load · Load<br/>reads path<br/>writes x<br/>uses reader, strict"]
            b0_head -- "if path is given" --> b0_0
            b0_0 --> b0_end
            b0_1["add · Add<br/>reads x<br/>may read step<br/>writes x"]
            b0_head -- "else if step is given" --> b0_1
            b0_1 --> b0_end
            b0_head -- "otherwise nothing runs" --> b0_end
            b0_end(( ))
        end
        outputs(["outputs<br/>x"]):::out
        inputs --> b0_head
        b0_end --> outputs
        """,
        """
        class b0 choice
        """,
    )


def test_a_leaf_is_one_node() -> None:
    assert_described(
        KeepEach,
        """
        inputs(["inputs<br/>x<br/>optional **extra"]):::in
        b0["KeepEach<br/>takes i<br/>reads x<br/>may read **extra<br/>writes kept"]
        outputs(["outputs<br/>kept"]):::out
        inputs --> b0
        b0 --> outputs
        """,
    )


def test_long_labels_have_several_lines() -> None:
    class Many(Add):
        inputs = [InputParam(f"number_{k}", required=True) for k in range(8)]

    lines = [
        "Many",
        "reads number_0, number_1, number_2, number_3, number_4,",
        "number_5, number_6, number_7",
        "writes x",
    ]
    assert f'b0["{"<br/>".join(lines)}"]' in describe(Many, format="mermaid")


# What is read back


@dataclass
class Chart:
    """What the statements say: the labels of the nodes, the edges with their labels, and the nodes of each box."""

    nodes: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    boxes: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)


LABEL = r'"([^"]*)"'
NODE = re.compile(rf"(\w+)(?:\[{LABEL}\]|\(\[{LABEL}\]\)|\{{{LABEL}\}}|\{{\{{{LABEL}\}}\}}|\(\(( )\)\))(?::::(\w+))?")
EDGE = re.compile(rf"(\w+) (?:-->|-- {LABEL} -->|-\. {LABEL} \.->) (\w+)")


def text_of(label: str) -> str:
    """What a reader sees of a label: it holds no markup but line breaks, and codes of single characters."""
    lines = label.split("<br/>")
    assert not any(set(line) & set('<>&"`{}$:;%\\') - set(";") for line in lines), label
    return " ".join(re.sub(r"#(\d+);", lambda code: chr(int(code[1])), line) for line in lines).replace("\u200b", "")


def read(chart: str) -> Chart:
    directive, kind, *lines = chart.split("\n")
    assert directive.startswith("%%{init: {")
    assert kind == "flowchart TB"
    found, open_boxes, styles = Chart(), [], set()
    for line in lines:
        statement = line.strip()
        if statement == "end":
            open_boxes.pop()
        elif box := re.fullmatch(r'subgraph (\w+)\[" "\]', statement):
            assert box[1] not in found.boxes
            found.boxes[box[1]] = []
            open_boxes.append(box[1])
        elif style := re.fullmatch(r"classDef (\w+) [\w:#,-]+", statement):
            styles.add(style[1])
        elif given_class := re.fullmatch(r"class (\w+) (\w+)", statement):
            assert given_class[1] in found.boxes
            found.classes[given_class[1]] = given_class[2]
        elif edge := EDGE.fullmatch(statement):
            found.edges.append((edge[1], edge[4], text_of(edge[2] or edge[3] or "")))
        else:
            node = NODE.fullmatch(statement)
            assert node is not None, statement
            assert node[1] not in found.nodes
            found.nodes[node[1]] = text_of(next(filter(None, node.groups()[1:6])))
            if open_boxes:
                found.boxes[open_boxes[-1]].append(node[1])
            if node[7]:
                found.classes[node[1]] = node[7]
    assert open_boxes == []
    assert set(found.classes.values()) <= styles
    assert {end for edge in found.edges for end in edge[:2]} <= set(found.nodes)
    return found


def test_names_that_mean_something_to_mermaid_or_html_are_shown_as_they_are() -> None:
    chart = read(describe(hostile(), format="mermaid"))
    assert chart.nodes["b0"] == (f"{HOSTILE} · Hostile may read {HOSTILE} writes {HOSTILE} uses {HOSTILE}, {HOSTILE}")
    assert chart.nodes["b1_head"] == "subgraph · Rows ↻ each j reads rows writes table"
    assert chart.nodes["b1_1_head"] == "end · Auto by path, step"
    assert chart.nodes["b2_head"] == "class x · Choose by path"
    assert ("b1_1_end", "b1_head", f"{HOSTILE}, x") in chart.edges


@pytest.mark.parametrize(
    "name", ["$$x$$", "fa:fa-car", "%% note", "a\nb", "#35;", "<br/>", "&lt;", "x]", 'x"]', "--> y"]
)
def test_a_name_is_neither_markup_nor_a_statement(name: str) -> None:
    written = describe(SequentialPipelineBlocks.from_blocks_dict({name: Add, "next": Load}), format="mermaid")
    assert read(written).nodes["b0"].startswith(f"{' '.join(name.split())} · Add ")
    assert "$$" not in written
    assert "fa:fa-" not in html.unescape(re.sub(r"#(\d+);", r"&#\1;", written))


def test_blocks_with_names_that_read_the_same_are_told_apart() -> None:
    inner = SequentialPipelineBlocks.from_blocks_dict({"b": Add})
    chart = read(
        describe(SequentialPipelineBlocks.from_blocks_dict({"a.b": Load, "a": inner, "a ": inner}), format="mermaid")
    )
    assert [label.split(" · ")[0] for label in chart.nodes.values()] == [
        "inputs path optional step",
        "a.b",
        "a",
        "b",
        "a",
        "b",
        "outputs x",
    ]


def test_a_choice_in_a_loop_leads_back_from_where_the_ways_meet() -> None:
    class Either(AutoPipelineBlocks):
        block_classes = [Add, Add]
        block_names = ["first", "second"]
        block_trigger_inputs = ["step", None]

    chart = read(describe(Count.from_blocks_dict({"either": Either}), format="mermaid"))
    assert ("b0_0_end", "b0_head", "x") in chart.edges


@given(composites(depth=3))
def test_the_chart_of_any_tree_leads_from_the_inputs_through_every_block_to_the_outputs(tree: Composite) -> None:
    blocks = build(tree, BLOCKS)
    chart = read(describe(blocks, format="mermaid"))
    for path, block in loopwright.blocks.walk(blocks):
        head = f"{path.rpartition('.')[2]} · {type(block).__name__}" if path else type(block).__name__
        assert not path or any(label.startswith(head) for label in chart.nodes.values())
    assert reached("inputs", [(first, last) for first, last, _ in chart.edges]) == set(chart.nodes)
    assert reached("outputs", [(last, first) for first, last, _ in chart.edges]) == set(chart.nodes)
    # each loop is closed by an edge to its head
    loops = [name for name, kind in chart.classes.items() if kind == "loop" and name in chart.boxes]
    assert all(any(last == f"{name}_head" and label for _, last, label in chart.edges) for name in loops)


def reached(start: str, edges: list[tuple[str, str]]) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        new = {last for first, last in edges if first == node} - found
        found |= new
        waiting.extend(new)
    return found
