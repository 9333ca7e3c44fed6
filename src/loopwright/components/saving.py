"""Saving components: each in a folder of its own, and all of them or none.

What is saved is written beside what is there, and put in its place at the end; so a save that fails changes nothing.
"""

from __future__ import annotations

import inspect
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.errors import ComponentSaveError, UnknownInputError, did_you_mean
from loopwright.specs import ComponentSpec
from loopwright.specs.diagnosis import VARIANT, variant_of

__all__ = ["STAGING", "configuration", "is_as_made", "push_options", "save_component", "staged"]

# how the name of a folder begins that is not whole yet
STAGING = ".saving-"
_PUSH_OPTIONS = ("commit_message", "create_pr", "private", "repo_id", "token", "update_model_card")


def push_options(save_directory: Any, options: Mapping[str, Any], known: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a user says about the repository that is pushed to; its name is that of the folder if none is given.

    Raises:
        UnknownInputError: there is no such option.
    """
    for name in options:
        if name not in (*known, *_PUSH_OPTIONS):
            hint = did_you_mean(name, [*known, *_PUSH_OPTIONS])
            raise UnknownInputError(f"`save_pretrained` takes no `{name}`{hint}")
    chosen = {name: options.get(name) for name in _PUSH_OPTIONS}
    chosen["repo_id"] = chosen["repo_id"] or Path(save_directory).name
    return chosen


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder; what it holds when the block ends is put into `folder`, unless something was raised.

    Files that are there already are replaced, and weights of the same variant that nobody would look for are deleted.

    Raises:
        ComponentSaveError: the folder is a file, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ComponentSaveError(f"{folder} is a file; a pipeline is saved to a folder")
    name = f"{STAGING}{uuid.uuid4().hex[:8]}"
    staging = folder / name if folder.exists() else folder.absolute().with_name(name)
    try:
        try:
            staging.mkdir(parents=True)
        except OSError as error:
            raise ComponentSaveError(f"nothing can be saved to {folder}: {error}") from error
        yield staging
        try:
            if folder.exists():
                _replace(staging, folder)
            else:
                staging.rename(folder)
        except OSError as error:
            raise ComponentSaveError(f"what was saved could not be put into {folder}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(staging: Path, folder: Path) -> None:
    """Put files into their places; those right in the folder, the index among them, after those of the components."""
    files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    # before anything is replaced, so that what stands in the way changes nothing
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if (folder / file).is_dir():
            raise IsADirectoryError(f"{folder / file} is a folder, where a file belongs")
    for file in sorted(files, key=lambda file: (len(file.parts) == 1, file)):
        os.replace(staging / file, folder / file)
    for place in {file.parent for file in files if VARIANT.match(file.name)}:
        written = {file.name for file in files if file.parent == place and VARIANT.match(file.name)}
        variants = {variant_of(name) for name in written}
        for old in (folder / place).iterdir():
            if VARIANT.match(old.name) and variant_of(old.name) in variants and old.name not in written:
                old.unlink()


def save_component(name: str, component: Any, folder: Path, **options: Any) -> list[str]:
    """Save a component to a folder, with the method of its class.

    Args:
        name: its name in the pipeline, for messages.
        component: the component.
        folder: a folder that is not there yet.
        **options: what models take: `safe_serialization`, `variant`, `max_shard_size`.

    Returns:
        The names of the options that its class takes.

    Raises:
        ComponentSaveError: its class cannot save, or failed.
    """
    component = getattr(component, "_orig_mod", component)  # what `torch.compile` wraps is meant
    called = f"component `{name}` ({type(component).__name__})"
    if getattr(component, "_hf_peft_config_loaded", False):
        raise ComponentSaveError(
            f"{called} cannot be saved while adapters are loaded into it: call `pipe.unload_lora_weights()` first, "
            f"after `pipe.fuse_lora()` if they are to be a part of it"
        )
    method = getattr(component, "save_pretrained", None) or getattr(component, "save_config", None)
    if method is None:
        raise ComponentSaveError(
            f"{called} cannot be saved: its class has no `save_pretrained`; give the class one, and a "
            f"`from_pretrained`, or take the component out with `pipe.update_components({name}=None)`"
        )
    accepted = inspect.signature(method).parameters
    given = {option: value for option, value in options.items() if option in accepted}
    try:
        method(str(folder), **given)
    except Exception as error:
        raise ComponentSaveError(f"{called} could not be saved: {error}") from error
    return [*given]


def is_as_made(spec: ComponentSpec | None, component: Any) -> bool:
    """Whether a component is what its spec makes of a configuration: then it need not be saved."""
    if spec is None or spec.default_creation_method != "from_config" or type(component) is not spec.type_hint:
        return False
    return configuration(spec.create()) == configuration(component)


def configuration(component: Any) -> dict[str, Any]:
    """What a component without weights is made from."""
    config = getattr(component, "config", None) or vars(component)
    return {name: value for name, value in dict(config).items() if not name.startswith("_")}
