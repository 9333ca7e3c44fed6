"""What a call is given: the state that the blocks start with, and the mistakes in it."""

from __future__ import annotations

from typing import Any

from loopwright.blocks import (
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    SequentialPipelineBlocks,
    walk,
)
from loopwright.blocks.facts import cached
from loopwright.blocks.sub_blocks import from_diffusers
from loopwright.check import CALL_OPTIONS
from loopwright.errors import (
    InvalidInputError,
    MissingInputError,
    UnknownInputError,
    UnknownValueError,
    did_you_mean,
    kind_of,
)
from loopwright.params import InputParam
from loopwright.state import PipelineState, own_default

__all__ = ["check_output", "required_inputs", "start_state"]


def start_state(pipeline: Any, state: PipelineState | None, inputs: dict[str, Any]) -> PipelineState:
    """The state that the blocks start with: what was passed in, the inputs of the call, and defaults.

    Args:
        pipeline: the pipeline.
        state: what was passed in; it is copied.
        inputs: the inputs of the call, which are taken out of their dict.

    Raises:
        InvalidInputError: `state` is not a state.
        UnknownInputError: an input that no block has.
        MissingInputError: an input is missing that a block requires.
    """
    blocks = pipeline._blocks
    if state is not None and from_diffusers(state, PipelineState):
        state = PipelineState(**state.to_dict())
    if state is None:
        run_state = PipelineState()
    elif isinstance(state, PipelineState):
        try:
            run_state = state.fork()
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{error}; remove it from the state that is passed in, or pass it as an input of the call"
            ) from error.__cause__
    else:
        raise InvalidInputError(
            f"`state`, the first argument of a call, is {kind_of(state)}; it must be a `PipelineState`. Inputs are "
            f"given by name: `pipe({next(iter(blocks.input_names), 'prompt')}=...)`"
        )
    values = run_state.values
    declared, needs = cached(blocks, "call", _call_facts)
    defaults = []
    for name, default, kwargs_type in declared:
        if name in inputs:
            value = inputs.pop(name)
            if kwargs_type is None:
                values[name] = value
            else:
                run_state.set(name, value, kwargs_type)
        elif kwargs_type is not None and kwargs_type in inputs:
            _set_group(run_state, kwargs_type, inputs.pop(kwargs_type))
        elif name is not None and name not in values:
            defaults.append((name, default, kwargs_type))
    if inputs:
        raise UnknownInputError(_unknown_input(pipeline, next(iter(inputs))))
    for name, path in needs:
        if values.get(name) is None:
            raise MissingInputError(name, [key for key, value in values.items() if value is not None], path)
    for name, default, kwargs_type in defaults:
        if name in values:
            continue
        if kwargs_type is None:
            values[name] = own_default(default)
        else:
            run_state.set(name, own_default(default), kwargs_type)
    return run_state


def check_output(pipeline: Any, output: Any, state: PipelineState) -> None:
    """Check that a call can return what is asked of it.

    Raises:
        InvalidInputError: `output` is neither a name nor a list of names.
        UnknownValueError: no block makes a value of that name.
    """
    if not isinstance(output, (str, list, tuple)) or not all(isinstance(name, str) for name in output):
        raise InvalidInputError(f"`output` is {output!r}; it must be the name of a value, or a list of names")
    known = cached(pipeline._blocks, "declared names", _declared_names)
    for name in [output] if isinstance(output, str) else output:
        if name not in known and name not in state.values:
            raise UnknownValueError(name, [*known, *state.values], holder="the result of this pipeline")


def required_inputs(blocks: ModularPipelineBlocks) -> dict[str, str]:
    """The inputs without which a call of the blocks must fail, each with the path of the first block that needs it."""
    _, needs = cached(blocks, "call", _call_facts)
    return dict(needs)


def _set_group(state: PipelineState, kwargs_type: str, group: Any) -> None:
    if not isinstance(group, dict):
        raise InvalidInputError(
            f"input `{kwargs_type}` is {kind_of(group)}; it must be a dict of the group's values by name"
        )
    for name, value in group.items():
        state.set(name, value, kwargs_type)


def _unknown_input(pipeline: Any, name: str) -> str:
    declared, _ = cached(pipeline._blocks, "call", _call_facts)
    names = [known for known, _, _ in declared if known is not None]
    groups = [kwargs_type for known, _, kwargs_type in declared if known is None]
    message = f"unknown input `{name}`{did_you_mean(name, [*names, *groups, *sorted(CALL_OPTIONS)])}"
    if name in pipeline._component_specs or name in pipeline._config_specs:
        kind = "component" if name in pipeline._component_specs else "configuration value"
        message = f"unknown input `{name}`: it is a {kind}; set it with `pipe.update_components({name}=...)`"
    elif groups:
        message += f"; if it belongs to a group, pass it as `{groups[0]}={{{name!r}: ...}}`"
    elif name.startswith("callback_on_step_end"):
        message = f"unknown input `{name}`: pass it as `callbacks={{{name!r}: ...}}`"
    elif name == "seed" and "generator" in names:
        message = f"unknown input `{name}`; for a seed, write `generator=torch.Generator().manual_seed(seed)`"
    elif name in pipeline._blocks._get_trigger_inputs():
        path, block = next((p, b) for p, b in walk(pipeline._blocks) if name in getattr(b, "block_trigger_inputs", ()))
        chooses = f"block `{path}` (`{type(block).__name__}`)" if path else f"`{type(block).__name__}`"
        message = (
            f"unknown input `{name}`: {chooses} chooses by it which of its blocks runs, but none of them declares it "
            f'as an input; add `InputParam("{name}")` to the `inputs` of the block that it is for'
        )
    taken = ", ".join(f"`{known}`" for known in [*names, *groups])
    return f"{message}; this pipeline takes {taken or 'no inputs'}"


def _call_facts(
    blocks: ModularPipelineBlocks,
) -> tuple[list[tuple[str | None, Any, str | None]], tuple[tuple[str, str], ...]]:
    """Name, default and group of each input of a call; and the inputs without which it must fail."""
    return [(param.name, param.default, param.kwargs_type) for param in blocks.inputs], _needs(blocks)


def _declared_names(blocks: ModularPipelineBlocks) -> frozenset[str]:
    """All names that blocks of the tree read or write."""
    names: set[str] = set()
    for _, block in walk(blocks):
        names.update(block.input_names)
        names.update(block.output_names)
        names.update(block.intermediate_output_names)
    return frozenset(names)


def _needs(blocks: ModularPipelineBlocks) -> tuple[tuple[str, str], ...]:
    """Inputs without which a call must fail, each with the path of the first block that requires it.

    An input counts whose first reader requires it: an earlier one may have set it. The readers in a loop count as one,
    as a loop takes its values before its blocks run. What an earlier block may write is left out, even if that block
    may be skipped; and so is what only a branch requires.
    """
    taken = set(blocks.input_names)
    settled: set[str] = set()
    found: dict[str, str] = {}

    def read(params: list[InputParam], path: str) -> None:
        for param in params:
            if param.name is None or param.name in settled or param.name not in taken:
                continue
            if param.must_be_given:
                found.setdefault(param.name, path)
            elif param.default is not None or param.defaults_by_block:
                settled.add(param.name)

    def visit(block: ModularPipelineBlocks, path: str, in_loop: bool = False) -> None:
        is_loop = isinstance(block, LoopSequentialPipelineBlocks)
        if isinstance(block, LoopSequentialPipelineBlocks):
            read(block.loop_inputs, path)
        plain = type(block).__call__ is SequentialPipelineBlocks.__call__
        if plain or is_loop:
            for name, child in block.sub_blocks.items():
                visit(child, f"{path}.{name}" if path else name, in_loop or is_loop)
        elif isinstance(block, ConditionalPipelineBlocks):
            settled.update(param.name for param in block.inputs if param.name is not None)
        else:
            read(block.inputs, path)
        settled.update(block.intermediate_output_names)
        if not in_loop:
            settled.update(block.input_names)

    visit(blocks, "")
    return tuple(found.items())
