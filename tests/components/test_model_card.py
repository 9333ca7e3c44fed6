"""The page of a pipeline on the hub says what its blocks declare."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline_utils as theirs
import huggingface_hub
import pytest

import loopwright
from loopwright import ComponentSpec, ConfigSpec, InputParam, OutputParam
from loopwright.bridge import from_diffusers
from loopwright.components.model_card import write_model_card
from loopwright.diffusion import AutoImageBlocks
from loopwright.modular_pipelines.modular_pipeline_utils import generate_modular_model_card_content
from tests.bridge.test_presets import PRESETS


class Threshold(loopwright.ModularPipelineBlocks):
    description = "Keeps what is large.\nAnd nothing else."
    inputs = [
        InputParam("values", type_hint=list, required=True, description="What is looked at."),
        InputParam("level", type_hint=float, default=0.5),
        InputParam(kwargs_type="others"),
    ]
    intermediate_outputs = [OutputParam("kept", type_hint=list, description="What is large.")]
    expected_components = [ComponentSpec("net", description="Looks.", repo="me/net", subfolder="net")]
    expected_configs = [ConfigSpec("width", 4, "How wide.")]

    def __call__(self, components: Any, state: Any) -> Any:
        return components, state


def blocks() -> Any:
    return loopwright.SequentialPipelineBlocks.from_blocks_dict({"threshold": Threshold}, description="One step.")


def test_the_parts_of_a_page() -> None:
    content = generate_modular_model_card_content(blocks())
    assert content["pipeline_name"] == "SequentialPipeline Pipeline"
    assert "One step." in content["model_description"]
    assert content["blocks_description"] == "1. **threshold** (`Threshold`)\n   - Keeps what is large."
    assert content["components_description"] == (
        "1. net (`None`): Looks. [pretrained_model_name_or_path=me/net, subfolder=net]"
    )
    assert content["configs_section"] == "\n\n## Configuration Parameters\n\nwidth (default: 4): How wide."
    assert content["io_specification_section"] == (
        "## Input/Output Specification\n\n"
        "**Inputs:**\n\n"
        "- `values` (`list`): What is looked at.\n"
        "- `level` (`float`, *optional*, defaults to `0.5`): No description provided\n"
        "- `**others` (`Any`, *optional*): No description provided\n\n"
        "**Outputs:**\n\n"
        "- `kept` (`list`): What is large."
    )
    assert content["trigger_inputs_section"] == ""


def test_conditional_blocks_name_the_inputs_that_choose() -> None:
    class Chosen(loopwright.AutoPipelineBlocks):
        block_names = ["inpaint", "image2image", "text2image"]
        block_classes = [Threshold, Threshold, Threshold]
        block_trigger_inputs = ["mask_image", "image", None]

    content = generate_modular_model_card_content(Chosen())
    assert "- **Trigger Inputs**: `image`, `mask_image`" in content["trigger_inputs_section"]
    assert content["tags"][2:] == ["inpainting", "image-to-image"]


def test_workflows_say_what_each_is_asked_for_with() -> None:
    content = generate_modular_model_card_content(AutoImageBlocks())
    assert content["trigger_inputs_section"] == ""
    assert content["tags"][2:] == ["loopwright", "inpainting", "image-to-image", "text-to-image"]
    assert "<summary><strong>inpainting</strong></summary>" in content["io_specification_section"]


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_has_a_page_with_the_parts_that_diffusers_has(name: str) -> None:
    content = generate_modular_model_card_content(from_diffusers(getattr(diffusers, name)()))
    peer = generate_their_content(getattr(diffusers, name)())
    assert not peer or content.keys() == peer.keys()
    assert len(set(content["tags"])) == len(content["tags"])
    for shared in ("pipeline_name", "components_description", "configs_section"):
        assert not peer or content[shared].split() == peer[shared].split()


def generate_their_content(blocks: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = theirs.generate_modular_model_card_content(blocks)
    except AttributeError:  # where a workflow may be asked for in several ways
        return {}
    return found


def test_the_example_of_a_page_is_code(tmp_path: Path) -> None:
    class Offline(huggingface_hub.ModelCard):
        pass

    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nOld.")
    made = blocks()
    write_model_card(made, tmp_path, tmp_path, "me/threshold", update=True, trust=True)
    card = Offline.load(tmp_path / "README.md")
    code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert code is not None
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(code[1])) if isinstance(node, ast.Call)]
    assert "ModularPipeline.from_pretrained('me/threshold', trust_remote_code=True)" in calls
    assert "pipe(values=...)" in calls
    assert card.data.license == "mit"
