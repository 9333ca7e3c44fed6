"""Loops that families hide in a leaf or a composite run, are reported, and can be left at each call of a model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import diffusers
import pytest

from loopwright import Checkpoint, SequentialPipelineBlocks, check, describe
from loopwright.blocks import ModularPipelineBlocks, walk
from loopwright.blocks.loop import hides_loop
from loopwright.bridge import from_diffusers
from loopwright.errors import RunCancelledError, RunTimeoutError, UnsavableValueError
from tests.bridge.families import ALL
from tests.bridge.families.case import Case
from tests.bridge.families.running import Family, differing
from tests.bridge.test_presets import PRESETS, preset

HIDDEN = {
    "Cosmos3TransferChunkDenoiseStep",
    "HeliosChunkDenoiseInner",
    "HeliosPyramidChunkDenoiseInner",
    "HeliosPyramidDistilledChunkDenoiseInner",
    "MiniMaxMusic3ChunkDenoiseInner",
    "WanAnimate2DistilledSegmentDenoiseInner",
    "WanAnimate2SegmentDenoiseInner",
}


def of(name: str) -> Case:
    return next(case for case in ALL if str(case) == name)


def test_the_loops_that_families_hide_are_known() -> None:
    found = {type(block).__name__ for name in PRESETS for _, block in walk(preset(name)[1]) if hides_loop(block)}
    assert found == HIDDEN


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("MiniMaxMusic3Blocks", "denoise.denoise.denoise_inner"),
        ("Cosmos3OmniBlocks", "denoise.transfer.chunk_denoise"),
    ],
)
def test_check_and_describe_report_them(name: str, path: str) -> None:
    blocks = from_diffusers(getattr(diffusers, name))
    found = [finding for finding in check(blocks) if finding.code == "hidden-loop"]
    assert [(finding.severity, finding.path) for finding in found] == [("note", path)]
    assert "its iterations are no events and are not saved" in found[0].message
    for form, marked in (("text", "loops   inside; cancel, pause and timeout act at"), ("html", "a loop inside")):
        assert marked in describe(blocks, format=form)  # type: ignore[call-overload]
    assert "a loop inside" in describe(blocks, format="mermaid")


class Once(SequentialPipelineBlocks):
    """Runs its blocks once, by its own code."""

    def __call__(self, components: Any, state: Any, **variables: Any) -> Any:
        for block in self.sub_blocks.values():
            components, state = block(components, state)
        return components, state


class Twice(SequentialPipelineBlocks):
    def __call__(self, components: Any, state: Any, **variables: Any) -> Any:
        for _ in range(2):
            components, state = super().__call__(components, state)
        return components, state


class Stepping(ModularPipelineBlocks):
    """Moves a scheduler in a method of its own."""

    def _run(self, components: Any, timesteps: Any) -> None:
        while timesteps:
            components.scheduler.step(None, timesteps.pop(), None)


class Encoding(ModularPipelineBlocks):
    """Goes through pictures, which is no loop that anybody would watch."""

    def __call__(self, components: Any, state: Any) -> Any:
        for image in state.get("images"):
            components.vae.encode(image)
        return components, state


def test_only_what_goes_through_iterations_counts() -> None:
    blocks = [Once(), Twice(), Stepping(), Encoding()]
    assert [hides_loop(block) for block in blocks] == [False, True, True, False]


@pytest.fixture(scope="module", params=["HeliosAuto-text2video", "Cosmos3Omni-transfer", "MiniMaxMusic3-chunks"])
def family(request: pytest.FixtureRequest) -> Family:
    return Family(of(request.param))


class Inside:
    """Calls a function at the second call of a transformer in the first of several iterations.

    Args:
        family: the family.

    Attributes:
        begun: how many calls of the transformer were asked for.
        done: how many were made.
    """

    def __init__(self, family: Family) -> None:
        self.begun = self.done = 0
        self.reached = threading.Event()
        self._armed = threading.Event()
        self._act: Any = None
        transformer = family.pipe.transformer
        self._handles = [
            transformer.register_forward_pre_hook(self._before),
            transformer.register_forward_hook(self._after),
        ]

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def at_the_second_call(self, act: Any) -> None:
        self._act = act
        self._armed.set()

    def _before(self, *_: Any) -> None:
        self.begun += 1
        if self.begun == 2:
            assert self._armed.wait(60)
            self._act()
            self.reached.set()

    def _after(self, *_: Any) -> None:
        self.done += 1


def test_a_run_is_cancelled_in_the_middle_of_a_hidden_loop(family: Family) -> None:
    with Inside(family) as inside:
        run = family.pipe.start(**family.case.call())
        inside.at_the_second_call(run.cancel)
        with pytest.raises(RunCancelledError):
            run.result()
    assert (inside.begun, inside.done) == (2, 1)


def test_a_run_stands_still_in_the_middle_of_a_hidden_loop(family: Family) -> None:
    with Inside(family) as inside:
        run = family.pipe.start(**family.case.call())
        inside.at_the_second_call(run.pause)
        assert inside.reached.wait(60)
        assert run.status == "paused"
        assert inside.done == 1
        run.go_on()
        assert differing(run.result(), family.result) == []


def test_a_run_that_takes_too_long_ends_in_the_middle_of_a_hidden_loop(family: Family) -> None:
    with Inside(family) as inside:
        run = family.pipe.start(**family.case.call(), timeout=600)
        control = run._execution.control
        # as if it had begun long ago
        inside.at_the_second_call(lambda: setattr(control, "_began", control._began - 6000))
        with pytest.raises(RunTimeoutError):
            run.result()
    assert inside.done == 1


def test_a_hidden_loop_over_chunks_that_hold_loops_is_not_saved(tmp_path: Path) -> None:
    family = Family(of("Cosmos3Omni-transfer"))
    with pytest.raises(UnsavableValueError, match=r"runs for the 2.* time within one call of the block that holds it"):
        family.pipe(**family.case.call(), checkpoint=Checkpoint(tmp_path / "run"))
