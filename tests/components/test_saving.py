"""A pipeline that is saved is the same when it is loaded again, here and in diffusers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

import loopwright
from loopwright.bridge import from_diffusers
from loopwright.diffusion import embedded_pipeline
from loopwright.errors import ComponentLoadError, ComponentSaveError, UnknownInputError
from tests.bridge.families import flux

INDEX = "modular_model_index.json"


def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "prompt": "red apple",
        "num_inference_steps": 2,
        "generator": generator,
        "output": "images",
        **flux.inputs(),
    }


@pytest.fixture(scope="module")
def pipe() -> Any:
    """A tiny pipeline, whose components were never loaded from anywhere."""
    made = from_diffusers(diffusers.FluxAutoBlocks()).get_workflow("text2image").init_pipeline()
    made.update_components(**flux.components())
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def saved(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "flux"
    pipe.save_pretrained(folder)
    return folder


def loaded(folder: Path, library: Any = loopwright) -> Any:
    pipe = library.ModularPipeline.from_pretrained(folder, workflow="text2image")
    pipe.load_components()
    pipe.set_progress_bar_config(disable=True)
    return in_memory(pipe)


def in_memory(pipe: Any) -> Any:
    """A pipeline whose weights lie where new tensors lie.

    Those that are read from a file lie in the file, mapped into memory, at any byte; the last bit of a matrix product
    depends on that, on some processors.
    """
    for model in pipe.components.values():
        for weight in model.parameters() if isinstance(model, torch.nn.Module) else ():
            weight.data = weight.data.clone()
    return pipe


def index(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return values


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_saved_makes_the_same_pictures(pipe: Any, saved: Path) -> None:
    assert torch.equal(loaded(saved)(**inputs()), pipe(**inputs()))


def test_diffusers_loads_what_was_saved_here(pipe: Any, saved: Path) -> None:
    theirs = loaded(saved, diffusers)
    # which the index of diffusers has no place for
    theirs.update_components(image_processor=pipe.image_processor)
    assert torch.equal(theirs(**inputs()), pipe(**inputs()))


def test_what_diffusers_saved_is_loaded_here(pipe: Any, tmp_path: Path) -> None:
    theirs = diffusers.FluxAutoBlocks().get_workflow("text2image").init_pipeline()
    theirs.update_components(**pipe.components)
    theirs.save_pretrained(str(tmp_path), overwrite_modular_index=True)
    ours = loaded(tmp_path)
    ours.update_components(image_processor=pipe.image_processor)
    assert torch.equal(ours(**inputs()), pipe(**inputs()))


def test_the_index_is_that_of_diffusers(pipe: Any, saved: Path, tmp_path: Path) -> None:
    theirs = diffusers.FluxAutoBlocks().get_workflow("text2image").init_pipeline()
    theirs.update_components(**pipe.components)
    theirs.save_pretrained(str(tmp_path / "flux"), overwrite_modular_index=True)
    expected = json.loads((tmp_path / "flux" / INDEX).read_text().replace(str(tmp_path / "flux"), str(saved)))
    ours = index(saved)
    assert ours.pop("_created_components").keys() == {"image_processor"}
    assert ours == expected


def test_the_embedded_model_makes_the_same_picture_after_it_was_saved(tmp_path: Path) -> None:
    def picture(pipe: Any) -> bytes:
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(1)
        image = pipe(prompt="red apple", num_inference_steps=2, generator=generator, output="images")[0]
        return bytes(image.tobytes())

    pipe = embedded_pipeline()
    pipe.save_pretrained(tmp_path)
    again = loopwright.ModularPipeline.from_pretrained(tmp_path)
    again.load_components()
    assert picture(again) == picture(pipe)


def test_a_folder_that_was_moved_is_loaded_from_where_it_is(pipe: Any, saved: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    saved.rename(moved)
    try:
        ours = loaded(moved)
        assert ours.get_component_spec("vae").repo == str(moved)
        assert torch.equal(ours(**inputs()), pipe(**inputs()))
    finally:
        moved.rename(saved)


def test_a_component_that_replaced_one_that_the_blocks_make_is_saved(tmp_path: Path) -> None:
    pipe = embedded_pipeline()
    blocks = type(pipe.blocks)
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=3.25)
    pipe.update_components(guider=guider, image_processor=VaeImageProcessor(vae_scale_factor=2))
    pipe.save_pretrained(tmp_path)
    again = blocks().init_pipeline(tmp_path)
    assert again.image_processor.config.vae_scale_factor == 2
    again.load_components("guider")
    assert again.guider.config.guidance_scale == 3.25
    # and back to what the blocks make
    again.update_components(guider=blocks().init_pipeline().guider)
    again.save_pretrained(tmp_path / "back")
    assert "guider" not in index(tmp_path / "back")


def test_a_scheduler_that_was_made_from_a_configuration_is_saved(pipe: Any, tmp_path: Path) -> None:
    scheduler = loopwright.ComponentSpec(
        "scheduler",
        diffusers.FlowMatchEulerDiscreteScheduler,
        config={"shift": 7.0},
        default_creation_method="from_config",
    )
    other = from_diffusers(pipe)
    other = other.blocks.init_pipeline()
    other.update_components(scheduler=scheduler)
    other.save_pretrained(tmp_path)
    again = other.blocks.init_pipeline(tmp_path)
    again.load_components()
    assert again.scheduler.config.shift == 7.0


def test_saving_changes_nothing_in_the_pipeline(pipe: Any, tmp_path: Path) -> None:
    before, specs = dict(pipe.config), dict(pipe._component_specs)
    pipe.save_pretrained(tmp_path)
    assert (dict(pipe.config), pipe._component_specs) == (before, specs)


def test_components_that_are_not_there_keep_the_place_that_they_would_come_from(saved: Path, tmp_path: Path) -> None:
    part = loopwright.ModularPipeline.from_pretrained(saved, workflow="text2image")
    part.load_components("vae")
    part.save_pretrained(tmp_path)
    places = {
        name: value[2]["pretrained_model_name_or_path"]
        for name, value in index(tmp_path).items()
        if name in flux.components() and isinstance(value, list)
    }
    assert places.pop("vae") == str(tmp_path)
    assert set(places.values()) == {str(saved)}
    assert not (tmp_path / "transformer").exists()


def test_the_index_may_go_on_naming_the_places_that_components_came_from(saved: Path, tmp_path: Path) -> None:
    pipe = loaded(saved)
    pipe.save_pretrained(tmp_path, overwrite_modular_index=False)
    assert index(tmp_path)["vae"][2]["pretrained_model_name_or_path"] == str(saved)


def test_variants_and_shards_are_saved_beside_each_other(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    pipe.save_pretrained(tmp_path, variant="fp16")
    # of the variant that is saved again, nothing stays that would be found in place of it
    pipe.save_pretrained(tmp_path)
    names = sorted(path.name for path in (tmp_path / "transformer").iterdir())
    assert names == ["config.json", "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"]


def test_other_files_of_the_folder_stay(pipe: Any, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "notes.txt").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == (tmp_path / "vae" / "notes.txt").read_text() == "mine"


class Broken(torch.nn.Linear):
    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "half").write_text("")
        raise OSError("no space left on device")


def test_a_save_that_fails_leaves_the_folder_as_it_was(pipe: Any, saved: Path, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "there")
    before = files(tmp_path / "there")
    other = loaded(tmp_path / "there")
    other.scheduler.register_to_config(shift=9.0)
    other.register_components(transformer=Broken(1, 1))
    for folder in ("there", "new"):
        with pytest.raises(ComponentSaveError) as caught:
            other.save_pretrained(tmp_path / folder)
        assert str(caught.value) == "component `transformer` (Broken) could not be saved: no space left on device"
    assert files(tmp_path / "there") == before
    assert sorted(os.listdir(tmp_path)) == ["there"]


def test_what_stands_in_the_way_changes_nothing(pipe: Any, tmp_path: Path) -> None:
    (tmp_path / "vae").write_text("mine")
    with pytest.raises(ComponentSaveError, match=f"what was saved could not be put into {tmp_path}: .*File exists"):
        pipe.save_pretrained(tmp_path)
    assert files(tmp_path) == {"vae": b"mine"}
    (tmp_path / "vae").unlink()
    (tmp_path / "modular_model_index.json").mkdir()
    with pytest.raises(ComponentSaveError, match="is a folder, where a file belongs"):
        pipe.save_pretrained(tmp_path)
    assert files(tmp_path) == {}


def test_a_compiled_model_is_saved_as_what_it_is(pipe: Any, tmp_path: Path) -> None:
    other = from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline()
    other.update_components(transformer=torch.compile(pipe.transformer, backend="eager"))
    other.save_pretrained(tmp_path)
    entry = index(tmp_path)["transformer"]
    assert entry[2]["type_hint"] == entry[:2] == ["diffusers", "FluxTransformer2DModel"]


def test_weights_are_saved_over_the_file_that_they_are_read_from(saved: Path, tmp_path: Path) -> None:
    """Files of weights are mapped into memory: to write into them would change, or break, what is being saved."""
    import shutil

    shutil.copytree(saved, tmp_path / "copy")
    pipe = loaded(tmp_path / "copy")
    weights = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    pipe.save_pretrained(tmp_path / "copy")
    again = loaded(tmp_path / "copy").transformer.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in pipe.transformer.state_dict().items())
    assert all(torch.equal(weights[name], value) for name, value in again.items())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda pipe, folder: pipe.save_pretrained(folder, overwrite_index=True),
            UnknownInputError,
            "`save_pretrained` takes no `overwrite_index`, did you mean `overwrite_modular_index`?",
        ),
        (
            lambda pipe, folder: pipe.save_pretrained(folder / INDEX),
            ComponentSaveError,
            "{folder}/modular_model_index.json is a file; a pipeline is saved to a folder",
        ),
        (
            lambda pipe, folder: pipe.save_pretrained(folder / INDEX / "x"),
            ComponentSaveError,
            "nothing can be saved to {folder}/modular_model_index.json/x: [Errno 20] Not a directory: ...",
        ),
    ],
)
def test_mistakes(pipe: Any, saved: Path, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call(pipe, saved)
    expected, _, rest = message.format(folder=saved).partition("...")
    assert str(caught.value)[: len(expected)] == expected
    assert rest or message.endswith("...") or str(caught.value) == expected


def test_what_has_no_method_to_save_it_is_named(tmp_path: Path) -> None:
    class Needs(loopwright.ModularPipelineBlocks):
        expected_components = [loopwright.ComponentSpec("net", torch.nn.Linear)]

        def __call__(self, components: Any, state: Any) -> Any:
            return components, state

    pipe = Needs().init_pipeline()
    pipe.update_components(net=torch.nn.Linear(1, 1))
    with pytest.raises(ComponentSaveError) as caught:
        pipe.save_pretrained(tmp_path)
    assert str(caught.value) == (
        "component `net` (Linear) cannot be saved: its class has no `save_pretrained`; give the class one, and a "
        "`from_pretrained`, or take the component out with `pipe.update_components(net=None)`"
    )


def test_classes_of_ones_own_are_saved_and_loaded_if_the_blocks_name_them(tmp_path: Path) -> None:
    pipe = UsesOwn().init_pipeline()
    pipe.update_components(net=Own(3))
    pipe.save_pretrained(tmp_path)
    again = UsesOwn().init_pipeline(tmp_path)
    again.load_components()
    assert again.net.width == 3


class OwnAutoencoder(diffusers.AutoencoderKL):
    pass


def test_a_class_of_ones_own_in_the_place_of_another_is_loaded_if_its_module_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline()
    pipe.update_components(vae=OwnAutoencoder(block_out_channels=(4,), norm_num_groups=1))
    pipe.save_pretrained(tmp_path)
    again = loopwright.ModularPipeline.from_pretrained(tmp_path)
    again.load_components()
    assert isinstance(again.vae, OwnAutoencoder)
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(
        ComponentLoadError, match="an index does not choose what is imported; if you trust it, `import "
    ):
        loopwright.ModularPipeline.from_pretrained(tmp_path)


def test_an_index_does_not_choose_what_is_called(tmp_path: Path) -> None:
    index = {"_class_name": "FluxModularPipeline", "_blocks_class_name": "FluxAutoBlocks"}
    created = {"image_processor": ["subprocess", "Popen", {"args": ["true"]}]}
    (tmp_path / INDEX).write_text(json.dumps({**index, "_created_components": created}))
    with pytest.raises(ComponentLoadError) as caught:
        loopwright.ModularPipeline.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{INDEX} of {tmp_path} makes component `image_processor` from a `Popen` of subprocess, which is not made from "
        "a configuration; correct the file"
    )


class Own:
    def __init__(self, width: int) -> None:
        self.width = width

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "config.json").write_text(str(self.width))

    @classmethod
    def from_pretrained(cls, folder: str, subfolder: str, revision: str | None = None) -> Own:
        return cls(int((Path(folder) / subfolder / "config.json").read_text()))


class UsesOwn(loopwright.ModularPipelineBlocks):
    expected_components = [loopwright.ComponentSpec("net", Own)]

    def __call__(self, components: Any, state: Any) -> Any:
        return components, state
