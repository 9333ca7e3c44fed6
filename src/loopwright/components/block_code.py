"""Blocks with the files of their code: which files these are, and saving them."""

from __future__ import annotations

import ast
import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loopwright.components.pushing import create_repository, upload
from loopwright.components.saving import push_options, staged
from loopwright.errors import ComponentSaveError

__all__ = ["code_files", "save_blocks"]

_OURS = ("loopwright", "diffusers")


def save_blocks(
    blocks: Any,
    save_directory: Any,
    push_to_hub: bool = False,
    with_code: bool = True,
    subfolder: str | None = None,
    **kwargs: Any,
) -> None:
    """Save blocks to a folder, a repository on the hub, or both.

    Args:
        blocks: the blocks.
        save_directory: the folder; None for the repository alone.
        push_to_hub: whether the folder is put into a repository.
        with_code: whether the files of the code are saved.
        subfolder: the folder of the repository.
        **kwargs: as for `push_options`.

    Raises:
        ComponentSaveError: the blocks have no class, or no file, of their own; or they could not be pushed.
    """
    options = push_options(save_directory or kwargs.get("repo_id"), kwargs)
    with TemporaryDirectory() as temporary:
        folder = Path(save_directory or Path(temporary) / "blocks")
        files = _describe(blocks) if with_code else {}
        with staged(folder) as staging:
            blocks.to_json_file(staging / blocks.config_name)
            for name, file in files.items():
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, staging / name)
        if push_to_hub:
            upload(folder, create_repository(options), options, type(blocks).__name__, subfolder)


def _describe(blocks: Any) -> dict[str, Path]:
    """Put into the configuration of blocks where their class is, and what it needs; the files of its code by name."""
    from diffusers.modular_pipelines.modular_pipeline_utils import _normalize_requirements

    cls = type(blocks)
    module = sys.modules.get(cls.__module__)
    path = None if module is None else inspect.getsourcefile(module)
    name = cls.__module__.rpartition(".")[2]
    if name == "__main__" and path is not None:
        name = Path(path).stem  # a script saves its own blocks
    package = cls.__module__.partition(".")[0]
    if blocks.sub_blocks and package in _OURS and not cls.block_classes:
        raise ComponentSaveError(
            f"these blocks were put together without a class of their own, so there is no code to save: write a "
            f"subclass of `{cls.__name__}` with `block_names` and `block_classes`, in a file"
        )
    if path is None:
        raise ComponentSaveError(
            f"`{cls.__name__}` is not defined in a file, so its code cannot be saved: move it to one, such as "
            f"{cls.__name__.lower()}.py, and import it from there"
        )
    files = {} if package in _OURS else _files(cls, name, Path(path))
    blocks.register_to_config(auto_map={"ModularPipelineBlocks": f"{name}.{cls.__name__}"})
    requirements = _normalize_requirements(blocks._requirements or {})
    if requirements:
        blocks.register_to_config(requirements=dict(requirements))
    return files


def _files(cls: type, name: str, path: Path) -> dict[str, Path]:
    """The files of the code of a class by name.

    Args:
        cls: the class.
        name: the name of its module in the folder that is saved.
        path: its file.

    Raises:
        ComponentSaveError: it could not be loaded from there, as it is defined in a function or a class.
    """
    if "." in cls.__qualname__:
        raise ComponentSaveError(
            f"`{cls.__name__}` is defined inside `{cls.__qualname__.rpartition('.')[0].removesuffix('.<locals>')}` in "
            f"{path.name}, where it cannot be loaded from: move it to the top of the file"
        )

    def file_of(other: str) -> Path | None:
        file = path if other == f"{name}.py" else path.parent / other
        return file if file.is_file() else None

    return code_files(f"{name}.py", file_of)


def code_files(name: str, file_of: Callable[[str], Path | None]) -> dict[str, Path]:
    """A file of code, and the files beside and below it that it imports with a dot, theirs as well.

    Args:
        name: the name of the file.
        file_of: gives the path of a file for its name, such as `layers/norm.py`; None if there is no such file.

    Returns:
        The paths by name.
    """
    files: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        path = None if name in files else file_of(name)
        if path is not None:
            files[name] = path
            package = name.split("/")[:-1]
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.ImportFrom) and 0 < node.level <= len(package) + 1:
                    waiting += _imported(package[: len(package) + 1 - node.level], node, file_of)
    return files


def _imported(package: list[str], node: ast.ImportFrom, file_of: Callable[[str], Path | None]) -> list[str]:
    """The names of the files that an import runs.

    Args:
        package: the folders in which it looks.
        node: the import.
        file_of: as for `code_files`.
    """
    found = []
    for part in node.module.split(".") if node.module else ():
        package = [*package, part]
        stem = "/".join(package)
        if file_of(f"{stem}/__init__.py") is not None:
            found.append(f"{stem}/__init__.py")
        elif file_of(f"{stem}.py") is not None:
            return [*found, f"{stem}.py"]
    stems = ["/".join([*package, alias.name]) for alias in node.names]
    return [*found, *(f"{stem}{ending}" for stem in stems for ending in ("/__init__.py", ".py"))]
