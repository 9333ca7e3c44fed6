"""`check` finds no error in the blocks that diffusers exports, nor in their workflows, and they declare the same here.

The presets are rebuilt on our classes: a leaf keeps its declarations and its methods, which are never called, and a
composite gets the same sub-blocks.
"""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache
from typing import Any

import diffusers
import diffusers.modular_pipelines as theirs
import pytest

import loopwright.modular_pipelines as ours
from loopwright import check

BASES = ["AutoPipelineBlocks", "ConditionalPipelineBlocks", "LoopSequentialPipelineBlocks", "SequentialPipelineBlocks"]
DECLARATIONS = ("inputs", "intermediate_outputs", "expected_components", "expected_configs")
LISTS = (*DECLARATIONS, "outputs", *(f"loop_{name}" for name in DECLARATIONS))
SETTINGS = ("block_trigger_inputs", "default_block_name", "_workflow_map")
PRESETS = [
    name
    for name in diffusers._import_structure["modular_pipelines"]
    if name.endswith("Blocks") and name not in (*BASES, "ModularPipelineBlocks")
]


def rebuilt(block: Any) -> Any:
    """A block of diffusers as a block of ours, with all that its own classes define."""
    base = next((name for name in BASES if isinstance(block, getattr(theirs, name))), "ModularPipelineBlocks")
    of_the_library = getattr(theirs, base).__mro__
    defined = {
        name: value
        for cls in type(block).__mro__[::-1]
        if cls not in of_the_library
        for name, value in vars(cls).items()
    }
    fields: dict[str, Any] = {"description": block.description} if "description" in defined else {}
    for name, value in defined.items():
        if name in LISTS:
            fields[name] = [copied(item) for item in getattr(block, name)]
        elif name in SETTINGS or is_own_method(value):
            fields[name] = value
    if base != "ModularPipelineBlocks":
        fields["block_names"] = list(block.sub_blocks)
        fields["block_classes"] = [rebuilt(child) for child in block.sub_blocks.values()]
    return type(type(block).__name__, (getattr(ours, base),), fields)()


def is_own_method(value: Any) -> bool:
    """Whether it is a method, and one that does not call `super()`, which would look among the classes of diffusers."""
    return inspect.isfunction(value) and value.__name__ != "__init__" and "__class__" not in value.__code__.co_freevars


def copied(declaration: Any) -> Any:
    fields = {field.name: getattr(declaration, field.name) for field in dataclasses.fields(declaration)}
    return getattr(ours, type(declaration).__name__)(**fields)


@cache
def preset(name: str) -> tuple[Any, Any]:
    """Theirs and ours."""
    blocks = getattr(diffusers, name)()
    return blocks, rebuilt(blocks)


def errors(blocks: Any) -> list[str]:
    return [str(finding) for finding in check(blocks) if finding.severity == "error"]


def test_all_presets_are_here() -> None:
    assert len(PRESETS) == 40


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_workflows_have_no_errors(name: str) -> None:
    _, blocks = preset(name)
    assert errors(blocks) == []
    for workflow in blocks._workflow_map or ():
        assert errors(blocks.get_workflow(workflow)) == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_workflows_declare_what_they_do_in_diffusers(name: str) -> None:
    peer, blocks = preset(name)
    pairs = [(peer, blocks)]
    if peer._workflow_map is not None:
        assert blocks.available_workflows == peer.available_workflows
        pairs += [
            (peer.get_workflow(workflow), blocks.get_workflow(workflow)) for workflow in blocks.available_workflows
        ]
    for their, our in pairs:
        assert list(our.sub_blocks) == list(their.sub_blocks)
        assert our.input_names == their.input_names
        assert our.intermediate_output_names == their.intermediate_output_names
        assert our.output_names == their.output_names
        assert our.component_names == their.component_names
        # there, what an earlier block writes counts as required too
        assert set(our.required_inputs) <= set(their.required_inputs)
        # of several groups of values, a sequence there takes the first only
        assert groups(their) == groups(our)[:1]
        assert our.doc == their.doc or len(groups(our)) > 1


def groups(blocks: Any) -> list[str]:
    return [param.kwargs_type for param in blocks.inputs if param.name is None]
