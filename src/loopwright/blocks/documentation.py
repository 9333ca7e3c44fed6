"""The documentation text of a block, from its declarations.

The layout of `doc` is that of diffusers, down to the spaces, so that documentation made from it does not change.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec

if TYPE_CHECKING:
    from loopwright.blocks.base import ModularPipelineBlocks

__all__ = [
    "format_components",
    "format_configs",
    "format_input_params",
    "format_output_params",
    "format_params",
    "format_workflow",
    "make_doc_string",
    "represent",
    "type_name",
]


def type_name(type_hint: Any) -> str:
    """The name of a type hint, `A | B` for a union, empty for `Any`."""
    if type_hint is Any:
        return ""
    if isinstance(type_hint, UnionType) or get_origin(type_hint) is Union:
        return " | ".join(getattr(member, "__name__", str(member)) for member in get_args(type_hint))
    return str(getattr(type_hint, "__name__", type_hint))


def format_params(
    params: Iterable[InputParam | OutputParam], header: str = "Args", indent_level: int = 4, max_line_length: int = 115
) -> str:
    """The declarations of inputs or outputs under a header, empty if there are none."""
    indent = " " * indent_level
    lines = []
    for param in params:
        name = f"**{param.kwargs_type}" if param.name is None and param.kwargs_type is not None else param.name
        line = f"{indent}    {name} (`{type_name(param.type_hint)}`"
        if isinstance(param, InputParam) and not param.required:
            line += ", *optional*" + _default_phrase(param)
        lines.append(line + "):")
        description = param.description or "TODO: Add description."
        wrapped = textwrap.wrap(description, max_line_length, break_long_words=False, break_on_hyphens=False)
        lines.extend(f"{indent}        {part}" for part in wrapped or [""])
    return "\n".join([f"{indent}{header}:", *lines]) if lines else ""


def _default_phrase(param: InputParam) -> str:
    if param.defaults_by_block is not None:
        distinct = dict.fromkeys(str(default) for default in param.defaults_by_block.values())
        return f", defaults to {' or '.join(distinct)}, depending on the workflow"
    return f", defaults to {param.default}" if param.default is not None else ""


def format_input_params(params: Iterable[InputParam], indent_level: int = 4, max_line_length: int = 115) -> str:
    """`format_params` under the header "Inputs"."""
    return format_params(params, "Inputs", indent_level, max_line_length)


def format_output_params(params: Iterable[OutputParam], indent_level: int = 4, max_line_length: int = 115) -> str:
    """`format_params` under the header "Outputs"."""
    return format_params(params, "Outputs", indent_level, max_line_length)


def format_components(components: Iterable[ComponentSpec], indent_level: int = 4, add_empty_lines: bool = True) -> str:
    """The declarations of components, each with where it is loaded from if that is known."""
    indent = " " * indent_level
    entries = []
    for spec in components:
        entry = f"{indent}    {spec.name} (`{getattr(spec.type_hint, '__name__', spec.type_hint)}`)"
        if spec.description:
            entry += f": {spec.description}"
        source = [f"{name}={getattr(spec, name)}" for name in spec.loading_fields() if getattr(spec, name)]
        entries.append(entry + (f" [{', '.join(source)}]" if source else ""))
    return _section(f"{indent}Components:", entries, add_empty_lines)


def format_configs(configs: Iterable[ConfigSpec], indent_level: int = 4, add_empty_lines: bool = True) -> str:
    """The declarations of configuration values."""
    indent = " " * indent_level
    entries = [
        f"{indent}    {spec.name} (default: {spec.default})" + (f": {spec.description}" if spec.description else "")
        for spec in configs
    ]
    return _section(f"{indent}Configs:", entries, add_empty_lines)


def _section(header: str, entries: list[str], add_empty_lines: bool) -> str:
    if not entries:
        return ""
    return f"{header}\n\n" + "\n\n".join(entries) if add_empty_lines else "\n".join([header, *entries])


def format_workflow(workflow_map: Mapping[str, Any] | None) -> str:
    """Which inputs each workflow requires."""
    if workflow_map is None:
        return ""
    lines = ["Supported workflows:"]
    for name, triggers in workflow_map.items():
        spellings = triggers if isinstance(triggers, tuple) else (triggers,)
        needed = [", ".join(f"`{trigger}`" for trigger, value in spelling.items() if value) for spelling in spellings]
        requirement = " or ".join(filter(None, needed))
        lines.append(
            f"  - `{name}`: requires {requirement}"
            if requirement
            else f"  - `{name}`: default (no additional inputs required)"
        )
    return "\n".join(lines)


def make_doc_string(
    inputs: Iterable[InputParam],
    outputs: Iterable[OutputParam],
    description: str = "",
    class_name: str | None = None,
    expected_components: Iterable[ComponentSpec] | None = None,
    expected_configs: Iterable[ConfigSpec] | None = None,
) -> str:
    """The documentation of a block: class, description, components, configurations, inputs and outputs."""
    parts = []
    if class_name:
        parts.append(f"class {class_name}")
    if description:
        parts.append("\n".join("  " + line.rstrip() for line in description.strip().split("\n")))
    parts.append(format_components(expected_components or (), indent_level=2, add_empty_lines=False))
    parts.append(format_configs(expected_configs or (), indent_level=2, add_empty_lines=False))
    head = "".join(f"{part}\n\n" for part in parts if part)
    return head + format_input_params(inputs, indent_level=2) + "\n\n" + format_output_params(outputs, indent_level=2)


def represent(block: ModularPipelineBlocks) -> str:
    """The `repr` of a block: its class, description, components, configurations and sub-blocks."""
    parts = [f"  Description: {_indented(block.description, 6)}"]
    triggers = sorted(block._get_trigger_inputs())
    workflows = format_workflow(block._workflow_map)
    if workflows:
        parts.append("\n".join("  " + line for line in workflows.split("\n")))
    elif triggers:
        parts.append(
            f"  Chosen at run time by the inputs: {', '.join(triggers)}; "
            f"`get_execution_blocks({triggers[0]}=...)` shows the blocks that would run."
        )
    parts.append(format_components(block.expected_components, indent_level=2, add_empty_lines=False))
    parts.append(format_configs(block.expected_configs, indent_level=2, add_empty_lines=False))
    if block.sub_blocks:
        lines = ["  Sub-Blocks:"]
        for index, (name, child) in enumerate(block.sub_blocks.items()):
            mark = " [default]" if name == getattr(block, "default_block_name", None) else ""
            lines.append(f"    [{index}] {name}{mark} ({type(child).__name__})")
            if child.description:
                lines.append(f"        Description: {_indented(child.description, 12)}")
        parts.append("\n".join(lines))
    else:
        parts.append(format_input_params(block.inputs, indent_level=2))
        parts.append(format_output_params(block.intermediate_outputs, indent_level=2))
    body = "\n\n".join(part for part in parts if part.strip())
    return f"{type(block).__name__}(\n  Class: {type(block).__bases__[0].__name__}\n\n{body}\n)"


def _indented(text: str, width: int) -> str:
    return text.strip().replace("\n", "\n" + " " * width)
