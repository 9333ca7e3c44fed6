"""The pipeline that is served, by what the operator names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopwright.errors import InvalidInputError
from loopwright.pipeline import ModularPipeline

__all__ = ["load_model"]


def load_model(name: str | None, device: str | None = None, dtype: str | None = None) -> tuple[ModularPipeline, str]:
    """A pipeline with its components, and the name under which it is offered.

    Args:
        name: a folder with a model in diffusers' layout, or the name of a repository on the hub; the embedded model if
            None.
        device: where the models go, the CPU if None.
        dtype: the dtype of the models, such as `bfloat16`; float32 if None.

    Raises:
        InvalidInputError: there is no such dtype, or no such folder.
        ComponentLoadError: the model cannot be loaded.
    """
    kind = _dtype(dtype)
    if name is None:
        from loopwright.diffusion import embedded_pipeline

        return embedded_pipeline(kind, device), "loopwright-embedded"
    pipeline = _own(Path(name), kind) or _by_index(name, kind)
    if device is not None:
        pipeline.to(device)
    return pipeline, Path(name).resolve().name if Path(name).is_dir() else name


def _own(folder: Path, dtype: Any) -> ModularPipeline | None:
    """A pipeline of our own blocks, if the folder is one that the command line takes as well."""
    from loopwright.diffusion.loading import has_components_of, load_pipeline
    from loopwright.diffusion.workflows import AutoImageBlocks

    blocks = AutoImageBlocks()
    return load_pipeline(blocks, folder, dtype=dtype) if has_components_of(blocks, folder) else None


def _by_index(name: str, dtype: Any) -> ModularPipeline:
    pipeline: ModularPipeline = ModularPipeline.from_pretrained(name)
    pipeline.load_components(dtype=dtype, progress=False)
    return pipeline


def _dtype(name: str | None) -> Any:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is None:
        return torch.float32
    if name not in known:
        raise InvalidInputError(f"--dtype is {name!r}; it must be one of {', '.join(known)}")
    return known[name]
