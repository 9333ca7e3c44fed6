"""`loopwright describe` and `loopwright check` take blocks of diffusers."""

from __future__ import annotations

import pytest

from loopwright.cli import main


@pytest.mark.parametrize("module", ["diffusers", "diffusers.modular_pipelines"])
def test_describe_a_class_of_diffusers(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", f"{module}:FluxAutoBlocks"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("FluxAutoBlocks")
    assert "↻ denoise  FluxDenoiseStep" in text


def test_describe_a_workflow_of_diffusers(capsys: pytest.CaptureFixture[str]) -> None:
    target = "diffusers.modular_pipelines:QwenImageAutoBlocks"
    assert main(["describe", target, "--workflow", "inpainting", "--format", "mermaid"]) == 0
    text = capsys.readouterr().out
    assert "QwenImageInpaintDenoiseStep" in text
    assert "ControlNet" not in text
    assert main(["describe", target, "--workflow", "inpaint"]) == 2
    assert "has no workflow `inpaint`, did you mean `inpainting`?" in capsys.readouterr().err


def test_check_a_class_of_diffusers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "diffusers.modular_pipelines:HeliosAutoBlocks"]) == 0
    text = capsys.readouterr().out
    assert "note [hidden-loop] at `denoise.text2video.chunk_denoise.denoise_inner`" in text
    assert "0 errors" in text


def test_a_block_of_diffusers_that_is_no_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "diffusers.modular_pipelines.wan.denoise:Wan22DenoiseStep"]) == 0
    assert "↻ Wan22DenoiseStep" in capsys.readouterr().out
