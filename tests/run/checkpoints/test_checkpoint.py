"""When a run is saved, what is kept, what is refused; resuming, and resuming again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loopwright import Checkpoint, InputParam, ModularPipelineBlocks
from loopwright.errors import (
    CheckpointError,
    CheckpointMismatchError,
    InvalidInputError,
    LoopwrightError,
    RunCancelledError,
    RunStateError,
    UnknownInputError,
    UnsavableValueError,
)
from tests.blocks.arithmetic import Repeat
from tests.run.blocks import Do, counting, nested, pipeline
from tests.run.checkpoints.blocks import Draw
from tests.run.checkpoints.storages import Failing, Memory, saved_run


class Killed(BaseException):
    """In place of a signal."""


def killed_at(write: int) -> Any:
    def before_write(number: int) -> None:
        if number == write:
            raise Killed

    return before_write


# What is saved, and kept


@pytest.mark.parametrize(("every", "saved"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4]), (7, [])])
def test_every_says_how_often_a_run_is_saved(every: int, saved: list[int]) -> None:
    memory = Memory()
    counting()(x=1, steps=6, checkpoint=Checkpoint(memory, every=every, keep=None))
    assert memory.iterations == saved


def test_seconds_says_how_long_to_wait_between_two_saves_also_after_resuming() -> None:
    pipe, memory = counting(), Memory()
    pipe(x=1, steps=6, checkpoint=Checkpoint(memory, keep=None, seconds=3600))
    assert memory.iterations == []
    pipe(x=1, steps=6, checkpoint=Checkpoint(memory, keep=None, every=3, seconds=1e-9))
    assert memory.iterations == [3, 6]
    slow = Memory()
    run = pipe.stream(x=1, steps=6, checkpoint=Checkpoint(slow, keep=None, seconds=3600))
    for event in run:
        if event.index == 1:
            run.save()
    assert slow.iterations == [2]
    assert pipe.resume(slow).result().x == run.result().x
    assert slow.iterations == [2]


def test_a_run_that_is_not_saved_anywhere_asks_for_a_folder() -> None:
    run = counting().stream(x=1, steps=2)
    for _ in run:
        with pytest.raises(RunStateError) as caught:
            run.save()
    assert str(caught.value) == "the run has no `checkpoint`, so it is not saved anywhere: name a folder"


def test_a_callback_that_saves_has_all_of_the_iteration_saved() -> None:
    pipe, memory, runs = counting(), Memory(), []

    def on_event(event: Any) -> None:
        if event.index == 2:
            runs[0].save()
            runs[0].cancel()

    runs.append(pipe.stream(x=1, steps=6, checkpoint=Checkpoint(memory, seconds=3600), callbacks=on_event))
    with pytest.raises(RunCancelledError):
        runs[0].result()
    assert memory.iterations == [3]
    assert pipe.resume(memory).result().x == pipe(x=1, steps=6).x


@pytest.mark.parametrize(("keep", "kept"), [(1, [6]), (2, [5, 6]), (3, [4, 5, 6]), (None, [1, 2, 3, 4, 5, 6])])
def test_keep_says_how_many_checkpoints_there_are_to_go_back_to(keep: int | None, kept: list[int]) -> None:
    pipe = counting()
    memory = Memory()
    pipe(x=1, steps=6, checkpoint=Checkpoint(memory, keep=keep))
    # and the first, which holds what did not change since
    assert memory.iterations == sorted({1, *kept})
    for name in memory.names()[-len(kept) + 1 :] if len(kept) > 1 else []:
        memory.files[name] = b""
    if len(kept) > 1:
        with pytest.warns(UserWarning, match="is damaged"):
            assert pipe.resume(memory, fall_back=True).result().x == 14
    else:
        assert pipe.resume(memory).result().x == 14


def test_what_does_not_change_is_not_written_again(tmp_path: Path) -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda components, x, i: x + 1), "keep": Embeddings}))
    memory = Memory()
    pipe(x=1, steps=6, embeddings=torch.rand(100_000), checkpoint=Checkpoint(memory, keep=None))
    first, *others = (len(memory.files[name]) for name in memory.names())
    assert first > 400_000
    assert max(others) < 20_000


class Embeddings(ModularPipelineBlocks):
    inputs = [InputParam("embeddings", required=True)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        return components, state


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("every", 1.5), ("keep", 0), ("keep", True)])
def test_numbers_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as raised:
        Checkpoint("folder", **{name: value})
    assert str(raised.value) == f"`{name}` of a `Checkpoint` is {value!r}; it must be 1 or more"


@pytest.mark.parametrize(("given", "what"), [(None, "None"), (3, "an int"), (Checkpoint("a"), "a Checkpoint")])
def test_what_is_no_folder_is_refused(given: Any, what: str) -> None:
    for use in (Checkpoint, counting().resume):
        with pytest.raises(InvalidInputError) as raised:
            use(given)
        assert str(raised.value) == f"the folder of a run cannot be {what}; give a path, or a `Storage`"


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    pipe = counting()
    pipe(x=1, checkpoint=Checkpoint(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError) as raised:
        pipe(x=1, checkpoint=Checkpoint(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path} already holds a run: go on with it by `pipe.resume({str(tmp_path)!r})`, or take another folder"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Values that cannot be saved


def make_unsavable(components: Any, x: Any, i: int) -> Any:
    return [x, {"stream": object()}] if i == 1 else x


UNSAVABLE = (
    "`loop: x[1]['stream']` is a builtins.object, which cannot be saved; keep it out of the state, or, if it is its "
    "attributes and no more, name its class in `Checkpoint(classes=[...])`"
)


@pytest.mark.parametrize("every", [1, 2])
def test_a_value_that_cannot_be_saved_ends_a_strict_run_where_it_is_seen(every: int) -> None:
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(make_unsavable)}))
    with pytest.raises(UnsavableValueError) as raised:
        pipe(x=1, checkpoint=Checkpoint(Memory(), every=every))
    assert str(raised.value) == UNSAVABLE


def test_an_input_that_cannot_be_saved_is_seen_after_the_first_iteration_however_seldom_a_run_is_saved() -> None:
    done: list[int] = []
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(lambda components, x, i: done.append(i))}))
    with pytest.raises(UnsavableValueError, match=r"`x` is a builtins\.object"):
        pipe(x=object(), steps=9, checkpoint=Checkpoint(Memory(), every=5))
    assert done == [0]


def test_it_is_a_warning_if_the_checkpoint_is_not_strict_and_what_was_saved_stays() -> None:
    memory = Memory()
    pipe = pipeline(loop=Repeat.from_blocks_dict({"do": Do(make_unsavable)}))
    with pytest.warns(UserWarning, match="not saved any more") as warned:
        state = pipe(x=1, steps=4, checkpoint=Checkpoint(memory, strict=False))
    assert [str(warning.message) for warning in warned] == [f"the run is not saved any more: {UNSAVABLE}"]
    assert state.x[0] == 1
    assert memory.iterations == [1]


# Resuming


def test_a_run_that_never_finished_an_iteration_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        counting().resume(tmp_path / "absent")
    assert str(raised.value) == (
        f"{tmp_path / 'absent'} holds no checkpoint: the run did not finish an iteration, or the folder is not that "
        f"of a run"
    )


def test_a_finished_run_may_be_resumed_any_number_of_times() -> None:
    pipe = nested()
    state, memory = saved_run(pipe, x=1)
    files = dict(memory.files)
    assert [pipe.resume(memory).result().x for _ in range(2)] == [state.x, state.x]
    assert memory.files == files


def test_a_resumed_run_leaves_what_it_goes_on_from_and_adds_to_it() -> None:
    pipe = nested()
    state, memory = saved_run(pipe, x=1)
    part = memory.until(3)
    assert pipe.resume(part).result().x == state.x
    assert part.iterations == memory.iterations
    for name in memory.until(3).names():
        assert part.files[name] == memory.files[name]


@pytest.mark.parametrize("keep", [1, 2, None])
def test_a_run_may_be_killed_again_and_again(keep: int | None) -> None:
    pipe = nested()
    expected = pipe(x=1, rows=3, steps=3).x
    for first in range(2, 13):
        storage = Failing(killed_at(first))
        with pytest.raises(Killed):
            pipe(x=1, rows=3, steps=3, checkpoint=Checkpoint(storage, keep=keep))
        while storage.iterations[-1] < 12:
            again = Failing(killed_at(2))
            again.files = storage.files
            try:
                result = pipe.resume(again).result()
            except Killed:
                storage = again
                continue
            assert result.x == expected
            break
        assert pipe.resume(storage).result().x == expected


class Unsorted(Memory):
    """Tells its names in another order than that in which they were written."""

    on_write: Any = staticmethod(lambda: None)

    def names(self) -> list[str]:
        return super().names()[::-1]

    def write(self, name: str, data: bytes) -> None:
        self.on_write()
        super().write(name, data)


def test_the_order_in_which_a_storage_tells_its_names_does_not_matter() -> None:
    pipe = counting()
    storage = Unsorted()
    for event in (run := pipe.stream(x=1, steps=8, checkpoint=Checkpoint(storage, keep=3))):
        if event.index == 3:
            run.cancel()
    kept: list[list[int]] = []
    storage.on_write = lambda: kept.append(sorted(storage.iterations))
    assert pipe.resume(storage, output="x").result() == 18
    # before each of the writes; with the first as long as one of its run is there, which refers to it
    assert kept == [[1, 2, 3, 4], [1, 3, 4, 5], [1, 4, 5, 6], [5, 6, 7]]


def test_resuming_changes_nothing_in_the_folder_before_the_run_is_under_way() -> None:
    pipe = counting()
    _, memory = saved_run(pipe, x=1)
    memory.files[memory.names()[-1]] = b"damaged"
    before = dict(memory.files)
    for mistake in ({"output": "y"}, {"x": 2}, {"timeout": -1}):
        with pytest.warns(UserWarning, match="is damaged"), pytest.raises(LoopwrightError):
            pipe.resume(memory, fall_back=True, **mistake)
        assert memory.files == before


def test_inputs_that_are_given_again_are_compared_with_those_of_the_run() -> None:
    pipe = counting()
    _, memory = saved_run(pipe, x=1, steps=4)
    assert pipe.resume(memory, x=1, steps=4).result().x == 10
    with pytest.raises(CheckpointMismatchError) as raised:
        pipe.resume(memory, x=2)
    assert str(raised.value) == (
        "the run began with x=1, not with 2; leave the inputs out to go on with it, or go another way from it with "
        "`pipe.branch(...)`"
    )
    with pytest.raises(UnknownInputError):
        pipe.resume(memory, y=2)


def test_an_input_that_differs_only_in_its_elements_is_told_so() -> None:
    _, memory = saved_run(counting(), x=torch.ones(3))
    with pytest.raises(CheckpointMismatchError) as raised:
        counting().resume(memory, x=torch.zeros(3))
    assert str(raised.value) == (
        "the run began with x=<Tensor of shape (3,)>, not with <Tensor of shape (3,)> of other elements; leave the "
        "inputs out to go on with it, or go another way from it with `pipe.branch(...)`"
    )


def test_a_generator_that_is_given_again_is_compared_as_it_was_at_the_start() -> None:
    pipe = pipeline(noise=Draw, loop=Repeat.from_blocks_dict({"noise": Draw}))
    state, memory = saved_run(pipe, x=0.0, generator=torch.Generator().manual_seed(1))
    assert pipe.resume(memory, generator=torch.Generator().manual_seed(1)).result().x == state.x
    with pytest.raises(CheckpointMismatchError, match="the run began with generator="):
        pipe.resume(memory, generator=torch.Generator().manual_seed(2))
