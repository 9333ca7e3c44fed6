"""Images and masks as inputs: to pixels, and to latents."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from loopwright.errors import InvalidInputError
from loopwright.modular_pipelines import (
    ComponentSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)

from .inputs import repeat_to_batch
from .sizes import latent_size

__all__ = ["IMAGE_PROCESSOR", "EncodeImageStep", "PrepareMaskStep"]

IMAGE_PROCESSOR = ComponentSpec(
    "image_processor",
    VaeImageProcessor,
    config={"vae_scale_factor": 1, "do_convert_rgb": True},
    default_creation_method="from_config",
)
_MASK_PROCESSOR = ComponentSpec(
    "mask_processor",
    VaeImageProcessor,
    config={"vae_scale_factor": 1, "do_normalize": False, "do_binarize": True, "do_convert_grayscale": True},
    default_creation_method="from_config",
)
_SIZE = [
    InputParam("num_images", int, required=True, description="The number of images to make."),
    InputParam("height", int, required=True, description="The height of the images in pixels."),
    InputParam("width", int, required=True, description="The width of the images in pixels."),
]


class EncodeImageStep(ModularPipelineBlocks):
    """Resizes the image, and encodes it to latents: the mean of the autoencoder's posterior, so nothing is drawn.

    Raises:
        InvalidInputError: the input is not an image in colours, or the number of images does not fit.
    """

    model_name = "loopwright"
    description = "Encodes the image to latents."
    expected_components = [ComponentSpec("vae", AutoencoderKL), IMAGE_PROCESSOR]
    inputs = [InputParam.template("image"), *_SIZE]
    intermediate_outputs = [
        OutputParam("pixels", Tensor, "The resized image, [B, 3, H, W] in -1..1."),
        OutputParam.template("image_latents"),
    ]

    @torch.no_grad()
    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        vae = components.vae
        images = [_on_white(image) for image in _listed("image", block_state.image)]
        for image in images:
            _require_rgb(image)
        pixels = _preprocess(components.image_processor, "image", images, block_state)
        if not pixels.abs().amax() < 1.001:
            raise InvalidInputError(
                "`image` must have values between 0 and 1 if it is an array or a tensor; divide bytes by 255, or give "
                "a PIL image"
            )
        pixels = pixels.to(components._execution_device)
        posterior = vae.encode(pixels.to(vae.dtype)).latent_dist
        latents = (posterior.mode().float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
        block_state.pixels = repeat_to_batch(pixels, block_state.num_images, "image")
        block_state.image_latents = repeat_to_batch(latents, block_state.num_images, "image")
        self.set_block_state(state, block_state)
        return components, state


class PrepareMaskStep(ModularPipelineBlocks):
    """Resizes the mask. White may change; a latent may change if any of its pixels may.

    Raises:
        InvalidInputError: the input is not an image, or its size is not that of the image.
    """

    model_name = "loopwright"
    description = "Prepares the mask, in pixels and in latents."
    expected_components = [ComponentSpec("vae", AutoencoderKL), _MASK_PROCESSOR]
    inputs = [InputParam.template("mask_image", note="white may change"), InputParam.template("image"), *_SIZE]
    intermediate_outputs = [
        OutputParam("mask", Tensor, "1 where the image may change, else 0, [B, 1, H, W]."),
        OutputParam("latent_mask", Tensor, "The same for the latents, [B, 1, h, w]."),
    ]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block_state = self.get_block_state(state)
        masks = _listed("mask_image", block_state.mask_image)
        for image, mask in zip(_listed("image", block_state.image), masks, strict=False):
            if isinstance(image, Image.Image) and isinstance(mask, Image.Image) and image.size != mask.size:
                raise InvalidInputError(
                    f"`mask_image` is {_size(mask)} pixels, and `image` is {_size(image)}; "
                    f"give a mask of the same size: white where the image may change"
                )
        mask = _preprocess(components.mask_processor, "mask_image", masks, block_state)
        mask = mask.to(components._execution_device)
        block_state.mask = repeat_to_batch(mask, block_state.num_images, "mask_image")
        size = latent_size(components, block_state.height, block_state.width)
        block_state.latent_mask = adaptive_max_pool2d(block_state.mask, size)
        self.set_block_state(state, block_state)
        return components, state


def _listed(name: str, images: Any) -> list[Any]:
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    for image in listed:
        # numpy arrays are told by their interface: nothing else here needs numpy
        if not (isinstance(image, (Image.Image, Tensor)) or hasattr(image, "__array_interface__")):
            raise InvalidInputError(
                f"`{name}` must be a PIL image, an array, a tensor, or a list of those, not {image!r}"
                + ("; open it with `PIL.Image.open(path)`" if isinstance(image, (str, PathLike)) else "")
            )
    if not listed:
        raise InvalidInputError(f"`{name}` is an empty list; give at least one image")
    return listed


def _preprocess(processor: Any, name: str, images: list[Any], block_state: Any) -> Tensor:
    """Images of any kind and size as one tensor of the call's size, in one memory layout: the bits do not differ."""
    size = {"height": block_state.height, "width": block_state.width}
    try:
        return torch.cat([processor.preprocess(_in_floats(image), **size).contiguous() for image in images])
    except ValueError as error:
        raise InvalidInputError(f"`{name}` cannot be used: {error}") from error


def _require_rgb(image: Any) -> None:
    """Check the shape of an array or a tensor; of a PIL image it does not matter."""
    if isinstance(image, Image.Image):
        return
    channels = image.shape[-3 if isinstance(image, Tensor) else -1] if image.ndim in (3, 4) else None
    if channels != 3:
        raise InvalidInputError(
            f"`image` has the shape {tuple(image.shape)}; a tensor must be [3, H, W] or [B, 3, H, W], "
            f"and an array [H, W, 3] or [B, H, W, 3]"
        )


def _in_floats(image: Any) -> Any:
    """Masks of booleans, and images of integers, cannot be resized as they are."""
    if isinstance(image, Tensor):
        return image if image.is_floating_point() else image.float()
    return image if isinstance(image, Image.Image) or image.dtype.kind == "f" else image.astype("float32")


def _on_white(image: Any) -> Any:
    """Transparent images are seen on white."""
    if isinstance(image, Image.Image) and image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
