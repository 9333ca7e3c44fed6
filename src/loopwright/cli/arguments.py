"""Arguments of commands, checked before anything large is imported."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from loopwright.errors import InvalidInputError, did_you_mean

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "check_at_least",
    "check_strength",
    "chosen_seed",
    "numbered",
    "open_image",
    "writable_path",
]

_SEEDS = 2**32


def writable_path(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The path, if a file with one of the suffixes can be written there.

    Raises:
        InvalidInputError: it cannot.
    """
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; name a file in it, such as {path / ('picture' + suffixes[0])}")
    if path.suffix.lower() not in suffixes:
        given = f"not {path.suffix}" if path.suffix else "and this has no suffix"
        raise InvalidInputError(
            f"cannot write {path}: it must end in {' or '.join(suffixes)}, {given}"
            f"{did_you_mean(path.suffix.lower(), suffixes)}"
        )
    if not path.parent.is_dir():
        raise InvalidInputError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InvalidInputError(f"cannot write {path}: the folder {path.parent} is not writable")
    return path


def numbered(path: Path, count: int) -> list[Path]:
    """The path itself for one image; for several `name-1.png`, `name-2.png`, ..."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def open_image(path: Path, option: str) -> Image.Image:
    """The image in a file.

    Raises:
        InvalidInputError: there is no such file, or it is not an image.
    """
    from PIL import Image

    if path.is_dir():
        raise InvalidInputError(f"{option}: {path} is a folder; name an image in it")
    if not path.is_file():
        raise InvalidInputError(f"{option}: there is no file {path}")
    try:
        image = Image.open(path)
        image.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"{option}: {path} is not an image that can be read") from error
    return image


def check_at_least(option: str, value: int, least: int) -> None:
    """Raises `InvalidInputError` if the value is smaller than `least`."""
    if value < least:
        raise InvalidInputError(f"{option} must be at least {least}, not {value}")


def check_strength(strength: float | None) -> None:
    """Raises `InvalidInputError` if the strength does not lie between 0 and 1."""
    if strength is not None and not 0 <= strength <= 1:
        raise InvalidInputError(f"--strength must be between 0 and 1, not {strength:g}")


def chosen_seed(seed: int | None) -> int:
    """The seed, a random one if None.

    Raises:
        InvalidInputError: a generator takes no such seed.
    """
    if seed is None:
        return secrets.randbelow(_SEEDS)
    if not 0 <= seed < 2**63:
        raise InvalidInputError(f"--seed must lie between 0 and 2^63 - 1, not {seed}")
    return seed
