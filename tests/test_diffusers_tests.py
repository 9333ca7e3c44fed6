"""The tool that runs diffusers' tests here: what it makes of their imports, and of what pytest tells."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tools.diffusers_tests import Outcome, outcomes, replace_imports, report

TEST = '''
import torch

from diffusers import ComponentsManager, FluxTransformer2DModel
from diffusers.modular_pipelines import (
    ComponentSpec,
    SequentialPipelineBlocks as Sequence,
    WanModularPipeline,
)
from diffusers.utils import logging

CODE = """
from diffusers.modular_pipelines import ComponentSpec
"""


def test() -> None:
    from diffusers.modular_pipelines.components_manager import AutoOffloadStrategy

    logging.get_logger("diffusers.modular_pipelines.modular_pipeline_utils")
'''

REPLACED = '''
import torch

from loopwright import ComponentsManager
from diffusers import FluxTransformer2DModel
from loopwright.modular_pipelines import ComponentSpec, SequentialPipelineBlocks as Sequence
from diffusers.modular_pipelines import WanModularPipeline
from diffusers.utils import logging

CODE = """
from diffusers.modular_pipelines import ComponentSpec
"""


def test() -> None:
    from loopwright.modular_pipelines.components_manager import AutoOffloadStrategy

    logging.get_logger("loopwright.modular_pipelines.modular_pipeline_utils")
'''


def test_imports_are_replaced_where_there_is_something_to_replace_them_with() -> None:
    replaced = replace_imports(TEST)
    assert replaced.source == REPLACED
    assert replaced.theirs == ["diffusers.modular_pipelines.WanModularPipeline"]


def test_a_test_that_cannot_reach_the_hub_has_not_failed() -> None:
    cases = """
    <testcase classname="tests.TestLoading" name="test_passes"/>
    <testcase classname="tests.TestLoading" name="test_fails"><failure message="assert 1 == 2&#10;more"/></testcase>
    <testcase classname="tests.TestLoading" name="test_loads">
        <failure message="OSError: no file">huggingface_hub.errors.OfflineModeIsEnabled: ...</failure>
    </testcase>
    <testcase classname="tests.TestLoading" name="test_skips"><skipped message="no accelerator"/></testcase>
    """
    found = dict(outcomes(ElementTree.ElementTree(ElementTree.fromstring(f"<testsuites>{cases}</testsuites>"))))
    assert found == {
        "TestLoading.test_passes": Outcome("passed", ""),
        "TestLoading.test_fails": Outcome("failed", "assert 1 == 2"),
        "TestLoading.test_loads": Outcome("needs a network", "OSError: no file"),
        "TestLoading.test_skips": Outcome("skipped", "no accelerator"),
    }


def test_what_passes_there_has_to_pass_here(capsys: pytest.CaptureFixture[str]) -> None:
    passed, failed = Outcome("passed", ""), Outcome("failed", "assert 1 == 2")
    on_purpose = "TestBlockKwargsTypeInputs.test_user_inputs_passed_by_name_are_not_tagged"
    theirs = {"Test.a": passed, "Test.b": failed, on_purpose: passed}
    assert report(theirs, {**theirs, on_purpose: failed}, {"Test.a"}, []) == 0
    assert "on purpose   TestBlockKwargsTypeInputs" in capsys.readouterr().out
    assert report(theirs, {**theirs, "Test.a": failed}, {"Test.a"}, []) == 1
    told = capsys.readouterr().out
    assert "failed       Test.a, in diffusers: passed\n  assert 1 == 2\n" in told
