"""Each row of "What differs on purpose" in docs/compatibility.md, on both sides: what diffusers does, what we do."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import diffusers
import diffusers.modular_pipelines as theirs
import pytest
import torch

import loopwright.modular_pipelines as ours
from loopwright import ModularPipeline
from loopwright.errors import (
    BlockTypeError,
    CheckError,
    MissingComponentError,
    MissingInputError,
    UnknownComponentError,
    UnknownInputError,
    UnknownNameError,
    UnknownValueError,
)

DOCUMENT = Path(__file__).parent.parent / "docs" / "compatibility.md"
TESTED: list[str] = []


def row(beginning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test of the row whose first cell begins like this."""
    TESTED.append(beginning)
    return lambda test: test


def test_each_row_of_the_table_has_a_test_and_each_test_a_row() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## What differs on purpose")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)[1:]
    assert len(rows) == len(TESTED)
    for cell in rows:
        assert len([beginning for beginning in TESTED if cell.startswith(beginning)]) == 1, cell


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What diffusers logs."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("diffusers")
    handlers, logger.handlers = logger.handlers, [handler]
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield messages
    logger.handlers = handlers
    logger.setLevel(level)


pytestmark = pytest.mark.usefixtures("log")


def blocks_of(library: ModuleType) -> SimpleNamespace:
    """The same blocks, on the classes of a library."""
    InputParam, OutputParam = library.InputParam, library.OutputParam

    class Block(library.ModularPipelineBlocks):
        """Reads `reads`, writes `writes`; adds the loop variables that it gets to what it has read."""

        description = "adds one"
        reads: list[Any] = [InputParam("x", required=True)]
        writes = "x"

        @property
        def inputs(self) -> list[Any]:
            return [copy(param) for param in self.reads]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [OutputParam(self.writes)]

        def work(self, state: Any, *variables: int) -> None:
            block_state = state if variables else self.get_block_state(state)
            block_state[self.writes] = block_state[self.inputs[0].name] + sum(variables or (1,))
            if not variables:
                self.set_block_state(state, block_state)

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            self.work(state)
            return components, state

    class AddI(Block):
        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            self.work(block_state, i)
            return components, block_state

    class Loop(library.LoopSequentialPipelineBlocks):
        description = "a loop"
        gives = ("i",)

        @property
        def loop_inputs(self) -> list[Any]:
            return [InputParam("steps", default=3)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for index in range(block_state.steps):
                components, block_state = self.step(components, block_state, index)
            self.set_block_state(state, block_state)
            return components, state

        def step(self, components: Any, block_state: Any, index: int) -> Any:
            return self.loop_step(components, block_state, i=index)

    def block(base: type = Block, **attributes: Any) -> Any:
        return type("Changed", (base,), attributes)()

    return SimpleNamespace(
        Block=Block,
        AddI=AddI,
        Loop=Loop,
        InputParam=InputParam,
        block=block,
        sequence=library.SequentialPipelineBlocks.from_blocks_dict,
        library=library,
    )


OURS, THEIRS = blocks_of(ours), blocks_of(theirs)


@row("an input that no block has")
def test_an_unknown_input_is_an_error_and_ignored_there() -> None:
    with pytest.warns(UserWarning, match="Unexpected input"):
        assert THEIRS.Block().init_pipeline()(x=1, y=2, output="x") == 2
    with pytest.raises(UnknownInputError, match="unknown input `y`"):
        OURS.Block().init_pipeline()(x=1, y=2)


@row("a required input that is missing")
def test_a_missing_input_is_found_before_anything_runs_and_there_when_the_block_is_reached() -> None:
    def missing(blocks: SimpleNamespace) -> tuple[Exception, list[str]]:
        ran = []

        class First(blocks.Block):  # type: ignore[misc, name-defined]
            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                ran.append("first")
                return super().__call__(components, state)  # type: ignore[no-any-return]

        needs = blocks.block(reads=[blocks.InputParam("y", required=True)])
        pipe = blocks.sequence({"first": First(), "needs": needs}).init_pipeline()
        with pytest.raises(ValueError, match=r"(?i)required input .y.") as caught:
            pipe(x=1)
        return caught.value, ran

    error, ran = missing(THEIRS)
    assert ran == ["first"]
    error, ran = missing(OURS)
    assert ran == []
    assert isinstance(error, MissingInputError)
    assert "block `needs`" in str(error)


@row("`required=True` holds in spite of a default")
def test_a_default_does_not_lift_that_an_input_is_required_and_does_there() -> None:
    def pipe(blocks: SimpleNamespace) -> Any:
        return blocks.block(reads=[blocks.InputParam("x", default=3, required=True)]).init_pipeline()

    assert pipe(THEIRS)(output="x") == 4
    with pytest.raises(MissingInputError, match="required input `x`"):
        pipe(OURS)(output="x")


@row("the state that a call returns is strict")
def test_the_returned_state_refuses_a_misspelt_name_and_answers_none_there() -> None:
    assert THEIRS.block(writes="image").init_pipeline()(x=1).get("imgae") is None
    state = OURS.block(writes="image").init_pipeline()(x=1)
    with pytest.raises(UnknownValueError, match="did you mean `image`"):
        state.get("imgae")
    assert state.get("imgae", None) is None


@row('`state["images"]`')
def test_a_state_can_be_indexed_and_asked_for_a_name() -> None:
    with pytest.raises(TypeError, match="not subscriptable"):
        THEIRS.block().init_pipeline()(x=1)["x"]
    with pytest.raises(TypeError, match="must be string"):
        "x" in theirs.BlockState(x=1)  # noqa: B015
    state = OURS.block().init_pipeline()(x=1)
    assert state["x"] == 2
    for holder in (state, ours.BlockState(x=1)):
        assert "x" in holder
        assert "y" not in holder


@row('`output="imgae"`')
def test_an_unknown_output_is_an_error_and_none_there() -> None:
    assert THEIRS.block(writes="image").init_pipeline()(x=1, output="imgae") is None
    with pytest.raises(UnknownValueError, match="did you mean `image`"):
        OURS.block(writes="image").init_pipeline()(x=1, output="imgae")


@row("`from_blocks_dict` takes classes and instances")
def test_a_loop_is_made_of_classes_and_keeps_the_classes_there() -> None:
    loop = THEIRS.Loop.from_blocks_dict({"add": THEIRS.AddI})
    assert loop.sub_blocks["add"] is THEIRS.AddI
    with pytest.raises(TypeError):
        loop.init_pipeline()(x=1)
    loop = OURS.Loop.from_blocks_dict({"add": OURS.AddI}, description="adds up")
    assert loop.init_pipeline()(x=1, output="x") == 4
    assert loop.description == "adds up"


def test_a_sequence_takes_a_description_and_fails_with_one_there() -> None:
    with pytest.raises(AttributeError):
        THEIRS.sequence({"add": THEIRS.Block}, description="adds up")
    assert OURS.sequence({"add": OURS.Block}, description="adds up").description == "adds up"


@row("any block can be a block of a loop")
def test_a_sequence_is_a_block_of_a_loop_and_refused_there() -> None:
    def loop(blocks: SimpleNamespace) -> Any:
        inner = blocks.sequence({"add": blocks.Block()})
        return blocks.block(blocks.Loop, block_names=["inner"], block_classes=[inner])

    with pytest.raises(ValueError, match="must be leaf blocks"):
        loop(THEIRS)
    assert loop(OURS).init_pipeline()(x=1, output="x") == 4


@row("a block of a loop gets the loop variables that its `__call__` names")
def test_a_block_of_a_loop_may_name_some_of_the_variables_and_must_name_all_there() -> None:
    def loop(blocks: SimpleNamespace) -> Any:
        class TwoVariables(blocks.Loop):  # type: ignore[misc, name-defined]
            def step(self, components: Any, block_state: Any, index: int) -> Any:
                return self.loop_step(components, block_state, i=index, j=0)

        return TwoVariables.from_blocks_dict({"add": blocks.AddI()})

    with pytest.raises(TypeError, match="unexpected keyword argument 'j'"):
        loop(THEIRS).init_pipeline()(x=1)
    assert loop(OURS).init_pipeline()(x=1, output="x") == 4


@row("loop variables are not asked of the user")
def test_a_loop_variable_is_no_input_of_the_loop_and_is_one_there() -> None:
    def inputs(blocks: SimpleNamespace) -> list[str]:
        add = blocks.block(blocks.AddI, reads=[blocks.InputParam("x"), blocks.InputParam("i")])
        names: list[str] = blocks.Loop.from_blocks_dict({"add": add}).input_names
        return names

    assert inputs(THEIRS) == ["steps", "x", "i"]
    assert inputs(OURS) == ["steps", "x"]


@row("`outputs` of a loop")
def test_the_outputs_of_a_loop_are_those_of_all_its_blocks_and_of_the_last_there() -> None:
    def outputs(blocks: SimpleNamespace) -> list[str]:
        first, last = blocks.block(blocks.AddI, writes="y"), blocks.block(blocks.AddI, writes="z")
        names: list[str] = blocks.Loop.from_blocks_dict({"first": first, "last": last}).output_names
        return names

    assert outputs(THEIRS) == ["z"]
    assert outputs(OURS) == ["y", "z"]


@row("zero iterations")
def test_zero_iterations_pass_the_inputs_through_and_fail_there() -> None:
    def pipe(blocks: SimpleNamespace) -> Any:
        return blocks.Loop.from_blocks_dict({"add": blocks.block(blocks.AddI, writes="y")}).init_pipeline()

    with pytest.raises(ValueError, match="Intermediate output 'y' is missing"):
        pipe(THEIRS)(x=1, steps=0)
    assert pipe(OURS)(x=1, steps=0).values == {"x": 1, "steps": 0}


@row("several groups of values")
def test_a_sequence_takes_all_groups_of_values_and_the_first_only_there() -> None:
    def groups(blocks: SimpleNamespace) -> list[str]:
        reads = [blocks.InputParam(kwargs_type=group) for group in ("text", "image")]
        return [param.kwargs_type for param in blocks.sequence({"reads": blocks.block(reads=reads)}).inputs]

    assert groups(THEIRS) == ["text"]
    assert groups(OURS) == ["text", "image"]


@row("a block counts into its sequence's outputs")
def test_a_block_that_is_named_like_its_input_counts_and_does_not_there() -> None:
    def outputs(blocks: SimpleNamespace) -> list[str]:
        names: list[str] = blocks.sequence({"x": blocks.block(writes="y")}).output_names
        return names

    assert outputs(THEIRS) == []
    assert outputs(OURS) == ["y"]


@row("an exception in a block")
def test_an_exception_has_a_note_of_its_place_and_is_logged_at_each_level_there(log: list[str]) -> None:
    def failing(blocks: SimpleNamespace) -> Exception:
        inner = blocks.sequence({"add": blocks.Block()})
        with pytest.raises(TypeError) as caught:
            blocks.sequence({"inner": inner}).init_pipeline()(x="text")
        return caught.value

    assert not hasattr(failing(THEIRS), "__notes__")
    assert len(log) == 3
    log.clear()
    error: Any = failing(OURS)
    assert error.__notes__ == ["in block `inner.add`"]
    assert error.loopwright.path == "inner.add"
    assert log == []


@row("a pipeline whose blocks do not fit together")
def test_a_variable_that_no_loop_gives_is_found_when_the_pipeline_is_made_and_when_it_runs_there() -> None:
    pipe = THEIRS.sequence({"add": THEIRS.AddI}).init_pipeline()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        pipe(x=1)
    with pytest.raises(CheckError, match="takes the loop variable `i`"):
        OURS.sequence({"add": OURS.AddI}).init_pipeline()


@row("`pipe(state=state)`")
def test_a_state_that_is_passed_shares_its_models_with_the_call_and_has_them_copied_there() -> None:
    generator, model = torch.Generator().manual_seed(0), torch.nn.Linear(1, 1)

    def called(blocks: SimpleNamespace) -> Any:
        state = blocks.library.PipelineState({"x": 1, "generator": generator, "model": model})
        return blocks.Block().init_pipeline()(state=state)

    for result, shared in ((called(THEIRS), False), (called(OURS), True)):
        assert (result.model is model) == shared
        assert result.generator is not generator
        assert torch.equal(result.generator.get_state(), generator.get_state())


@row("each call has its own copy of schedulers and guiders")
def test_a_call_steps_a_scheduler_of_its_own_and_the_shared_one_there() -> None:
    def steps_of(library: ModuleType) -> Any:
        class SetTimesteps(library.ModularPipelineBlocks):  # type: ignore[name-defined, misc]
            expected_components = [library.ComponentSpec("scheduler", diffusers.EulerDiscreteScheduler)]

            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                components.scheduler.set_timesteps(3)
                components.touched = True
                return components, state

        pipe = SetTimesteps().init_pipeline()
        scheduler = diffusers.EulerDiscreteScheduler()
        pipe.update_components(scheduler=scheduler)
        pipe()
        return len(scheduler.timesteps), hasattr(pipe, "touched")

    assert steps_of(ours) == (1000, False)
    assert steps_of(theirs) == (3, True)


@row("the pipeline turns gradients off")
def test_a_composite_that_is_called_by_hand_keeps_gradients_and_turns_them_off_there() -> None:
    def by_hand(blocks: SimpleNamespace) -> bool:
        state = blocks.library.PipelineState({"x": torch.ones(1, requires_grad=True)})
        blocks.sequence({"add": blocks.Block()})(None, state)
        return bool(state.values["x"].requires_grad)

    def called(blocks: SimpleNamespace) -> bool:
        return bool(blocks.Block().init_pipeline()(x=torch.ones(1, requires_grad=True), output="x").requires_grad)

    assert (by_hand(THEIRS), called(THEIRS)) == (False, False)
    assert (by_hand(OURS), called(OURS)) == (True, False)


@row("a block that works with a component that is not loaded")
def test_a_component_that_is_not_loaded_is_named_and_a_none_that_is_called_there() -> None:
    def pipe(library: ModuleType) -> Any:
        class Calls(library.ModularPipelineBlocks):  # type: ignore[name-defined, misc]
            expected_components = [library.ComponentSpec("model", torch.nn.Module)]

            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                components.model(1)
                return components, state

        return Calls().init_pipeline()

    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        pipe(theirs)()
    with pytest.raises(MissingComponentError, match="the component `model`, which is not loaded") as caught:
        pipe(ours)()
    assert isinstance(caught.value.__cause__, TypeError)


@row("what a block writes into the default of an input")
def test_a_default_that_a_block_writes_into_is_of_the_call_and_of_all_calls_there() -> None:
    def second(library: ModuleType) -> Any:
        class Appends(library.ModularPipelineBlocks):  # type: ignore[name-defined, misc]
            inputs = [library.InputParam("log", default=[])]
            intermediate_outputs = [library.OutputParam("log")]

            def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
                block_state = self.get_block_state(state)
                block_state.log.append(1)
                self.set_block_state(state, block_state)
                return components, state

        pipe = Appends().init_pipeline()
        pipe()
        return pipe(output="log")

    assert (second(theirs), second(ours)) == ([1, 1], [1])


@row("names that no block expects")
@pytest.mark.parametrize("method", ["update_components", "register_components"])
def test_an_unknown_component_is_an_error_and_a_warning_there(method: str, log: list[str]) -> None:
    getattr(THEIRS.Block().init_pipeline(), method)(model=None)
    assert len(log) == 1
    pipe: ModularPipeline = OURS.Block().init_pipeline()
    with pytest.raises(UnknownComponentError, match="`model`"):
        getattr(pipe, method)(model=None)


class Likeness:
    """Looks like a block to who asks for `_requirements`, and is none."""

    _requirements: dict[str, str] = {}


@row("a class that is no subclass of `ModularPipelineBlocks`")
def test_a_class_that_is_no_block_is_refused_and_kept_there() -> None:
    theirs.SequentialPipelineBlocks.from_blocks_dict({"block": Likeness()})
    with pytest.raises(BlockTypeError):
        ours.SequentialPipelineBlocks.from_blocks_dict({"block": Likeness()})


def loading(library: ModuleType, manager: Any, folder: Path) -> Any:
    """A pipeline whose model comes from a folder, with the manager that shares it."""

    class Block(library.ModularPipelineBlocks):
        expected_components = [
            library.ComponentSpec("vae", diffusers.AutoencoderTiny, pretrained_model_name_or_path=str(folder))
        ]

    pipe = library.SequentialPipelineBlocks.from_blocks_dict({"block": Block()}).init_pipeline(
        components_manager=manager, collection="shared"
    )
    pipe.load_components()
    return pipe


@pytest.fixture
def vae_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "vae"
    one = {f"{part}_block_out_channels": (4,) for part in ("encoder", "decoder")}
    blocks = {f"num_{part}_blocks": (1,) for part in ("encoder", "decoder")}
    diffusers.AutoencoderTiny(**one, **blocks).save_pretrained(folder)
    return folder


@row("`load_components` takes from the `ComponentsManager`")
def test_what_a_manager_has_is_not_loaded_again(vae_folder: Path) -> None:
    for library, is_shared in ((theirs, False), (ours, True)):
        manager = library.ComponentsManager()
        first, second = (loading(library, manager, vae_folder) for _ in range(2))
        assert (first.vae is second.vae) is is_shared


@row("a name, id or collection that a `ComponentsManager` does not have")
def test_a_collection_that_a_manager_does_not_have(vae_folder: Path) -> None:
    model = diffusers.AutoencoderTiny.from_pretrained(vae_folder)
    managers = {library: library.ComponentsManager() for library in (theirs, ours)}
    for manager in managers.values():
        manager.add("vae", model, collection="shared")
    managers[theirs].remove_from_collection("absent", "shared")
    with pytest.raises(UnknownNameError):
        managers[ours].remove_from_collection("absent", "shared")


@row("offloading goes on as it was set up when components come and go")
def test_a_strategy_of_ones_own_stays_when_a_component_comes(vae_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "mem_get_info", lambda index: (10**9, 10**9), raising=False)

    def own(hooks: Any, model_id: str, model: Any, execution_device: Any) -> list[Any]:
        return []

    for library, stays in ((theirs, False), (ours, True)):
        manager = library.ComponentsManager()
        manager.add("first", diffusers.AutoencoderTiny.from_pretrained(vae_folder))
        manager.enable_auto_cpu_offload(torch.device("cpu", 0), offload_strategy=own)
        manager.add("second", diffusers.AutoencoderTiny.from_pretrained(vae_folder))
        assert (manager._offload_strategy is own) is stays
        manager.disable_auto_cpu_offload()
