"""`LoopSequentialPipelineBlocks`: iterations and their variables, what it reads, carries and leaves, progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import diffusers.modular_pipelines
import pytest

import loopwright.modular_pipelines
from loopwright import (
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
    SequentialPipelineBlocks,
)
from loopwright.blocks import walk
from loopwright.errors import DefinitionError, InvalidInputError, LoopVariableError, OutputNotSetError
from tests.blocks.arithmetic import (
    AddIndex,
    AddOne,
    AppendVariables,
    Copy,
    Divide,
    Double,
    DoubleIfAsked,
    DoubleOrAddOne,
    Repeat,
    RepeatByHand,
    RepeatRows,
    Silent,
)
from tests.blocks.trees import Composite, Leaf, Loop, Read, blocks_of, build

OURS = blocks_of(loopwright.modular_pipelines)
THEIRS = blocks_of(diffusers.modular_pipelines)
BOTH = pytest.mark.parametrize("library", [OURS, THEIRS], ids=["loopwright", "diffusers"])
EVERY_LOOP = pytest.mark.parametrize("loop", [Repeat, RepeatByHand])


class Seen(ModularPipelineBlocks):
    """Adds values to `seen`."""

    inputs = [InputParam("seen", default=())]
    intermediate_outputs = [OutputParam("seen")]

    def note(self, block_state: Any, *values: Any) -> None:
        block_state.seen = (*block_state.seen, values)


# Loop variables


def test_a_block_gets_the_variables_that_it_names() -> None:
    class TakesRow(Seen):
        def __call__(self, components: Any, block_state: Any, row: int) -> tuple[Any, Any]:
            self.note(block_state, row)
            return components, block_state

    class TakesBothInAnyOrder(Seen):
        def __call__(self, components: Any, block_state: Any, i: int, *, row: int) -> tuple[Any, Any]:
            self.note(block_state, i, row)
            return components, block_state

    inner = Repeat.from_blocks_dict({"row": TakesRow, "both": TakesBothInAnyOrder, "none": AddOne})
    pipe = RepeatRows.from_blocks_dict({"inner": inner}).init_pipeline()
    assert pipe(x=0, rows=2, steps=1, output=["seen", "x"]) == {"seen": ((0,), (0, 0), (1,), (0, 1)), "x": 2}


def test_a_block_that_takes_any_variables_gets_all_in_sight() -> None:
    inner = Repeat.from_blocks_dict({"all": AppendVariables})
    pipe = RepeatRows.from_blocks_dict({"inner": inner, "outer": AppendVariables}).init_pipeline()
    assert pipe(rows=1, steps=2, output="seen") == [{"row": 0, "i": 0}, {"row": 0, "i": 1}, {"row": 0}]


def test_a_variable_with_a_default_may_be_missing() -> None:
    class TakesOrNot(Seen):
        def __call__(self, components: Any, block_state: Any, i: int = -1) -> tuple[Any, Any]:
            self.note(block_state, i)
            return components, block_state

    assert Repeat.from_blocks_dict({"seen": TakesOrNot}).init_pipeline()(steps=1, output="seen") == ((0,),)
    assert RepeatRows.from_blocks_dict({"seen": TakesOrNot}).init_pipeline()(rows=1, output="seen") == ((-1,),)


def test_variables_may_change_from_one_iteration_to_the_next() -> None:
    class Changing(LoopSequentialPipelineBlocks):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            yield {"i": 0}
            yield {"i": 1, "j": 2}
            yield {"j": 3}

    pipe = Changing.from_blocks_dict({"seen": AppendVariables}).init_pipeline()
    assert pipe(output="seen") == [{"i": 0}, {"i": 1, "j": 2}, {"j": 3}]


def test_a_variable_that_is_missing_in_a_later_iteration_is_found_there() -> None:
    class Sometimes(LoopSequentialPipelineBlocks):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            yield {"i": 5}
            yield {"j": 5}

    pipe = Sometimes.from_blocks_dict({"one": AddOne, "index": AddIndex}).init_pipeline()
    state = PipelineState({"x": 0})
    with pytest.raises(LoopVariableError, match="takes the loop variable `i`"):
        pipe._blocks(pipe, state)


def test_a_variable_may_be_called_like_a_value_and_hides_it_while_the_loop_runs() -> None:
    pipe = Repeat.from_blocks_dict({"copy": Copy("i", "seen")}).init_pipeline()
    state = PipelineState({"i": "a value"})
    pipe._blocks(pipe, state)
    assert state.values == {"i": "a value", "seen": 2, "steps": 3}


# Blocks of a loop


@EVERY_LOOP
def test_blocks_that_take_their_own_view_and_blocks_that_share_the_loops_see_the_same_values(loop: Any) -> None:
    pipe = loop.from_blocks_dict({"own": AddOne, "shared": AddIndex, "double": Double}).init_pipeline()
    assert pipe(x=0, output="x") == (((1 + 0) * 2 + 1 + 1) * 2 + 1 + 2) * 2


@EVERY_LOOP
def test_a_sequence_is_a_block_of_a_loop_and_its_blocks_get_the_variables(loop: Any) -> None:
    inner = SequentialPipelineBlocks.from_blocks_dict({"index": AddIndex, "one": AddOne})
    assert loop.from_blocks_dict({"inner": inner}).init_pipeline()(x=0, output="x") == 6


@EVERY_LOOP
def test_a_loop_is_a_block_of_a_loop(loop: Any) -> None:
    inner = loop.from_blocks_dict({"index": AddIndex})
    pipe = RepeatRows.from_blocks_dict({"inner": inner, "double": Double}).init_pipeline()
    assert pipe(x=0, rows=2, output="x") == ((0 + 3) * 2 + 3) * 2


def test_a_conditional_in_a_loop_chooses_anew_in_each_iteration() -> None:
    class Last(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("twice")]

        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            block_state.twice = True if i == 2 else None
            return components, block_state

    pipe = Repeat.from_blocks_dict({"last": Last, "choice": DoubleOrAddOne}).init_pipeline()
    assert pipe(x=0, output="x") == ((0 + 1) + 1) * 2


def test_a_conditional_in_a_loop_chooses_by_a_value_that_no_block_of_the_loop_reads() -> None:
    inner = RepeatRows.from_blocks_dict({"choice": DoubleOrAddOne})
    tree = Repeat.from_blocks_dict({"inner": inner})
    for values, x in (({}, 7), ({"twice": True}, 64)):
        state = PipelineState({"x": 1, **values})
        tree(None, state)
        assert state.values == {"x": x, "steps": 3, "rows": 2, **values}


def test_a_conditional_in_a_loop_chooses_by_a_loop_variable() -> None:
    class ByIndex(DoubleIfAsked):
        block_trigger_inputs = ["i"]

    assert Repeat.from_blocks_dict({"choice": ByIndex}).init_pipeline()(x=1, output="x") == 8


def test_values_that_no_block_declares_stay_in_the_loop() -> None:
    class Notes(ModularPipelineBlocks):
        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            block_state.note = i
            return components, block_state

    assert Repeat.from_blocks_dict({"notes": Notes}).init_pipeline()().values == {"steps": 3}


# Iterations


def test_code_after_a_yield_sees_what_the_blocks_wrote() -> None:
    class Watching(LoopSequentialPipelineBlocks):
        loop_intermediate_outputs = [OutputParam("watched")]

        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            block_state.watched = []
            while True:
                yield {}
                block_state.watched.append(block_state.x)
                if block_state.x > 5:
                    return

    pipe = Watching.from_blocks_dict({"double": Double}).init_pipeline()
    assert pipe(x=1, output="watched") == [2, 4, 8]


def test_the_generator_is_closed_when_a_block_fails() -> None:
    ended = []

    class CleansUp(Repeat):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            try:
                yield {"i": 0}
            finally:
                ended.append("closed")

    with pytest.raises(ZeroDivisionError):
        CleansUp.from_blocks_dict({"divide": Divide}).init_pipeline()(x=0)
    assert ended == ["closed"]


def test_a_loop_by_hand_calls_its_blocks_in_two_fors() -> None:
    class Warmup(LoopSequentialPipelineBlocks):
        loop_inputs = [InputParam("warmup", default=2), InputParam("steps", default=3)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for i in range(block_state.warmup):
                components, block_state = self.loop_step(components, block_state, i=i, warm=False)
            for i in range(block_state.steps):
                components, block_state = self.loop_step(components, block_state, i=i, warm=True)
            self.set_block_state(state, block_state)
            return components, state

    pipe = Warmup.from_blocks_dict({"add": AddIndex, "seen": AppendVariables}).init_pipeline()
    result = pipe(x=0)
    assert result.x == (0 + 1) + (0 + 1 + 2)
    assert [seen["warm"] for seen in result.seen] == [False, False, True, True, True]


def test_a_loop_by_hand_ends_by_what_its_blocks_wrote() -> None:
    class Until(LoopSequentialPipelineBlocks):
        loop_inputs = [InputParam("bound", required=True)]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            while True:
                components, block_state = self.loop_step(components, block_state)
                if block_state.x >= block_state.bound:
                    break
            self.set_block_state(state, block_state)
            return components, state

    pipe = Until.from_blocks_dict({"double": Double}).init_pipeline()
    assert [pipe(x=1, bound=bound, output="x") for bound in (1, 5, 64)] == [2, 8, 64]


def test_an_outer_loop_runs_on_after_an_inner_one_without_iterations() -> None:
    inner = Repeat.from_blocks_dict({"copy": Copy("x", "y")})
    pipe = RepeatRows.from_blocks_dict({"inner": inner, "add": AddOne}).init_pipeline()
    assert pipe(x=0, steps=0).values == {"x": 2, "rows": 2, "steps": 0}


@pytest.mark.parametrize("yielded", [3, ("i", 1), None], ids=repr)
def test_what_is_not_a_dict_of_variables_is_refused(yielded: Any) -> None:
    class Wrong(LoopSequentialPipelineBlocks):
        def iterate(self, components: Any, block_state: Any) -> Iterator[Any]:
            yield yielded

    with pytest.raises(DefinitionError, match=r"`Wrong\.iterate` yielded"):
        Wrong.from_blocks_dict({"add": AddOne}).init_pipeline()(x=1)


# What a loop carries and leaves


def test_a_value_that_an_iteration_reads_first_is_carried_and_an_input() -> None:
    loop = Repeat.from_blocks_dict({"copy": Copy("y", "z"), "write": Copy("x", "y")})
    assert loop.input_names == ["steps", "y", "x"]
    pipe = loop.init_pipeline()
    assert pipe(x=1, y=0, steps=1, output="z") == 0
    assert pipe(x=1, y=0, steps=2, output="z") == 1


def test_an_inner_loop_hands_its_outputs_and_its_changed_inputs_to_the_outer_one() -> None:
    class Changes(ModularPipelineBlocks):
        inputs = [InputParam("x")]

        def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
            block_state.x += 1
            return components, block_state

    inner = Repeat.from_blocks_dict({"changes": Changes, "copy": Copy("x", "y")})
    outer = RepeatRows.from_blocks_dict({"inner": inner, "copy": Copy("y", "z")})
    assert outer.init_pipeline()(x=0, output=["x", "y", "z"]) == {"x": 6, "y": 6, "z": 6}


def test_a_wrapper_reads_writes_and_works_with_what_it_declares() -> None:
    class Sums(LoopSequentialPipelineBlocks):
        loop_inputs = [InputParam("steps", required=True)]
        loop_intermediate_outputs = [OutputParam("total")]
        loop_expected_components = [loopwright.ComponentSpec("factor")]
        loop_expected_configs = [loopwright.ConfigSpec("offset", 1)]

        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
            block_state.total = 0
            for i in range(block_state.steps):
                yield {"i": i}
                block_state.total += block_state.x * components.factor + components.offset

    loop = Sums.from_blocks_dict({"add": AddOne})
    assert (loop.loop_required_inputs, loop.required_inputs) == (["steps"], ["steps", "x"])
    assert (loop.input_names, loop.output_names, loop.component_names) == (["steps", "x"], ["x", "total"], ["factor"])
    pipe = loop.init_pipeline()
    pipe.update_components(factor=10)
    assert pipe(x=0, steps=2, output="total") == 32


def test_an_output_that_a_block_of_a_loop_does_not_set_is_named_with_its_path() -> None:
    class Shared(Silent):
        def __call__(self, components: Any, block_state: Any) -> tuple[Any, Any]:
            return components, block_state

    loop = Repeat.from_blocks_dict({"inner": SequentialPipelineBlocks.from_blocks_dict({"shared": Shared})})
    pipe = SequentialPipelineBlocks.from_blocks_dict({"loop": loop}).init_pipeline()
    with pytest.raises(OutputNotSetError, match=r"block `inner\.shared` .*declares the output `y`") as caught:
        pipe()
    assert caught.value.__notes__ == ["in block `loop`"]
    assert pipe(steps=0).values == {"steps": 0}


def test_an_output_that_the_wrapper_does_not_set_is_named() -> None:
    class Forgets(Repeat):
        loop_intermediate_outputs = [OutputParam("total")]

    with pytest.raises(OutputNotSetError, match="`Forgets` declares the output `total`"):
        Forgets.from_blocks_dict({"add": AddOne}).init_pipeline()(x=0)


def test_an_output_of_a_block_that_is_skipped_need_not_be_set() -> None:
    class Maybe(DoubleIfAsked):
        block_classes = [Copy("x", "y")]

    assert Repeat.from_blocks_dict({"maybe": Maybe}).init_pipeline()(x=1).values == {"steps": 3, "x": 1}


# Progress bars


class Watched(Repeat):
    """Shows a progress bar, adds it to `bars`, and to `shown` whether it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: list[Any] = []
        self.shown: list[bool] = []
        self.total: int | None = None

    def watch(self, bar: Any) -> Any:
        self.bars.append(bar)
        self.shown.append(not bar.disable)
        return bar

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        with self.watch(self.progress_bar(total=self.total or block_state.steps)) as bar:
            for i in range(block_state.steps):
                yield {"i": i}
                bar.update()


class WatchedRows(Watched):
    """Shows one that moves by itself."""

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for row in self.watch(self.progress_bar(range(2))):
            yield {"row": row}


def test_a_progress_bar_moves_with_the_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Watched.from_blocks_dict({"add": AddOne})
    loop.set_progress_bar_config(desc="adding", mininterval=0)
    loop(None, PipelineState({"x": 0, "steps": 4}))
    (bar,) = loop.bars
    assert (bar.n, bar.total) == (4, 4)
    assert "adding: 100%" in capsys.readouterr().err


def test_a_progress_bar_over_an_iterable_moves_by_itself() -> None:
    loop = WatchedRows.from_blocks_dict({"add": AddOne})
    loop(None, PipelineState({"x": 0}))
    assert (loop.bars[0].n, loop.bars[0].total) == (2, 2)


@pytest.mark.parametrize("total", [2, 5])
def test_a_wrong_total_stops_no_loop(total: int) -> None:
    loop = Watched.from_blocks_dict({"add": AddOne})
    loop.total = total
    state = PipelineState({"x": 0})
    loop(None, state)
    assert (state.x, loop.bars[0].n, loop.bars[0].total) == (3, 3, total)


def test_a_pipeline_sets_the_progress_bars_of_loops_at_any_depth(capsys: pytest.CaptureFixture[str]) -> None:
    inner = Watched.from_blocks_dict({"add": AddOne})
    outer = WatchedRows.from_blocks_dict({"inner": inner})
    pipe = SequentialPipelineBlocks.from_blocks_dict({"outer": outer}).init_pipeline()
    outer, inner = (block for _, block in walk(pipe._blocks) if isinstance(block, Watched))
    pipe.set_progress_bar_config(disable=True)
    pipe(x=0)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config()
    pipe(x=0)
    assert (outer.shown, inner.shown) == ([False, True], [False, False, True, True])
    assert [bar.n for bar in inner.bars[2:]] == [3, 3]


def test_a_configuration_replaces_the_one_before_and_belongs_to_one_loop() -> None:
    first, second = Watched.from_blocks_dict({"add": AddOne}), Watched.from_blocks_dict({"add": AddOne})
    first.set_progress_bar_config(disable=True)
    first.set_progress_bar_config(leave=False)
    for loop in (first, second):
        loop(None, PipelineState({"x": 0}))
    assert (first.shown, second.shown) == ([True], [True])
    assert [loop.bars[0].leave for loop in (first, second)] == [False, True]


def test_a_progress_bar_needs_something_to_count() -> None:
    with pytest.raises(InvalidInputError, match="needs `iterable`"):
        Repeat().progress_bar()


# None for an input that several readers declare


def counting(*reads: Read, default: int = 2, before: Leaf | None = None) -> Composite:
    """A loop that counts to `a`, whose blocks read; and perhaps a block before it."""
    blocks = {f"read{k}": Leaf([read], ["e"], 0, in_loop=True, variables=("i",)) for k, read in enumerate(reads)}
    loop = Loop(blocks, count="a", count_default=default, by_hand=True, least=1)
    return Composite({"before": before, "loop": loop} if before else {"loop": loop})


@BOTH
@pytest.mark.parametrize(("given", "a"), [({}, 2), ({"a": None}, 5), ({"a": 3}, 3)], ids=["not given", "none", "given"])
def test_of_the_defaults_of_wrapper_and_blocks_the_first_is_the_calls_and_the_last_replaces_a_none(
    library: SimpleNamespace, given: dict[str, Any], a: int
) -> None:
    pipe = build(counting(Read("a", 5)), library).init_pipeline()
    assert pipe(**given, output="a") == a


@BOTH
def test_a_default_of_a_later_block_counts_where_an_earlier_one_has_none(library: SimpleNamespace) -> None:
    pipe = build(counting(Read("b"), Read("b", 7)), library).init_pipeline()
    assert pipe(output="b") == 7


@BOTH
def test_a_none_is_missing_where_a_block_requires_what_the_wrapper_has_a_default_for(library: SimpleNamespace) -> None:
    pipe = build(counting(Read("a", required=True)), library).init_pipeline()
    assert pipe(output="a") == 2
    with pytest.raises(ValueError, match=r"(?i)required input .a."):
        pipe(a=None)


@BOTH
def test_a_none_is_not_missing_where_only_a_block_requires_it_that_an_earlier_one_writes_it_for(
    library: SimpleNamespace,
) -> None:
    pipe = build(counting(Read("e", 7), Read("e", required=True)), library).init_pipeline()
    assert pipe(e=None, output="laps") == pipe(output="laps")


@BOTH
def test_a_none_becomes_the_default_of_the_first_block_that_reads_it(library: SimpleNamespace) -> None:
    before = Leaf([Read("a", 3)], [], 0)
    pipe = build(counting(Read("a", required=True), before=before), library).init_pipeline()
    assert pipe(a=None, output="a") == 3


# A state that wrapper and blocks share


class OnTheState(LoopSequentialPipelineBlocks):
    """Gives its blocks the state that it got itself, and `j`."""

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        for j in range(2):
            components, state = self.loop_step(components, state, j=j)
        return components, state


class AddBoth(ModularPipelineBlocks):
    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, block_state: Any, i: int, j: int) -> tuple[Any, Any]:
        block_state.x += 10 * j + i
        return components, block_state


class FailsAtJ(ModularPipelineBlocks):
    inputs = [InputParam("at")]

    def __call__(self, components: Any, state: Any, j: int) -> tuple[Any, Any]:
        if state.get("at") == j:
            raise ValueError("here")
        return components, state


def test_blocks_of_an_inner_loop_see_the_variables_of_a_wrapper_that_works_on_the_state_itself() -> None:
    loop = OnTheState.from_blocks_dict({"inner": Repeat.from_blocks_dict({"add": AddBoth})})
    assert loop.init_pipeline()(steps=3, output="x") == 36


def test_each_of_two_loops_on_one_state_counts_its_own_iterations() -> None:
    class SetAt(ModularPipelineBlocks):
        intermediate_outputs = [OutputParam("at")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.at = 1
            return components, state

    fails = OnTheState.from_blocks_dict({"fails": FailsAtJ})
    blocks = SequentialPipelineBlocks.from_blocks_dict({"first": fails, "set": SetAt(), "second": fails})
    with pytest.raises(ValueError, match="here") as raised:
        blocks.init_pipeline()()
    assert raised.value.__notes__ == ["in block `second.fails`, iteration 1 of loop `second` (j=1)"]


def test_iterate_may_return_any_iterator() -> None:
    class Maps(LoopSequentialPipelineBlocks):
        def iterate(self, components: Any, block_state: Any) -> Any:
            return iter([{"j": 0}, {"j": 1}])

    assert Maps.from_blocks_dict({"fails": FailsAtJ}).init_pipeline()(at=5, output="at") == 5
