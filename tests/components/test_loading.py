"""Pipelines are made of what a folder says about them, and their components are loaded from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import loopwright
from loopwright.errors import ComponentLoadError, InvalidInputError, UnknownComponentError

MODELS = {
    "transformer": diffusers.FluxTransformer2DModel,
    "vae": diffusers.AutoencoderKL,
    "scheduler": diffusers.FlowMatchEulerDiscreteScheduler,
}


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classic pipeline without text encoders."""
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    folder: Path = tmp_path_factory.mktemp("flux") / "classic"
    diffusers.FluxPipeline(scheduler, vae, None, None, None, None, transformer).save_pretrained(folder)
    return folder


def edited(folder: Path, copy: Path, **changes: Any) -> Path:
    """A folder whose index has other entries."""
    copy.mkdir()
    index = json.loads((folder / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, **changes}))
    return copy


def test_a_classic_folder_gets_the_blocks_of_its_family_and_its_components(classic: Path) -> None:
    pipe = loopwright.ModularPipeline.from_pretrained(classic)
    assert isinstance(pipe, diffusers.FluxModularPipeline)
    assert set(MODELS) <= set(pipe.null_component_names)
    pipe.load_components()
    assert {name: type(getattr(pipe, name)) for name in MODELS} == MODELS
    assert pipe.scheduler.config.shift == 2.0
    assert not set(MODELS) & set(pipe.null_component_names)


def test_a_workflow_keeps_its_blocks_only(classic: Path) -> None:
    pipe = loopwright.ModularPipeline.from_pretrained(classic, workflow="text2image")
    assert not any("vae_encoder" in name for name in pipe.blocks.sub_blocks)


def test_names_and_options_choose_what_is_loaded_and_how(classic: Path) -> None:
    pipe = loopwright.ModularPipeline.from_pretrained(classic)
    pipe.load_components(["vae", "transformer"], dtype={"vae": torch.bfloat16, "default": torch.float32})
    assert (pipe.vae.dtype, pipe.transformer.dtype, pipe.scheduler) == (torch.bfloat16, torch.float32, None)
    pipe.unload_components("vae")
    assert pipe.vae is None
    pipe.load_components()
    assert pipe.vae.dtype == torch.float32


def test_what_is_there_already_is_not_loaded_again(classic: Path) -> None:
    pipe = loopwright.ModularPipeline.from_pretrained(classic)
    pipe.load_components("vae")
    vae = pipe.vae
    pipe.load_components()
    assert pipe.vae is vae


def test_blocks_of_ones_own_take_their_components_from_a_folder(classic: Path) -> None:
    blocks = loopwright.SequentialPipelineBlocks.from_blocks_dict(
        {"decode": diffusers.FluxAutoBlocks().sub_blocks["decode"]}
    )
    pipe = blocks.init_pipeline(classic)
    pipe.load_components()
    assert isinstance(pipe.vae, diffusers.AutoencoderKL)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.load_components("vea"), UnknownComponentError, "no component `vea` to load, did you mean `vae`?"),
        (lambda p: p.load_components("image_processor"), ComponentLoadError, "is made from its configuration"),
        (lambda p: p.load_components(dtype={"vea": 1}), UnknownComponentError, "has a value for `vea`"),
        (lambda p: p.load_components("vae", workflow="text2image"), InvalidInputError, "`names` or `workflow`"),
        (lambda p: p.unload_components("vea"), UnknownComponentError, "did you mean `vae`?"),
    ],
)
def test_mistakes_in_what_is_to_be_loaded(classic: Path, call: Any, error: type[Exception], message: str) -> None:
    pipe = loopwright.ModularPipeline.from_pretrained(classic)
    with pytest.raises(error) as caught:
        call(pipe)
    assert message in str(caught.value)


def test_half_a_file_of_weights_is_an_error_that_names_the_component_and_the_place(
    classic: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(classic, folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    pipe = loopwright.ModularPipeline.from_pretrained(folder)
    with pytest.raises(
        ComponentLoadError, match=r"component `vae` \(AutoencoderKL\) could not be loaded from"
    ) as caught:
        pipe.load_components()
    assert str(folder / "vae") in str(caught.value)


def test_a_folder_that_is_not_there_or_holds_no_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComponentLoadError, match="there is no folder"):
        loopwright.ModularPipeline.from_pretrained(tmp_path / "absent")
    with pytest.raises(ComponentLoadError, match=r"holds no pipeline: it has neither modular_model_index.json nor"):
        loopwright.ModularPipeline.from_pretrained(tmp_path)


def test_an_index_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ComponentLoadError, match=r"model_index.json of .* is not JSON"):
        loopwright.ModularPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vae": ["diffusers", "AutoencoderKLL"]},
            "an `AutoencoderKLL`, which diffusers 0.42.1 does not have, did you mean `AutoencoderKL`?",
        ),
        ({"vae": ["os", "system"]}, "is a `system`, which os does not have"),
        ({"vae": ["no_such", "Model"]}, "an index does not choose what is imported"),
        ({"_class_name": "NoSuchPipeline"}, "names the pipeline `NoSuchPipeline`, which diffusers"),
        ({"_class_name": 3}, "has 3 as `_class_name`; it must be a name"),
    ],
)
def test_an_index_that_names_what_there_is_not(
    classic: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ComponentLoadError) as caught:
        loopwright.ModularPipeline.from_pretrained(edited(classic, tmp_path / "edited", **changes))
    assert message in str(caught.value)


def test_an_index_of_an_older_version_is_read(classic: Path, tmp_path: Path) -> None:
    """Before 0.37, diffusers called the place of a component `repo`."""
    place = {"type_hint": ["diffusers", "AutoencoderKL"], "repo": str(classic), "subfolder": "vae", "variant": None}
    index = {"_class_name": "FluxModularPipeline", "_blocks_class_name": "FluxAutoBlocks", "vae": [None, None, place]}
    (tmp_path / "modular_model_index.json").write_text(json.dumps(index))
    pipe = loopwright.ModularPipeline.from_pretrained(tmp_path)
    pipe.load_components()
    assert isinstance(pipe.vae, diffusers.AutoencoderKL)


BLOCKS = """
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam

class Double(ModularPipelineBlocks):
    @property
    def inputs(self):
        return [InputParam("x", required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("x")]

    def __call__(self, components, state):
        block_state = self.get_block_state(state)
        block_state.x = block_state.x * 2
        self.set_block_state(state, block_state)
        return components, state
"""


def test_code_that_a_folder_brings_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "modular_config.json").write_text(json.dumps({"auto_map": {"ModularPipelineBlocks": "block.Double"}}))
    (tmp_path / "block.py").write_text(BLOCKS)
    with pytest.raises(ComponentLoadError, match=r"brings code of its own: `Double` in block.py"):
        loopwright.ModularPipeline.from_pretrained(tmp_path)
    pipe = loopwright.ModularPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert pipe(x=4, output="x") == 8
