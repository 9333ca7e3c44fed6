"""The page of a pipeline on the hub, from what its blocks declare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loopwright.blocks.documentation import format_components, format_configs, type_name
from loopwright.params import InputParam, OutputParam

__all__ = ["MODULAR_MODEL_CARD_TEMPLATE", "generate_modular_model_card_content", "write_model_card"]

MODULAR_MODEL_CARD_TEMPLATE = """{model_description}

## Example Usage

{example}

## Pipeline Architecture

This pipeline is made of the following blocks:

{blocks_description} {trigger_inputs_section}

## Model Components

{components_description} {configs_section}

{io_specification_section}
"""

_EXAMPLE = """```python
from loopwright import ModularPipeline

pipe = ModularPipeline.from_pretrained("{source}"{trust})
pipe.load_components()
result = pipe({inputs})
```"""

# a tag of the hub, and what gives it: parts of the names of workflows, or inputs that choose blocks
_TAGS = (
    ("inpainting", ("inpaint",), {"mask", "mask_image"}),
    ("image-to-image", ("image2image", "img2img", "edit"), {"image", "image_latents"}),
    ("controlnet", ("controlnet",), {"control_image", "controlnet_cond"}),
    ("text-to-video", ("text2video",), set[str]()),
    ("image-to-video", ("image2video",), set[str]()),
    ("text-to-image", ("text2image",), set[str]()),
)


def generate_modular_model_card_content(blocks: Any) -> dict[str, Any]:
    """The parts of the page.

    Args:
        blocks: the blocks of the pipeline.

    Returns:
        A dict with `pipeline_name`, `model_description`, `blocks_description`, `components_description`,
        `configs_section`, `io_specification_section`, `trigger_inputs_section`, all text, and the list `tags`.
    """
    class_name = type(blocks).__name__
    triggers = _triggers(blocks)
    workflows = getattr(blocks, "_workflow_map", None)
    return {
        "pipeline_name": class_name.replace("Blocks", " Pipeline"),
        "model_description": _description(blocks, class_name),
        "blocks_description": _blocks(blocks),
        "components_description": _components(blocks),
        "configs_section": _configs(blocks),
        "io_specification_section": _workflows(blocks, workflows) + _values(blocks),
        "trigger_inputs_section": "" if workflows else _conditions(triggers),
        "tags": _tags(blocks, workflows, triggers),
    }


def write_model_card(
    blocks: Any, folder: Path, kept: Path, repo_id: str, token: Any = None, update: bool = False, trust: bool = False
) -> None:
    """Write the page of a pipeline, README.md.

    A page that the user wrote stays as it is, in the folder that is saved to or on the hub; it gets the tags that are
    missing.

    Args:
        blocks: the blocks of the pipeline.
        folder: where the page is written.
        kept: the folder that is saved to.
        repo_id: the repository.
        token: the token for the hub.
        update: whether the text is written anew; what stands in the head of the page stays.
        trust: whether the pipeline brings code of its own.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    content = generate_modular_model_card_content(blocks)
    required = ", ".join(f"{name}=..." for name in blocks.required_inputs)
    example = _EXAMPLE.format(source=repo_id, trust=", trust_remote_code=True" if trust else "", inputs=required)
    text = MODULAR_MODEL_CARD_TEMPLATE.format(**content, example=example)
    try:
        own = kept / "README.md"
        card = ModelCard.load(own) if own.is_file() else ModelCard.load(repo_id, token=token)
        if update:
            card.text = text
    except (EntryNotFoundError, RepositoryNotFoundError):
        card = ModelCard(text)
    card.data.library_name = card.data.library_name or "diffusers"
    tags = card.data.tags or []
    card.data.tags = [*tags, *(tag for tag in content["tags"] if tag not in tags)]
    card.save(folder / "README.md")


def _description(blocks: Any, class_name: str) -> str:
    return (
        "This is a diffusion pipeline made of blocks. It runs with [diffusers](https://github.com/huggingface/diffusers)"
        " and with Loopwright, which streams, pauses and resumes it.\n\n"
        f"**Pipeline Type**: {class_name}\n\n"
        f"**Description**: {getattr(blocks, 'description', '')}\n\n"
        f"This pipeline uses a {len(blocks.sub_blocks)}-block architecture that can be customized and extended."
    )


def _blocks(blocks: Any) -> str:
    lines = []
    for number, (name, block) in enumerate(blocks.sub_blocks.items(), start=1):
        lines.append(f"{number}. **{name}** (`{type(block).__name__}`)")
        described = str(getattr(block, "description", "") or "").strip()
        lines += [f"   - {described.splitlines()[0]}"] if described else []
    return "\n".join(lines) or "It is a single block."


def _components(blocks: Any) -> str:
    entries = format_components(blocks.expected_components, indent_level=0, add_empty_lines=False).splitlines()[1:]
    numbered = [f"{number}. {entry.strip()}" for number, entry in enumerate(entries, start=1)]
    return "\n".join(numbered) or "No specific components required."


def _configs(blocks: Any) -> str:
    entries = format_configs(blocks.expected_configs, indent_level=0, add_empty_lines=False).splitlines()[1:]
    return "\n\n## Configuration Parameters\n\n" + "\n".join(entry.strip() for entry in entries) if entries else ""


def _triggers(blocks: Any) -> list[str]:
    """The names of the inputs that choose blocks."""
    known = getattr(blocks, "trigger_inputs", None)
    if known is None and hasattr(blocks, "_get_trigger_inputs"):
        known = blocks._get_trigger_inputs()
    return sorted(name for name in known or () if name is not None)


def _conditions(triggers: list[str]) -> str:
    if not triggers:
        return ""
    return (
        "\n\n### Conditional Execution\n\nThis pipeline contains blocks that are selected at runtime based on inputs:\n"
        f"- **Trigger Inputs**: {', '.join(f'`{name}`' for name in triggers)}\n"
    )


def _workflows(blocks: Any, workflows: dict[str, Any] | None) -> str:
    """What each workflow needs to be given."""
    if not workflows:
        return ""
    parts = ["## Workflow Input Specification\n"]
    for name, triggers in workflows.items():
        # a tuple has several ways to ask for the same workflow
        asked = {key for way in (triggers if isinstance(triggers, tuple) else (triggers,)) for key in way}
        params = [param for param in blocks.get_workflow(name).inputs if param.name in asked]
        listed = _listed(params) or "No additional inputs required."
        parts.append(f"<details>\n<summary><strong>{name}</strong></summary>\n\n{listed}\n\n</details>\n")
    return "\n".join(parts) + "\n"


def _values(blocks: Any) -> str:
    inputs, outputs = _listed(blocks.inputs), _listed(blocks.outputs)
    return (
        "## Input/Output Specification\n\n"
        + (f"**Inputs:**\n\n{inputs}" if inputs else "No specific inputs defined.")
        + "\n\n"
        + (f"**Outputs:**\n\n{outputs}" if outputs else "Standard pipeline outputs.")
    )


def _listed(params: Iterable[InputParam | OutputParam]) -> str:
    lines = []
    for param in params:
        name = f"**{param.kwargs_type}" if param.name is None else param.name
        facts = [f"`{(param.type_hint and type_name(param.type_hint)) or 'Any'}`"]
        if isinstance(param, InputParam) and not param.required:
            facts.append("*optional*")
            if param.defaults_by_block is not None:
                defaults = dict.fromkeys(str(default) for default in param.defaults_by_block.values())
                facts.append(f"defaults to {' or '.join(f'`{d}`' for d in defaults)}, depending on the workflow")
            elif param.default is not None:
                facts.append(f"defaults to `{param.default}`")
        lines.append(f"- `{name}` ({', '.join(facts)}): {param.description or 'No description provided'}")
    return "\n".join(lines)


def _tags(blocks: Any, workflows: dict[str, Any] | None, triggers: list[str]) -> list[str]:
    tags = ["modular-diffusers", "diffusers"]
    if getattr(blocks, "model_name", None):
        tags.append(blocks.model_name)
    if workflows:
        return tags + [tag for tag, parts, _ in _TAGS if any(part in name for part in parts for name in workflows)]
    chosen = [tag for tag, _, inputs in _TAGS if inputs & set(triggers)]
    return tags + (chosen or ["text-to-image"])
