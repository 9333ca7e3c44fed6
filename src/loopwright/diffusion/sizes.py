"""The sizes of images and latents, as a pipeline's components have them."""

from __future__ import annotations

from typing import Any

from loopwright.errors import InvalidInputError

__all__ = ["check_size", "default_size", "latent_size", "vae_scale_factor"]


def vae_scale_factor(components: Any) -> int:
    """Pixels per latent along one side: every block of the autoencoder but the last halves the size."""
    return int(2 ** (len(components.vae.config.block_out_channels) - 1))


def default_size(components: Any) -> int:
    """The side in pixels of the images that the transformer was trained on."""
    return int(components.transformer.config.sample_size) * vae_scale_factor(components)


def latent_size(components: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width in latents of an image of `height` by `width` pixels."""
    factor = vae_scale_factor(components)
    return height // factor, width // factor


def check_size(components: Any, name: str, pixels: Any) -> None:
    """Check that a height or width is a whole number of the transformer's patches.

    Raises:
        InvalidInputError: it is not; the message names the nearest size that is.
    """
    multiple = vae_scale_factor(components) * int(components.transformer.config.patch_size)
    if isinstance(pixels, bool) or not isinstance(pixels, int):
        raise InvalidInputError(f"`{name}` must be a whole number of pixels, not {pixels!r}")
    if pixels <= 0 or pixels % multiple:
        nearest = max(round(pixels / multiple), 1) * multiple
        raise InvalidInputError(
            f"`{name}` must be a multiple of {multiple} pixels, not {pixels}; the nearest is {nearest}"
        )
