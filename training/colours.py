"""Colours by hue: what colour an image is, and copies of it in other colours.

Hue, saturation and lightness are those of HSL (https://en.wikipedia.org/wiki/HSL_and_HSV). Turning the hue leaves the
lightness of every pixel as it is, so lightness is the grey shape of an object, whatever its colour.
Images are float arrays [..., H, W, 3] in 0..1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Centres of the colours' hues, in degrees.
HUES: dict[str, float] = {
    "red": 2.0,
    "orange": 28.0,
    "yellow": 50.0,
    "green": 115.0,
    "cyan": 180.0,
    "blue": 218.0,
    "purple": 272.0,
    "pink": 328.0,
}
# Words that say a colour in a caption, also those that no copy has.
COLOUR_WORDS = frozenset({*HUES, "brown", "black", "white", "grey", "gray", "golden", "gold", "silver", "violet"})

_BINS = 72


def to_hsl(rgb: Array) -> tuple[Array, Array, Array]:
    """Hue in degrees, saturation and lightness in 0..1, each [..., H, W]."""
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = high - low
    lightness = (high + low) / 2
    room = 1 - np.abs(2 * lightness - 1)
    saturation = np.divide(chroma, room, out=np.zeros_like(chroma), where=room > 1e-4)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    divisor = np.where(chroma > 1e-6, chroma, 1)
    sextant = np.where(
        high == red,
        ((green - blue) / divisor) % 6,
        np.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = np.where(chroma > 1e-6, 60 * sextant, 0)
    return hue.astype(np.float32), np.clip(saturation, 0, 1).astype(np.float32), lightness.astype(np.float32)


def to_rgb(hue: Array, saturation: Array, lightness: Array) -> Array:
    """The inverse of `to_hsl`."""
    reach = saturation * np.minimum(lightness, 1 - lightness)
    channels = []
    for offset in (0, 8, 4):
        k = (offset + hue / 30) % 12
        channels.append(lightness - reach * np.clip(np.minimum(k - 3, 9 - k), -1, 1))
    return np.clip(np.stack(channels, -1), 0, 1).astype(np.float32)


def grey_shape(rgb: Array) -> Array:
    """Lightness, [..., H, W]: what stays of an image when its hue is turned."""
    return (rgb.max(-1) + rgb.min(-1)) / 2


def hue_distance(first: Array | float, second: Array | float) -> Array:
    """Degrees between two hues, 0..180."""
    return np.abs((np.asarray(first, np.float32) - second + 180) % 360 - 180)


def dominant_hue(rgb: Array) -> tuple[float, float, float]:
    """The hue that fills most of one image [H, W, 3], weighted by chroma.

    Returns the hue in degrees, the share of the chroma that lies within 25 degrees of it, and the mean chroma over the
    pixels that are not white.
    """
    hue, _, lightness = to_hsl(rgb)
    chroma = rgb.max(-1) - rgb.min(-1)
    drawn = lightness < 0.97
    total = float(chroma[drawn].sum())
    if total < 1e-3:
        return 0.0, 0.0, 0.0
    histogram, _ = np.histogram(hue[drawn], bins=_BINS, range=(0, 360), weights=chroma[drawn])
    smooth = sum(np.roll(histogram, shift) * weight for shift, weight in ((-2, 1), (-1, 2), (0, 3), (1, 2), (2, 1)))
    peak = (int(np.argmax(smooth)) + 0.5) * 360 / _BINS
    near = drawn & (hue_distance(hue, peak) < 25)
    # The mean around the peak is finer than the bins.
    angles = np.deg2rad(hue[near])
    weights = chroma[near]
    mean = float(np.rad2deg(np.arctan2((weights * np.sin(angles)).sum(), (weights * np.cos(angles)).sum()))) % 360
    return mean, float(chroma[near].sum()) / total, total / float(drawn.sum())


def nearest_colour(hue: float) -> str:
    """The colour whose hue is nearest."""
    return min(HUES, key=lambda colour: float(hue_distance(hue, HUES[colour])))


def turn_to(rgb: Array, colour: str) -> Array:
    """A copy of one image [H, W, 3] with the dominant hue of `colour`: every pixel's hue turns by the same angle."""
    hue, saturation, lightness = to_hsl(rgb)
    angle = HUES[colour] - dominant_hue(rgb)[0]
    return to_rgb((hue + angle) % 360, saturation, lightness)
