"""Every preset that diffusers exports becomes a tree of ours, which declares and documents the same."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import diffusers
import pytest

from loopwright import ModularPipelineBlocks, check, describe
from loopwright.blocks import walk
from loopwright.bridge import from_diffusers

# the classes that presets are made with
_MADE_WITH = [
    "AutoPipelineBlocks",
    "ConditionalPipelineBlocks",
    "LoopSequentialPipelineBlocks",
    "ModularPipelineBlocks",
    "SequentialPipelineBlocks",
]
PRESETS = [
    name
    for name in diffusers._import_structure["modular_pipelines"]
    if name.endswith("Blocks") and name not in _MADE_WITH
]


@cache
def preset(name: str) -> tuple[Any, Any]:
    """Theirs and ours."""
    blocks = getattr(diffusers, name)()
    return blocks, from_diffusers(blocks)


def with_workflows(name: str) -> list[tuple[str | None, Any, Any]]:
    """The name of each workflow of a preset, theirs and ours; None for the preset itself."""
    theirs, ours = preset(name)
    workflows = theirs.available_workflows if theirs._workflow_map is not None else []
    return [(None, theirs, ours), *((w, theirs.get_workflow(w), ours.get_workflow(w)) for w in workflows)]


def test_all_presets_are_here() -> None:
    assert len(PRESETS) == 40


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_workflows_have_no_errors(name: str) -> None:
    for _, _, blocks in with_workflows(name):
        assert [str(finding) for finding in check(blocks) if finding.severity == "error"] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_workflows_declare_what_they_do_in_diffusers(name: str) -> None:
    theirs, ours = preset(name)
    if theirs._workflow_map is not None:
        assert ours.available_workflows == theirs.available_workflows
    for _, their, our in with_workflows(name):
        assert list(our.sub_blocks) == list(their.sub_blocks)
        for attribute in ("outputs", "intermediate_outputs", "expected_components", "expected_configs"):
            assert fields(getattr(our, attribute)) == fields(getattr(their, attribute))
        groups = [param.kwargs_type for param in our.inputs if param.name is None]
        # of several groups of values that it takes, a sequence there lists the first only
        listed = [param for param in our.inputs if param.name is not None or param.kwargs_type == groups[0]]
        assert fields(listed) == fields(their.inputs)
        assert our.doc == their.doc or len(groups) > 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_ours_and_diffusers_at_every_depth(name: str) -> None:
    theirs, ours = preset(name)
    classes = {path: type(block) for path, block in walk(theirs)}
    for path, block in walk(ours):
        assert isinstance(block, ModularPipelineBlocks)
        assert isinstance(block, classes[path])
        assert type(block).__name__ == classes[path].__name__
    assert describe(ours).splitlines()[0].startswith(name)


def fields(declarations: list[Any]) -> list[dict[str, Any]]:
    """The fields of declarations, whichever library they are of."""
    return [
        {
            field.name: repr(getattr(declaration, field.name))
            for field in dataclasses.fields(declaration)
            if field.name != "repo"
        }
        for declaration in declarations
    ]
