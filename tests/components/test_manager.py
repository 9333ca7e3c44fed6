"""What pipelines share: components by id, name, collection and load id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import loopwright
from loopwright import ComponentsManager, ComponentSpec, ModularPipelineBlocks
from loopwright.components.report import summarize_dict_by_value_and_parts
from loopwright.errors import InvalidInputError, UnknownNameError
from tests.run.blocks import in_threads

NAMES = ("unet", "unet_refiner", "vae", "refiner", "text_encoder")


@pytest.fixture
def filled() -> ComponentsManager:
    """A manager with a model of each name, all in one collection and the first two in another."""
    manager = ComponentsManager()
    for name in NAMES:
        model = torch.nn.Linear(1, 1)
        manager.add(name, model, "all")
        if name.startswith("unet"):
            manager.add(name, model, "unets")
    return manager


def test_a_component_is_found_by_all_that_is_known_of_it() -> None:
    manager, model = ComponentsManager(), torch.nn.Linear(1, 1)
    model._diffusers_load_id = "here|unet|null|null"  # type: ignore[assignment]
    component_id = manager.add("my_unet", model, "first")
    assert component_id == f"my_unet_{id(model)}"
    assert manager.add("my_unet", model, "second") == component_id
    assert manager.get_one(component_id) is model
    assert manager.get_one(name="my_unet", collection="second", load_id="here|unet|null|null") is model
    assert manager.get_ids("my_unet") == manager.get_ids() == [component_id]
    assert manager.get_ids(["my_unet", "vae"], "first") == [component_id]
    assert manager.get_ids("my_unet", "third") == manager.get_ids("vae") == []
    assert manager.get_components_by_ids([component_id]) == {"my_unet": model}
    assert manager.get_components_by_ids([component_id], return_dict_with_names=False) == {component_id: model}
    assert manager.get_components_by_names(["my_unet"], "first") == {"my_unet": model}
    assert manager.search_components(load_id="here|unet|null|null") == {"my_unet": model}
    assert manager.search_components(load_id="there|unet|null|null") == {}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("unet", ["unet"]),
        ("!unet", ["unet_refiner", "vae", "refiner", "text_encoder"]),
        ("unet*", ["unet", "unet_refiner"]),
        ("!unet*", ["vae", "refiner", "text_encoder"]),
        ("*refiner*", ["unet_refiner", "refiner"]),
        ("*refiner", ["unet_refiner", "refiner"]),
        ("!*refiner*", ["unet", "vae", "text_encoder"]),
        ("refiner|vae|unet", ["unet", "vae", "refiner"]),
        ("!refiner|vae|unet", ["unet_refiner", "text_encoder"]),
        ("unet*|vae*", ["unet", "unet_refiner", "vae"]),
        ("encoder", ["text_encoder"]),
        ("!encoder", ["unet", "unet_refiner", "vae", "refiner"]),
        (None, list(NAMES)),
    ],
)
def test_a_search_takes_patterns(filled: ComponentsManager, names: str | None, found: list[str]) -> None:
    assert list(filled.search_components(names)) == found
    unets = [name for name in found if name.startswith("unet")]
    if unets and names != "encoder":
        assert list(filled.search_components(names, collection="unets")) == unets


@given(
    st.lists(st.sampled_from(["unet", "vae", "unet_2", "text", "te"]), min_size=1, unique=True),
    st.from_regex(r"!?(unet|vae|t|te|2)(\*|\|vae|\|te\*)?", fullmatch=True),
)
def test_a_search_finds_what_it_finds_in_diffusers(names: list[str], pattern: str) -> None:
    ours, theirs = ComponentsManager(), diffusers.ComponentsManager()
    for name in names:
        model = torch.nn.Linear(1, 1)
        ours.add(name, model)
        theirs.add(name, model)
    try:
        expected = theirs.search_components(pattern)
    except ValueError:
        expected = None
    try:
        found = ours.search_components(pattern)
    except ValueError:
        found = None
    if pattern.startswith("!") and expected is None and "|" not in pattern:
        return  # there, "all but those" is an error where there are none of those
    assert found == expected


def test_a_collection_has_one_component_of_a_name(filled: ComponentsManager) -> None:
    first, second = filled.get_one(name="vae"), torch.nn.Linear(1, 1)
    filled.add("vae", first, "kept")
    filled.add("vae", second, "all")
    assert filled.get_one(name="vae", collection="all") is second
    assert filled.get_one(name="vae", collection="kept") is first
    with pytest.raises(InvalidInputError, match="there are several components of name `vae`: `vae_"):
        filled.get_one(name="vae")
    with pytest.raises(InvalidInputError, match="several components are called `vae`: set `return_dict_with_names=F"):
        filled.search_components("vae")
    assert len(filled.search_components("vae", return_dict_with_names=False)) == 2
    filled.add("vae", second, "kept")
    assert filled.search_components("vae") == {"vae": second}


def test_a_component_goes_with_its_last_collection(filled: ComponentsManager) -> None:
    [component_id] = filled.get_ids("unet")
    filled.remove_from_collection(component_id, "unets")
    assert component_id in filled.components
    filled.remove_from_collection(component_id, "all")
    assert component_id not in filled.components
    assert component_id not in filled.added_time


MISTAKES = {
    "an unknown id": (
        lambda m: m.get_one("unet_1"),
        "there is no component `unet_1`, did you mean `unet_",
    ),
    "an unknown id to remove": (lambda m: m.remove("unet_1"), "there is no component `unet_1`, did you mean `unet_"),
    "an unknown id among several": (lambda m: m.get_components_by_ids(["x"]), "there is no component `x`"),
    "an unknown name": (
        lambda m: m.get_one(name="uent"),
        "no component is called `uent`, did you mean `unet`?; there are `refiner`, `text_encoder`, `unet`, ",
    ),
    "a name that is not in the collection": (
        lambda m: m.search_components("vae", "unets"),
        "no component in collection `unets` is called `vae`; there are `unet`, `unet_refiner`",
    ),
    "an unknown load id": (lambda m: m.get_one(load_id="x"), "there is no component of load id `x`"),
    "an id and a name": (lambda m: m.get_one("unet_1", name="unet"), "give the id of a component, or what to search"),
    "too many": (lambda m: m.get_one(collection="unets"), "there are several components of collection `unets`: `unet_"),
    "several names": (lambda m: m.search_components(["a"]), "`names` is one text, such as 'unet|vae*', not a list"),
    "an unknown collection": (
        lambda m: m.remove_from_collection("unet_1", "unet"),
        "there is no collection `unet`, did you mean `unets`?",
    ),
    "an id that is not in the collection": (
        lambda m: m.remove_from_collection(m.get_ids("vae")[0], "unets"),
        "collection `unets` has no component `vae_",
    ),
    "an unknown field": (
        lambda m: m.get_model_info(m.get_ids("vae")[0], "size"),
        "there is no field `size`, did you mean `size_gb`?; there are `model_id`, ",
    ),
    "no component": (lambda m: m.add("vae", None), "there is no component to add as `vae`: it is None"),
    "no name": (lambda m: m.add(None, 1), "a component is added under a name, not under None"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(filled: ComponentsManager, mistake: str) -> None:
    make, message = MISTAKES[mistake]
    before = dict(filled.components)
    with pytest.raises((UnknownNameError, InvalidInputError)) as raised:
        make(filled)
    assert isinstance(raised.value, ValueError)
    assert str(raised.value).startswith(message)
    assert dict(filled.components) == before


def test_the_info_of_a_model_says_what_it_is(filled: ComponentsManager) -> None:
    model = filled.get_one(name="unet")
    [component_id] = filled.get_ids("unet")
    info = filled.get_model_info(component_id)
    assert info == {
        "model_id": component_id,
        "added_time": filled.added_time[component_id],
        "collection": "all, unets",
        "class_name": "Linear",
        "size_gb": 8 / 2**30,
        "adapters": None,
        "has_hook": False,
        "execution_device": None,
        "quantization": None,
    }
    assert filled.get_model_info(component_id, "size_gb") == {"size_gb": 8 / 2**30}
    model.peft_config = {"style": None}
    assert filled.get_model_info(component_id, ["adapters", "class_name"]) == {
        "adapters": ["style"],
        "class_name": "Linear",
    }
    scheduler = filled.add("scheduler", diffusers.EulerDiscreteScheduler())
    assert set(filled.get_model_info(scheduler)) == {"model_id", "added_time", "collection"}
    assert filled.get_model_info(scheduler)["collection"] is None


def test_the_table_shows_what_is_there() -> None:
    manager = ComponentsManager()
    assert repr(manager) == "Components:\n  none"
    model = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1)
    model._diffusers_load_id = "owner/model|vae|null|null"
    model.peft_config = {"style": None}
    vae = manager.add("vae", model, "first")
    manager.add("vae", model, "second")
    scheduler = manager.add("scheduler", diffusers.EulerDiscreteScheduler())
    wide, narrow = len(vae), len(scheduler)
    assert repr(manager).splitlines() == [
        "Components:",
        "",
        "Models:",
        f"{'Name_ID':{wide}} | Class         | Device: act(exec) | Dtype         | Size (GB) | Load ID        "
        f"           | Collection",
        "-" * (wide + 108),
        f"{vae} | AutoencoderKL | cpu               | torch.float32 | 0.00      | owner/model|vae|null|null | "
        f"first, second",
        "",
        "Other components:",
        f"{'Name_ID':{narrow}} | Class                  | Collection",
        "-" * (narrow + 38),
        f"{scheduler} | EulerDiscreteScheduler | -",
        "",
        f"{vae}:",
        "  adapters: ['style']",
    ]


@given(st.dictionaries(st.from_regex(r"[ab](\.[ab01]){0,3}", fullmatch=True), st.sampled_from([0.5, 1.0])))
def test_values_are_summed_up_as_in_diffusers(values: dict[str, float]) -> None:
    theirs = diffusers.modular_pipelines.components_manager.summarize_dict_by_value_and_parts
    assert summarize_dict_by_value_and_parts(values).keys() == theirs(values).keys()


# Shared by pipelines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a scheduler, each in a folder of its name."""
    torch.manual_seed(0)
    made = Path(tmp_path_factory.mktemp("models"))
    for name in ("vae", "decoder"):
        vae = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1)
        vae.save_pretrained(made / name)
    diffusers.EulerDiscreteScheduler().save_pretrained(made / "scheduler")
    return made


def blocks(folder: Path, *names: str) -> ModularPipelineBlocks:
    class Uses(ModularPipelineBlocks):
        """Works with components, and does nothing."""

        expected_components = [
            ComponentSpec(
                name,
                diffusers.EulerDiscreteScheduler if name == "scheduler" else diffusers.AutoencoderKL,
                repo=str(folder),
                subfolder=name,
            )
            for name in names
        ]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            return components, state

    return Uses()


def test_a_component_is_loaded_once_for_all_pipelines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str | None] = []
    load = ComponentSpec.load
    monkeypatch.setattr(
        ComponentSpec, "load", lambda spec, **options: loaded.append(spec.name) or load(spec, **options)
    )
    manager = ComponentsManager()
    first = blocks(folder, "vae", "scheduler").init_pipeline(components_manager=manager, collection="first")
    second = loopwright.ModularPipeline(blocks(folder, "vae", "decoder", "scheduler"), None, manager, "second")
    first.load_components()
    second.load_components(dtype=torch.float32)
    assert loaded == ["vae", "scheduler", "decoder"]
    assert second.vae is first.vae
    assert second.scheduler is first.scheduler
    assert {name: len(ids) for name, ids in manager.collections.items()} == {"first": 2, "second": 3}
    assert manager.get_one(name="decoder") is second.decoder
    second.load_components("vae")
    assert second.vae is first.vae


def test_a_component_with_other_options_is_loaded_again(folder: Path) -> None:
    manager = ComponentsManager()
    first, second = (blocks(folder, "vae").init_pipeline(components_manager=manager) for _ in range(2))
    first.load_components()
    with pytest.warns(UserWarning, match="was loaded from the same place as `vae_"):
        second.load_components(dtype={"vae": torch.bfloat16})
    assert (first.vae.dtype, second.vae.dtype) == (torch.float32, torch.bfloat16)
    third = blocks(folder, "vae").init_pipeline(components_manager=manager)
    third.load_components(dtype=torch.bfloat16)
    assert third.vae is second.vae
    third.unload_components("vae")
    # other pipelines keep what they have
    assert second.vae is not None
    assert manager.get_one(name="vae") is first.vae


def test_what_a_pipeline_is_given_is_shared_as_well(folder: Path) -> None:
    manager = ComponentsManager()
    first, second = (blocks(folder, "vae").init_pipeline(components_manager=manager) for _ in range(2))
    given = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1)
    first.update_components(vae=given)
    assert manager.get_one(name="vae") is given
    # where it came from is not known: it is not what the other would load
    second.load_components()
    assert second.vae is not given
    first.update_components(vae=None)
    assert manager.get_ids("vae") == [f"vae_{id(model)}" for model in (given, second.vae)]


def test_a_manager_of_diffusers_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError) as raised:
        blocks(folder, "vae").init_pipeline(components_manager=diffusers.ComponentsManager())
    assert str(raised.value) == (
        "`components_manager` must be a `loopwright.ComponentsManager`, not a ComponentsManager of diffusers"
    )


def test_threads_share_a_manager() -> None:
    manager = ComponentsManager()
    models = [torch.nn.Linear(1, 1) for _ in range(4)]

    def come_and_go(number: int) -> None:
        for _ in range(5):
            component_id = manager.add(f"model_{number}", models[number], "shared")
            assert component_id in repr(manager)
            assert manager.get_one(name=f"model_{number}", collection="shared") is models[number]
            manager.remove_from_collection(component_id, "shared")

    in_threads(*[lambda number=number: come_and_go(number) for number in range(len(models))])
    assert manager.components == {}
