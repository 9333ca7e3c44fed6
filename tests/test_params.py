"""`InputParam` and `OutputParam`: declarations and their templates."""

from __future__ import annotations

import diffusers.modular_pipelines.modular_pipeline_utils as theirs
import pytest

from loopwright.errors import UnknownNameError
from loopwright.modular_pipelines.modular_pipeline_utils import (
    INPUT_PARAM_TEMPLATES,
    OUTPUT_PARAM_TEMPLATES,
    InputParam,
    OutputParam,
)

FIELDS = ("name", "type_hint", "required", "default", "description", "kwargs_type", "metadata")


def fields(param: object) -> dict[str, object]:
    return {name: getattr(param, name, None) for name in FIELDS}


def test_there_are_the_templates_that_diffusers_has() -> None:
    assert set(INPUT_PARAM_TEMPLATES) == set(theirs.INPUT_PARAM_TEMPLATES)
    assert set(OUTPUT_PARAM_TEMPLATES) == set(theirs.OUTPUT_PARAM_TEMPLATES)


@pytest.mark.parametrize("name", sorted(theirs.INPUT_PARAM_TEMPLATES))
def test_an_input_template_is_that_of_diffusers(name: str) -> None:
    assert fields(InputParam.template(name)) == fields(theirs.InputParam.template(name))


@pytest.mark.parametrize("name", sorted(theirs.OUTPUT_PARAM_TEMPLATES))
def test_an_output_template_is_that_of_diffusers(name: str) -> None:
    assert fields(OutputParam.template(name)) == fields(theirs.OutputParam.template(name))


@pytest.mark.parametrize(("kind", "peer"), [(InputParam, theirs.InputParam), (OutputParam, theirs.OutputParam)])
def test_a_template_takes_a_note_and_other_values_for_its_fields(kind: type, peer: type) -> None:
    ours = kind.template("latents", note="4 channels", name="noise", type_hint=int)  # type: ignore[attr-defined]
    assert fields(ours) == fields(peer.template("latents", note="4 channels", name="noise", type_hint=int))  # type: ignore[attr-defined]
    assert ours.description.endswith(" (4 channels)")


def test_changing_a_param_does_not_change_its_template() -> None:
    InputParam.template("strength").default = 0.1
    assert InputParam.template("strength").default == 0.9


def test_an_unknown_template_names_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="there is no output template `image`, did you mean `images`"):
        OutputParam.template("image")


def test_params_are_equal_when_their_fields_are() -> None:
    assert InputParam("x", int, default=1) == InputParam("x", int, default=1)
    assert InputParam("x", int, default=1) != InputParam("x", int, default=2)
    assert OutputParam("x") == OutputParam("x")


@pytest.mark.parametrize(
    ("param", "text"),
    [
        (InputParam("x", required=True), "<x: required, default=None>"),
        (InputParam("x", default=3), "<x: optional, default=3>"),
        (OutputParam("x", int), "<x: int>"),
        (OutputParam("x"), "<x: None>"),
    ],
)
def test_the_repr_is_short_and_that_of_diffusers(param: InputParam | OutputParam, text: str) -> None:
    assert repr(param) == text
    peer = getattr(theirs, type(param).__name__)
    assert repr(peer(**{key: value for key, value in vars(param).items() if key != "defaults_by_block"})) == text
