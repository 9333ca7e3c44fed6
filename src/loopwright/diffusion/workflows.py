"""The workflows: text to image, image to image, inpainting, and a preset that chooses by the inputs of the call."""

from __future__ import annotations

from loopwright.modular_pipelines import AutoPipelineBlocks, OutputParam, SequentialPipelineBlocks

from .decode import DecodeInpaintedStep, DecodeStep
from .denoise import DenoiseLoop, InpaintDenoiseLoop
from .image import EncodeImageStep, PrepareMaskStep
from .inputs import CheckInputsStep, ExpandBatchStep
from .latents import PrepareImageLatentsStep, PrepareLatentsStep, SampleNoiseStep
from .text import TextEncoderStep
from .timesteps import SetTimestepsStep, StrengthStep

__all__ = [
    "AutoImageBlocks",
    "ImageToImageBlocks",
    "ImageToImageDenoiseStep",
    "InpaintingBlocks",
    "InpaintingDenoiseStep",
    "TextToImageBlocks",
    "TextToImageDenoiseStep",
]


class TextToImageDenoiseStep(SequentialPipelineBlocks):
    """From embeddings to latents, starting at noise."""

    model_name = "loopwright"
    description = "Denoises from noise."
    block_classes = [SampleNoiseStep, SetTimestepsStep, PrepareLatentsStep, DenoiseLoop]
    block_names = ["sample_noise", "set_timesteps", "prepare_latents", "loop"]


class ImageToImageDenoiseStep(SequentialPipelineBlocks):
    """From embeddings and an image's latents to latents, starting at the noised image."""

    model_name = "loopwright"
    description = "Denoises from the noised image."
    block_classes = [SampleNoiseStep, SetTimestepsStep, StrengthStep, PrepareImageLatentsStep, DenoiseLoop]
    block_names = ["sample_noise", "set_timesteps", "strength", "prepare_latents", "loop"]


class InpaintingDenoiseStep(SequentialPipelineBlocks):
    """From embeddings, an image's latents and a mask to latents that differ from the image's inside the mask only."""

    model_name = "loopwright"
    description = "Denoises from the noised image, inside the mask."
    block_classes = [SampleNoiseStep, SetTimestepsStep, StrengthStep(1.0), PrepareImageLatentsStep, InpaintDenoiseLoop]
    block_names = ["sample_noise", "set_timesteps", "strength", "prepare_latents", "loop"]


class EncodeInpaintingStep(SequentialPipelineBlocks):
    """The image and the mask, in pixels and in latents."""

    model_name = "loopwright"
    description = "Encodes the image and prepares the mask."
    block_classes = [PrepareMaskStep, EncodeImageStep]
    block_names = ["prepare_mask", "encode_image"]


class _ImageBlocks(SequentialPipelineBlocks):
    """What all workflows have in common: `images` come out."""

    model_name = "loopwright"

    @property
    def outputs(self) -> list[OutputParam]:
        return [OutputParam.template("images")]


class TextToImageBlocks(_ImageBlocks):
    """Images from prompts."""

    description = "Makes images from prompts."
    block_classes = [CheckInputsStep, TextEncoderStep, ExpandBatchStep, TextToImageDenoiseStep, DecodeStep]
    block_names = ["check_inputs", "text_encoder", "expand_batch", "denoise", "decode"]


class ImageToImageBlocks(_ImageBlocks):
    """Images from images and prompts; `strength` says how far from the images."""

    description = "Makes images from images and prompts."
    block_classes = [
        CheckInputsStep,
        TextEncoderStep,
        ExpandBatchStep,
        EncodeImageStep,
        ImageToImageDenoiseStep,
        DecodeStep,
    ]
    block_names = ["check_inputs", "text_encoder", "expand_batch", "encode_image", "denoise", "decode"]


class InpaintingBlocks(_ImageBlocks):
    """Images with the part inside a mask made anew; the pixels outside it stay exactly as they are."""

    description = "Makes the part of an image inside a mask anew, by a prompt."
    block_classes = [
        CheckInputsStep,
        TextEncoderStep,
        ExpandBatchStep,
        EncodeInpaintingStep,
        InpaintingDenoiseStep,
        DecodeInpaintedStep,
    ]
    block_names = ["check_inputs", "text_encoder", "expand_batch", "encode_image", "denoise", "decode"]


class AutoEncodeImageStep(AutoPipelineBlocks):
    """Encodes what the call gives: image and mask, an image, or nothing."""

    model_name = "loopwright"
    description = "Encodes the image, and the mask, if there is one."
    block_classes = [EncodeInpaintingStep, EncodeImageStep]
    block_names = ["inpainting", "image2image"]
    block_trigger_inputs = ["mask_image", "image"]


class AutoDenoiseStep(AutoPipelineBlocks):
    """Denoises from what there is: a masked image, an image, or noise."""

    model_name = "loopwright"
    description = "Denoises from the masked image, from the image, or from noise."
    block_classes = [InpaintingDenoiseStep, ImageToImageDenoiseStep, TextToImageDenoiseStep]
    block_names = ["inpainting", "image2image", "text2image"]
    block_trigger_inputs = ["latent_mask", "image_latents", None]


class AutoDecodeStep(AutoPipelineBlocks):
    """Decodes, and keeps the pixels outside a mask if there is one."""

    model_name = "loopwright"
    description = "Decodes the latents; outside a mask are the pixels of the image."
    block_classes = [DecodeInpaintedStep, DecodeStep]
    block_names = ["inpainting", "default"]
    block_trigger_inputs = ["mask", None]


class AutoImageBlocks(_ImageBlocks):
    """All three workflows: `image` makes a call image to image, `mask_image` as well makes it inpainting."""

    description = "Makes images from a prompt, an image or not, and a mask or not."
    block_classes = [
        CheckInputsStep,
        TextEncoderStep,
        ExpandBatchStep,
        AutoEncodeImageStep,
        AutoDenoiseStep,
        AutoDecodeStep,
    ]
    block_names = ["check_inputs", "text_encoder", "expand_batch", "encode_image", "denoise", "decode"]
    _workflow_map = {
        "text2image": {"prompt": True},
        "image2image": {"prompt": True, "image": True},
        "inpainting": {"prompt": True, "image": True, "mask_image": True},
    }
