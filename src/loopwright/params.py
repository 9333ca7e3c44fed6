"""Declarations of what a block reads and writes: `InputParam`, `OutputParam`, and their templates."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Self

from loopwright.errors import UnknownNameError, did_you_mean

__all__ = ["INPUT_PARAM_TEMPLATES", "OUTPUT_PARAM_TEMPLATES", "InputParam", "OutputParam"]


class _Imported:
    """A type hint that is imported when a template is used: this module imports neither torch nor Pillow.

    Args:
        target: `module:attribute`.
        listed: whether `list[...]` of the class is meant as well (`"or"`), alone (`"only"`), or not at all (None).
    """

    def __init__(self, target: str, listed: str | None = None) -> None:
        self.target = target
        self.listed = listed

    def resolve(self) -> Any:
        module, _, attribute = self.target.partition(":")
        cls: Any = importlib.import_module(module)
        for part in attribute.split("."):
            cls = getattr(cls, part)
        if self.listed == "only":
            return list[cls]
        return cls | list[cls] if self.listed == "or" else cls


_TENSOR = _Imported("torch:Tensor")
_IMAGE = _Imported("PIL.Image:Image")
_IMAGES = _Imported("PIL.Image:Image", listed="only")

# Names, types, defaults and descriptions are those of diffusers 0.42.1, so that declarations and documentation of
# blocks written for it stay the same here.
INPUT_PARAM_TEMPLATES: dict[str, dict[str, Any]] = {
    "prompt": {
        "type_hint": str,
        "required": True,
        "description": "The prompt or prompts to guide image generation.",
    },
    "negative_prompt": {
        "type_hint": str,
        "description": "The prompt or prompts not to guide the image generation.",
    },
    "max_sequence_length": {
        "type_hint": int,
        "default": 512,
        "description": "Maximum sequence length for prompt encoding.",
    },
    "height": {"type_hint": int, "description": "The height in pixels of the generated image."},
    "width": {"type_hint": int, "description": "The width in pixels of the generated image."},
    "num_inference_steps": {"type_hint": int, "default": 50, "description": "The number of denoising steps."},
    "num_images_per_prompt": {
        "type_hint": int,
        "default": 1,
        "description": "The number of images to generate per prompt.",
    },
    "generator": {
        "type_hint": _Imported("torch:Generator"),
        "description": "Torch generator for deterministic generation.",
    },
    "sigmas": {"type_hint": list[float], "description": "Custom sigmas for the denoising process."},
    "strength": {"type_hint": float, "default": 0.9, "description": "Strength for img2img/inpainting."},
    "image": {
        "type_hint": _Imported("PIL.Image:Image", listed="or"),
        "required": True,
        "description": "Reference image(s) for denoising. Can be a single image or list of images.",
    },
    "latents": {"type_hint": _TENSOR, "description": "Pre-generated noisy latents for image generation."},
    "timesteps": {"type_hint": _TENSOR, "description": "Timesteps for the denoising process."},
    "output_type": {"type_hint": str, "default": "pil", "description": "Output format: 'pil', 'np', 'pt'."},
    "attention_kwargs": {
        "type_hint": dict[str, Any],
        "description": "Additional kwargs for attention processors.",
    },
    "denoiser_input_fields": {
        "name": None,
        "kwargs_type": "denoiser_input_fields",
        "description": "conditional model inputs for the denoiser: e.g. prompt_embeds, negative_prompt_embeds, etc.",
    },
    # inpainting
    "mask_image": {"type_hint": _IMAGE, "required": True, "description": "Mask image for inpainting."},
    "padding_mask_crop": {"type_hint": int, "description": "Padding for mask cropping in inpainting."},
    # controlnet
    "control_image": {
        "type_hint": _IMAGE,
        "required": True,
        "description": "Control image for ControlNet conditioning.",
    },
    "control_guidance_start": {"type_hint": float, "default": 0.0, "description": "When to start applying ControlNet."},
    "control_guidance_end": {"type_hint": float, "default": 1.0, "description": "When to stop applying ControlNet."},
    "controlnet_conditioning_scale": {
        "type_hint": float,
        "default": 1.0,
        "description": "Scale for ControlNet conditioning.",
    },
    "layers": {"type_hint": int, "default": 4, "description": "Number of layers to extract from the image"},
    # values that one block usually hands to another
    "prompt_embeds": {
        "type_hint": _TENSOR,
        "required": True,
        "description": "text embeddings used to guide the image generation. Can be generated from text_encoder step.",
    },
    "prompt_embeds_mask": {
        "type_hint": _TENSOR,
        "required": True,
        "description": "mask for the text embeddings. Can be generated from text_encoder step.",
    },
    "negative_prompt_embeds": {
        "type_hint": _TENSOR,
        "description": "negative text embeddings used to guide the image generation. "
        "Can be generated from text_encoder step.",
    },
    "negative_prompt_embeds_mask": {
        "type_hint": _TENSOR,
        "description": "mask for the negative text embeddings. Can be generated from text_encoder step.",
    },
    "image_latents": {
        "type_hint": _TENSOR,
        "required": True,
        "description": "image latents used to guide the image generation. Can be generated from vae_encoder step.",
    },
    "batch_size": {
        "type_hint": int,
        "default": 1,
        "description": "Number of prompts, the final batch size of model inputs should be "
        "batch_size * num_images_per_prompt. Can be generated in input step.",
    },
    "dtype": {
        "type_hint": _Imported("torch:dtype"),
        "default": _Imported("torch:float32"),
        "description": "The dtype of the model inputs, can be generated in input step.",
    },
}

_DENOISER_FIELD = {"type_hint": _TENSOR, "kwargs_type": "denoiser_input_fields"}

OUTPUT_PARAM_TEMPLATES: dict[str, dict[str, Any]] = {
    "images": {"type_hint": _IMAGES, "description": "Generated images."},
    "videos": {"type_hint": _IMAGES, "description": "The generated videos."},
    "latents": {"type_hint": _TENSOR, "description": "Denoised latents."},
    "prompt_embeds": {**_DENOISER_FIELD, "description": "The prompt embeddings."},
    "prompt_embeds_mask": {**_DENOISER_FIELD, "description": "The encoder attention mask."},
    "negative_prompt_embeds": {**_DENOISER_FIELD, "description": "The negative prompt embeddings."},
    "negative_prompt_embeds_mask": {**_DENOISER_FIELD, "description": "The negative prompt embeddings mask."},
    "image_latents": {"type_hint": _TENSOR, "description": "The latent representation of the input image."},
}


def _template_fields(
    kind: str, templates: dict[str, dict[str, Any]], template_name: str, note: str | None, overrides: dict[str, Any]
) -> dict[str, Any]:
    if template_name not in templates:
        raise UnknownNameError(
            f"there is no {kind} template `{template_name}`{did_you_mean(template_name, templates)}; "
            f"there are {', '.join(sorted(templates))}"
        )
    fields = {
        key: value.resolve() if isinstance(value, _Imported) else value
        for key, value in templates[template_name].items()
    }
    fields.setdefault("name", template_name)
    if note:
        fields["description"] = f"{fields['description']} ({note})"
    return {**fields, **overrides}


@dataclass
class InputParam:
    """A value that a block reads.

    Attributes:
        name: the name of the value in the state. None for a `kwargs_type` input, which takes many values.
        type_hint: the type of the value, for documentation and the static check.
        default: what the block gets if the value was not given.
        required: whether the block cannot run without it. A default does not lift it.
        description: one sentence for the reader of the documentation.
        kwargs_type: the group that the value belongs to (`denoiser_input_fields`). A block that declares an input with
            a `kwargs_type` and no name gets all values of the group.
        metadata: anything that the author wants to keep with the declaration.
        defaults_by_block: set on the combined input of a conditional whose branches declare different defaults: block
            name to default. `default` is None then, and the branch that runs applies its own.
    """

    name: str | None = None
    type_hint: Any = None
    default: Any = None
    required: bool = False
    description: str = ""
    kwargs_type: str | None = None
    metadata: dict[str, Any] | None = None
    defaults_by_block: dict[str, Any] | None = None

    @property
    def must_be_given(self) -> bool:
        """Whether the block cannot run if nobody gives the value."""
        return self.required

    def __repr__(self) -> str:
        return f"<{self.name}: {'required' if self.required else 'optional'}, default={self.default}>"

    @classmethod
    def template(cls, template_name: str, note: str | None = None, **overrides: Any) -> Self:
        """The standard declaration of a common input, with some fields overridden.

        Args:
            template_name: one of `INPUT_PARAM_TEMPLATES`.
            note: added in parentheses to the description.
            **overrides: fields that replace those of the template.

        Raises:
            UnknownNameError: there is no such template.
        """
        return cls(**_template_fields("input", INPUT_PARAM_TEMPLATES, template_name, note, overrides))


@dataclass
class OutputParam:
    """A value that a block writes. The attributes mean what they mean in `InputParam`."""

    name: str
    type_hint: Any = None
    description: str = ""
    kwargs_type: str | None = None
    metadata: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}: {getattr(self.type_hint, '__name__', str(self.type_hint))}>"

    @classmethod
    def template(cls, template_name: str, note: str | None = None, **overrides: Any) -> Self:
        """The standard declaration of a common output; see `InputParam.template`, with `OUTPUT_PARAM_TEMPLATES`."""
        return cls(**_template_fields("output", OUTPUT_PARAM_TEMPLATES, template_name, note, overrides))
