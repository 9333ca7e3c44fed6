"""Each row of "What differs in loading and saving" in docs/compatibility.md: what diffusers does, and what we do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import diffusers.modular_pipelines.modular_pipeline_utils as their_utils
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import load_file, save_file

import loopwright
import loopwright.modular_pipelines.modular_pipeline_utils as our_utils
from loopwright.bridge import from_diffusers
from loopwright.errors import (
    ComponentLoadError,
    ComponentSaveError,
    InvalidInputError,
    UnknownInputError,
)
from tests.bridge.families import flux
from tests.components.hub import TOKEN, Hub

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"
TESTED: list[str] = []
OURS, THEIRS = loopwright.ModularPipeline, diffusers.ModularPipeline
WEIGHTS = "diffusion_pytorch_model.safetensors"

pytestmark = pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated:UserWarning")


def row(beginning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test of the row whose first cell begins like this."""
    TESTED.append(beginning)
    return lambda test: test


def test_each_row_of_the_table_has_a_test_and_each_test_a_row() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## What differs in loading and saving")[2]
    rows = re.findall(r"^\| (.+?) \|", section.partition("\n## ")[0], re.MULTILINE)[1:]
    assert len(rows) == len(TESTED)
    for cell in rows:
        assert len([beginning for beginning in TESTED if cell.startswith(beginning)]) == 1, cell


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("whole") / "flux"
    pipe = from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline()
    pipe.update_components(**flux.components())
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def both() -> tuple[Any, Any]:
    """The blocks of a family, here and there."""
    return from_diffusers(diffusers.FluxAutoBlocks()), diffusers.FluxAutoBlocks()


@row("a component that cannot be loaded")
def test_a_damaged_component_is_an_error_and_none_there(folder: Path) -> None:
    (folder / "vae" / WEIGHTS).write_bytes(b"")
    with pytest.raises(ComponentLoadError):
        OURS.from_pretrained(folder).load_components("vae")
    theirs = THEIRS.from_pretrained(folder)
    theirs.load_components("vae")
    assert theirs.vae is None


@row("weights that lack a part of the model")
def test_what_is_not_in_the_files_is_an_error_and_made_up_there(folder: Path) -> None:
    weights = load_file(folder / "vae" / WEIGHTS)
    del weights["decoder.conv_out.bias"]
    save_file(weights, folder / "vae" / WEIGHTS, metadata={"format": "pt"})
    (folder / "tokenizer" / "tokenizer.json").unlink()
    theirs = THEIRS.from_pretrained(folder)
    theirs.load_components(["vae", "tokenizer"])
    theirs.load_components("transformer", dtype="bfloat16")
    assert theirs.vae.decoder.conv_out.bias is not None
    assert len(theirs.tokenizer) < 5
    assert theirs.transformer.dtype == torch.float32
    ours = OURS.from_pretrained(folder)
    for name in ("vae", "tokenizer"):
        with pytest.raises(ComponentLoadError):
            ours.load_components(name)
    with pytest.raises(InvalidInputError):
        ours.load_components("transformer", dtype="bflaot16")


@row("a misspelt option of `load_components`")
def test_a_misspelt_option_is_an_error_and_passed_over_there(folder: Path) -> None:
    with pytest.raises(UnknownInputError):
        OURS.from_pretrained(folder).load_components("vae", dtpye=torch.float16)
    theirs = THEIRS.from_pretrained(folder)
    theirs.load_components("vae", dtpye=torch.float16)
    assert theirs.vae.dtype == torch.float32


@row("a component of another kind")
def test_a_scheduler_in_place_of_a_model_is_an_error_and_accepted_there() -> None:
    ours, theirs = (blocks.init_pipeline() for blocks in both())
    theirs.update_components(vae=diffusers.DDIMScheduler())
    with pytest.raises(ComponentLoadError):
        ours.update_components(vae=diffusers.DDIMScheduler())


@row("all components of a repository come from the commit")
def test_components_come_from_the_commit_of_the_index_and_from_the_newest_there(whole: Path, hub: Hub) -> None:
    pipe = from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline(whole)
    pipe.load_components("vae")
    pipe.push_to_hub("me/tiny", token=TOKEN)
    first = hub.repos["me/tiny"].names["main"]
    hub.repos["me/tiny"].commit({"vae/config.json": b"{}"})
    assert OURS.from_pretrained("me/tiny", revision=first).get_component_spec("vae").revision == first
    assert THEIRS.from_pretrained("me/tiny", revision=first).get_component_spec("vae").revision is None


@row("what was said of the hub to `from_pretrained`")
def test_a_token_is_given_once_and_again_there(whole: Path, hub: Hub) -> None:
    pipe = from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline(whole)
    pipe.load_components("vae")
    pipe.push_to_hub("me/closed", token=TOKEN)
    hub.repos["me/closed"].gated = True
    ours, theirs = (library.from_pretrained("me/closed", token=TOKEN) for library in (OURS, THEIRS))
    for each in (theirs, ours):
        each.load_components("vae")
    assert (ours.vae is None, theirs.vae is None) == (False, True)


@row("`save_pretrained` saves everything")
def test_what_was_put_in_the_place_of_what_blocks_make_is_saved_and_lost_there(tmp_path: Path) -> None:
    sizes = []
    for number, blocks in enumerate(both()):
        pipe = blocks.init_pipeline()
        pipe.update_components(image_processor=VaeImageProcessor(vae_scale_factor=4))
        pipe.save_pretrained(str(tmp_path / str(number)), overwrite_modular_index=True)
        again = blocks.init_pipeline(str(tmp_path / str(number)))
        sizes.append(again.image_processor.config.vae_scale_factor)
    assert sizes == [4, 16]


class Unsavable(torch.nn.Linear):
    def save_pretrained(self, folder: str) -> None:
        raise OSError("no space left on device")


@row("a save that fails leaves the folder")
def test_a_save_that_fails_leaves_nothing_and_a_part_there(whole: Path, tmp_path: Path) -> None:
    ours, theirs = OURS.from_pretrained(whole), THEIRS.from_pretrained(whole)
    theirs.save_pretrained(str(tmp_path / "theirs"), overwrite_modular_index=True)
    for each in (ours, theirs):
        each.load_components(["vae"])
        each.register_components(transformer=Unsavable(1, 1))
    with pytest.raises(ComponentSaveError):
        ours.save_pretrained(tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    # there, what it does not know how to save is left out
    theirs.save_pretrained(str(tmp_path / "theirs"), overwrite_modular_index=True)
    assert (tmp_path / "theirs" / "vae" / WEIGHTS).exists()
    assert not (tmp_path / "theirs" / "transformer").exists()


@row("saving does not change the pipeline")
def test_saving_leaves_the_pipeline_alone_and_moves_it_there(whole: Path, tmp_path: Path) -> None:
    places = []
    for library in (OURS, THEIRS):
        pipe = library.from_pretrained(whole)
        pipe.load_components("vae")
        pipe.save_pretrained(str(tmp_path), overwrite_modular_index=True)
        places.append(pipe.config["vae"][2]["pretrained_model_name_or_path"])
    assert places == [str(whole), str(tmp_path)]


@row("a model with adapters")
def test_adapters_are_refused_and_saved_into_the_model_there(whole: Path, tmp_path: Path) -> None:
    import peft

    for library in (OURS, THEIRS):
        pipe = library.from_pretrained(whole)
        pipe.load_components("transformer")
        pipe.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]))
        if library is OURS:
            with pytest.raises(ComponentSaveError):
                pipe.save_pretrained(tmp_path / "saved")
        else:
            pipe.save_pretrained(str(tmp_path / "saved"), overwrite_modular_index=True)
    assert any("base_layer" in name for name in load_file(tmp_path / "saved" / "transformer" / WEIGHTS))


class Mine(diffusers.ModularPipelineBlocks):  # type: ignore[misc, name-defined]
    pass


@row("blocks are saved with the file of their code")
def test_blocks_are_saved_with_their_code_and_without_it_there(tmp_path: Path) -> None:
    from_diffusers(Mine()).save_pretrained(tmp_path / "ours")
    Mine().save_pretrained(tmp_path / "theirs")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["modular_config.json", Path(__file__).name]
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["modular_config.json"]


CODE = """
from diffusers.modular_pipelines import ModularPipelineBlocks
from .shared_helper import FACTOR

class Mine(ModularPipelineBlocks):
    factor = FACTOR
"""


@row("files of code of the same name in two folders")
def test_code_of_two_folders_is_kept_apart_and_mixed_up_there(tmp_path: Path) -> None:
    for factor in (2, 3):
        folder = tmp_path / str(factor)
        folder.mkdir()
        (folder / "shared_name.py").write_text(CODE)
        (folder / "shared_helper.py").write_text(f"FACTOR = {factor}")
        config = {"auto_map": {"ModularPipelineBlocks": "shared_name.Mine"}}
        (folder / "modular_config.json").write_text(json.dumps(config))

    def factors(library: Any) -> list[int]:
        load = library.ModularPipelineBlocks.from_pretrained
        return [load(str(tmp_path / name), trust_remote_code=True).factor for name in ("2", "3")]

    assert factors(loopwright) == [2, 3]
    assert factors(diffusers) == [2, 2]


@row("code of a repository that was loaded once")
def test_code_is_loaded_without_a_network_and_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.dumps({"auto_map": {"ModularPipelineBlocks": "shared_name.Mine"}}).encode()
    files = {"modular_config.json": config, "shared_name.py": CODE.encode(), "shared_helper.py": b"FACTOR = 5"}
    hub.add("me/offline-code").commit(files)

    def factor(library: Any) -> int:
        blocks = library.ModularPipelineBlocks.from_pretrained("me/offline-code", trust_remote_code=True)
        return int(blocks.factor)

    assert factor(loopwright) == factor(diffusers) == 5
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert factor(loopwright) == 5
    with pytest.raises(Exception, match="offline mode is enabled"):
        factor(diffusers)


@row("an option of `from_pretrained` that there is not")
def test_an_option_that_there_is_not_is_an_error_and_ignored_there(whole: Path) -> None:
    with pytest.raises(UnknownInputError):
        OURS.from_pretrained(whole, torch_dtype=torch.float16)
    assert THEIRS.from_pretrained(str(whole), torch_dtype=torch.float16).vae is None


@row("a page on the hub has tags for video")
def test_a_page_has_tags_for_video_and_an_example_and_neither_there() -> None:
    blocks = diffusers.LTXAutoBlocks()
    assert "text-to-video" in our_utils.generate_modular_model_card_content(from_diffusers(blocks))["tags"]
    assert "text-to-video" not in their_utils.generate_modular_model_card_content(blocks)["tags"]
    assert "[TODO]" in their_utils.MODULAR_MODEL_CARD_TEMPLATE
    assert "[TODO]" not in our_utils.MODULAR_MODEL_CARD_TEMPLATE
