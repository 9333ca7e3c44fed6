"""The cache with the embedded model: what is skipped, that the bits stay the same, and what a saved run does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from loopwright import Checkpoint


@pytest.fixture
def calls(embedded: Any) -> Any:
    """How often the models were called."""
    counts = {"text_encoder": 0, "transformer": 0}

    def count(name: str) -> Any:
        return getattr(embedded, name).register_forward_hook(lambda *_: counts.__setitem__(name, counts[name] + 1))

    handles = [count(name) for name in counts]
    yield counts
    for handle in handles:
        handle.remove()


@pytest.fixture
def pipe(embedded: Any) -> Any:
    made = copy.copy(embedded)
    made.cache()
    return made


def test_another_seed_calls_the_text_encoder_not_once(embedded: Any, pipe: Any, calls: Any, inputs: Any) -> None:
    expected = [embedded(**inputs(seed)) for seed in (1, 2)]
    assert (pipe(**inputs(1)) == expected[0]).all()
    calls.update(text_encoder=0, transformer=0)
    assert (pipe(**inputs(2)) == expected[1]).all()
    assert calls["text_encoder"] == 0
    assert calls["transformer"] > 0
    assert (expected[0] != expected[1]).any()


def test_another_decoder_runs_no_iteration(embedded: Any, pipe: Any, calls: Any, inputs: Any) -> None:
    torch.manual_seed(0)
    other = AutoencoderKL.from_config(embedded.vae.config).eval()
    plain = copy.copy(embedded)
    plain.update_components(vae=other)
    expected, before = plain(**inputs()), pipe(**inputs())
    pipe.update_components(vae=other)
    calls.update(text_encoder=0, transformer=0)
    run = pipe.stream(**inputs())
    assert [event.index for event in run] == []
    assert (run.result() == expected).all()
    assert (before != expected).any()
    assert calls == {"text_encoder": 0, "transformer": 0}


def test_a_decoder_whose_weights_changed_runs_no_iteration_and_decodes_anew(pipe: Any, inputs: Any) -> None:
    pipe.update_components(vae=copy.deepcopy(pipe.vae))
    before = pipe(**inputs())
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.add_(0.5)
    run = pipe.start(**inputs())
    after = run.result()
    outcomes = {row.path: row.outcome for row in run.cache_report().blocks}
    assert outcomes["denoise.loop"] == "hit"
    assert outcomes["decode"] == "stored"
    pipe.cache(max_bytes=0)
    assert (pipe(**inputs()) == after).all()
    assert (before != after).any()


def test_a_saved_run_resumes_to_the_same_bits(pipe: Any, inputs: Any, image: Any, tmp_path: Any) -> None:
    assert (pipe(**inputs()) == image).all()
    run = pipe.start(**inputs(), checkpoint=Checkpoint(tmp_path / "run", keep=None))
    assert (run.result() == image).all()
    assert "text_encoder" in run.cache_report().hits
    for _ in range(2):
        assert (pipe.resume(tmp_path / "run", output="images").result() == image).all()
    assert (pipe.branch(tmp_path / "run", at=1, output="images").result() == image).all()


def test_the_scheduler_afterwards_is_as_if_the_loop_had_run(embedded: Any, pipe: Any, inputs: Any) -> None:
    def scheduler(made: Any) -> Any:
        run = made.start(**inputs())
        run.result()
        return run.components.scheduler

    plain, first, second = scheduler(embedded), scheduler(pipe), scheduler(pipe)
    for one in (first, second):
        assert one.step_index == plain.step_index
        assert torch.equal(one.timesteps, plain.timesteps)
        assert torch.equal(one.sigmas, plain.sigmas)
