"""Mistakes in how loops and their blocks fit together, found from declarations and sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.conditional import ConditionalPipelineBlocks
from loopwright.blocks.dataflow import execution_units
from loopwright.blocks.facts import walk
from loopwright.blocks.loop import LoopSequentialPipelineBlocks
from loopwright.blocks.sequential import SequentialPipelineBlocks
from loopwright.blocks.source import given_variables, positional_steps
from loopwright.blocks.state_access import stale_block_state, state_access, wrapper_access
from loopwright.blocks.variables import RESERVED_VARIABLES, loop_variables_of, missing_variable, reserved_variable
from loopwright.errors import did_you_mean

__all__ = ["LoopMistake", "loop_mistakes"]


class LoopMistake(NamedTuple):
    """What is wrong, where, and what to do.

    Attributes:
        code: what kind of mistake it is.
        path: the path of the block.
        message: what is the case.
        suggestion: what to do.
    """

    code: str
    path: str
    message: str
    suggestion: str


def loop_mistakes(tree: ModularPipelineBlocks) -> Iterator[LoopMistake]:
    """Loop variables that a block lacks, or that a loop gives wrongly; values that are read before they are there."""
    for variable in loop_variables_of(type(tree)).required:
        yield LoopMistake("missing-loop-variable", "", *missing_variable("", tree, variable, ()))
    yield from _missing_variables(tree, "", frozenset(), None)
    for path, block in walk(tree):
        if isinstance(block, LoopSequentialPipelineBlocks):
            yield from _positional_variables(path, block)
            yield from _reserved_variables(path, block)
            yield from _reads_before_writes(path, block)
            yield from _undone_values(path, block)


def _positional_variables(path: str, loop: LoopSequentialPipelineBlocks) -> Iterator[LoopMistake]:
    cls = type(loop)
    for values, keywords in positional_steps(cls, LoopSequentialPipelineBlocks):
        wanted = [v for child in loop.sub_blocks.values() for v in loop_variables_of(type(child)).required]
        names = [name for name in dict.fromkeys(wanted) if not any(k.startswith(f"{name}=") for k in keywords)]
        given = values[2:]
        others = (name for name in names if name not in given)
        named = [f"{value if value in names else next(others, 'name')}={value}" for value in given]
        yield LoopMistake(
            "positional-loop-variable",
            path,
            f"`{cls.__name__}` gives a loop variable by position, in "
            f"`self.loop_step({', '.join([*values, *keywords])})`",
            f"give it by name: `self.loop_step({', '.join([*values[:2], *named, *keywords])})`",
        )


def _reserved_variables(path: str, loop: LoopSequentialPipelineBlocks) -> Iterator[LoopMistake]:
    variables = given_variables(type(loop), LoopSequentialPipelineBlocks)
    if variables is None or type(loop).__call__ is not LoopSequentialPipelineBlocks.__call__:
        return
    for name in RESERVED_VARIABLES:
        if name in variables.ever:
            yield LoopMistake("reserved-loop-variable", path, *reserved_variable(type(loop), "yields", name))


def _missing_variables(
    block: ModularPipelineBlocks, path: str, given: frozenset[str], loop: type | None, known: bool = True
) -> Iterator[LoopMistake]:
    """Required loop variables that are not given.

    Args:
        block: a block whose children are looked at.
        path: its path.
        given: the variables that the loops around its children give.
        loop: the class of the innermost of them, None if there is none.
        known: whether `given` is all of them.
    """
    if isinstance(block, LoopSequentialPipelineBlocks):
        variables = given_variables(type(block), LoopSequentialPipelineBlocks)
        known = known and variables is not None
        given |= frozenset() if variables is None else variables.ever
        loop = type(block)
    elif block.sub_blocks and not isinstance(block, (SequentialPipelineBlocks, ConditionalPipelineBlocks)):
        return  # a composite of somebody's own calls its blocks as it likes
    elif type(block).__call__ not in (SequentialPipelineBlocks.__call__, ConditionalPipelineBlocks.__call__):
        return
    for name, child in block.sub_blocks.items():
        inner = f"{path}.{name}" if path else name
        # without a source of the loop, the first iteration tells
        if known:
            for variable in loop_variables_of(type(child)).required:
                if variable not in given:
                    mistake = missing_variable(name, child, variable, given, loop)
                    yield LoopMistake("missing-loop-variable", inner, *mistake)
        yield from _missing_variables(child, inner, given, loop, known)


def _reads_before_writes(path: str, loop: LoopSequentialPipelineBlocks) -> Iterator[LoopMistake]:
    """Values that a block of a loop reads in the first iteration although nobody has written them."""
    wrapper = wrapper_access(type(loop), LoopSequentialPipelineBlocks)
    takes_groups = any(param.name is None for param in loop.inputs)
    if wrapper is None or wrapper.opaque or takes_groups:
        return
    available = set(loop.input_names) | wrapper.writes
    units = execution_units(loop)
    writers: dict[str, list[str]] = {}
    accesses = {}
    for name, unit in units:
        access = None if unit.sub_blocks else state_access(type(unit).__call__)
        accesses[name] = access
        for written in {*unit.intermediate_output_names, *(access.writes if access else ())}:
            writers.setdefault(written, []).append(name)
    for name, unit in units:
        access = accesses[name]
        if not unit.sub_blocks and (access is None or access.opaque):
            return  # from here on, anything may have been written
        for read in sorted(access.reads - available) if access else ():
            later = [writer for writer in writers.get(read, ()) if writer != name]
            who = f"only `{later[0]}` writes it, later in the iteration" if later else "nobody writes it"
            yield LoopMistake(
                "read-before-write",
                f"{path}.{name}" if path else name,
                f"reads `block_state.{read}`, which is not an input, and {who}{did_you_mean(read, available)}",
                f'declare it: `InputParam("{read}")` in `{type(unit).__name__}.inputs`, or in the `loop_inputs` of '
                f"`{type(loop).__name__}`",
            )
            available.add(read)
        available.update(unit.intermediate_output_names, unit.input_names, access.writes if access else ())


def _undone_values(path: str, loop: LoopSequentialPipelineBlocks) -> Iterator[LoopMistake]:
    """Values that the blocks write to one state, and that the wrapper then overwrites with those of another."""
    base = LoopSequentialPipelineBlocks
    cls = type(loop)
    names = stale_block_state(cls, base)
    access = wrapper_access(cls, base)
    if names is None or access is None:
        return
    written = {name for block in loop.sub_blocks.values() for name in block.intermediate_output_names}
    undone = sorted(written.intersection(loop.input_names) - access.writes)
    if undone:
        state, block_state = names
        yield LoopMistake(
            "undone-value",
            path,
            f"`{cls.__name__}` gives `{state}` to `loop_step`, and then writes `{block_state}` over it, which still "
            f"has {' and '.join(f'`{name}`' for name in undone)} from before the loop",
            f"write `components, {block_state} = self.loop_step(components, {block_state}, ...)`",
        )
