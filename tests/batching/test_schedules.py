"""Random schedules of requests, a few of those of `make batching-schedules`."""

from __future__ import annotations

import pytest

from tools.batching_schedules import Outcome, Schedules


@pytest.fixture(scope="module")
def schedules() -> Schedules:
    return Schedules()


def summary(outcome: Outcome) -> tuple[object, ...]:
    return outcome.schedules, outcome.different, outcome.wrong


def test_in_deterministic_mode_the_bits_depend_on_the_request_alone(schedules: Schedules) -> None:
    outcome = schedules.run(range(10), faults=False, deterministic=True)
    assert summary(outcome) == (10, [], [])
    assert outcome.largest == 0
    assert outcome.occupancy >= 4


def test_by_default_results_are_within_the_stated_tolerance(schedules: Schedules) -> None:
    outcome = schedules.run(range(5), faults=False, deterministic=False)
    assert summary(outcome) == (5, [], [])
    assert outcome.occupancy >= 4


@pytest.mark.parametrize("deterministic", [False, True])
def test_failures_cancels_pauses_and_little_memory_are_nobody_elses_trouble(
    schedules: Schedules, deterministic: bool
) -> None:
    outcome = schedules.run(range(12), faults=True, deterministic=deterministic)
    # how much memory there is decides how many rows a forward has in deterministic mode, and so the bits
    assert deterministic or outcome.different == []
    assert outcome.largest <= 1e-4
    assert outcome.wrong == []
    assert set(outcome.fates) == {"served", "fails", "is cancelled", "is paused"}
    assert deterministic or outcome.occupancy >= 3
