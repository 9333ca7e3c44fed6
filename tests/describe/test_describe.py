"""What holds for all formats."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

import loopwright.modular_pipelines
from loopwright import describe
from loopwright.errors import BlockTypeError, InvalidInputError
from tests.blocks.trees import Composite, blocks_of, build, composites
from tests.describe.samples import Choose

BLOCKS = blocks_of(loopwright.modular_pipelines)
FORMATS = ["text", "mermaid", "html"]


def test_the_format_is_text_unless_another_is_named() -> None:
    assert describe(Choose) == describe(Choose, format="text")


@pytest.mark.parametrize("form", FORMATS)
def test_a_class_an_instance_and_a_pipeline_have_one_description(form: Any) -> None:
    described = describe(Choose(), format=form)
    assert describe(Choose, format=form) == described
    assert describe(Choose().init_pipeline(), format=form) == described


@pytest.mark.parametrize("form", FORMATS)
def test_a_description_has_no_line_break_at_its_end(form: Any) -> None:
    assert describe(Choose, format=form) == describe(Choose, format=form).strip()


@given(composites(depth=3))
def test_equal_trees_have_equal_descriptions(tree: Composite) -> None:
    one, other = build(tree, BLOCKS), build(tree, BLOCKS)
    forms: list[Any] = FORMATS
    assert [describe(one, format=form) for form in forms] == [describe(other, format=form) for form in forms]


def test_an_unknown_format_is_an_error_that_names_the_formats() -> None:
    form: Any = "htm"
    with pytest.raises(InvalidInputError) as caught:
        describe(Choose, format=form)
    assert str(caught.value) == "`format` must be 'text' or 'mermaid' or 'html', not 'htm', did you mean `html`?"


@pytest.mark.parametrize("blocks", [3, dict, None])
def test_what_is_not_blocks_cannot_be_described(blocks: Any) -> None:
    with pytest.raises(BlockTypeError, match=r"^what was given is .*, which is not a block: "):
        describe(blocks)
