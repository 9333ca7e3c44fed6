"""A description as a Mermaid flowchart: composites are subgraphs, and loops have an edge from last to first."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from loopwright.describe.outline import Block, Value, walk

__all__ = ["render"]

_LABEL_WIDTH = 48
_INDENT = "    "

# what Mermaid, or the HTML that it makes, would not take as a letter
_SPECIAL = re.compile(r"[^\w\s.,()\[\]*+=/|'→·↻-]")

_STYLES = {
    "in": "fill:none,stroke:#0b5cad,stroke-width:2px",
    "out": "fill:none,stroke:#146c43,stroke-width:2px",
    "choice": "fill:none,stroke:#b07900,stroke-width:2px",
    "loop": "fill:none,stroke:#8250df,stroke-width:3px",
    "sequence": "fill:none,stroke:#8b949e",
}


def render(tree: Block) -> str:
    """The description of an outline."""
    ids = {block.path: f"b{index}" for index, block in enumerate(walk(tree))}
    steps = tree.children if tree.kind == "sequence" else (tree,)
    chain = ["inputs", *(ids[step.path] for step in steps), "outputs"]
    lines = [
        f"inputs([{_label('inputs', _inputs(tree.total.inputs))}]):::in",
        *(line for step in steps for line in _node(step, ids)),
        f"outputs([{_label('outputs', _names(tree.total.outputs))}]):::out",
        *_edges(chain),
        *(f"classDef {name} {style}" for name, style in _STYLES.items()),
        *_classes([block for step in steps for block in walk(step)], ids),
    ]
    return "\n".join(["flowchart TB", *(_INDENT + line for line in lines)])


def _node(block: Block, ids: dict[str, str]) -> Iterator[str]:
    """The lines of a block and of what is in it."""
    own = ids[block.path]
    if not block.children:
        yield f"{own}[{_leaf_label(block)}]"
        return
    yield f"subgraph {own}[{_title(block)}]"
    inside = _choice(block, ids) if block.kind == "choice" else _sequence(block, ids)
    yield from (_INDENT + line for line in inside)
    yield "end"


def _leaf_label(block: Block) -> str:
    reads, writes = block.own.inputs, block.own.outputs
    return _label(
        block.name,
        block.class_name if block.path else "",
        f"takes {', '.join(block.variables)}" if block.variables else "",
        f"reads {_inputs(reads)}" if reads else "",
        f"writes {_names(writes)}" if writes else "",
        f"uses {_names(block.own.components)}" if block.own.components else "",
    )


def _title(block: Block) -> str:
    words = [
        block.name,
        block.class_name if block.path else "",
        f"↻ {', '.join(block.variables)}" if block.variables else "",
    ]
    return _quoted(" · ".join(filter(None, words)))


def _sequence(block: Block, ids: dict[str, str]) -> Iterator[str]:
    children = block.children
    for child in children:
        yield from _node(child, ids)
    yield from _edges([ids[child.path] for child in children])
    if block.kind == "loop":
        first, last = children[0], children[-1]
        if first is last:  # a subgraph cannot have an edge to itself
            first, last = _first_leaf(first), _last_leaf(last)
        carried = ", ".join(value.name for value in block.carried)
        yield f"{ids[last.path]} -. {_label(carried or 'next')} .-> {ids[first.path]}"


def _first_leaf(block: Block) -> Block:
    return _first_leaf(block.children[0]) if block.children else block


def _last_leaf(block: Block) -> Block:
    return _last_leaf(block.children[-1]) if block.children else block


def _choice(block: Block, ids: dict[str, str]) -> Iterator[str]:
    """A rhombus with an edge to each of the blocks, on which its condition stands."""
    own = ids[block.path]
    yield f"{own}_choice{{{_label(', '.join(block.triggers) or 'choice')}}}"
    for child in block.children:
        yield from _node(child, ids)
        yield f"{own}_choice -- {_label(child.condition or 'if chosen')} --> {ids[child.path]}"
    if block.may_skip:
        yield f"{own}_none([{_label('nothing runs')}])"
        yield f"{own}_choice -- {_label('otherwise')} --> {own}_none"


def _edges(chain: Sequence[str]) -> Iterator[str]:
    yield from (f"{first} --> {second}" for first, second in itertools.pairwise(chain))


def _classes(blocks: Iterable[Block], ids: dict[str, str]) -> Iterator[str]:
    by_kind: dict[str, list[str]] = {}
    for block in blocks:
        if block.children:
            by_kind.setdefault(block.kind, []).append(ids[block.path])
    yield from (f"class {','.join(names)} {kind}" for kind, names in by_kind.items())


def _inputs(values: Sequence[Value]) -> str:
    """Inputs in a list, those that are required with a star."""
    return ", ".join(f"{value.name}*" if value.default is None else value.name for value in values) or "none"


def _names(values: Sequence[Value]) -> str:
    return ", ".join(value.name for value in values) or "none"


def _label(*paragraphs: str) -> str:
    lines = [
        line
        for paragraph in filter(None, paragraphs)
        for line in textwrap.wrap(paragraph, _LABEL_WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return _quoted(*lines)


def _quoted(*lines: str) -> str:
    return '"' + "<br/>".join(_SPECIAL.sub(lambda match: f"#{ord(match[0])};", line) for line in lines) + '"'
