"""Who reads and who writes each value in a tree of blocks, and what a loop carries from one iteration to the next."""

from __future__ import annotations

from dataclasses import dataclass

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.conditional import ConditionalPipelineBlocks
from loopwright.blocks.facts import walk
from loopwright.blocks.loop import LoopSequentialPipelineBlocks

__all__ = ["CarriedValue", "carried_values", "readers_and_writers"]


@dataclass(frozen=True)
class CarriedValue:
    """A value that an iteration reads before it is written in that iteration.

    Attributes:
        name: the name of the value.
        readers: the paths, from the loop, of the blocks that read what the iteration before wrote.
        writers: the paths, from the loop, of the blocks that write it for the next iteration.
    """

    name: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]


def execution_units(block: ModularPipelineBlocks, path: str = "") -> list[tuple[str, ModularPipelineBlocks]]:
    """The blocks below a block that access its state themselves, in order: leaves, and loops as a whole."""
    units: list[tuple[str, ModularPipelineBlocks]] = []
    for name, child in block.sub_blocks.items():
        inner = f"{path}.{name}" if path else name
        if child.sub_blocks and not isinstance(child, LoopSequentialPipelineBlocks):
            units.extend(execution_units(child, inner))
        else:
            units.append((inner, child))
    return units


def carried_values(loop: LoopSequentialPipelineBlocks) -> list[CarriedValue]:
    """What a loop carries from one iteration to the next, by what its blocks declare."""
    writes = {path: set(unit.intermediate_output_names) for path, unit in execution_units(loop)}
    early: dict[str, list[str]] = {}

    def visit(path: str, block: ModularPipelineBlocks, written: frozenset[str]) -> frozenset[str]:
        """Find what a block reads and nobody has written, and return what is written after it."""
        if path in writes:
            for name in {*block.input_names} - written:
                early.setdefault(name, []).append(path)
        inner = written
        for name, child in block.sub_blocks.items() if path not in writes else ():
            after = visit(f"{path}.{name}" if path else name, child, inner)
            # one branch of a conditional does not see what another one writes
            inner = written if isinstance(block, ConditionalPipelineBlocks) else after
        return written if block.may_be_skipped else written.union(block.intermediate_output_names)

    visit("", loop, frozenset())
    return [
        CarriedValue(name, tuple(readers), tuple(path for path in writes if name in writes[path]))
        for name, readers in sorted(early.items())
        if any(name in names for names in writes.values())
    ]


def readers_and_writers(blocks: ModularPipelineBlocks) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """For each name the paths of the leaves and loop wrappers that read it, and of those that write it."""
    readers: dict[str, list[str]] = {}
    writers: dict[str, list[str]] = {}
    for path, block in walk(blocks):
        if isinstance(block, LoopSequentialPipelineBlocks):
            inputs, outputs = block.loop_inputs, block.loop_intermediate_outputs
        elif block.sub_blocks:
            continue
        else:
            inputs, outputs = block.inputs, block.intermediate_outputs
        for param in inputs:
            if param.name is not None:
                readers.setdefault(param.name, []).append(path)
        for output in outputs:
            writers.setdefault(output.name, []).append(path)
    return readers, writers
