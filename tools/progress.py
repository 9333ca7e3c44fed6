"""How far a tool is: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["progress"]


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """Items, with how many of them were taken on stderr.

    Args:
        items: the items; None if the caller counts by `update`.
        options: for `tqdm`, such as `desc` and `total`.
    """
    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 60, **options)
