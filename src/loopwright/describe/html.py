"""A description as a page of HTML: the flow from the inputs through the blocks to the outputs, loops with a way back.

The page is one text that needs no other file, no network and no script. It may also be put into another page, as a
notebook does: the browser drops the outer elements then, and the styles apply to the element `.loopwright` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from loopwright.blocks.dataflow import CarriedValue
from loopwright.describe.markup import Html, element, joined
from loopwright.describe.outline import Block, Value, walk

__all__ = ["render"]

_MOST_CHIPS = 10
_ICONS = {
    "sequence": ("sequence", "M8 2.5v11M4.5 10 8 13.5l3.5-3.5"),
    "choice": ("conditional", "M8 2.2 13.8 8 8 13.8 2.2 8Z"),
    "loop": ("loop", "M13 8a5 5 0 1 1-1.6-3.7M13.2 1.8v3h-3"),
}


def render(tree: Block) -> str:
    """The description of an outline."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", tree.class_name),
        element("style", Html(_style())),
    )
    body = element("body", _article(tree), class_="loopwright-page")
    return "<!doctype html>\n" + element("html", head, body, lang="en", class_="loopwright-page")


@cache
def _style() -> str:
    lines = Path(__file__).with_name("style.css").read_text(encoding="utf-8").splitlines()
    return "\n".join(filter(None, (line.strip() for line in lines)))


def _article(tree: Block) -> Html:
    blocks = tree.children if tree.kind == "sequence" else (tree,)
    steps = [_inputs(tree.total.inputs), *(_block(block, 0) for block in blocks), _outputs(tree.total.outputs)]
    return element("article", _header(tree), _flow(steps), _footer(tree), class_="loopwright")


def _header(tree: Block) -> Html:
    return element(
        "div",
        element("p", tree.class_name, class_="lw-title"),
        _about(tree),
        element("p", _census(tree), class_="lw-census"),
        class_="lw-header",
    )


def _census(tree: Block) -> str:
    """How many blocks of which kind there are."""
    kinds = [block.kind for block in walk(tree)]
    counts = [(kinds.count("leaf"), "block"), (kinds.count("loop"), "loop"), (kinds.count("choice"), "conditional")]
    return " · ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count)


def _about(block: Block) -> Html:
    return element("span", _prose(block.description), class_="lw-about") if block.description else Html()


def _prose(text: str) -> Html:
    """A description; what is between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return joined(text)
    return joined(*(element("code", part) if index % 2 else part for index, part in enumerate(parts)))


def _flow(steps: Iterable[Html]) -> Html:
    return element("ol", *(element("li", step, class_="lw-step") for step in steps), class_="lw-flow")


# The two ends of the flow


def _inputs(values: Sequence[Value]) -> Html:
    required = [value for value in values if value.default is None]
    optional = [value for value in values if value.default is not None]
    return _terminal("Inputs", "in", [*required, *optional])


def _outputs(values: Sequence[Value]) -> Html:
    return _terminal("Outputs", "out", values)


def _terminal(title: str, way: str, values: Sequence[Value]) -> Html:
    chips = _chips(values, way, most=2 * _MOST_CHIPS) if values else element("span", "none", class_="lw-none")
    line = element("span", element("span", title, class_="lw-label"), chips, class_="lw-io")
    if not values:
        return element("div", line, class_=f"lw-terminal lw-{way}")
    return element(
        "details",
        element("summary", line, class_="lw-summary"),
        element("div", _table(title, values, way), class_="lw-more"),
        class_=f"lw-terminal lw-{way}",
    )


# Blocks


def _block(block: Block, depth: int) -> Html:
    """A block; `depth` is the number of loops around it."""
    body = _body(block, depth)
    content = joined(body, _declared(block)) if body else _details(block)
    return element(
        "details",
        element("summary", _heading(block), class_="lw-summary"),
        content,
        class_=f"lw-block lw-{block.kind}" + (f" lw-ring-{depth % 3}" if block.kind == "loop" else ""),
        open=bool(body),
    )


def _heading(block: Block) -> Html:
    """What is seen of a block before it is opened."""
    line = element(
        "span",
        _icon(block.kind),
        element("code", block.name, class_="lw-name"),
        element("code", block.class_name, class_="lw-class") if block.path else Html(),
        _named("by", block.triggers, "lw-trigger"),
        _named("↻", ["a loop inside"] if block.hides_loop else [], "lw-variable"),
        _named("each" if block.kind == "loop" else "takes", block.variables, "lw-variable"),
        class_="lw-line",
    )
    return joined(line, _about(block) if block.path else Html(), _reads_and_writes(block), _uses(block))


def _named(word: str, names: Sequence[str], chip_class: str) -> Html:
    """Names after a word, nothing without names."""
    chips = [element("code", name, class_=f"lw-chip {chip_class}") for name in names]
    return element("span", element("span", word, class_="lw-word"), *chips, class_="lw-chips") if chips else Html()


def _icon(kind: str) -> Html:
    if kind not in _ICONS:
        return Html()
    title, outline = _ICONS[kind]
    return element(
        "svg", element("title", title), element("path", d=outline), viewBox="0 0 16 16", class_="lw-icon", role="img"
    )


def _reads_and_writes(block: Block) -> Html:
    reads, writes = block.own.inputs, block.own.outputs
    if not reads and not writes:
        return Html()
    return element(
        "span",
        _chips(reads, "in") if reads else Html(),
        element("span", "→", class_="lw-to", aria_hidden="true") if writes else Html(),
        _chips(writes, "out") if writes else Html(),
        class_="lw-io" if reads and writes else "lw-io lw-one-way",
    )


def _uses(block: Block) -> Html:
    names = [value.name for value in (*block.own.components, *block.own.configs)]
    if not names:
        return Html()
    return element("span", f"uses {', '.join(names)}", class_="lw-uses")


def _chips(values: Sequence[Value], way: str, most: int = _MOST_CHIPS) -> Html:
    """Names in boxes, the first of them if there are many."""
    shown = values if len(values) <= most + 1 else values[:most]
    chips = [element("code", value.name, class_=_chip_class(value, way), title=_hint(value)) for value in shown]
    if len(shown) < len(values):
        chips.append(element("span", f"and {len(values) - len(shown)} more", class_="lw-word"))
    return element("span", *chips, class_="lw-chips")


def _chip_class(value: Value, way: str) -> str:
    optional = way == "in" and value.default is not None
    return f"lw-chip lw-{way}" + (" lw-optional" if optional else "")


def _hint(value: Value) -> str:
    return "\n".join(filter(None, (value.signature, value.description)))


# What is inside a composite


def _body(block: Block, depth: int) -> Html:
    if block.kind == "loop":
        return _cycle(block, depth)
    if block.kind == "choice":
        return _branches(block, depth)
    if block.kind == "sequence":
        return _flow(_block(child, depth) for child in block.children)
    return Html()


def _cycle(loop: Block, depth: int) -> Html:
    """The blocks of a loop, and below them the way back from the last to the first, with what it carries."""
    blocks = [_block(child, depth + 1) for child in loop.children]
    carried = [element("li", _carried(value)) for value in loop.carried]
    way_back = element(
        "div",
        element("ul", *carried, class_="lw-carried", aria_label="carried to the next iteration")
        if carried
        else element("p", "next", class_="lw-carried"),
        class_="lw-back",
    )
    return element("div", _flow(blocks or [element("p", "no blocks", class_="lw-none")]), way_back, class_="lw-cycle")


def _carried(value: CarriedValue) -> Html:
    way = f"{', '.join(value.writers)} → {', '.join(value.readers)}"
    return element("code", value.name, class_="lw-chip lw-variable", title=f"{value.name}: {way}")


def _branches(choice: Block, depth: int) -> Html:
    branches = [
        element("li", element("p", child.condition or "if chosen", class_="lw-condition"), _block(child, depth))
        for child in choice.children
    ]
    if choice.may_skip:
        skipped = element("p", "nothing runs", class_="lw-none")
        branches.append(element("li", element("p", "otherwise", class_="lw-condition"), skipped))
    wide = any(child.children for child in choice.children)
    return element("ul", *branches, class_="lw-branches" + (" lw-wide" if wide else ""))


# What is seen of a block when it is opened


def _declared(block: Block) -> Html:
    """The declarations of a composite, to be opened by themselves."""
    return element(
        "details",
        element("summary", "inputs and outputs", class_="lw-summary lw-word"),
        _details(block),
        class_="lw-declared",
    )


def _details(block: Block) -> Html:
    total = block.total
    tables = [
        _table("Inputs", total.inputs, "in"),
        _table("Outputs", total.outputs, "out"),
        _table("Components", total.components),
        _table("Configuration", total.configs),
    ]
    path = element("p", "path ", element("code", block.path), class_="lw-path") if block.path else Html()
    return element("div", path, *tables, class_="lw-more")


def _table(title: str, values: Sequence[Value], way: str = "") -> Html:
    if not values:
        return Html()
    return element(
        "table",
        element("caption", title),
        element("tbody", *(_row(value, way) for value in values)),
        class_="lw-table",
    )


def _row(value: Value, way: str) -> Html:
    need = "required" if value.default is None else f"= {value.default}"
    return element(
        "tr",
        element("th", element("code", value.name, class_=_chip_class(value, way) if way else "lw-plain"), scope="row"),
        element("td", element("code", value.type) if value.type else "", class_="lw-type"),
        element("td", need if way == "in" or value.default is not None else "", class_="lw-need"),
        element("td", _prose(value.description), class_="lw-text"),
    )


def _footer(tree: Block) -> Html:
    workflows = [Value(name, description=f"selected by {inputs}" if inputs else "") for name, inputs in tree.workflows]
    tables = [
        _table("Components", tree.total.components),
        _table("Configuration", tree.total.configs),
        _table("Workflows", workflows),
    ]
    return element("div", *tables, class_="lw-footer") if any(tables) else Html()
