"""`describe`: a tree of blocks as text for a terminal, as a Mermaid diagram, or as a page of HTML."""

from __future__ import annotations

from typing import Any, Literal

from loopwright.blocks import walk
from loopwright.blocks.declarations import require_declarations
from loopwright.check import as_tree
from loopwright.describe import html, mermaid, text
from loopwright.describe.outline import outline
from loopwright.errors import InvalidInputError, did_you_mean

__all__ = ["describe"]

_RENDERERS = {"text": text.render, "mermaid": mermaid.render, "html": html.render}


def describe(blocks: Any, format: Literal["text", "mermaid", "html"] = "text") -> str:
    """Describe blocks: what they read, write and work with, and in which order they run; loops are drawn as cycles.

    Args:
        blocks: the blocks, a class of blocks, or a pipeline.
        format: `text` for a terminal of 100 columns, `mermaid` for a Mermaid flowchart, `html` for a page that needs no
            other file and no network, and that can also be embedded in another page, such as a notebook.

    Raises:
        BlockTypeError: `blocks` is none of these.
        DefinitionError: what a block declares cannot be read.
        InvalidInputError: there is no such format.
    """
    if format not in _RENDERERS:
        known = " or ".join(f"'{name}'" for name in _RENDERERS)
        raise InvalidInputError(f"`format` must be {known}, not {format!r}{did_you_mean(str(format), _RENDERERS)}")
    tree = as_tree(blocks)
    for _, block in walk(tree):
        require_declarations(block)
    return _RENDERERS[format](outline(tree))
