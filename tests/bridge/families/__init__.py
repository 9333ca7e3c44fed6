"""The families of diffusers, each with tiny components and the inputs of its workflows."""

from __future__ import annotations

import diffusers

from tests.bridge.families import (
    cosmos,
    flux,
    flux2,
    flux3,
    images,
    ltx2,
    minimax,
    qwen_image,
    stable_diffusion,
    videos,
    wan,
    wan_animate,
)

__all__ = ["ALL", "FAMILIES", "MAIN", "NOT_RUN", "SHORT"]

FAMILIES = list(diffusers.modular_pipelines.modular_pipeline.MODULAR_PIPELINE_MAPPING)

ALL = [
    case
    for module in (
        flux,
        stable_diffusion,
        wan,
        wan_animate,
        qwen_image,
        flux2,
        flux3,
        images,
        videos,
        ltx2,
        cosmos,
        minimax,
    )
    for case in module.CASES
]

# the first of each family
MAIN = [case for case in ALL if case is next(other for other in ALL if other.family == case.family)]

# those that are tested always
SHORT = [case for case in ALL if case.hard or case in MAIN]

# families that cannot be run, and why
NOT_RUN: dict[str, str] = {}
