"""Every family of diffusers, on tiny components: the bits of diffusers, watched, cut short, resumed, side by side.

Of each family the main workflow is tested always, and so are those that are hard in a way of their own. Of all others
the bits are, and the rest by `make families-thorough`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from loopwright import Checkpoint
from loopwright.errors import RunCancelledError, UnsavableValueError
from tests.bridge.families import ALL, FAMILIES, MAIN, NOT_RUN, SHORT
from tests.bridge.families.case import Case
from tests.bridge.families.running import Family, differing, distance, made, requests, same_bits
from tests.bridge.test_presets import PRESETS
from tools.family_table import CLOSE, ONE, OTHER, SAME

CASES = [pytest.param(case, id=str(case), marks=[] if case in SHORT else [pytest.mark.exhaustive]) for case in ALL]


@pytest.fixture(scope="module", params=CASES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


@pytest.fixture(scope="module", params=[case for case in ALL if case not in SHORT], ids=str)
def other_workflow(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


def test_a_family_gives_the_bits_of_diffusers(family: Family) -> None:
    has_the_bits_of_diffusers(family)


def test_other_workflows_give_the_bits_of_diffusers(other_workflow: Family) -> None:
    has_the_bits_of_diffusers(other_workflow)


def has_the_bits_of_diffusers(family: Family) -> None:
    theirs = family.theirs(**family.case.call())
    assert family.result.values.keys() == theirs.values.keys()
    assert differing(family.result, theirs) == []
    assert made(family.result)
    assert not any(tensor.isnan().any() for tensor in made(family.result))


def test_a_watched_run_gives_the_same_bits_with_one_event_per_iteration(family: Family) -> None:
    run = family.pipe.stream(**family.case.call())
    events = [(event.index, event.total) for event in run]
    assert len(events) == family.case.total
    assert differing(run.result(), family.result) == []


def test_a_cancelled_run_is_resumed_with_the_calls_that_were_left(family: Family, tmp_path: Path) -> None:
    if family.case.not_resumed:
        with pytest.raises(UnsavableValueError):
            family.pipe(**family.case.call(), checkpoint=Checkpoint(tmp_path / "run"))
        return
    expected = family.calls_of_result
    before = len(family.calls.names)
    run = family.pipe.stream(**family.case.call(), checkpoint=Checkpoint(tmp_path / "run"))
    for number, _ in enumerate(run, 1):
        if number == (family.case.total + 1) // 2:
            run.cancel()
            break
    with pytest.raises(RunCancelledError):
        run.result()
    done = len(family.calls.names) - before
    assert 0 < done < len(expected)
    resumed = family.pipe.resume(tmp_path / "run").result()
    assert family.calls.names[before + done :] == expected[done:]
    assert differing(resumed, family.result) == []


def test_prompt_seed_and_steps_change_the_bits(family: Family) -> None:
    assert not same_bits(family.other_prompt, family.result)
    assert not same_bits(family.other_seed, family.result)
    assert not same_bits(family.pipe(**family.case.call(steps=family.case.steps - 1)), family.result)


def test_two_runs_at_the_same_time_give_the_bits_that_each_gives_alone(family: Family) -> None:
    one, other = family.pipe.start(**family.case.call(prompt=1)), family.pipe.start(**family.case.call(seed=1))
    assert differing(one.result(), family.other_prompt) == []
    assert differing(other.result(), family.other_seed) == []


def test_the_hard_cases_are_hard() -> None:
    """Two transformers with a boundary; a guider with momentum; chunks; a scheduler that a leaf makes; caches."""
    hard = {str(case): case for case in SHORT}

    def watched(name: str) -> tuple[Family, Any, list[Any]]:
        family = Family(hard[name])
        run = family.pipe.stream(**family.case.call())
        return family, run, [event.state for event in run]

    both, run, _ = watched("Wan22")
    assert isinstance(run.components.scheduler, diffusers.UniPCMultistepScheduler)
    assert {"transformer", "transformer_2"} <= {*both.calls_of_result}
    _, run, _ = watched("Wan-apg")
    assert isinstance(run.components.guider.momentum_buffer.running_average, torch.Tensor)
    _, _, states = watched("HeliosAuto-text2video")
    assert [state["num_latent_chunk"] for state in states] == [3, 3, 3]
    _, run, states = watched("LTX2Auto-text2video")
    assert states[0]["audio_scheduler"] is not run.components.scheduler
    _, _, states = watched("QwenImage21Auto-text2image")
    assert states[0]["kv_caches"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", MAIN, ids=str)
def test_two_requests_in_one_call_give_the_bits_of_diffusers_or_are_refused_alike(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    family = Family(case)
    try:
        theirs = family.theirs(**requests(case, 0, 1))
    except Exception as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            family.pipe(**requests(case, 0, 1))
        record_property("batch", ONE)
        return
    together = family.pipe(**requests(case, 0, 1))
    assert differing(together, theirs) == []
    farthest = distance(together, [family.pipe(**requests(case, seed)) for seed in (0, 1)])
    record_property("batch", SAME if not farthest else CLOSE if farthest < 1e-4 else OTHER)


def test_each_workflow_of_each_preset_is_run() -> None:
    run = {(case.blocks, case.workflow) for case in ALL}
    for name in PRESETS:
        blocks = getattr(diffusers, name)
        for workflow in blocks._workflow_map or [None]:
            assert (name, workflow) in run


def test_each_family_is_run_or_has_a_reason() -> None:
    run = {case.family for case in ALL}
    assert run | NOT_RUN.keys() == {*FAMILIES}
    assert not run & NOT_RUN.keys()
