"""A description for a terminal: the blocks on a rail from top to bottom, loops as cycles in box-drawing characters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from loopwright.blocks.dataflow import CarriedValue
from loopwright.describe.outline import Block, Value, internal_values

__all__ = ["render"]

WIDTH = 100
_NARROWEST = 40
_NAME_COLUMN = 44

_MARKS = {"leaf": "●", "sequence": "○", "choice": "◆", "loop": "↻"}
_RAIL = "│"


def render(tree: Block) -> str:
    """The description of an outline."""
    required_first = sorted(tree.total.inputs, key=lambda value: value.default is not None)
    workflows = [Value(name, description=f"selected by {inputs}" if inputs else "") for name, inputs in tree.workflows]
    sections = [
        [tree.class_name, *_paragraphs(tree.description, WIDTH)],
        _table("Inputs (required if without a default)", required_first),
        _blocks(tree),
        _table("Outputs", tree.total.outputs),
        _table("Values that blocks write for each other", internal_values(tree)),
        _table("Components", tree.total.components),
        _table("Configuration", tree.total.configs),
        _table("Workflows", workflows),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _blocks(tree: Block) -> list[str]:
    lines = _flow(tree.children, WIDTH - 2) if tree.kind == "sequence" else _node(tree, WIDTH - 2, last=True)
    return ["Blocks", *(f"  {line}".rstrip() for line in lines)]


def _table(title: str, values: Iterable[Value]) -> list[str]:
    """A section of values, names on the left and descriptions on the right."""
    rows = [(value.signature, value.description) for value in values]
    fitting = [len(signature) for signature, _ in rows if len(signature) <= _NAME_COLUMN]
    column = max(fitting, default=0)
    lines = [title] if rows else []
    for signature, description in rows:
        text = _paragraphs(description, WIDTH - column - 4)
        if len(signature) > column:
            lines.extend(_wrap(signature, WIDTH - 2, "  ", "    "))
            lines.extend(" " * (column + 4) + line for line in text)
            continue
        first, *rest = text or [""]
        lines.append(f"  {signature:<{column}}  {first}".rstrip())
        lines.extend(" " * (column + 4) + line for line in rest)
    return lines


def _flow(blocks: Sequence[Block], width: int, goes_on: bool = False) -> list[str]:
    """Blocks one below the other.

    Args:
        blocks: the blocks.
        width: the columns that there are.
        goes_on: whether the rail goes on after the last block.
    """
    lines: list[str] = []
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1 and not goes_on
        lines.extend(_node(block, width, last))
        if index < len(blocks) - 1:
            lines.append(_RAIL)
    return lines


def _node(block: Block, width: int, last: bool) -> list[str]:
    """A block and what is below it; unless it is the last, a rail leads on to the next."""
    rail = " " if last else _RAIL
    condition = f"  [{block.condition}]" if block.condition else ""
    head = f"{_MARKS[block.kind]} {block.name}"
    if block.path:
        head += f"  {block.class_name}"
    below = _facts(block, width - 2)
    body = _body(block, width - 2)
    if body:
        below += ["", *body] if below else body
    return [*_wrap(head + condition, width, "", f"{rail}   "), *(f"{rail} {line}".rstrip() for line in below)]


def _facts(block: Block, width: int) -> list[str]:
    lines = _paragraphs(block.description, width) if block.path else []
    for label, items in _labelled(block):
        lines.extend(_list(label, items, width))
    return lines


def _list(label: str, items: Sequence[str], width: int) -> list[str]:
    """A list of items after a label, as many in a line as fit."""
    lines: list[str] = []
    for index, item in enumerate(items):
        part = item if index == len(items) - 1 else f"{item},"
        if lines and len(lines[-1]) + 1 + len(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"{'' if lines else label:<8}{part}")
    return lines


def _labelled(block: Block) -> list[tuple[str, list[str]]]:
    """What a block declares itself, by the words it is listed under."""
    own = block.own
    return [
        ("chooses", [f"by {', '.join(block.triggers)}"] if block.triggers else []),
        ("loops", ["inside; cancel, pause and timeout act at calls of models"] if block.hides_loop else []),
        ("gives" if block.kind == "loop" else "takes", list(block.variables)),
        ("reads", [value.signature for value in own.inputs]),
        ("writes", [value.signature for value in own.outputs]),
        ("uses", [value.name for value in (*own.components, *own.configs)]),
    ]


def _body(block: Block, width: int) -> list[str]:
    if block.kind == "loop":
        return _cycle(block, width)
    if block.kind == "choice":
        return _branches(block, width)
    return _flow(block.children, width)


def _cycle(loop: Block, width: int) -> list[str]:
    """The blocks of a loop, with an edge from the last back to the first that says what it carries."""
    inside = _flow(loop.children, width - 3, goes_on=True) or [" no blocks"]
    carried = [line for value in loop.carried for line in _carried(value, width - 5)]
    first, *rest = carried or ["next iteration"]
    return [
        *(("╭─►" if index == 0 else "│  ") + line for index, line in enumerate(inside)),
        f"╰──╯ {first}",
        *(f"     {line}" for line in rest),
    ]


def _carried(value: CarriedValue, width: int) -> list[str]:
    way = f"{', '.join(value.writers)} → {', '.join(value.readers)}"
    return _wrap(f"carries {value.name}: {way}", width, "", "  ")


def _branches(choice: Block, width: int) -> list[str]:
    lines: list[str] = []
    for index, child in enumerate(choice.children):
        end = index == len(choice.children) - 1 and not choice.may_skip
        first, *rest = _node(child, width - 2, last=True)
        lines.append(("╰─" if end else "├─") + first)
        lines.extend(("  " if end else "│ ") + line for line in rest)
        if not end:
            lines.append(_RAIL)
    return [*lines, "╰─ nothing runs  [otherwise]"] if choice.may_skip else lines


def _paragraphs(text: str, width: int) -> list[str]:
    """The lines of a description, those that are too long wrapped."""
    lines: list[str] = []
    for line in text.splitlines():
        lead = line[: len(line) - len(line.lstrip())]
        lines.extend(_wrap(line.strip(), width, lead, lead))
    return lines


def _wrap(text: str, width: int, first: str, later: str) -> list[str]:
    """A text in lines, the first and the later ones each with a lead; a name is never broken."""
    return textwrap.wrap(
        text,
        max(width, _NARROWEST),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]
