"""Saving blocks: the file that names their class, and the files of its code."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loopwright.components.pushing import create_repository, upload
from loopwright.components.saving import push_options, staged
from loopwright.errors import ComponentSaveError

__all__ = ["save_blocks"]

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
    blocks.register_to_config(auto_map={"ModularPipelineBlocks": f"{name}.{cls.__name__}"})
    requirements = _normalize_requirements(blocks._requirements or {})
    if requirements:
        blocks.register_to_config(requirements=dict(requirements))
    return {} if package in _OURS else _code_files(Path(path), f"{name}.py")


def _code_files(path: Path, name: str) -> dict[str, Path]:
    """A file of code, and the files beside it that it imports with a dot, theirs as well."""
    from diffusers.utils.dynamic_modules_utils import get_relative_imports

    files, waiting = {}, [(name, path)]
    while waiting:
        name, file = waiting.pop()
        if name not in files and file.is_file():
            files[name] = file
            imported = [relative.replace(".", "/") + ".py" for relative in get_relative_imports(file)]
            waiting += [(relative, path.parent / relative) for relative in imported]
    return files
