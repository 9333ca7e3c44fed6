"""The embedded model: small enough to come with the package; `model/README.md` says what it can and cannot do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils.logging import set_tqdm_hook

from loopwright.errors import UnknownNameError, did_you_mean
from loopwright.modular_pipelines import ModularPipeline

from ..loading import load_pipeline
from ..model_index import EMBEDDED_MODEL
from ..morph import MorphBlocks
from ..workflows import AutoImageBlocks

__all__ = ["embedded_pipeline"]

_lock = threading.Lock()


def embedded_pipeline(
    dtype: torch.dtype = torch.float32, device: str | torch.device | None = None, workflow: str | None = None
) -> ModularPipeline:
    """A ready pipeline of the embedded model, for 64x64 images: `embedded_pipeline()(prompt="red apple")`.

    Args:
        dtype: the dtype of the models.
        device: where the models go, the CPU if None.
        workflow: only `text2image`, `image2image` or `inpainting`; or `morph`. The first three together if None.

    Raises:
        UnknownNameError: there is no such workflow.
    """
    if workflow == "morph":
        with _without_a_word():
            return load_pipeline(MorphBlocks(), EMBEDDED_MODEL, dtype=dtype, device=device)
    blocks = AutoImageBlocks()
    names = [*blocks.available_workflows, "morph"]
    if workflow is not None and workflow not in names:
        raise UnknownNameError(
            f"the embedded model has no workflow `{workflow}`{did_you_mean(str(workflow), names)}; "
            f"it has {', '.join(f'`{name}`' for name in names)}"
        )
    chosen = blocks if workflow is None else blocks.get_workflow(workflow)
    with _without_a_word():
        return load_pipeline(chosen, EMBEDDED_MODEL, dtype=dtype, device=device)


@contextmanager
def _without_a_word() -> Iterator[None]:
    """Leave out what the libraries say while they load: that guiders are new, and a bar for a moment's work."""
    logger = logging.getLogger("diffusers.guiders.guider_utils")
    with _lock:
        logger.addFilter(_is_no_warning)
        shown = set_tqdm_hook(_hidden_bar)
        try:
            yield
        finally:
            set_tqdm_hook(shown)
            logger.removeFilter(_is_no_warning)


def _is_no_warning(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING


def _hidden_bar(factory: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return factory(*arguments, **{**options, "disable": True})
