"""Images and tensors that come with a request: checked, and written down in a form that the server chose."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load, save

from loopwright.errors import RequestRefusedError
from loopwright.server.limits import Limits

__all__ = ["decoded", "edit_mask", "listed_tensor", "load_image", "load_tensor", "read_image", "read_tensor"]

# decoders for other formats are many, old, and not needed
_FORMATS = ("PNG", "JPEG", "WEBP")
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,", re.ASCII)


def decoded(text: str, name: str) -> bytes:
    """The bytes of an image in JSON: Base64, or a data URL.

    Raises:
        RequestRefusedError: it is neither.
    """
    match = _DATA_URL.match(text)
    try:
        return base64.b64decode(text[match.end() :] if match else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRefusedError(
            f"`{name}` is not an image: it must be Base64, or a URL that begins with `data:image/png;base64,`; or send "
            f"the file as a part of a form",
            status=422,
            code="invalid_image",
            param=name,
        ) from error


def read_image(data: bytes, name: str, limits: Limits) -> bytes:
    """The image in a file, as PNG without anything but its pixels.

    Args:
        data: the file.
        name: the input that it is for.
        limits: what it may have at most.

    Raises:
        RequestRefusedError: it is no image of a format that is read, or a broken one, or has too many pixels.
    """
    image = _opened(data, name, limits)
    return _png(image.convert("RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"))


def edit_mask(data: bytes, name: str, limits: Limits) -> bytes:
    """A mask in which the transparent pixels are to change, as one in which the white ones are.

    Raises:
        RequestRefusedError: it is no image, or has no transparency.
    """
    image = _opened(data, name, limits)
    if not image.has_transparency_data:
        raise RequestRefusedError(
            f"`{name}` has no alpha channel: the pixels that may change are those that are fully transparent",
            status=422,
            code="invalid_image",
            param=name,
        )
    return _png(image.convert("RGBA").getchannel("A").point(lambda value: 255 if value == 0 else 0))


def _png(image: Image.Image) -> bytes:
    # what else was in the file, such as a colour profile
    image.info.clear()
    written = io.BytesIO()
    image.save(written, format="PNG", compress_level=1)
    return written.getvalue()


def _opened(data: bytes, name: str, limits: Limits) -> Image.Image:
    def refused(message: str, code: str = "invalid_image") -> RequestRefusedError:
        return RequestRefusedError(f"`{name}` {message}", status=422, code=code, param=name)

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        # the header says it, before anything is decoded
        if image.width * image.height > limits.image_pixels:
            size = f"{image.width}x{image.height}"
            raise refused(f"has {size} pixels; at most {limits.image_pixels} are taken", "image_too_large")
        image.load()
    except RequestRefusedError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise refused(f"has too many pixels; at most {limits.image_pixels} are taken", "image_too_large") from error
    except (OSError, ValueError, SyntaxError, OverflowError, MemoryError) as error:
        raise refused(f"is not an image that can be read; {', '.join(_FORMATS)} are") from error
    return _upright(_of_8_bits(image))


def _of_8_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits as one of 8: the library would cut off what is brighter."""
    if not image.mode.startswith("I"):
        return image
    reduced = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    reduced.info["exif"] = image.info.get("exif", b"")
    return reduced


def _upright(image: Image.Image) -> Image.Image:
    """An image as it is to be looked at: a camera writes how it was held beside the pixels."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # what is beside the pixels is damaged, and they are not
        return image


def read_tensor(data: bytes, name: str) -> bytes:
    """The tensor in a safetensors file, which must hold one and no more.

    Raises:
        RequestRefusedError: it does not.
    """
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise _invalid_tensor(
            name, "is not a tensor: it must be a safetensors file, or lists of numbers in JSON"
        ) from error
    if len(tensors) != 1:
        raise _invalid_tensor(name, f"holds {len(tensors)} tensors; it must hold one")
    return data


def listed_tensor(value: Any, name: str) -> bytes:
    """Nested lists of numbers as a safetensors file of a tensor, float32.

    Raises:
        RequestRefusedError: they are not of one shape, or not of numbers.
    """
    try:
        return save({"value": torch.tensor(value, dtype=torch.float32)})
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _invalid_tensor(name, "is not a tensor: it must be lists of numbers, nested evenly") from error


def _invalid_tensor(name: str, what: str) -> RequestRefusedError:
    return RequestRefusedError(f"`{name}` {what}", status=422, code="invalid_tensor", param=name)


def load_image(data: bytes) -> Image.Image:
    """An image that `read_image` wrote."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.load()
    return image


def load_tensor(data: bytes) -> torch.Tensor:
    """A tensor that `read_tensor` took."""
    (tensor,) = load(data).values()
    return tensor
