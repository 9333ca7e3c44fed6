"""LoRA adapters are loaded with diffusers' own methods, which the pipelines of families have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from peft.utils import get_peft_model_state_dict

import loopwright
from loopwright.bridge import from_diffusers
from loopwright.errors import ComponentSaveError, MissingComponentError
from tests.bridge.families import flux
from tests.components.test_saving import inputs


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter for the tiny transformer."""
    transformer = flux.components()["transformer"]
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    torch.manual_seed(0)
    transformer.add_adapter(config)
    folder: Path = tmp_path_factory.mktemp("adapter")
    diffusers.FluxPipeline.save_lora_weights(folder, transformer_lora_layers=get_peft_model_state_dict(transformer))
    return folder


@pytest.fixture
def pipe() -> Any:
    made = from_diffusers(diffusers.FluxAutoBlocks()).get_workflow("text2image").init_pipeline()
    made.update_components(**flux.components())
    made.set_progress_bar_config(disable=True)
    return made


def test_an_adapter_changes_the_result_and_unloading_it_restores_it(pipe: Any, adapter: Path) -> None:
    without = pipe(**inputs())
    pipe.load_lora_weights(adapter, adapter_name="style")
    full = pipe(**inputs())
    pipe.set_adapters("style", 0.5)
    half = pipe(**inputs())
    assert len({value.numpy().tobytes() for value in (without, full, half)}) == 3
    pipe.unload_lora_weights()
    assert torch.equal(pipe(**inputs()), without)


def test_an_adapter_does_what_it_does_in_diffusers(pipe: Any, adapter: Path) -> None:
    theirs = diffusers.FluxAutoBlocks().get_workflow("text2image").init_pipeline()
    theirs.update_components(**flux.components())
    theirs.set_progress_bar_config(disable=True)
    for each in (pipe, theirs):
        each.load_lora_weights(adapter, adapter_name="style")
    assert torch.equal(pipe(**inputs()), theirs(**inputs()))


def test_runs_stream_with_an_adapter(pipe: Any, adapter: Path) -> None:
    pipe.load_lora_weights(adapter)
    assert torch.equal(pipe.stream(**inputs()).result(), pipe(**inputs()))


def test_a_model_with_adapters_is_saved_once_they_are_a_part_of_it(pipe: Any, adapter: Path, tmp_path: Path) -> None:
    pipe.load_lora_weights(adapter)
    with pytest.raises(ComponentSaveError) as caught:
        pipe.save_pretrained(tmp_path)
    assert str(caught.value) == (
        "component `transformer` (FluxTransformer2DModel) cannot be saved while adapters are loaded into it: call "
        "`pipe.unload_lora_weights()` first, after `pipe.fuse_lora()` if they are to be a part of it"
    )
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    again = loopwright.ModularPipeline.from_pretrained(tmp_path)
    again.load_components("transformer")
    saved, fused = again.transformer.state_dict(), pipe.transformer.state_dict()
    assert saved.keys() == fused.keys()
    assert all(torch.equal(saved[name], fused[name]) for name in saved)


def test_adapters_of_a_model_that_is_not_loaded_say_so(pipe: Any, adapter: Path) -> None:
    pipe.update_components(transformer=None)
    with pytest.raises(MissingComponentError) as caught:
        pipe.load_lora_weights(adapter)
    assert str(caught.value) == (
        "`load_lora_weights` works with the component `transformer`, which is not loaded: "
        "`pipe.update_components(transformer=...)`"
    )
    pipe.update_components(transformer=flux.components()["transformer"], text_encoder=None)
    pipe.load_lora_weights(adapter)
    assert pipe.get_active_adapters() == ["default_0"]


def test_a_misspelt_method_is_suggested(pipe: Any) -> None:
    with pytest.raises(AttributeError, match="did you mean `load_lora_weights`"):
        pipe.load_lora_weigths("style")
