"""`ComponentSpec` and `ConfigSpec`: what a pipeline is configured with."""

from __future__ import annotations

from pathlib import Path

import diffusers.modular_pipelines.modular_pipeline_utils as theirs
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler

from loopwright import ComponentSpec, ConfigSpec
from loopwright.errors import ComponentLoadError


class Threshold:
    """A component without `from_config`, made with its constructor."""

    def __init__(self, low: int = 0, high: int = 9) -> None:
        self.low, self.high = low, high


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    DDIMScheduler(num_train_timesteps=77).save_pretrained(tmp_path / "scheduler")
    return tmp_path


def test_repo_is_another_name_for_the_place_to_load_from() -> None:
    spec = ComponentSpec("vae", repo="a/b")
    assert spec.pretrained_model_name_or_path == "a/b"
    spec.repo = "c/d"
    assert spec.pretrained_model_name_or_path == spec.repo == "c/d"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pretrained_model_name_or_path": "a/b"},
        {"pretrained_model_name_or_path": "a/b", "subfolder": "vae", "variant": "fp16", "revision": "main"},
        {"default_creation_method": "from_config"},
    ],
)
def test_the_load_id_is_that_of_diffusers(fields: dict[str, str]) -> None:
    ours, peer = ComponentSpec("vae", **fields), theirs.ComponentSpec("vae", **fields)  # type: ignore[arg-type]
    assert ours.load_id == peer.load_id
    assert ComponentSpec.decode_load_id(ours.load_id) == theirs.ComponentSpec.decode_load_id(peer.load_id)


def test_equality_is_by_name_and_place() -> None:
    assert ComponentSpec("vae", AutoencoderKL, repo="a/b") == ComponentSpec("vae", None, repo="a/b")
    assert ComponentSpec("vae", repo="a/b") != ComponentSpec("vae", repo="a/c")
    assert ComponentSpec("vae") != ComponentSpec("other")
    assert len({ComponentSpec("vae"), ComponentSpec("vae"), ComponentSpec("other")}) == 2


class TestCreate:
    def test_from_the_config_of_the_spec(self) -> None:
        spec = ComponentSpec("scheduler", DDIMScheduler, config={"num_train_timesteps": 50})
        assert spec.create().config.num_train_timesteps == 50

    def test_from_another_config_and_single_values(self) -> None:
        spec = ComponentSpec("scheduler", EulerDiscreteScheduler)
        other = DDIMScheduler(num_train_timesteps=50, beta_start=0.001)
        created = spec.create(other.config, num_train_timesteps=60)
        assert isinstance(created, EulerDiscreteScheduler)
        assert (created.config.num_train_timesteps, created.config.beta_start) == (60, 0.001)

    def test_with_the_constructor_of_a_class_without_from_config(self) -> None:
        created = ComponentSpec("threshold", Threshold, config={"low": 3, "unknown": 1}).create()
        assert (created.low, created.high) == (3, 9)

    def test_without_a_class_it_cannot(self) -> None:
        with pytest.raises(ComponentLoadError) as raised:
            ComponentSpec("scheduler").create()
        assert str(raised.value) == (
            "component `scheduler` cannot be created from a configuration: its spec has no class as `type_hint`"
        )


class TestLoad:
    def test_from_a_folder(self, saved: Path) -> None:
        scheduler = ComponentSpec("scheduler", DDIMScheduler, repo=str(saved), subfolder="scheduler").load()
        assert scheduler.config.num_train_timesteps == 77

    def test_a_place_that_is_passed_is_remembered(self, saved: Path) -> None:
        spec = ComponentSpec("scheduler", DDIMScheduler)
        spec.load(pretrained_model_name_or_path=str(saved), subfolder="scheduler")
        assert (spec.repo, spec.subfolder) == (str(saved), "scheduler")

    def test_the_spec_of_what_was_loaded_loads_it_again(self, saved: Path) -> None:
        spec = ComponentSpec("scheduler", DDIMScheduler, repo=str(saved), subfolder="scheduler")
        again = ComponentSpec.from_component("scheduler", spec.load())
        assert again == spec
        assert again.load().config.num_train_timesteps == 77

    def test_what_was_not_found_is_named_and_the_cause_is_chained(self, tmp_path: Path) -> None:
        with pytest.raises(ComponentLoadError) as raised:
            ComponentSpec("scheduler", DDIMScheduler, repo=str(tmp_path), subfolder="nowhere").load()
        start = f"component `scheduler` (DDIMScheduler) could not be loaded from {tmp_path}/nowhere: "
        assert str(raised.value).startswith(start)
        assert raised.value.__cause__ is not None


class TestFromComponent:
    def test_a_component_without_weights_is_made_from_its_config(self) -> None:
        spec = ComponentSpec.from_component("scheduler", DDIMScheduler(num_train_timesteps=50))
        assert spec.default_creation_method == "from_config"
        assert spec.create().config.num_train_timesteps == 50

    def test_a_model_that_was_not_loaded_has_no_spec(self) -> None:
        with pytest.raises(ComponentLoadError, match="no spec can be made from `model` \\(Linear\\)"):
            ComponentSpec.from_component("model", torch.nn.Linear(1, 1))


def test_a_config_spec_has_a_name_a_default_and_a_description() -> None:
    assert ConfigSpec("patch", 2) == ConfigSpec(name="patch", default=2, description=None)
