"""The description for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from typing import Any, Literal, Optional, Union

import numpy as np
import pytest
import torch
from hypothesis import given

import loopwright.modular_pipelines
from loopwright import (
    ComponentSpec,
    ConditionalPipelineBlocks,
    InputParam,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
    describe,
)
from tests.blocks.trees import Composite, blocks_of, build, composites
from tests.describe.samples import (
    HOSTILE,
    Add,
    Auto,
    Block,
    Choose,
    Count,
    Keep,
    KeepEach,
    Load,
    hostile,
    loop,
    loop_in_loop,
)
from tests.describe.samples import sequence as sequence_of_two

BLOCKS = blocks_of(loopwright.modular_pipelines)


def assert_described(blocks: Any, expected: str) -> None:
    assert describe(blocks) == dedent(expected).strip()


def test_a_sequence_is_a_rail_from_block_to_block() -> None:
    assert_described(
        sequence_of_two(),
        """
        SequentialPipelineBlocks
        Loads and adds.

        Inputs (required if without a default)
          path: str      Where it is.
          step: int = 1

        Blocks
          ● load  Load
          │ Loads `x`.
          │ reads   path: str
          │ writes  x: int
          │ uses    reader, strict
          │
          ● add  Add
            reads   x: int, step: int = 1
            writes  x: int

        Outputs
          x: int  A number.

        Components
          reader: dict  Reads files.
                        from a/b/reader

        Configuration
          strict = True  Whether to refuse what is odd.
        """,
    )


def test_a_loop_is_a_cycle_with_what_it_carries_on_the_way_back() -> None:
    assert_described(
        loop(),
        """
        Count
        Counts to `n`.

        Inputs (required if without a default)
          x: int
          n: int = 3
          step: int = 1
          **extra = None

        Blocks
          ↻ Count
            gives   i
            reads   n: int = 3

            ╭─►● add  Add
            │  │ reads   x: int, step: int = 1
            │  │ writes  x: int
            │  │
            │  ● keep  Keep
            │  │ takes   i
            │  │ reads   x: int, **extra = None
            │  │ writes  kept: list[int]
            ╰──╯ carries x: add → add

        Outputs
          x: int
          kept: list[int]  What was kept.
        """,
    )


def test_a_loop_in_a_loop_is_a_cycle_in_a_cycle() -> None:
    assert_described(
        loop_in_loop(),
        """
        SequentialPipelineBlocks

        Inputs (required if without a default)
          path: str       Where it is.
          rows: int
          n: int = 3
          step: int = 1
          **extra = None

        Blocks
          ● load  Load
          │ Loads `x`.
          │ reads   path: str
          │ writes  x: int
          │ uses    reader, strict
          │
          ↻ rows  Rows
            Counts to `n`.
            gives   j
            reads   rows: int
            writes  table: list

            ╭─►↻ count  Count
            │  │ Counts to `n`.
            │  │ gives   i
            │  │ reads   n: int = 3
            │  │
            │  │ ╭─►● add  Add
            │  │ │  │ reads   x: int, step: int = 1
            │  │ │  │ writes  x: int
            │  │ ╰──╯ carries x: add → add
            │  │
            │  ● keep  Keep
            │  │ takes   j
            │  │ reads   x: int, **extra = None
            │  │ writes  kept: list[int]
            ╰──╯ carries x: count → count

        Outputs
          x: int           A number.
          kept: list[int]  What was kept.
          table: list

        Components
          reader: dict  Reads files.
                        from a/b/reader

        Configuration
          strict = True  Whether to refuse what is odd.
        """,
    )


def test_a_conditional_shows_its_blocks_and_the_default() -> None:
    assert_described(
        Choose,
        """
        Choose

        Inputs (required if without a default)
          path: str = None  Where it is.
          x: int = None
          step: int = 1

        Blocks
          ◆ Choose
            chooses by path

            ├─● load  Load
            │   Loads `x`.
            │   reads   path: str
            │   writes  x: int
            │   uses    reader, strict
            │
            ╰─● add  Add  [by default]
                reads   x: int, step: int = 1
                writes  x: int

        Outputs
          x: int  A number.

        Components
          reader: dict  Reads files.
                        from a/b/reader

        Configuration
          strict = True  Whether to refuse what is odd.
        """,
    )


def test_an_auto_block_says_when_each_block_runs() -> None:
    described = describe(Auto)
    assert "● load  Load  [if path is given]" in described
    assert "● add  Add  [else if step is given]" in described
    assert "╰─ nothing runs  [otherwise]" in described


def test_the_default_of_an_auto_block_runs_otherwise() -> None:
    class WithDefault(Auto):
        block_trigger_inputs = ["path", None]

    described = describe(WithDefault)
    assert "● add  Add  [otherwise]" in described
    assert "nothing runs" not in described


def test_an_auto_block_with_a_choice_of_its_own_claims_no_conditions() -> None:
    class Own(Auto):
        def select_block(self, **kwargs: Any) -> str | None:
            return "add"

    assert "is given" not in describe(Own)


def test_an_empty_loop_has_no_blocks() -> None:
    assert_described(
        Count,
        """
        Count
        Counts to `n`.

        Inputs (required if without a default)
          n: int = 3

        Blocks
          ↻ Count
            gives   i
            reads   n: int = 3

            ╭─► no blocks
            ╰──╯ next iteration
        """,
    )


def test_a_leaf_shows_the_loop_variables_that_it_takes() -> None:
    assert_described(
        KeepEach,
        """
        KeepEach

        Inputs (required if without a default)
          x: int
          **extra = None

        Blocks
          ● KeepEach
            takes   i
            reads   x: int, **extra = None
            writes  kept: list[int]

        Outputs
          kept: list[int]  What was kept.
        """,
    )


def test_values_between_blocks_are_listed_once_and_apart_from_the_outputs() -> None:
    class OnlyKept(SequentialPipelineBlocks):
        block_classes = [Load, Add, Keep]
        block_names = ["load", "add", "keep"]

        @property
        def outputs(self) -> list[OutputParam]:
            return [OutputParam("kept")]

    described = describe(OnlyKept)
    assert "\nOutputs\n  kept\n" in described
    assert "\nValues that blocks write for each other\n  x: int  A number.\n" in described


def test_workflows_say_what_selects_them() -> None:
    class Two(SequentialPipelineBlocks):
        block_classes = [Choose]
        block_names = ["choose"]
        _workflow_map = {"load": {"path": True}, "either": ({"path": True}, {"x": True, "step": True}), "plain": {}}

    assert describe(Two).endswith(
        "\n\nWorkflows\n  load    selected by path\n  either  selected by path or x, step\n  plain"
    )


def test_defaults_that_differ_between_branches_are_all_shown() -> None:
    class Other(Block):
        inputs = [InputParam("step", int, default=2)]

    class Branches(ConditionalPipelineBlocks):
        block_classes = [Add, Other]
        block_names = ["add", "other"]
        block_trigger_inputs = ["x"]

        def select_block(self, x: Any) -> str | None:
            return "add"

    assert "  step: int = 1 or 2\n" in describe(Branches)


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (int, "int"),
        (int | None, "int | None"),
        (Optional[list[int]], "list[int] | None"),  # noqa: UP045
        (Union[str, torch.Tensor], "str | Tensor"),  # noqa: UP007
        (dict[str, list[torch.Tensor]], "dict[str, list[Tensor]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 2], "Literal['a', 2]"),
        (Callable[[int, str], bool], "Callable[[int, str], bool]"),
        ("Later", "Later"),
    ],
)
def test_a_type_is_written_as_one_writes_it(hint: Any, shown: str) -> None:
    class Typed(Block):
        inputs = [InputParam("value", hint, required=True)]

    assert f"\n  value: {shown}\n" in describe(Typed)


@pytest.mark.parametrize("hint", [None, Any])
def test_no_type_is_shown_where_none_is_declared(hint: Any) -> None:
    class Untyped(Block):
        inputs = [InputParam("value", hint, required=True)]

    assert "\n  value\n" in describe(Untyped)


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        ("x" * 60, "'" + "x" * 38 + "…"),
        (torch.zeros(2, 3), "Tensor (2, 3)"),
        (np.zeros((4,)), "ndarray (4,)"),
        (dict, "dict"),
        (len, "len"),
        ("two\nlines", r"'two\nlines'"),
    ],
)
def test_a_default_is_short(default: Any, shown: str) -> None:
    class WithDefault(Block):
        inputs = [InputParam("value", default=default)]

    assert f"\n  value = {shown}\n" in describe(WithDefault)


def test_names_and_texts_are_shown_as_they_are() -> None:
    described = describe(hostile())
    assert f"● {HOSTILE}  Hostile" in described
    assert "│ </style><script>alert(1)</script>" in described
    assert "◆ class x  Choose" in described  # a line break in a name is a space


def test_nothing_in_a_text_steers_the_terminal() -> None:
    class Steering(Block):
        description = "\x1b[31mred\x07\r\n\tIndented\x9b"
        inputs = [InputParam("\x1b[2J", required=True)]

    described = describe(Steering)
    assert all(character.isprintable() or character == "\n" for character in described)
    assert (
        "\n\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}\nIndented\N{REPLACEMENT CHARACTER}\n" in described
    )


def test_paragraphs_and_indentation_of_a_description_are_kept() -> None:
    class Described(Block):
        description = """Does this:

        - one thing
          and its second line
        """

    assert describe(Described).startswith(
        "Described\nDoes this:\n\n- one thing\n  and its second line\n\nBlocks\n  ● Described"
    )


def test_lines_fit_a_terminal_of_100_columns() -> None:
    class Wordy(Block):
        description = "word " * 60
        inputs = [InputParam(f"number_{k}", int, default=k, description="word " * 40) for k in range(30)]
        intermediate_outputs = [OutputParam(f"number_{k}") for k in range(30)]
        expected_components = [ComponentSpec("name_" * 10, dict, "word " * 40)]

    nested: ModularPipelineBlocks = Wordy()
    for _ in range(5):
        nested = Count.from_blocks_dict({"inner": nested})
    assert max(map(len, describe(nested).splitlines())) <= 100


def test_a_name_is_never_broken() -> None:
    name = "name_" * 40
    assert name in describe(SequentialPipelineBlocks.from_blocks_dict({name: Add}))


@given(composites(depth=3))
def test_every_block_of_any_tree_is_shown_in_order(tree: Composite) -> None:
    blocks = build(tree, BLOCKS)
    lines = iter(describe(blocks).splitlines())
    for path, block in loopwright.blocks.walk(blocks):
        head = f" {path.rpartition('.')[2]}  {type(block).__name__}" if path else type(block).__name__
        assert any(head in line for line in lines), path
