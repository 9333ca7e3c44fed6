"""Components from a folder in diffusers' layout: `model_index.json`, and a folder for each component."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from loopwright.errors import InvalidInputError
from loopwright.modular_pipelines import ModularPipeline, ModularPipelineBlocks

from .model_index import read_model_index

__all__ = ["has_components_of", "load_components", "load_pipeline"]


def has_components_of(blocks: ModularPipelineBlocks, folder: str | Path) -> bool:
    """Whether a folder has the components that the blocks expect, by their names.

    Args:
        blocks: the blocks.
        folder: a folder, with a model in diffusers' layout or without.
    """
    try:
        index = read_model_index(folder)
    except InvalidInputError:
        return False
    return set(blocks.init_pipeline().pretrained_component_names) <= set(index)


def load_pipeline(
    blocks: ModularPipelineBlocks,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> ModularPipeline:
    """A pipeline of the blocks with the components of a folder.

    Args:
        blocks: the blocks; components that they do not expect are not loaded.
        folder: a model folder in diffusers' layout.
        dtype: the dtype of the models.
        device: where the models go, the CPU if None.

    Raises:
        InvalidInputError: the folder is not there, or not such a folder, or lacks a component.
    """
    pipeline: ModularPipeline = blocks.init_pipeline()
    pipeline.update_components(**load_components(folder, pipeline.pretrained_component_names, dtype=dtype))
    if device is not None:
        pipeline.to(device)
    return pipeline


def load_components(
    folder: str | Path, names: list[str] | None = None, *, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Components of a folder by name, on the CPU; models ready to be used.

    Args:
        folder: a model folder in diffusers' layout.
        names: the components to load, all if None.
        dtype: the dtype of the models.

    Raises:
        InvalidInputError: the folder is not there, or not such a folder, or lacks a component; or `dtype` is no dtype.
    """
    if not isinstance(dtype, torch.dtype):
        raise InvalidInputError(
            f"`dtype` must be a `torch.dtype`, such as `torch.float32`, not {dtype!r}"
            f"{f', did you mean `torch.{dtype}`?' if hasattr(torch, str(dtype)) else ''}"
        )
    index = read_model_index(folder)
    for name in names or ():
        if name not in index:
            raise InvalidInputError(f"the model in {folder} has no `{name}`; it has {', '.join(sorted(index))}")
    components = {}
    for name in index if names is None else names:
        library, class_name = index[name]
        cls = getattr(importlib.import_module(library), class_name)
        options = {"torch_dtype" if library == "diffusers" else "dtype": dtype} if _is_model(cls) else {}
        component = cls.from_pretrained(str(Path(folder) / name), local_files_only=True, **options)
        components[name] = component.eval().requires_grad_(False) if _is_model(cls) else component
    return components


def _is_model(cls: Any) -> bool:
    return issubclass(cls, torch.nn.Module)
