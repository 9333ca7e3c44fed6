"""What an operator may name as the model that is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopwright.diffusion.model_index import EMBEDDED_MODEL
from loopwright.errors import InvalidInputError
from loopwright.server.inputs import PipelineInputs
from loopwright.server.kinds import kind_of_input
from loopwright.server.limits import Limits
from loopwright.server.models import load_model


@pytest.mark.parametrize(
    ("name", "offered"), [(None, "loopwright-embedded"), (str(EMBEDDED_MODEL), EMBEDDED_MODEL.name)]
)
def test_the_embedded_model_and_a_folder_are_served_with_all_their_workflows(name: str | None, offered: str) -> None:
    pipeline, called = load_model(name)
    assert called == offered
    inputs = PipelineInputs(pipeline.blocks, Limits())
    assert (inputs.required, inputs.output, inputs.has_seed) == (["prompt"], ("images",), True)
    assert {"image", "mask_image", "strength", "latents", "sigmas"} <= set(inputs.names)
    assert inputs.kinds["mask_image"].carrier == "image"
    assert inputs.kinds["latents"].carrier == "tensor"


def test_a_pipeline_that_was_saved_is_served(tmp_path: Path) -> None:
    pipeline, _ = load_model(None)
    pipeline.save_pretrained(tmp_path / "saved")
    again, called = load_model(str(tmp_path / "saved"))
    assert called == "saved"
    assert again.null_component_names == []


def test_mistakes_in_the_model_say_what_to_write() -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_model(None, dtype="fp16")
    assert str(caught.value) == "--dtype is 'fp16'; it must be one of float32, bfloat16, float16"


def test_what_names_say_of_inputs_without_a_type() -> None:
    found = {
        name: (kind_of_input(name, None).carrier, kind_of_input(name, None).many)
        for name in ("image", "last_image", "mask_image", "images", "video", "image_latents", "image_width", "prompt")
    }
    assert found == {
        "image": ("image", True),
        "last_image": ("image", True),
        "mask_image": ("image", False),
        "images": ("image", True),
        "video": ("image", True),
        "image_latents": ("tensor", False),
        "image_width": ("json", False),
        "prompt": ("json", False),
    }
    assert kind_of_input("image", str).carrier == "json"
