"""Runs that go on at the same time and draw from one generator are told so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from loopwright import InputParam, ModularPipeline, ModularPipelineBlocks, OutputParam
from loopwright.run.generators import drawing_from
from tests.run.blocks import PATIENCE


def test_two_runs_with_one_generator_are_warned_of(embedded: ModularPipeline, inputs: Any) -> None:
    shared = torch.Generator().manual_seed(0)
    first = embedded.stream(**inputs(generator=[shared]))
    next(iter(first))
    second = embedded.stream(**inputs(generator=shared))
    with pytest.warns(UserWarning, match="give each run a generator of its own"):
        second.result(PATIENCE)
    first.result(PATIENCE)


def test_one_after_the_other_may_draw_from_it(embedded: ModularPipeline, inputs: Any) -> None:
    given = inputs()
    for _ in range(2):
        embedded.start(**given).result(PATIENCE)


def test_a_block_may_hand_on_the_generator_of_its_run(embedded: ModularPipeline, inputs: Any) -> None:
    given = inputs()

    class Calls(ModularPipelineBlocks):
        inputs = [InputParam("generator")]
        intermediate_outputs = [OutputParam("images")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            state.set("images", embedded.start(**given).result(PATIENCE))
            return components, state

    run = Calls().init_pipeline().start(generator=given["generator"], output="images")
    assert run.result(PATIENCE) is not None


def test_generators_are_let_go_of() -> None:
    shared = torch.Generator()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with drawing_from([shared, [shared, None], "text"]):
                pass
