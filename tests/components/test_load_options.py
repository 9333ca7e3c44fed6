"""`load_components`: what is said of all components, or of one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.quantizers import PipelineQuantizationConfig
from safetensors.torch import load_file, save_file

import loopwright
from loopwright.bridge import from_diffusers
from loopwright.errors import ComponentLoadError, InvalidInputError, UnknownInputError
from tests.bridge.families import flux
from tests.bridge.families.case import seeded
from tests.components.hub import TOKEN, Hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with weights of two variants."""
    folder = tmp_path_factory.mktemp("saved") / "flux"
    pipe = from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline()
    pipe.update_components(**flux.components())
    pipe.save_pretrained(folder)
    for model in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(pipe, model).half()
    pipe.save_pretrained(folder, variant="fp16")
    # its index names the last variant
    index = json.loads((folder / "modular_model_index.json").read_text())
    for entry in index.values():
        if isinstance(entry, list):
            entry[2]["variant"] = None
    (folder / "modular_model_index.json").write_text(json.dumps(index))
    return folder


def unloaded(folder: Path) -> Any:
    return loopwright.ModularPipeline.from_pretrained(folder)


def dtypes(pipe: Any) -> dict[str, torch.dtype]:
    return {name: model.dtype for name, model in pipe.components.items() if isinstance(model, torch.nn.Module)}


MODELS = ("text_encoder", "text_encoder_2", "transformer", "vae")


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_one_dtype_for_all_models(saved: Path, dtype: Any) -> None:
    pipe = unloaded(saved)
    pipe.load_components(dtype=dtype)
    assert dtypes(pipe) == dict.fromkeys(MODELS, torch.bfloat16)
    # what only models take is not given to others: a tokenizer would keep it
    pipe.tokenizer.save_pretrained(saved.parent / "tokenizer")


def test_a_dtype_for_each_model(saved: Path) -> None:
    pipe = unloaded(saved)
    pipe.load_components(dtype={"vae": torch.float32, "default": torch.float16})
    assert dtypes(pipe) == {**dict.fromkeys(MODELS, torch.float16), "vae": torch.float32}


def test_the_older_name_of_dtype_still_holds(saved: Path) -> None:
    pipe = unloaded(saved)
    with pytest.warns(FutureWarning, match="`torch_dtype` is an older name for `dtype`"):
        pipe.load_components("vae", torch_dtype=torch.float16)
    assert pipe.vae.dtype == torch.float16
    with pytest.raises(InvalidInputError, match="you passed both `dtype` and `torch_dtype`"):
        pipe.load_components("vae", torch_dtype=torch.float16, dtype=torch.float16)


def test_a_variant_for_the_models_that_have_it(saved: Path) -> None:
    pipe = unloaded(saved)
    pipe.load_components(variant={"vae": "fp16"}, dtype={"vae": torch.float16, "default": torch.float32})
    assert dtypes(pipe) == {**dict.fromkeys(MODELS, torch.float32), "vae": torch.float16}
    assert pipe.get_component_spec("vae").variant == "fp16"


def test_a_device_map(saved: Path) -> None:
    pipe = unloaded(saved)
    pipe.load_components(["vae", "tokenizer"], device_map="cpu")
    assert pipe.vae.hf_device_map == {"": torch.device("cpu")}


def test_a_component_may_come_from_elsewhere(saved: Path, tmp_path: Path) -> None:
    flux.kl_autoencoder(channels=2).save_pretrained(tmp_path / "other")
    pipe = unloaded(saved)
    pipe.load_components("vae", pretrained_model_name_or_path=str(tmp_path), subfolder="other")
    assert pipe.vae.config.latent_channels == 2
    assert pipe.get_component_spec("vae").repo == str(tmp_path)


def test_a_component_may_be_a_single_file(tmp_path: Path) -> None:
    model = seeded(
        diffusers.ControlNetModel,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        conditioning_embedding_out_channels=(4,),
        norm_num_groups=2,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    model.save_pretrained(tmp_path)
    file = str(tmp_path / "diffusion_pytorch_model.safetensors")
    spec = loopwright.ComponentSpec("net", diffusers.ControlNetModel, repo=file)
    loaded = spec.load(config=str(tmp_path))
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.fixture
def _quanto_is_deprecated(recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    warnings.simplefilter("ignore", FutureWarning)


def quantized(model: torch.nn.Module) -> bool:
    return any(type(module).__name__ == "QLinear" for module in model.modules())


@pytest.mark.usefixtures("_quanto_is_deprecated")
def test_a_model_is_quantized(saved: Path) -> None:
    config = diffusers.QuantoConfig(weights_dtype="int8")
    pipe = unloaded(saved)
    pipe.load_components(["transformer", "vae", "tokenizer"], quantization_config={"transformer": config})
    assert (quantized(pipe.transformer), quantized(pipe.vae)) == (True, False)
    with torch.no_grad():
        out = pipe.transformer(
            hidden_states=torch.zeros(1, 4, 16),
            encoder_hidden_states=torch.zeros(1, 2, flux.WIDTH),
            pooled_projections=torch.zeros(1, flux.WIDTH),
            timestep=torch.ones(1),
            img_ids=torch.zeros(4, 3),
            txt_ids=torch.zeros(2, 3),
            guidance=torch.ones(1),
        )
    assert out.sample.shape == (1, 4, 16)


@pytest.mark.usefixtures("_quanto_is_deprecated")
def test_one_configuration_says_how_each_model_is_quantized(saved: Path) -> None:
    config = PipelineQuantizationConfig(quant_mapping={"transformer": diffusers.QuantoConfig(weights_dtype="int8")})
    pipe = unloaded(saved)
    pipe.load_components(quantization_config=config)
    assert [name for name in MODELS if quantized(getattr(pipe, name))] == ["transformer"]


def test_a_package_that_quantizes_and_is_not_installed_is_named(saved: Path) -> None:
    config = diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32)
    pipe = unloaded(saved)
    with pytest.raises(ComponentLoadError) as caught:
        pipe.load_components("transformer", quantization_config=config)
    assert str(caught.value) == (
        f"component `transformer` (FluxTransformer2DModel) could not be loaded from {saved}/transformer: a package is "
        "not installed: To load GGUF format files you must have `gguf` installed in your environment: `pip install "
        "gguf>=0.10.0`"
    )


def test_the_rest_of_a_model_is_random_if_that_is_said(saved: Path, tmp_path: Path) -> None:
    vae = flux.kl_autoencoder()
    vae.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_out.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    pipe = unloaded(saved)
    told = {"ignore_mismatched_sizes": True, "low_cpu_mem_usage": False}
    pipe.load_components("vae", pretrained_model_name_or_path=str(tmp_path), subfolder=None, **told)
    assert pipe.vae.decoder.conv_out.bias.isfinite().all()


def test_a_misspelt_option_is_an_error(saved: Path) -> None:
    for misspelt, meant in [("dtpye", "dtype"), ("quantisation_config", "quantization_config"), ("varient", "variant")]:
        with pytest.raises(UnknownInputError) as caught:
            unloaded(saved).load_components(**{misspelt: None})
        assert str(caught.value) == f"`load_components` takes no `{misspelt}`, did you mean `{meant}`?"


def test_what_a_class_takes_besides_is_given_to_it(saved: Path) -> None:
    pipe = unloaded(saved)
    pipe.load_components("scheduler", shift={"scheduler": 5.0})
    assert pipe.scheduler.config.shift == 5.0


def test_the_bar_shows_names_and_sizes(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = unloaded(saved)
    pipe.load_components(["vae", "scheduler"], progress=True)
    shown = capsys.readouterr().err
    size = (saved / "vae" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert f"vae, {size / 1000:.3g} kB]" in shown
    assert "scheduler]" in shown
    assert "100%" in shown
    pipe.load_components(["vae"], progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated:UserWarning")
def test_what_is_said_of_the_hub_holds_for_the_components(saved: Path, hub: Hub) -> None:
    repo = hub.add("me/gated", saved, gated=True)
    index = json.loads(repo.files()["modular_model_index.json"])
    for entry in index.values():
        if isinstance(entry, list):
            entry[2]["pretrained_model_name_or_path"] = "me/gated"
    repo.commit({"modular_model_index.json": json.dumps(index).encode()})
    pipe = loopwright.ModularPipeline.from_pretrained("me/gated", token=TOKEN)
    pipe.load_components(["vae", "tokenizer"])
    assert pipe.vae.config.latent_channels == 4


MODEL_CODE = """
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

class Tiny(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width=4):
        super().__init__()
        self.linear = torch.nn.Linear(width, width)
"""


@pytest.fixture
def with_code(tmp_path: Path) -> Path:
    """The folder of a model with code of its own."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tiny_model_code.py").write_text(MODEL_CODE)
    config = {"_class_name": "Tiny", "auto_map": {"AutoModel": "tiny_model_code.Tiny"}, "width": 4}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {"linear.weight": torch.ones(4, 4), "linear.bias": torch.zeros(4)}
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    return folder


def needs(folder: Path) -> Any:
    class Needs(loopwright.ModularPipelineBlocks):
        expected_components = [loopwright.ComponentSpec("net", diffusers.AutoModel, repo=str(folder))]

        def __call__(self, components: Any, state: Any) -> Any:
            return components, state

    return Needs()


def test_code_of_a_component_runs_only_if_it_is_trusted(with_code: Path) -> None:
    pipe = needs(with_code).init_pipeline()
    with pytest.raises(ComponentLoadError) as caught:
        pipe.load_components()
    assert str(caught.value) == (
        f"component `net` (AutoModel) could not be loaded from {with_code}: it brings code of its own: `Tiny` in "
        "tiny_model_code.py. Read the file, and if you trust it, give `trust_remote_code=True`"
    )
    pipe.load_components(trust_remote_code=True, dtype=torch.float16)
    assert (type(pipe.net).__name__, pipe.net.dtype) == ("Tiny", torch.float16)


def test_trust_in_a_pipeline_is_not_trust_in_what_its_index_names(with_code: Path, tmp_path: Path) -> None:
    blocks = needs(with_code)
    blocks.init_pipeline().save_pretrained(tmp_path / "pipeline")
    pipe = blocks.init_pipeline(tmp_path / "pipeline")
    with pytest.raises(ComponentLoadError) as caught:
        pipe.load_components(trust_remote_code=True)
    assert str(caught.value) == (
        f"component `net` (AutoModel) could not be loaded from {with_code}: it brings code of its own: `Tiny` in "
        "tiny_model_code.py. Read the file, and if you trust it, load it by itself, as that of the pipeline alone was "
        "trusted: `pipe.update_components(net=pipe.get_component_spec('net').load(trust_remote_code=True))`"
    )
    pipe.update_components(net=pipe.get_component_spec("net").load(trust_remote_code=True))
    assert type(pipe.net).__name__ == "Tiny"


def test_having_nothing_to_load_is_told_with_what_is_missing() -> None:
    class Needs(loopwright.ModularPipelineBlocks):
        expected_components = [loopwright.ComponentSpec("net"), loopwright.ComponentSpec("other")]

        def __call__(self, components: Any, state: Any) -> Any:
            return components, state

    pipe = Needs().init_pipeline()
    with pytest.warns(UserWarning, match="nothing was loaded") as caught:
        pipe.load_components()
    assert [str(warning.message) for warning in caught] == [
        "nothing was loaded: `net`, `other` are missing and have no place to come from; give "
        "`pipe.update_components(net=..., other=...)`"
    ]
    assert caught[0].filename == __file__
    pipe.update_components(net=1)
    with pytest.warns(UserWarning, match=r"component `other` is missing and has no place to come from; .*\(other=..."):
        pipe.load_components()


def test_having_nothing_to_load_is_well_where_nothing_is_missing(saved: Path) -> None:
    pipe = loopwright.ModularPipeline.from_pretrained(saved)
    pipe.load_components()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.load_components()


@pytest.mark.parametrize("written", ["{folder}", "{folder}/", "./repo", "repo/../repo"])
def test_a_folder_is_trusted_however_it_is_written(
    with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "repo").mkdir()
    with_code.rename(tmp_path / "repo" / "net")
    place = {"type_hint": ["diffusers", "AutoModel"], "pretrained_model_name_or_path": "repo", "subfolder": "net"}
    index = {"_class_name": "ModularPipeline", "net": [None, None, place]}
    (tmp_path / "repo" / "modular_model_index.json").write_text(json.dumps(index))
    monkeypatch.chdir(tmp_path)
    pipe = needs(with_code).init_pipeline(written.format(folder=tmp_path / "repo"))
    pipe.load_components(trust_remote_code=True)
    assert type(pipe.net).__name__ == "Tiny"


@pytest.mark.parametrize(
    "make",
    [
        lambda saved, **options: loopwright.ModularPipeline.from_pretrained(saved, **options),
        lambda saved, **options: loopwright.ModularPipeline(diffusers.FluxAutoBlocks, **options),
    ],
)
def test_a_pipeline_is_not_made_with_what_its_components_are_loaded_with(saved: Path, make: Any) -> None:
    with pytest.raises(UnknownInputError) as caught:
        make(saved, torch_dtype=torch.float16)
    assert str(caught.value) == (
        "a pipeline is not made with `torch_dtype`; components are given to `update_components`, and what they are "
        "loaded with, such as `dtype`, to `load_components`"
    )
    with pytest.raises(UnknownInputError, match=r"`revison`, did you mean `revision`\?"):
        make(saved, revison="v1")
