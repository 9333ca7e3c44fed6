"""The description as a page of HTML, read back with a parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from textwrap import dedent
from typing import Any

from hypothesis import given

import loopwright.modular_pipelines
from loopwright import InputParam, SequentialPipelineBlocks, describe
from tests.blocks.trees import Composite, blocks_of, build, composites
from tests.describe.samples import (
    HOSTILE,
    Auto,
    Block,
    Choose,
    Count,
    KeepEach,
    hostile,
    loop,
    loop_in_loop,
    sequence,
)

BLOCKS = blocks_of(loopwright.modular_pipelines)
VOID = {"meta"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def walk(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, name: str) -> list[Element]:
        """The elements of this class."""
        return [element for element in self.walk() if name in element.classes]

    def tags(self, *names: str) -> list[Element]:
        return [element for element in self.walk() if element.tag in names]

    def words(self) -> Iterator[str]:
        """The texts in it; those of optional inputs with a question mark."""
        for child in self.children:
            if isinstance(child, Element):
                yield from child.words()
            else:
                yield f"{child}?" if "lw-optional" in self.classes else child


class Reader(HTMLParser):
    """Builds elements, and refuses what is not well formed."""

    def __init__(self) -> None:
        super().__init__()
        self.document = Element("document")
        self.open = [self.document]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Element:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.document]
    return reader.document


def described(blocks: Any) -> Element:
    return read(describe(blocks, format="html"))


LINES = {"lw-title", "lw-census", "lw-line", "lw-io", "lw-uses", "lw-condition", "lw-none", "lw-carried"}
UNSEEN = {"lw-more", "lw-declared", "lw-footer"}


def seen(element: Element, depth: int = 0) -> Iterator[str]:
    """What a page shows before anything in it is opened: a line for each part, further in for what is in a block."""
    for child in element.children:
        if not isinstance(child, Element) or UNSEEN & {*child.classes} or child.tag == "head":
            continue
        if LINES & {*child.classes}:
            yield "  " * depth + ("back: " if "lw-carried" in child.classes else "") + " ".join(child.words())
        elif "lw-about" in child.classes:
            yield "  " * depth + child.text
        else:
            yield from seen(child, depth + (child.tag in ("ol", "ul")))


def assert_shows(blocks: Any, expected: str) -> None:
    assert "\n".join(seen(described(blocks))) == dedent(expected).strip()


def table(page: Element, caption: str) -> list[list[str]]:
    """The rows of the first table with this caption."""
    found = next(table for table in page.tags("table") if table.tags("caption")[0].text == caption)
    return [[cell.text for cell in row.tags("th", "td")] for row in found.tags("tr")]


def test_a_sequence_is_a_list_of_steps_from_the_inputs_to_the_outputs() -> None:
    assert_shows(
        sequence(),
        """
        SequentialPipelineBlocks
        Loads and adds.
        2 blocks
          Inputs path step?
          load Load
          Loads x.
          path → x
          uses reader, strict
          add Add
          x step? → x
          Outputs x
        """,
    )


def test_a_loop_has_a_way_back_with_what_it_carries() -> None:
    assert_shows(
        loop(),
        """
        Count
        Counts to n.
        2 blocks · 1 loop
          Inputs x n? step? **extra?
          loop Count each i
          n?
            add Add
            x step? → x
            keep Keep takes i
            x **extra? → kept
          back: x
          Outputs x kept
        """,
    )


def test_a_loop_in_a_loop_has_a_way_back_of_its_own() -> None:
    assert_shows(
        loop_in_loop(),
        """
        SequentialPipelineBlocks
        3 blocks · 2 loops
          Inputs path rows n? step? **extra?
          load Load
          Loads x.
          path → x
          uses reader, strict
          loop rows Rows each j
          Counts to n.
          rows → table
            loop count Count each i
            Counts to n.
            n?
              add Add
              x step? → x
            back: x
            keep Keep takes j
            x **extra? → kept
          back: x
          Outputs x kept table
        """,
    )


def test_a_value_on_the_way_back_names_who_writes_and_who_reads_it() -> None:
    (carried,) = described(loop()).all("lw-carried")
    assert [value.attributes["title"] for value in carried.tags("code")] == ["x: add → add"]


def test_a_conditional_shows_its_blocks_and_the_default() -> None:
    assert_shows(
        Choose,
        """
        Choose
        2 blocks · 1 conditional
          Inputs path? x? step?
          conditional Choose by path
            if chosen
            load Load
            Loads x.
            path → x
            uses reader, strict
            by default
            add Add
            x step? → x
          Outputs x
        """,
    )


def test_an_auto_block_says_when_each_block_runs() -> None:
    assert_shows(
        Auto,
        """
        Auto
        2 blocks · 1 conditional
          Inputs path? x? step?
          conditional Auto by path step
            if path is given
            load Load
            Loads x.
            path → x
            uses reader, strict
            else if step is given
            add Add
            x step? → x
            otherwise
            nothing runs
          Outputs x
        """,
    )


def test_an_empty_loop_has_no_blocks() -> None:
    assert_shows(
        Count,
        """
        Count
        Counts to n.
        1 loop
          Inputs n?
          loop Count each i
          n?
            no blocks
          back: next
          Outputs none
        """,
    )


def test_a_leaf_is_one_step() -> None:
    assert_shows(
        KeepEach,
        """
        KeepEach
        1 block
          Inputs x **extra?
          KeepEach takes i
          x **extra? → kept
          Outputs kept
        """,
    )


def test_a_block_that_is_opened_tells_all_that_it_declares() -> None:
    page = described(SequentialPipelineBlocks.from_blocks_dict({"first": sequence()}))
    load = next(block for block in page.all("lw-leaf"))
    assert load.all("lw-path")[0].text == "path first.load"
    assert table(load, "Inputs") == [["path", "str", "required", "Where it is."]]
    assert table(load, "Outputs") == [["x", "int", "", "A number."]]
    assert table(load, "Components") == [["reader", "dict", "", "Reads files.\nfrom a/b/reader"]]
    assert table(load, "Configuration") == [["strict", "", "= True", "Whether to refuse what is odd."]]


def test_composites_are_open_and_leaves_are_closed() -> None:
    page = described(loop_in_loop())
    assert all("open" in block.attributes for block in page.all("lw-loop"))
    assert not any("open" in block.attributes for block in page.all("lw-leaf"))


def test_workflows_say_what_selects_them() -> None:
    class Two(SequentialPipelineBlocks):
        block_classes = [Choose]
        block_names = ["choose"]
        _workflow_map = {"load": {"path": True}, "plain": {}}

    assert table(described(Two), "Workflows") == [["load", "", "", "selected by path"], ["plain", "", "", ""]]


def test_of_many_values_the_first_are_shown_and_all_are_listed() -> None:
    class Many(Block):
        inputs = [InputParam(f"number_{k}") for k in range(30)]

    page = described(SequentialPipelineBlocks.from_blocks_dict({"many": Many}))
    (many,) = page.all("lw-leaf")
    assert [*many.all("lw-io")[0].words()] == [*(f"number_{k}?" for k in range(10)), "and 20 more"]
    assert len(table(many, "Inputs")) == 30


# The page and its surroundings


def test_texts_are_shown_as_they_are() -> None:
    page = described(hostile())
    assert page.all("lw-name")[0].text == HOSTILE
    assert page.all("lw-about")[0].text == f"</style><script>alert(1)</script>\n{HOSTILE}"
    names = [row[0] for caption in ("Inputs", "Outputs", "Components", "Configuration") for row in table(page, caption)]
    assert names.count(HOSTILE) == 4
    assert any(element.attributes.get("title") == f"{HOSTILE}: {HOSTILE} → {HOSTILE}" for element in page.walk())
    assert page.tags("script") == []


def test_a_page_needs_no_other_file_and_no_network() -> None:
    for page in (describe(loop_in_loop(), format="html"), describe(hostile(), format="html")):
        tags = {element.tag for element in read(page).walk()}
        assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "a", "form"}
        names = {name for element in read(page).walk() for name in element.attributes}
        assert not names & {"src", "href", "style", "srcset", "action"}
        assert [name for name in names if name.startswith("on")] == []
        assert not re.search(r"https?:|url\(|@import|//", page)


def test_a_page_is_one_document() -> None:
    page = describe(loop(), format="html")
    assert page.startswith("<!doctype html>\n<html ")
    document = read(page)
    assert [element.tag for element in document.children if isinstance(element, Element)] == ["html"]
    assert document.tags("title")[0].text == "Count"
    assert document.tags("meta")[0].attributes == {"charset": "utf-8"}


def test_two_descriptions_in_one_page_do_not_touch_each_other_nor_the_page() -> None:
    page = described(loop_in_loop())
    assert not any(
        "id" in element.attributes or "name" in element.attributes for element in page.tags("body")[0].walk()
    )
    (style,) = page.tags("style")
    rules = re.sub(r"/\*.*?\*/", "", style.text, flags=re.DOTALL)
    selectors = [
        selector
        for rule in re.findall(r"([^{}]+)\{", rules)
        if not rule.strip().startswith("@")
        for selector in rule.split(",")
    ]
    assert len(selectors) > 50
    assert [selector for selector in selectors if ".loopwright" not in selector] == []
    assert style.text == described(sequence()).tags("style")[0].text


def test_a_block_draws_itself_in_a_notebook() -> None:
    blocks = loop()
    assert blocks._repr_html_() == describe(blocks, format="html")


@given(composites(depth=3))
def test_every_block_of_any_tree_is_shown_in_order(tree: Composite) -> None:
    blocks = build(tree, BLOCKS)
    names = [element.text for element in described(blocks).all("lw-name")]
    paths = [path for path, _ in loopwright.blocks.walk(blocks)]
    inner = [path.rpartition(".")[2] for path in paths if path]
    assert names == inner or names == [type(blocks).__name__, *inner]
