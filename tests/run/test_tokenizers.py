"""Runs that share a tokenizer get the tokens that each would get alone."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen2Tokenizer

from loopwright import ComponentSpec, InputParam, ModularPipeline, ModularPipelineBlocks, OutputParam
from tests.run.blocks import in_threads, pipeline


class Encode(ModularPipelineBlocks):
    """Encodes a text again and again, padded to a length, and notes how many tokens there were."""

    expected_components = [ComponentSpec("tokenizer")]
    inputs = [InputParam("length", int, required=True)]
    intermediate_outputs = [OutputParam("lengths")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        padded = {"padding": "max_length", "truncation": True, "max_length": block_state.length}
        block_state.lengths = {len(components.tokenizer("apple", **padded).input_ids) for _ in range(2000)}
        self.set_block_state(state, block_state)
        return components, state


@pytest.fixture
def encoding() -> ModularPipeline:
    pipe = pipeline(encode=Encode)
    letters = {letter: index for index, letter in enumerate("aple")}
    pipe.update_components(tokenizer=Qwen2Tokenizer(vocab={**letters, "<|endoftext|>": 4}))
    return pipe


def test_runs_do_not_get_the_lengths_of_each_other(encoding: ModularPipeline) -> None:
    runs = [encoding.start(length=length) for length in (3, 7)]
    assert [run.result().lengths for run in runs] == [{3}, {7}]


def test_plain_calls_in_threads_do_not_get_the_lengths_of_each_other(encoding: ModularPipeline) -> None:
    calls = [lambda length=length: encoding(length=length, output="lengths") for length in (3, 7)]
    assert in_threads(*calls) == [{3}, {7}]


def test_plain_calls_with_the_tokenizer_of_a_processor_do_not_either(encoding: ModularPipeline) -> None:
    class Processor:
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.tokenizer(*args, **kwargs)

    pipe = pipeline(encode=Encode)
    pipe.update_components(tokenizer=Processor(encoding.tokenizer))
    calls = [lambda length=length: pipe(length=length, output="lengths") for length in (3, 7)]
    assert in_threads(*calls) == [{3}, {7}]


def test_nothing_stays_on_a_tokenizer_after_a_run(encoding: ModularPipeline) -> None:
    before = set(vars(encoding.tokenizer))
    encoding.start(length=3).result()
    assert set(vars(encoding.tokenizer)) == before
    encoding(length=3)
    assert set(vars(encoding.tokenizer)) == before
