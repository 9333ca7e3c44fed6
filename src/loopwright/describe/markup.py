"""HTML in which everything is escaped that is not HTML already."""

from __future__ import annotations

from html import escape

__all__ = ["Html", "element", "joined"]

_VOID = frozenset({"meta"})


class Html(str):
    """A text that is HTML; other texts are escaped where they are put into an element."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | bool | None) -> Html:
    """An element.

    Args:
        tag: its name.
        *content: what is in it, texts or HTML.
        **attributes: its attributes; `class_` is `class`, `data_path` is `data-path`. None and False leave one out.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(*content)}</{tag}>")


def joined(*content: str) -> Html:
    """Texts and HTML, one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


def _attribute(name: str, value: str | bool | None) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
