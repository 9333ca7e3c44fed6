"""Downloading what components are loaded from, before they are loaded: all files side by side.

Loaders ask for one file after the other, and components are loaded one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loopwright.specs import LOADING_FIELDS, ComponentSpec
from loopwright.specs.diagnosis import VARIANT, variant_of
from loopwright.specs.repository import HUB_OPTIONS, downloaded

__all__ = ["fetch", "files_of"]

_TEXT = (".json", ".txt", ".model", ".jinja")


def fetch(chosen: Iterable[tuple[ComponentSpec, Mapping[str, Any]]]) -> None:
    """Download the files of components that come from repositories on the hub.

    What fails here fails again where a component is loaded, and is reported there.

    Args:
        chosen: the specs of the components, each with what it is loaded with.
    """
    from huggingface_hub import constants, list_repo_files, snapshot_download

    wanted: defaultdict[tuple[Any, ...], list[tuple[str, str | None]]] = defaultdict(list)
    for spec, options in chosen:
        place = {name: options.get(name, getattr(spec, name)) for name in LOADING_FIELDS}
        source = str(place["pretrained_model_name_or_path"])
        if source.count("/") != 1 or Path(source).exists() or options.get("local_files_only"):
            continue
        hub = tuple((name, options[name]) for name in HUB_OPTIONS if name in options and name != "revision")
        wanted[source, place["revision"], hub].append((place["subfolder"] or "", place["variant"]))
    if constants.is_offline_mode():
        return
    for (source, revision, hub), folders in wanted.items():
        told = {name: value for name, value in hub if name != "proxies"}
        if _is_here(source, revision, told.get("cache_dir"), [folder for folder, _ in folders]):
            continue
        try:
            names = list_repo_files(source, revision=revision, token=told.get("token"))
            files = [file for folder, variant in folders for file in files_of(names, folder, variant)]
            snapshot_download(source, revision=revision, allow_patterns=files, **told)
        except Exception:
            continue


def _is_here(source: str, revision: str | None, cache: Any, folders: list[str]) -> bool:
    """Whether something of each folder was downloaded before; then the hub need not be asked."""
    root = downloaded(source, revision, cache)
    return root is not None and all(any((root / folder).glob("*" if folder else "config.json")) for folder in folders)


def files_of(names: Iterable[str], folder: str, variant: str | None) -> list[str]:
    """Which files of a repository a component is loaded from.

    Args:
        names: the files of the repository.
        folder: the folder of the component.
        variant: the variant of its weights.
    """
    own = [name for name in names if name.rpartition("/")[0] == folder]
    weights = [name for name in own if VARIANT.match(Path(name).name) and variant_of(Path(name).name) == variant]
    # the libraries take safetensors where there are some
    safe = [name for name in weights if ".safetensors" in name]
    others = [name for name in own if name.endswith(_TEXT) and not VARIANT.match(Path(name).name)]
    return [*others, *(safe or weights)]
