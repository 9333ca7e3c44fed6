"""The names of `diffusers.modular_pipelines.modular_pipeline_utils`."""

from loopwright.blocks.documentation import (
    format_components,
    format_configs,
    format_input_params,
    format_output_params,
    format_params,
    format_workflow,
    make_doc_string,
)
from loopwright.blocks.facts import combine_inputs, combine_outputs
from loopwright.blocks.sub_blocks import InsertableDict
from loopwright.components.model_card import MODULAR_MODEL_CARD_TEMPLATE, generate_modular_model_card_content
from loopwright.params import INPUT_PARAM_TEMPLATES, OUTPUT_PARAM_TEMPLATES, InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec

__all__ = [
    "INPUT_PARAM_TEMPLATES",
    "MODULAR_MODEL_CARD_TEMPLATE",
    "OUTPUT_PARAM_TEMPLATES",
    "ComponentSpec",
    "ConfigSpec",
    "InputParam",
    "InsertableDict",
    "OutputParam",
    "combine_inputs",
    "combine_outputs",
    "format_components",
    "format_configs",
    "format_input_params",
    "format_output_params",
    "format_params",
    "format_workflow",
    "generate_modular_model_card_content",
    "make_doc_string",
]
