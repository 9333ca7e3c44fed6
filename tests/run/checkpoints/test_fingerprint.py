"""A run is not resumed in a pipeline that is not the one in which it was saved."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, EulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from peft import LoraConfig

from loopwright import ComponentSpec, ConfigSpec, InputParam, ModularPipelineBlocks, SequentialPipelineBlocks
from loopwright.errors import CheckpointMismatchError
from loopwright.run.checkpoints.comparison import tensor_bytes
from loopwright.run.checkpoints.fingerprint import weights_digest
from tests.blocks.arithmetic import Add, AddOne, Double, Repeat
from tests.run.checkpoints.storages import saved_run

DIFFERS = "the run was saved in another pipeline and would not go on as it began: "
REMEDY = "; resume it in a pipeline as it was then, or begin a new run"


class Work(ModularPipelineBlocks):
    """Works with a model, a scheduler and a configuration value."""

    inputs = [InputParam("x", required=True)]
    expected_components = [ComponentSpec("model", torch.nn.Linear), ComponentSpec("scheduler", EulerDiscreteScheduler)]
    expected_configs = [ConfigSpec("factor", default=2)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        return components, state


def loop(*names: str, **blocks: Any) -> Any:
    known = {"double": Double, "one": AddOne, "two": Add(2), "work": Work, **blocks}
    return Repeat.from_blocks_dict({name: known[name] for name in names})


def pipeline(*names: str, seed: int = 0, before: Any = AddOne, **blocks: Any) -> Any:
    pipe = SequentialPipelineBlocks.from_blocks_dict({"before": before, "loop": loop(*names, **blocks)}).init_pipeline()
    if "work" in names:
        torch.manual_seed(seed)
        pipe.update_components(model=torch.nn.Linear(2, 2), scheduler=EulerDiscreteScheduler())
    return pipe


def difference(before: Any, after: Any) -> str:
    _, memory = saved_run(before, x=1)
    with pytest.raises(CheckpointMismatchError) as raised:
        after.resume(memory)
    text = str(raised.value)
    assert text.startswith(DIFFERS)
    assert text.endswith(REMEDY)
    return text.removeprefix(DIFFERS).removesuffix(REMEDY)


def test_the_same_blocks_made_anew_are_the_same_pipeline() -> None:
    state, memory = saved_run(pipeline("double", "two", "work"), x=1)
    assert pipeline("double", "two", "work").resume(memory).result().values == state.values


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (["double"], ["double", "one"], "block `loop.one` is new"),
        (["double", "one"], ["double"], "block `loop.one` is gone"),
        (
            ["double", "one"],
            ["one", "double"],
            "the order of the blocks was `the whole`, `before`, `loop`, `loop.double`, `loop.one` and is `the whole`, "
            "`before`, `loop`, `loop.one`, `loop.double`",
        ),
    ],
    ids=["added", "removed", "reordered"],
)
def test_blocks_that_differ_are_named(before: list[str], after: list[str], message: str) -> None:
    assert difference(pipeline(*before), pipeline(*after)) == message


def test_a_renamed_block_is_gone_and_new() -> None:
    found = difference(pipeline("double"), pipeline("twice", twice=Double))
    assert found == "block `loop.double` is gone; block `loop.twice` is new"


def test_of_many_blocks_that_are_gone_one_is_named() -> None:
    found = difference(pipeline(*"abcd", **dict.fromkeys("abcd", Double)), pipeline("twice", twice=Double))
    assert found == "4 blocks are gone, the first is `loop.a`; block `loop.twice` is new"


def test_a_block_of_another_class_is_named_with_both() -> None:
    found = difference(pipeline("double"), pipeline("double", double=AddOne))
    assert found.startswith("block `loop.double` was `Double ")
    assert " and is `AddOne " in found


def test_a_block_that_was_made_with_other_arguments_is_another() -> None:
    found = difference(pipeline("two"), pipeline("two", two=Add(3)))
    assert found.startswith("block `loop.two` was `")
    assert '"amount": 2' in found
    assert '"amount": 3' in found


def test_a_component_of_another_configuration_is_named() -> None:
    after = pipeline("work")
    after.update_components(scheduler=EulerDiscreteScheduler(beta_end=0.5))
    found = difference(pipeline("work"), after)
    assert found.startswith("component `scheduler` was `")
    assert found.startswith('component `scheduler` was `"beta_end": 0.02, ')
    assert ' and is `"beta_end": 0.5, ' in found


def test_a_component_that_is_not_loaded_is_named() -> None:
    after = pipeline("work")
    after.update_components(model=None)
    assert difference(pipeline("work"), after).endswith("and is `none`")


def test_another_configuration_value_is_named() -> None:
    after = pipeline("work")
    after.update_components(factor=3)
    assert difference(pipeline("work"), after) == "configuration value `factor` was `2` and is `3`"


OTHER_WEIGHTS = "component `model` has other weights, or other adapters loaded into it"


def test_other_weights_are_named() -> None:
    assert difference(pipeline("work"), pipeline("work", seed=1)) == OTHER_WEIGHTS


class Adapted(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Two layers, of which adapters change the first, or both."""

    config_name = "config.json"

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)


def adapted(*active: str, scale: float = 1.0, off: bool = False) -> Any:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is more than one adapter
        torch.manual_seed(0)
        model = Adapted()
        for name, targets in (("a", ["first"]), ("b", ["first"]), ("both", ["first", "second"])):
            model.add_adapter(LoraConfig(r=1, lora_alpha=1, target_modules=targets), adapter_name=name)
    model.set_adapters(list(active), weights=scale)
    if off:
        model.disable_lora()
    pipe = pipeline("work")
    pipe.update_components(model=model)
    return pipe


def test_other_active_adapters_are_named_and_so_are_other_scales() -> None:
    assert difference(adapted("a"), adapted("b")) == (
        "component `model` was `adapters a at 1.0` and is `adapters b at 1.0`"
    )
    assert difference(adapted("a"), adapted("a", scale=0.5)) == (
        "component `model` was `adapters a at 1.0` and is `adapters a at 0.5`"
    )
    assert difference(adapted("a"), adapted("a", off=True)) == (
        "component `model` was `adapters a at 1.0` and is `adapters none`"
    )
    assert difference(adapted("a"), adapted("both", "a")).startswith(
        "component `model` was `adapters a at 1.0` and is `adapters of each layer "
    )


def test_scales_of_adapters_that_are_not_active_make_no_difference() -> None:
    before, after = adapted("a"), adapted("a")
    after.model.set_adapters(["a", "b"], weights=0.5)
    after.model.set_adapters(["a"], weights=1.0)
    state, memory = saved_run(before, x=1)
    assert after.resume(memory).result().values == state.values


def add_in_place(weight: Any) -> None:
    with torch.no_grad():
        weight.add_(0.5)


def add_to_data(weight: Any) -> None:
    weight.data += 0.5


def write_through_numpy(weight: Any) -> None:
    weight.detach().numpy()[0, 0] += 1


def set_one_row(weight: Any) -> None:
    weight.data[700] = torch.ones(weight.shape[1])


def swap_two_rows(weight: Any) -> None:
    weight.data[[3, 700]] = weight.data[[700, 3]]


@pytest.mark.parametrize("change", [add_in_place, add_to_data, write_through_numpy, set_one_row, swap_two_rows])
def test_weights_that_change_in_place_are_noticed(change: Any) -> None:
    """As when a LoRA is merged into them, or a token gets an embedding of its own."""
    pipe = pipeline("work")
    pipe.update_components(model=torch.nn.Linear(48, 1000))
    _, memory = saved_run(pipe, x=1)
    change(pipe.model.weight)
    with pytest.raises(CheckpointMismatchError, match=OTHER_WEIGHTS):
        pipe.resume(memory)


def test_weights_are_digested_again_only_if_they_have_changed_or_it_is_asked_for(monkeypatch: Any) -> None:
    model, digested = torch.nn.Linear(48, 1000), []

    def counting(tensor: Any) -> Any:
        digested.append(tensor.shape)
        return tensor_bytes(tensor)

    monkeypatch.setattr(sys.modules[weights_digest.__module__], "tensor_bytes", counting)
    first = weights_digest(model)
    assert weights_digest(model) == first
    assert len(digested) == 2
    assert weights_digest(model, anew=True) == first
    assert len(digested) == 4
    # as offloading does: they move, and stay what they are
    model.weight.data = model.weight.data.clone()
    assert weights_digest(model) == first
    assert len(digested) == 4
    model.bias.data[0] += 1
    assert weights_digest(model) != first
