"""Code in a folder of somebody's, as modules of its own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

__all__ = ["code_in_folder"]

# reentrant, as code may load blocks of another folder while it is imported
_lock = threading.RLock()


def code_in_folder(folder: Path, module: str) -> ModuleType:
    """The module that a file of a folder makes. The file may import others beside it with a dot.

    Each folder is a package of its own, that of each commit of a repository too, so that files of the same name in two
    folders are two modules; diffusers, which copies them all to one place, takes one for the other. The files are read
    anew each time, and nothing is written.

    Args:
        folder: the folder.
        module: the name of the file, without its ending.

    Raises:
        Exception: what the code raises.
    """
    package = f"loopwright_code_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"
    with _lock:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
        spec = importlib.machinery.ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder.resolve())]
        sys.modules[package] = importlib.util.module_from_spec(spec)
        writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            importlib.invalidate_caches()
            return importlib.import_module(f"{package}.{module}")
        finally:
            sys.dont_write_bytecode = writes_nothing
