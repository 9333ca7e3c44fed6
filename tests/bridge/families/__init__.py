"""The families of diffusers, each with tiny components and the inputs of its workflows."""

from __future__ import annotations

from tests.bridge.families import flux, flux2, images, ltx2, minimax, qwen_image, stable_diffusion, videos, wan

__all__ = ["ALL", "NOT_RUN"]

ALL = [
    case
    for module in (flux, stable_diffusion, wan, qwen_image, flux2, images, videos, ltx2, minimax)
    for case in module.CASES
]

# families that cannot be run, and why
NOT_RUN: dict[str, str] = dict.fromkeys(
    (
        *("cosmos3-omni", "flux3", "flux3-distilled"),
        *("wan-animate-2", "wan-animate-2-distilled"),
    ),
    "its tiny components are not made yet",
)
