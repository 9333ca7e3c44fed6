"""The exception tree, the nearest name, and where an exception happened."""

from __future__ import annotations

import re

import pytest
import torch

from loopwright import errors
from loopwright.errors import BlockLocation, LoopwrightError, article, did_you_mean, kind_of, locate, nearest

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, LoopwrightError)]


def test_the_tree_at_the_top_of_the_module_is_the_tree_of_the_classes() -> None:
    printed = set(
        re.findall(r"\b(\w+Error)\b(?: \(([^)]*)\))?", (errors.__doc__ or "").split("An exception that")[0] + " ")
    )
    drawn = {name: {base for base in bases.split(", ") if base} for name, bases in printed}
    assert set(drawn) == {cls.__name__ for cls in CLASSES}
    for cls in CLASSES:
        builtin_bases = {base.__name__ for base in cls.__bases__ if base.__module__ == "builtins"} - {"Exception"}
        assert drawn[cls.__name__] == builtin_bases, cls


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not LoopwrightError])
def test_every_exception_is_also_a_builtin_that_a_caller_would_catch(cls: type) -> None:
    assert issubclass(cls, (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError))


def test_all_exceptions_are_exported() -> None:
    assert {cls.__name__ for cls in CLASSES} <= set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__, key=lambda name: (name.islower(), name))


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("promt", ["prompt", "steps"], "prompt"),
        ("latent", ["latents", "prompt"], "latents"),
        ("steps", ["num_inference_steps", "guidance_scale"], "num_inference_steps"),
        ("negativ_prompt", ["prompt", "negative_prompt"], "negative_prompt"),
        ("zzz", ["prompt", "steps"], None),
        ("x", ["max_sequence_length"], None),
        ("i", ["timestep", "index"], "index"),
        ("t", ["i", "timestep"], "timestep"),
        ("anything", [], None),
        ("", ["prompt"], None),
    ],
)
def test_the_nearest_name(name: str, candidates: list[str], expected: str | None) -> None:
    assert nearest(name, candidates) == expected
    assert did_you_mean(name, candidates) == ("" if expected is None else f", did you mean `{expected}`?")


@pytest.mark.parametrize(
    "named",
    [
        *("an int", "an ndarray", "an Image", "an object", "an _Inner", "an EulerDiscreteScheduler"),
        *("a str", "a Tensor", "a ModularPipeline", "a uint8", "a UniPCMultistepScheduler", "a _Tree"),
        # spoken letter by letter
        *("a UNet2DConditionModel", "a DDIMScheduler", "a T5EncoderModel", "an LMSDiscreteScheduler"),
    ],
)
def test_the_article_follows_the_sound(named: str) -> None:
    name = named.split()[1]
    assert f"{article(name)} {name}" == named


def test_what_a_value_is() -> None:
    assert [kind_of(value) for value in (None, int, 3, "x")] == ["None", "the class `int`", "an int", "a str"]


class TestLocation:
    def test_it_grows_from_the_inner_block_outwards(self) -> None:
        error = RuntimeError("boom")
        locate(error, "step", 3, {"t": 801})
        locate(error, "loop")
        locate(error, "denoise")
        location: BlockLocation = error.loopwright  # type: ignore[attr-defined]
        assert location.path == "denoise.loop.step"
        assert location.iterations == [("denoise.loop", 3, {"t": 801})]
        assert error.__notes__ == ["in block `denoise.loop.step`, iteration 3 of loop `denoise.loop` (t=801)"]

    def test_the_outermost_loop_comes_first_in_the_iterations_and_last_in_the_note(self) -> None:
        error = RuntimeError("boom")
        locate(error, "step", 1, {"i": 1})
        locate(error, "inner", 0, {"row": 0})
        locate(error, "outer")
        assert error.loopwright.iterations == [("outer", 0, {"row": 0}), ("outer.inner", 1, {"i": 1})]  # type: ignore[attr-defined]
        assert error.__notes__ == [
            "in block `outer.inner.step`, iteration 1 of loop `outer.inner` (i=1), iteration 0 of loop `outer` (row=0)"
        ]

    def test_other_notes_stay(self) -> None:
        error = RuntimeError("boom")
        error.add_note("from the block")
        locate(error, "inner")
        locate(error, "outer")
        assert error.__notes__ == ["from the block", "in block `outer.inner`"]

    def test_a_closed_location_is_left_alone(self) -> None:
        error = RuntimeError("boom")
        locate(error, "inner")
        error.loopwright.closed = True  # type: ignore[attr-defined]
        locate(error, "caller")
        assert error.loopwright.path == "caller"  # type: ignore[attr-defined]
        assert error.__notes__ == ["in block `inner`", "in block `caller`"]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (3, "v=3"),
            (torch.tensor(801), "v=801"),
            (torch.tensor(0.5), "v=0.5"),
            (torch.zeros(2, 3), "v=<Tensor of shape (2, 3)>"),
            ("x" * 100, "v='" + "x" * 36 + "..."),
        ],
    )
    def test_variables_are_shown_briefly(self, value: object, text: str) -> None:
        error = RuntimeError("boom")
        locate(error, "step", 0, {"v": value})
        assert error.__notes__ == [f"in block `step`, iteration 0 of the loop ({text})"]
