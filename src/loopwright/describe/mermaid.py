"""A description as a Mermaid flowchart, which GitHub draws where Markdown has it in a fence, ```mermaid.

A composite is a box around its blocks, which begins with a node of its own. That of a conditional is a rhombus, from
which the ways part until they meet again; that of a loop is a hexagon, to which an edge leads back from the last block.
Edges lead to nodes, never to boxes: Mermaid places boxes first, so a cycle with a box in it would begin at the box.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from loopwright.describe.outline import Block, Value

__all__ = ["render"]

_LABEL_WIDTH = 60
_INDENT = "    "

# without it, Mermaid wraps labels at 200 pixels, which is narrower than many a name, and places blocks far apart
_DIRECTIVE = '%%{init: {"flowchart": {"wrappingWidth": 500, "rankSpacing": 28}}}%%'

# what Mermaid, or the Markdown and HTML that it takes labels for, would not take as a letter
_SPECIAL = re.compile(r"[^\w\s.,()\[\]*+=/|'·↻-]")

_SHAPES = {"leaf": ("[", "]"), "sequence": ("([", "])"), "choice": ("{", "}"), "loop": ("{{", "}}")}

_STYLES = (
    "classDef in fill:none,stroke:#2f81f7,stroke-width:2px",
    "classDef out fill:none,stroke:#2da44e,stroke-width:2px",
    "classDef sequence fill:none,stroke:#8b949e",
    "classDef choice fill:none,stroke:#bf8700,stroke-width:2px",
    "classDef loop fill:none,stroke:#8957e5,stroke-width:3px",
)


class _Drawn(NamedTuple):
    """Blocks as a part of a flowchart.

    Attributes:
        lines: the statements.
        first: the node to which an edge from the block before leads.
        last: the node from which an edge to the block after leads.
    """

    lines: list[str]
    first: str
    last: str


def render(tree: Block) -> str:
    """The description of an outline."""
    steps = tree.children if tree.kind == "sequence" else (tree,)
    flow = _flow(steps, "b")
    lines = [
        f"inputs([{_label('inputs', *_reads(tree.total.inputs, '', 'optional '))}]):::in",
        *flow.lines,
        f"outputs([{_label('outputs', _listed('', tree.total.outputs))}]):::out",
        f"inputs --> {flow.first}",
        f"{flow.last} --> outputs",
        *_STYLES,
        # Mermaid forgets the class of a box that is given before the end of the boxes around it
        *(f"class {own} {kind}" for own, kind in _boxes(steps, "b")),
    ]
    return "\n".join([_DIRECTIVE, "flowchart TB", *_indented(lines)])


def _numbered(blocks: Iterable[Block], prefix: str) -> Iterator[tuple[Block, str]]:
    """Blocks with their identifiers."""
    return ((block, f"{prefix}{index}") for index, block in enumerate(blocks))


def _boxes(blocks: Iterable[Block], prefix: str) -> Iterator[tuple[str, str]]:
    """The identifiers and kinds of all composites."""
    for block, own in _numbered(blocks, prefix):
        if block.kind != "leaf":
            yield own, block.kind
        yield from _boxes(block.children, f"{own}_")


def _flow(blocks: Sequence[Block], prefix: str) -> _Drawn:
    """Blocks one after the other, at least one."""
    drawn = [_block(block, own) for block, own in _numbered(blocks, prefix)]
    edges = [f"{one.last} --> {other.first}" for one, other in pairwise(drawn)]
    return _Drawn([line for part in drawn for line in part.lines] + edges, drawn[0].first, drawn[-1].last)


def _block(block: Block, own: str) -> _Drawn:
    """A block and what is in it; `own` is its identifier."""
    node = own if block.kind == "leaf" else f"{own}_head"
    left, right = _SHAPES[block.kind]
    name = f"{block.name} · {block.class_name}" if block.path else block.name
    line = f"{node}{left}{_label(name, *_declared(block))}{right}"
    if block.kind == "leaf":
        return _Drawn([line], node, node)
    inside, last = {"sequence": _sequence, "choice": _choice, "loop": _loop}[block.kind](block, own, node)
    return _Drawn([f'subgraph {own}[" "]', *_indented([f"{line}:::{block.kind}", *inside]), "end"], node, last)


def _sequence(sequence: Block, own: str, head: str) -> tuple[list[str], str]:
    """What follows the head of a sequence, and the last node."""
    flow = _flow(sequence.children, f"{own}_")
    return [*flow.lines, f"{head} --> {flow.first}"], flow.last


def _choice(choice: Block, own: str, head: str) -> tuple[list[str], str]:
    """What follows the head of a conditional, and the last node."""
    end = f"{own}_end"
    lines = []
    for child, its in _numbered(choice.children, f"{own}_"):
        branch, condition = _block(child, its), _label(child.condition or "if chosen")
        lines += [*branch.lines, f"{head} -- {condition} --> {branch.first}", f"{branch.last} --> {end}"]
    if choice.may_skip:
        lines.append(f"{head} -- {_label('otherwise nothing runs')} --> {end}")
    return [*lines, f"{end}(( ))"], end


def _loop(loop: Block, own: str, head: str) -> tuple[list[str], str]:
    """What follows the head of a loop, and the last node."""
    empty = f"{own}_none"
    flow = _flow(loop.children, f"{own}_") if loop.children else _Drawn([f'{empty}["no blocks"]'], empty, empty)
    carried = _label(", ".join(value.name for value in loop.carried) or "next")
    return [*flow.lines, f"{head} --> {flow.first}", f"{flow.last} -. {carried} .-> {head}"], flow.last


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (_INDENT + line for line in lines)


def _declared(block: Block) -> list[str]:
    """What a block declares itself, a paragraph for each kind of thing."""
    own, variables = block.own, ", ".join(block.variables)
    return [
        f"by {', '.join(block.triggers)}" if block.triggers else "",
        "↻ a loop inside" if block.hides_loop else "",
        (f"↻ each {variables}" if block.kind == "loop" else f"takes {variables}") if variables else "",
        *_reads(own.inputs, "reads ", "may read "),
        _listed("writes ", own.outputs),
        _listed("uses ", [*own.components, *own.configs]),
    ]


def _reads(inputs: Sequence[Value], required: str, optional: str) -> list[str]:
    """Those that have to be given, then the others, each after a word of their own."""
    return [
        _listed(required, [value for value in inputs if value.default is None]),
        _listed(optional, [value for value in inputs if value.default is not None]),
    ]


def _listed(word: str, values: Iterable[Value]) -> str:
    """Names after a word; empty without names."""
    names = ", ".join(value.name for value in values)
    return word + names if names else ""


def _label(*paragraphs: str) -> str:
    lines = [
        line
        for paragraph in filter(None, paragraphs)
        for line in textwrap.wrap(paragraph, _LABEL_WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return '"' + "<br/>".join(_SPECIAL.sub(_code, line) for line in lines) + '"'


def _code(character: re.Match[str]) -> str:
    # the space without width keeps `$$` from being mathematics, and `fa:` from being an icon
    return f"#{ord(character[0])};#8203;"
