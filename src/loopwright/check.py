"""`check`: mistakes in a tree of blocks, found from declarations and sources, before anything is loaded or run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loopwright.blocks import (
    AutoPipelineBlocks,
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    walk,
)
from loopwright.blocks.dataflow import carried_values, readers_and_writers
from loopwright.blocks.declarations import declaration_mistakes, misspelt_attributes, signature_mistake
from loopwright.blocks.documentation import type_name
from loopwright.blocks.loop import hides_loop
from loopwright.blocks.loop_mistakes import loop_mistakes
from loopwright.blocks.source import keeps_block_state
from loopwright.blocks.sub_blocks import as_block
from loopwright.errors import CheckError, did_you_mean
from loopwright.params import InputParam, OutputParam

__all__ = ["CALL_OPTIONS", "Finding", "check", "raise_errors"]

CALL_OPTIONS = frozenset({"callbacks", "checkpoint", "output", "progress", "state", "timeout"})
"""What a call takes besides inputs. No input may have such a name."""

# what a value of such a name would hide
_STATE_METHODS = frozenset({"as_dict", "get", "get_by_kwargs", "set"})


@dataclass(frozen=True)
class Finding:
    """One thing that `check` noticed.

    Attributes:
        code: what kind of thing, such as `missing-loop-variable`.
        severity: `error` for what cannot work, `warning` for what is likely a mistake, `note` for what is good to know.
        path: the path of the block, with dots; empty for the root.
        message: what is the case.
        suggestion: what to do.
    """

    code: str
    severity: Literal["error", "warning", "note"]
    path: str
    message: str
    suggestion: str

    def __str__(self) -> str:
        where = f" at `{self.path}`" if self.path else ""
        return f"{self.severity} [{self.code}]{where}: {self.message}; {self.suggestion}"


def check(blocks: Any) -> list[Finding]:
    """Look for mistakes in a tree of blocks.

    Errors:
        bad-declaration: what a block declares is not a list of what it should be. Nothing else is looked for then.
        misspelt-attribute: a class has an attribute of a wrong name, and lacks the one that is meant.
        bad-signature: a method has no room for the arguments that it is called with.
        missing-loop-variable: a block requires a loop variable that its loop does not give.
        positional-loop-variable: a loop gives `loop_step` a variable by position.
        reserved-loop-variable: a loop gives a variable of a name under which every block gets something else.
        read-before-write: a block of a loop reads a value that nobody has written and that is not an input.
        option-collision: an input has the name of a call option, or of a method of the state.

    Warnings:
        not-defined: a block does not say what it does.
        lost-outputs: a block takes its values out of the state, and never gives any back.
        unknown-trigger: a conditional chooses by a name that no block reads or writes.
        equal-workflows: two workflows are selected by the same inputs.
        clashing-type, clashing-default, clashing-component: two blocks declare one name differently.
        near-miss: a block reads a name that nobody writes, and that is nearly one that an earlier block writes.

    Notes:
        loop-carried: a value that a loop carries from one iteration to the next.
        hidden-loop: a block that is no loop goes through iterations by itself.
        unread-output: an output that no block reads.

    Args:
        blocks: the blocks, a class of blocks, or a pipeline.

    Returns:
        The findings, errors first.

    Raises:
        BlockTypeError: it is none of these.
    """
    tree = as_tree(blocks)
    unreadable = list(_bad_declarations(tree))
    if unreadable:
        return unreadable
    findings = [
        *_errors(tree),
        *_undefined(tree),
        *_lost_outputs(tree),
        *_unknown_triggers(tree),
        *_equal_workflows(tree),
        *_clashes(tree),
        *_near_misses(tree),
        *_carried(tree),
        *_hidden_loops(tree),
        *_unread(tree),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def raise_errors(blocks: ModularPipelineBlocks) -> None:
    """Raise a `CheckError` if `check` would find errors."""
    errors = list(_bad_declarations(blocks)) or list(_errors(blocks))
    if errors:
        lines = "\n".join(f"  {finding}" for finding in errors)
        count = "an error" if len(errors) == 1 else f"{len(errors)} errors"
        raise CheckError(f"`{type(blocks).__name__}` has {count}:\n{lines}", errors)


def as_tree(blocks: Any) -> ModularPipelineBlocks:
    """The blocks of what is given as blocks, as a class of blocks, or as a pipeline.

    Raises:
        BlockTypeError: it is none of these.
    """
    inner = blocks if inspect.isclass(blocks) else getattr(blocks, "_blocks", blocks)
    tree: ModularPipelineBlocks = as_block(inner, "what was given")
    return tree


def _bad_declarations(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        for mistake in declaration_mistakes(block):
            yield Finding("bad-declaration", "error", path, *mistake)


def _errors(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        yield from _misspelt(path, block)
        yield from _bad_signatures(path, block)
    for code, path, *mistake in loop_mistakes(tree):
        yield Finding(code, "error", path, *mistake)
    yield from _option_collisions(tree)


def _misspelt(path: str, block: ModularPipelineBlocks) -> Iterator[Finding]:
    for wrong, right in misspelt_attributes(type(block)):
        yield Finding(
            "misspelt-attribute",
            "error",
            path,
            f"`{type(block).__name__}` sets `{wrong}`, did you mean `{right}`?",
            f"rename it, or, if it is meant for something else, define `{right}` as well",
        )


def _bad_signatures(path: str, block: ModularPipelineBlocks) -> Iterator[Finding]:
    cls = type(block)
    mistakes = [signature_mistake(cls, "__call__", "components", "state")]
    if isinstance(block, LoopSequentialPipelineBlocks):
        mistakes.append(signature_mistake(cls, "iterate", "components", "block_state"))
    for mistake in mistakes:
        if mistake is not None:
            yield Finding("bad-signature", "error", path, *mistake)


def _option_collisions(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        own = block.loop_inputs if isinstance(block, LoopSequentialPipelineBlocks) else block.inputs
        if block.sub_blocks and not isinstance(block, LoopSequentialPipelineBlocks):
            continue
        for param in own:
            taken = "an option of every call" if param.name in CALL_OPTIONS else "a method of every block state"
            if param.name in CALL_OPTIONS or param.name in _STATE_METHODS:
                yield Finding(
                    "option-collision",
                    "error",
                    path,
                    f"declares the input `{param.name}`, which is {taken}",
                    f"rename it, for example to `{param.name}_input`",
                )


def _undefined(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        cls = type(block)
        missing = None
        if cls.__call__ is ModularPipelineBlocks.__call__:
            missing = "__call__"
        elif isinstance(block, LoopSequentialPipelineBlocks):
            base = LoopSequentialPipelineBlocks
            if cls.__call__ is base.__call__ and type(block).iterate is base.iterate:
                missing = "iterate"
        elif (
            isinstance(block, ConditionalPipelineBlocks)
            and type(block).select_block is ConditionalPipelineBlocks.select_block
        ):
            missing = "select_block"
        if missing is not None:
            yield Finding(
                "not-defined", "warning", path, f"`{cls.__name__}` does not define `{missing}`", f"define `{missing}`"
            )


def _lost_outputs(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        is_loop = isinstance(block, LoopSequentialPipelineBlocks)
        if block.sub_blocks and not is_loop:
            continue
        base = LoopSequentialPipelineBlocks if is_loop else ModularPipelineBlocks
        if block.intermediate_output_names and keeps_block_state(type(block), base):
            yield Finding(
                "lost-outputs",
                "warning",
                path,
                f"`{type(block).__name__}` calls `get_block_state` and never `set_block_state`: what it writes is lost",
                "call `self.set_block_state(state, block_state)` before it returns",
            )


def _unknown_triggers(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    readers, writers = readers_and_writers(tree)
    known = {*readers, *writers}
    for path, block in walk(tree):
        if not isinstance(block, ConditionalPipelineBlocks):
            continue
        for trigger in block.block_trigger_inputs:
            if trigger is not None and trigger not in known:
                yield Finding(
                    "unknown-trigger",
                    "warning",
                    path,
                    f"chooses by `{trigger}`, which no block reads or writes{did_you_mean(trigger, known)}; no call "
                    f"can give it, so {_choice_without(trigger, block, known)}",
                    f'correct `block_trigger_inputs`, or, if the name is right, add `InputParam("{trigger}")` to the '
                    f"`inputs` of the block that it is for",
                )


def _choice_without(trigger: str, block: ConditionalPipelineBlocks, known: set[str]) -> str:
    """What a conditional does if one of its triggers can never be given.

    Args:
        trigger: the trigger.
        block: the conditional.
        known: the names of the values that there may be.
    """
    if isinstance(block, AutoPipelineBlocks):
        if known.isdisjoint(block.block_trigger_inputs):
            name = block.default_block_name
            return f"`{name}` runs every time" if name is not None else "none of its blocks ever runs"
        return f"`{block.block_names[block.block_trigger_inputs.index(trigger)]}` never runs"
    return f"`select_block` always gets `{trigger}=None`"


def _equal_workflows(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        names: dict[frozenset[str], str] = {}
        for name, triggers in (block._workflow_map or {}).items():
            for spelling in triggers if isinstance(triggers, tuple) else (triggers,):
                if not isinstance(spelling, Mapping):
                    continue
                # only whether an input is given counts
                given = frozenset(key for key, value in spelling.items() if value is not None)
                first = names.setdefault(given, name)
                if first != name:
                    yield Finding(
                        "equal-workflows",
                        "warning",
                        path,
                        f"the workflows `{first}` and `{name}` of `{type(block).__name__}` are selected by the same "
                        f"inputs, {_listed(key for key in spelling if key in given)}, so both are the same blocks",
                        "name another input for one of them in `_workflow_map`, or take it out",
                    )


def _clashes(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    hints: dict[str, dict[str, str]] = {}
    defaults: dict[str, dict[str, str]] = {}
    components: dict[str, dict[str, str]] = {}
    for path, block in walk(tree):
        if block.sub_blocks:
            continue
        declared: list[InputParam | OutputParam] = [*block.inputs, *block.intermediate_outputs]
        for param in declared:
            if param.name is not None and param.type_hint not in (None, Any):
                hints.setdefault(param.name, {}).setdefault(type_name(param.type_hint), path)
        for given in block.inputs:
            if given.name is not None and given.default is not None:
                defaults.setdefault(given.name, {}).setdefault(repr(given.default), path)
        for spec in block.expected_components:
            if spec.name is not None and spec.type_hint is not None:
                components.setdefault(spec.name, {}).setdefault(type_name(spec.type_hint), path)
    for code, what, found in (
        ("clashing-type", "types", hints),
        ("clashing-default", "defaults", defaults),
        ("clashing-component", "component types", components),
    ):
        for name, by_value in found.items():
            if len(by_value) > 1:
                listed = ", ".join(f"{value} at `{path}`" for value, path in by_value.items())
                yield Finding(
                    code,
                    "warning",
                    next(iter(by_value.values())),
                    f"`{name}` is declared with different {what}: {listed}",
                    "declare it alike, or give one of them another name",
                )


def _near_misses(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    """Names that are nearly the same: one that is only read, after a block wrote the other."""
    readers, writers = readers_and_writers(tree)
    order = {path: index for index, (path, _) in enumerate(walk(tree))}
    loops = [path for path, block in walk(tree) if isinstance(block, LoopSequentialPipelineBlocks)]

    def may_follow(reader: str, writer: str) -> bool:
        in_one_loop = any(_is_below(reader, loop) and _is_below(writer, loop) for loop in loops)
        return order[writer] < order[reader] or in_one_loop

    for read in sorted(set(readers) - set(writers)):
        for written in sorted(writers):
            if difflib.SequenceMatcher(None, read, written).ratio() <= 0.9:
                continue
            reader = next((r for r in readers[read] if any(may_follow(r, w) for w in writers[written])), None)
            if reader is not None and reader not in readers.get(written, ()):
                yield Finding(
                    "near-miss",
                    "warning",
                    reader,
                    f"reads `{read}`, which no block writes, while `{writers[written][0]}` writes `{written}`",
                    f"if `{written}` is meant, rename one of them",
                )


def _is_below(path: str, ancestor: str) -> bool:
    return not ancestor or path == ancestor or path.startswith(f"{ancestor}.")


def _carried(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        if isinstance(block, LoopSequentialPipelineBlocks):
            for value in carried_values(block):
                yield Finding(
                    "loop-carried",
                    "note",
                    path,
                    f"`{value.name}` goes from one iteration to the next: {_listed(value.writers)} "
                    f"{'writes' if len(value.writers) == 1 else 'write'} it, {_listed(value.readers)} "
                    f"{'reads' if len(value.readers) == 1 else 'read'} it",
                    f"the first iteration reads the loop's input `{value.name}`",
                )


def _hidden_loops(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    for path, block in walk(tree):
        if hides_loop(block):
            yield Finding(
                "hidden-loop",
                "note",
                path,
                f"`{type(block).__name__}` has a loop inside: its iterations are no events and are not saved",
                "cancel, pause and timeout act in it at each call of a model; for more, make it a "
                "`LoopSequentialPipelineBlocks`",
            )


def _unread(tree: ModularPipelineBlocks) -> Iterator[Finding]:
    readers, writers = readers_and_writers(tree)
    leaves = [path for path, block in walk(tree) if not block.sub_blocks]
    grouped = {
        param.name for _, block in walk(tree) for param in block.intermediate_outputs if param.kwargs_type is not None
    }
    for name, paths in writers.items():
        # what the last block makes is the result, and a group is read as a whole
        if name not in readers and name not in grouped and leaves and leaves[-1] not in paths:
            yield Finding(
                "unread-output",
                "note",
                paths[0],
                f"writes `{name}`, which no block reads",
                "it is part of the result; if nobody needs it there, take it out of `intermediate_outputs`",
            )


def _listed(paths: Iterable[str]) -> str:
    return " and ".join(f"`{path}`" for path in paths)
