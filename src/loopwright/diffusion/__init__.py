"""Diffusion: blocks, workflows from text to image to morphing between prompts, and the embedded model."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decode import DecodeInpaintedStep, DecodeStep
    from .denoise import DenoiseLoop, GuideAndPredictStep, InpaintDenoiseLoop, KeepUnmaskedStep, SchedulerStep
    from .embedded import embedded_pipeline
    from .image import EncodeImageStep, PrepareMaskStep
    from .inputs import CheckInputsStep, ExpandBatchStep
    from .latents import PrepareImageLatentsStep, PrepareLatentsStep, SampleNoiseStep
    from .loading import load_components, load_pipeline
    from .metadata import ImageMetadata, read_metadata, save_animation, save_image
    from .morph import MorphBlocks, MorphLoop
    from .text import TextEncoderStep
    from .timesteps import SetTimestepsStep, StrengthStep
    from .workflows import AutoImageBlocks, ImageToImageBlocks, InpaintingBlocks, TextToImageBlocks

__all__ = [
    "AutoImageBlocks",
    "CheckInputsStep",
    "DecodeInpaintedStep",
    "DecodeStep",
    "DenoiseLoop",
    "EncodeImageStep",
    "ExpandBatchStep",
    "GuideAndPredictStep",
    "ImageMetadata",
    "ImageToImageBlocks",
    "InpaintDenoiseLoop",
    "InpaintingBlocks",
    "KeepUnmaskedStep",
    "MorphBlocks",
    "MorphLoop",
    "PrepareImageLatentsStep",
    "PrepareLatentsStep",
    "PrepareMaskStep",
    "SampleNoiseStep",
    "SchedulerStep",
    "SetTimestepsStep",
    "StrengthStep",
    "TextEncoderStep",
    "TextToImageBlocks",
    "embedded_pipeline",
    "load_components",
    "load_pipeline",
    "read_metadata",
    "save_animation",
    "save_image",
]

# Where each public name lives. They are imported when they are first used: reading metadata needs no torch.
_HOMES = {
    "decode": ("DecodeInpaintedStep", "DecodeStep"),
    "denoise": ("DenoiseLoop", "GuideAndPredictStep", "InpaintDenoiseLoop", "KeepUnmaskedStep", "SchedulerStep"),
    "embedded": ("embedded_pipeline",),
    "image": ("EncodeImageStep", "PrepareMaskStep"),
    "inputs": ("CheckInputsStep", "ExpandBatchStep"),
    "latents": ("PrepareImageLatentsStep", "PrepareLatentsStep", "SampleNoiseStep"),
    "loading": ("load_components", "load_pipeline"),
    "metadata": ("ImageMetadata", "read_metadata", "save_animation", "save_image"),
    "morph": ("MorphBlocks", "MorphLoop"),
    "text": ("TextEncoderStep",),
    "timesteps": ("SetTimestepsStep", "StrengthStep"),
    "workflows": ("AutoImageBlocks", "ImageToImageBlocks", "InpaintingBlocks", "TextToImageBlocks"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
