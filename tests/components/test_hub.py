"""Pipelines come from repositories on the hub, and go there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import pytest
import torch

import loopwright
from loopwright.bridge import from_diffusers
from loopwright.components.fetching import files_of
from loopwright.errors import ComponentLoadError, ComponentSaveError, InvalidInputError
from tests.bridge.families import flux
from tests.components.hub import TOKEN, Hub
from tests.components.test_saving import in_memory, inputs

# diffusers says it to the client
pytestmark = pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated:UserWarning")


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = from_diffusers(diffusers.FluxAutoBlocks()).get_workflow("text2image").init_pipeline()
    made.update_components(**flux.components())
    made.set_progress_bar_config(disable=True)
    return made


def loaded(name: str, library: Any = loopwright, **options: Any) -> Any:
    pipe = library.ModularPipeline.from_pretrained(name, workflow="text2image", **options)
    pipe.load_components()
    pipe.set_progress_bar_config(disable=True)
    return in_memory(pipe)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_what_was_pushed_is_loaded_again(pipe: Any, hub: Hub) -> None:
    assert pipe.push_to_hub("me/tiny", token=TOKEN) == "me/tiny"
    repo = hub.repos["me/tiny"]
    assert repo.messages[1:] == ["Upload FluxModularPipeline"]
    index = json.loads(repo.files()["modular_model_index.json"])
    assert {entry[2]["pretrained_model_name_or_path"] for entry in index.values() if isinstance(entry, list)} == {
        "me/tiny"
    }
    assert torch.equal(loaded("me/tiny")(**inputs()), pipe(**inputs()))


def test_diffusers_loads_what_was_pushed(pipe: Any, hub: Hub) -> None:
    pipe.push_to_hub("me/tiny", token=TOKEN)
    theirs = loaded("me/tiny", diffusers)
    theirs.update_components(image_processor=pipe.image_processor)
    assert torch.equal(theirs(**inputs()), pipe(**inputs()))


def test_saving_pushes_too_and_keeps_the_folder(pipe: Any, hub: Hub, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "tiny", push_to_hub=True, token=TOKEN, commit_message="first")
    assert hub.repos["somebody/tiny"].messages[1:] == ["first"]
    files = {
        path.relative_to(tmp_path / "tiny").as_posix() for path in (tmp_path / "tiny").rglob("*") if path.is_file()
    }
    assert set(hub.repos["somebody/tiny"].files()) == {*files, ".gitattributes"}
    # from there it is loaded, though its index names the repository
    assert loopwright.ModularPipeline.from_pretrained(tmp_path / "tiny").get_component_spec("vae").repo == str(
        tmp_path / "tiny"
    )


def test_all_of_a_pipeline_comes_from_the_revision_that_was_asked_for(pipe: Any, hub: Hub) -> None:
    pipe.push_to_hub("me/tiny", token=TOKEN)
    repo = hub.repos["me/tiny"]
    first = repo.names["v1"] = repo.names["main"]
    changed = {name: b"{}" for name in repo.files() if name.startswith("vae/")}
    repo.commit({**changed, "modular_model_index.json": b"{}"})
    again = loopwright.ModularPipeline.from_pretrained("me/tiny", revision="v1", workflow="text2image")
    again.load_components()
    assert {again.get_component_spec(name).revision for name in ("vae", "transformer", "tokenizer")} == {first}


def test_a_classic_repository_is_loaded_at_its_revision(hub: Hub, tmp_path: Path) -> None:
    made = flux.components()
    made.pop("image_processor")
    diffusers.FluxPipeline(**made).save_pretrained(tmp_path / "classic")
    repo = hub.add("me/classic", tmp_path / "classic")
    first = repo.names["main"]
    repo.commit({"vae/config.json": b"{"})
    assert loaded("me/classic", revision=first).get_component_spec("vae").revision == first


def test_what_was_loaded_once_is_loaded_offline(pipe: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.push_to_hub("me/tiny", token=TOKEN)
    loaded("me/tiny")
    asked = len(hub.requests)
    offline(monkeypatch)
    assert torch.equal(loaded("me/tiny")(**inputs()), pipe(**inputs()))
    assert len(hub.requests) == asked


def test_a_page_describes_the_pipeline(pipe: Any, hub: Hub) -> None:
    pipe.push_to_hub("me/tiny", token=TOKEN)
    card = huggingface_hub.ModelCard(hub.repos["me/tiny"].files()["README.md"].decode())
    assert (card.data.library_name, card.data.tags) == (
        "diffusers",
        ["modular-diffusers", "diffusers", "flux", "text-to-image"],
    )
    assert 'pipe = ModularPipeline.from_pretrained("me/tiny")' in card.text


def test_a_page_that_somebody_wrote_stays(pipe: Any, hub: Hub) -> None:
    mine = "---\nlicense: mit\ntags:\n- mine\n- flux\n---\nMy own words."
    hub.add("me/tiny").commit({"README.md": mine.encode()})
    pipe.push_to_hub("me/tiny", token=TOKEN)
    card = huggingface_hub.ModelCard(hub.repos["me/tiny"].files()["README.md"].decode())
    assert card.text.strip() == "My own words."
    assert (card.data.license, card.data.tags) == (
        "mit",
        ["mine", "flux", "modular-diffusers", "diffusers", "text-to-image"],
    )


def test_the_text_of_a_page_is_written_anew_if_asked_for(pipe: Any, hub: Hub, tmp_path: Path) -> None:
    hub.add("me/tiny").commit({"README.md": b"---\nlicense: mit\n---\nOld."})
    pipe.save_pretrained(tmp_path / "x", push_to_hub=True, repo_id="me/tiny", token=TOKEN, update_model_card=True)
    card = huggingface_hub.ModelCard(hub.repos["me/tiny"].files()["README.md"].decode())
    assert "Old." not in card.text
    assert card.data.license == "mit"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda pipe: pipe.push_to_hub("me/tiny"),
            ComponentSaveError,
            "you may not write to the repository me/tiny: log in with `hf auth login`, or give `token=...`",
        ),
        (
            lambda pipe: pipe.push_to_hub("me/tiny", token=TOKEN, subfolder="x"),
            InvalidInputError,
            "`subfolder` is 'x', and a pipeline is at the top of its repository; leave it out",
        ),
        (
            lambda pipe: loopwright.ModularPipeline.from_pretrained("me/absent"),
            ComponentLoadError,
            "there is no repository me/absent on the hub, or it is private: check its name, and for a private one log "
            "in with `hf auth login`, or give `token=...`",
        ),
        (
            lambda pipe: loopwright.ModularPipeline.from_pretrained("me/gated"),
            ComponentLoadError,
            "the repository me/gated is gated: accept its terms on its page on the hub, and log in with `hf auth "
            "login`, or give `token=...`",
        ),
        (
            lambda pipe: loopwright.ModularPipeline.from_pretrained("me/gated", token=TOKEN, revision="v9"),
            ComponentLoadError,
            "the repository me/gated has no revision `v9`",
        ),
        (
            lambda pipe: loopwright.ModularPipeline.from_pretrained("me/gated", token=TOKEN),
            ComponentLoadError,
            "me/gated holds no pipeline: it has neither modular_model_index.json nor model_index.json nor "
            "modular_config.json",
        ),
        (
            lambda pipe: loopwright.ComponentSpec("vae", diffusers.AutoencoderKL, repo="me/absent").load(),
            ComponentLoadError,
            "component `vae` (AutoencoderKL) could not be loaded from me/absent: there is no repository me/absent on "
            "the hub, or it is private: check its name, and for a private one log in with `hf auth login`, or give "
            "`token=...`",
        ),
        (
            lambda pipe: loopwright.ComponentSpec("vae", diffusers.AutoencoderKL, repo="me/gated").load(),
            ComponentLoadError,
            "component `vae` (AutoencoderKL) could not be loaded from me/gated: the repository me/gated is gated: "
            "accept its terms on its page on the hub, and log in with `hf auth login`, or give `token=...`",
        ),
        (
            lambda pipe: loopwright.ComponentSpec("vae", diffusers.AutoencoderKL, repo="me/gated").load(token=TOKEN),
            ComponentLoadError,
            "component `vae` (AutoencoderKL) could not be loaded from me/gated: the repository has no config.json "
            "there: give the `subfolder` in which the component is",
        ),
    ],
)
def test_what_the_hub_refuses(pipe: Any, hub: Hub, call: Any, error: type[Exception], message: str) -> None:
    hub.add("me/gated", gated=True)
    with pytest.raises(error) as caught:
        call(pipe)
    assert str(caught.value) == message


def test_without_the_network_the_message_says_so(
    pipe: Any, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    with pytest.raises(ComponentLoadError) as unloaded:
        loopwright.ModularPipeline.from_pretrained("me/tiny")
    assert str(unloaded.value) == (
        "there is no folder me/tiny, modular_config.json of a repository of that name is not on this machine, and the "
        "hub cannot be reached: connect to the network, or give a folder that holds the pipeline"
    )
    with pytest.raises(ComponentSaveError) as unsaved:
        pipe.save_pretrained(tmp_path / "x", push_to_hub=True)
    assert str(unsaved.value) == (
        "nothing can be pushed to x offline: take `HF_HUB_OFFLINE` out of the environment, or save to a folder"
    )
    assert not (tmp_path / "x").exists()


def test_a_new_process_finds_the_hub_by_its_environment(pipe: Any, hub: Hub, tmp_path: Path) -> None:
    pipe.push_to_hub("me/tiny", token=TOKEN)
    script = (
        "import loopwright\n"
        "pipe = loopwright.ModularPipeline.from_pretrained('me/tiny', workflow='text2image')\n"
        "pipe.load_components()\n"
        "pipe.push_to_hub('me/again')\n"
        "print(pipe.null_component_names)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
    del environment["HF_HUB_OFFLINE"]
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    weights = {name: data for name, data in hub.repos["me/tiny"].files().items() if name.endswith(".safetensors")}
    again = hub.repos["me/again"].files()
    assert weights == {name: again[name] for name in weights}


def test_files_are_downloaded_before_the_first_component_is_loaded(
    pipe: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.push_to_hub("me/tiny", token=TOKEN)
    again = loopwright.ModularPipeline.from_pretrained("me/tiny", workflow="text2image")
    load = loopwright.ComponentSpec.load
    asked: list[int] = []

    def counted(spec: loopwright.ComponentSpec, **options: Any) -> Any:
        before = len(hub.requests)
        component = load(spec, **options)
        asked.extend(".safetensors" in request and "GET" in request for request in hub.requests[before:])
        return component

    monkeypatch.setattr(loopwright.ComponentSpec, "load", counted)
    again.load_components()
    assert sum("GET" in request and request.endswith(".safetensors") for request in hub.requests) == 4
    assert not any(asked)


def test_the_files_of_a_component_are_those_that_it_is_loaded_from() -> None:
    names = [
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.onnx",
        "text/config.json",
        "text/model-00001-of-00002.safetensors",
        "text/model-00002-of-00002.safetensors",
        "text/model.safetensors.index.json",
        "text/model.fp16-00001-of-00001.safetensors",
        "text/model.safetensors.index.fp16.json",
        "old/config.json",
        "old/pytorch_model.bin",
        "config.json",
        "model.safetensors",
    ]
    assert files_of(names, "vae", None) == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    assert files_of(names, "vae", "fp16") == ["vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]
    assert files_of(names, "text", None) == names[5:9]
    assert files_of(names, "text", "fp16") == [names[5], *names[9:11]]
    assert files_of(names, "old", None) == names[11:13]
    assert files_of(names, "", None) == names[13:]
