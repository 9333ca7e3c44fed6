"""What the layers above give to the blocks: the one place where a lower layer reaches a higher one.

The package root names the providers; nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["provide", "provided"]

_PROVIDERS: dict[str, str] = {}


def provide(name: str, target: str) -> None:
    """Say where something is found, as `module:attribute`."""
    _PROVIDERS[name] = target


def provided(name: str) -> Any:
    """Import and return what was announced under a name.

    Raises:
        LookupError: nothing was.
    """
    target = _PROVIDERS.get(name)
    if target is None:
        raise LookupError(f"nothing provides {name!r}: import the package `loopwright`, which says where it is")
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
