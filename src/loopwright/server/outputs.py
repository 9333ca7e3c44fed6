"""The results of jobs: pictures and tensors as files, everything else as JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from loopwright.errors import DefinitionError, kind_of
from loopwright.run.checkpoints import Storage

__all__ = ["PNG", "media_type", "png_of", "write_outputs"]

PNG = "image/png"
_TYPES = {".png": PNG, ".webp": "image/webp", ".safetensors": "application/octet-stream"}
# of the frames of a video
_FRAME_MS = 80


def media_type(file: str) -> str:
    """The type of a file that this module wrote."""
    return _TYPES["." + file.rpartition(".")[2]]


def png_of(image: Image.Image) -> bytes:
    """An image as PNG: the same pixels are the same bytes.

    Raises:
        DefinitionError: it is none, or PNG has no such images.
    """
    if not isinstance(image, Image.Image):
        raise DefinitionError(f"the pipeline made {kind_of(image)}, which is no picture")
    return _encoded(image, "PNG")


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    written = io.BytesIO()
    try:
        image.save(written, format=form, **options)
    except (OSError, ValueError) as error:
        # the library says so as if a disk had failed
        raise DefinitionError(
            f"the pipeline made a picture of mode `{image.mode}` and {image.width}x{image.height} pixels, which cannot "
            f"be written as {form}: {error}"
        ) from error
    return written.getvalue()


def write_outputs(outputs: Mapping[str, Any], storage: Storage) -> dict[str, Any]:
    """Write the outputs of a run.

    Args:
        outputs: its values by name.
        storage: where the files go.

    Returns:
        For each output its files (name, type, and size for pictures), and its value if it is JSON.
    """
    return {name: _written(value, f"result-{index}", storage) for index, (name, value) in enumerate(outputs.items())}


def _written(value: Any, stem: str, storage: Storage) -> dict[str, Any]:
    items = value if isinstance(value, (list, tuple)) else [value]
    if items and all(_is_picture(item) for item in items):
        files = [_picture(item, f"{stem}-{number}", storage) for number, item in enumerate(items)]
        return {"files": files, "value": None}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        file = f"{stem}-0.safetensors"
        storage.write(file, save({"value": value.detach().cpu().contiguous()}))
        description = {"file": file, "type": media_type(file), "shape": list(value.shape), "dtype": str(value.dtype)}
        return {"files": [description], "value": None}
    return {"files": [], "value": _as_json(value)}


def _is_picture(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(frame, Image.Image) for frame in value)
    return isinstance(value, Image.Image)


def _picture(value: Any, stem: str, storage: Storage) -> dict[str, Any]:
    if isinstance(value, Image.Image):
        file, data, first = f"{stem}.png", png_of(value), value
    else:
        file, data, first = f"{stem}.webp", _animation(list(value)), value[0]
    storage.write(file, data)
    return {"file": file, "type": media_type(file), "width": first.width, "height": first.height}


def _animation(frames: list[Image.Image]) -> bytes:
    more = frames[1:]
    return _encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=more, duration=_FRAME_MS, loop=0)


def _as_json(value: Any) -> Any:
    """A value as JSON has it; what JSON has no form for is named by its class."""

    def other(item: Any) -> Any:
        if isinstance(item, (torch.Tensor, np.ndarray)):
            return item.tolist()
        return item.item() if isinstance(item, np.generic) else kind_of(item)

    try:
        return _finite(json.loads(json.dumps(value, default=other)))
    except (TypeError, ValueError, RecursionError):
        return kind_of(value)


def _finite(value: Any) -> Any:
    """JSON has no infinity: it becomes a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
