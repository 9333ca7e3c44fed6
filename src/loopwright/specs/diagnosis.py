"""Why a component could not be loaded: what is wrong with the files that it should come from.

Asked after a failure only, so that a component that loads costs nothing more. What the libraries say names files and
causes in many ways; here the files themselves are looked at.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from loopwright.errors import ComponentLoadError, article, brief, did_you_mean
from loopwright.specs.repository import Place, Repository

__all__ = ["VARIANT", "diagnosis"]

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".ckpt")
# model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, model.safetensors.index.fp16.json
VARIANT = re.compile(
    r"^[^.]+(?:\.(?P<variant>[^.]+?))?(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin)$"
    r"|^[^.]+\.(?:safetensors|bin)\.index(?:\.(?P<index_variant>[^.]+))?\.json$"
)
_LFS = b"version https://git-lfs"


def diagnosis(
    name: str, loader: Any, place: Place, error: Exception, hub_options: dict[str, Any], trusted: bool | None = None
) -> str:
    """What is wrong, in which file, and what to do, as the end of a sentence.

    Args:
        name: the name of the component.
        loader: the class that could not load.
        place: where from.
        error: what it raised.
        hub_options: what the user said about the hub.
        trusted: whether code that is there may run; False if the user said so of another repository, that of the
            pipeline.
    """
    if isinstance(error, ImportError):
        return _missing_package(error)
    if Path(place.source).is_file():
        file = Path(place.source)
        if not file.name.endswith(_WEIGHTS):
            return f"{file.name} is no file of weights; name the folder, or the repository, that it is in"
        return _damage(file) or _said(error)
    try:
        repository = Repository(place.source, **{**hub_options, "revision": place.revision})
        names = _configs(loader)
        paths = [path for path in (repository.file(place.file(name)) for name in names) if path is not None]
    except ComponentLoadError as known:
        return str(known)
    if repository.folder is not None:
        folder = repository.folder / (place.subfolder or "")
        if not folder.is_dir():
            here = sorted(child.name for child in repository.folder.iterdir() if child.is_dir())
            return (
                f"{repository} has no folder `{place.subfolder}`{did_you_mean(str(place.subfolder), here)}; "
                f"its folders are {_listed(here)}"
            )
    elif paths:
        folder = paths[0].parent
    else:
        return f"the repository has no {_either(names)} there: give the `subfolder` in which the component is"
    code = _own_code(folder / names[0], error)
    if code is not None:
        return f"it brings code of its own: {code}. Read the file, and if you trust it, " + (
            "give `trust_remote_code=True`"
            if trusted is None
            else f"load it by itself, as that of the pipeline alone was trusted: "
            f"`pipe.update_components({name}=pipe.get_component_spec({name!r}).load(trust_remote_code=True))`"
        )
    return _in_folder(loader, folder, place, error, names)


def _own_code(config: Path, error: Exception) -> str | None:
    """The class and the file of code that would run, None if that is not what is wrong."""
    if "trust_remote_code" not in str(error):
        return None
    try:
        reference = str(next(iter(json.loads(config.read_text(encoding="utf-8"))["auto_map"].values())))
    except (OSError, ValueError, KeyError, StopIteration, AttributeError, TypeError):
        return None
    return f"`{reference.rpartition('.')[2]}` in {reference.partition('.')[0]}.py"


def _in_folder(loader: Any, folder: Path, place: Place, error: Exception, names: list[str]) -> str:
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    config = next((folder / name for name in names if name in files), None)
    if config is None:
        return f"there is no {_either(names)}; the folder has {_listed(files)}"
    for name in (file for file in files if file.endswith(".json")):
        try:
            value = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as broken:
            return f"its {name} is not JSON ({broken}); get the file again"
        if name == config.name and not isinstance(value, dict):
            return f"its {name} holds {brief(value)}, where a JSON object belongs; get the file again"
        if ".index." in name and not (isinstance(value, dict) and isinstance(value.get("weight_map"), dict)):
            return f"its {name} does not say which files the weights are in; get the file again"
    values = json.loads(config.read_text(encoding="utf-8"))
    if not _is_model(loader):
        return _said(error)
    weights = [name for name in files if name.endswith(_WEIGHTS)]
    return (
        _missing_weights(weights, files, place)
        or _missing_shards(folder, files)
        or next(filter(None, (_damage(folder / name) for name in weights)), None)
        or _wrong_class(loader, values)
        or _wrong_shapes(loader, values, [folder / name for name in weights])
        or _said(error)
    )


def _missing_weights(weights: list[str], files: list[str], place: Place) -> str | None:
    """What is missing among the files of weights, None if nothing is."""
    if not weights:
        return f"there is no file of weights, such as a .safetensors file; the folder has {_listed(files)}"
    variants = {variant_of(name) for name in weights}
    if place.variant not in variants:
        others = sorted(variant for variant in variants if variant)
        if place.variant is None:
            return f"there are no weights but those of a variant: give `variant={others[0]!r}`"
        hint = did_you_mean(place.variant, others)
        there = f"its variants are {_listed(others)}" if others else f"leave `variant` out for {_listed(weights)}"
        return f"there are no weights of the variant `{place.variant}`{hint}; {there}"
    return None


def _missing_shards(folder: Path, files: list[str]) -> str | None:
    """Which files of weights an index of them names that are not there, None if none."""
    for name in files:
        if name.endswith(".json") and ".index." in name:
            shards = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
            missing = sorted(set(shards) - set(files))
            if missing:
                return f"{name} names {_listed(missing)}, which the folder does not have: get the files again"
    return None


def variant_of(name: str) -> str | None:
    """The variant that the name of a file of weights, or of their index, has."""
    match = VARIANT.match(name)
    return None if match is None else match["variant"] or match["index_variant"]


def _damage(path: Path) -> str | None:
    """What is wrong with a file of weights, None if nothing is seen."""
    with path.open("rb") as file:
        start = file.read(len(_LFS))
        if start == _LFS:
            return (
                f"{path.name} is a pointer of Git LFS, not the weights: run `git lfs pull` in the repository's folder"
            )
        if path.suffix != ".safetensors":
            return None
        size = path.stat().st_size
        again = "it was not copied or downloaded whole; get the file again"
        if size < 8:
            return f"{path.name} is damaged, as it has {size} bytes: {again}"
        length = struct.unpack("<Q", start[:8])[0]
        if length + 8 > size:
            return f"{path.name} is damaged, as it ends within its header: {again}"
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            expected = (
                8
                + length
                + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return f"{path.name} is damaged, as its header cannot be read: get the file again"
    if size != expected:
        return f"{path.name} is damaged, as it has {size:,} of {expected:,} bytes: {again}"
    return None


def _wrong_class(loader: Any, config: dict[str, Any]) -> str | None:
    """That the configuration is another class's, None if it is not, or does not say."""
    named = config.get("architectures")
    said = config.get("_class_name") or (named[0] if isinstance(named, list) and named else None)
    if not isinstance(said, str) or said in [cls.__name__ for cls in loader.__mro__] or loader.__name__ == "AutoModel":
        return None
    return (
        f"its configuration is that of {article(said)} `{said}`; take the folder of {article(loader.__name__)} "
        f"`{loader.__name__}`, or change the class"
    )


def _wrong_shapes(loader: Any, config: dict[str, Any], weights: list[Path]) -> str | None:
    """Which tensors of the files have not the shape that the configuration gives them, None if none."""
    import torch
    from diffusers import ModelMixin
    from safetensors import safe_open

    try:
        with torch.device("meta"):
            if issubclass(loader, ModelMixin):
                model = loader.from_config(config)
            else:
                model = loader(loader.config_class.from_dict(config))
        expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    except Exception:
        return None
    for path in weights:
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                shape = file.get_slice(name).get_shape()
                if expected.get(name, shape) != shape:
                    return (
                        f"{path.name} does not fit config.json: `{name}` is {_shape(shape)} in the file, and "
                        f"{_shape(expected[name])} by the configuration; the two files are of different models"
                    )
    return None


def _configs(loader: Any) -> list[str]:
    """The names that the configuration of a component of a class may have."""
    named = getattr(loader, "config_name", None)
    if isinstance(named, str):
        return ["config.json"] if loader.__name__ == "AutoModel" else [named]
    if hasattr(loader, "vocab_files_names"):
        return ["tokenizer_config.json", "tokenizer.json"]
    if _is_model(loader):
        return ["config.json"]
    return ["preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "config.json"]


def _is_model(loader: Any) -> bool:
    import torch
    from diffusers import AutoModel

    return isinstance(loader, type) and issubclass(loader, (torch.nn.Module, AutoModel))


def _missing_package(error: ImportError) -> str:
    said = _said(error)
    return (
        f"a package is not installed: {said}"
        if error.name is None
        else (f"the package `{error.name}` is not installed: `pip install {error.name}`, or another component")
    )


def _said(error: Exception) -> str:
    """What an error says, as one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(filter(None, lines)) or type(error).__name__


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "no files"


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _shape(sizes: list[int]) -> str:
    return "×".join(map(str, sizes))
