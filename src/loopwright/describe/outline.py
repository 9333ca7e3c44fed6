"""What a description shows of a tree of blocks, in words: each format arranges the same outline in its own way."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import GenericAlias, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from loopwright.blocks import (
    AutoPipelineBlocks,
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
)
from loopwright.blocks.dataflow import CarriedValue, carried_values
from loopwright.blocks.facts import input_key
from loopwright.blocks.loop import hides_loop
from loopwright.blocks.variables import loop_variables_of
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec

__all__ = ["Block", "Value", "internal_values", "outline", "walk"]

_LONGEST_DEFAULT = 40


@dataclass(frozen=True)
class Value:
    """A value that is read or written, a component, or a configuration value.

    Attributes:
        name: its name.
        type: its type as one writes it; empty if none is declared.
        description: what it is.
        default: what stands for it if it is not given, as one writes it; None if it has to be given.
    """

    name: str
    type: str = ""
    description: str = ""
    default: str | None = None

    @property
    def signature(self) -> str:
        """The value as in the signature of a function: `steps: int = 20`."""
        typed = f"{self.name}: {self.type}" if self.type else self.name
        return typed if self.default is None else f"{typed} = {self.default}"


@dataclass(frozen=True)
class Declarations:
    """What a block reads, writes, works with, and is configured by."""

    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    components: tuple[Value, ...] = ()
    configs: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Block:
    """One block of the outline.

    Attributes:
        name: its name among its siblings; that of its class for the outermost.
        path: its path, with dots; empty for the outermost.
        kind: `leaf`, `sequence`, `choice` (a conditional) or `loop`.
        class_name: the name of its class.
        description: what it does; lines are kept.
        total: what it declares, for a composite with what its blocks declare.
        own: what it declares itself: the same for a leaf, what its wrapper declares for a loop, nothing otherwise.
        children: the blocks that it is made of.
        variables: the loop variables that a loop gives to its blocks, or that a leaf takes.
        carried: of a loop, what goes from one iteration to the next.
        triggers: of a choice, the inputs by which it chooses.
        condition: of a block of a choice, when it is chosen.
        may_skip: of a choice, whether it may run nothing.
        hides_loop: whether it goes through iterations by itself, and is no loop.
        workflows: the workflows by name, each with the inputs that select it.
    """

    name: str
    path: str
    kind: Literal["leaf", "sequence", "choice", "loop"]
    class_name: str
    description: str
    total: Declarations
    own: Declarations = Declarations()
    children: tuple[Block, ...] = ()
    variables: tuple[str, ...] = ()
    carried: tuple[CarriedValue, ...] = ()
    triggers: tuple[str, ...] = ()
    condition: str = ""
    may_skip: bool = False
    hides_loop: bool = False
    workflows: tuple[tuple[str, str], ...] = ()


def outline(tree: ModularPipelineBlocks) -> Block:
    """The outline of a tree of blocks."""
    block = _outline(tree, type(tree).__name__, "", frozenset())
    results = replace(block.total, outputs=tuple(_output(param) for param in tree.outputs))
    return replace(block, total=results, workflows=tuple(_workflows(tree._workflow_map)))


def walk(block: Block) -> Iterator[Block]:
    """The block and all blocks below it, outer before inner, in order of execution."""
    yield block
    for child in block.children:
        yield from walk(child)


def internal_values(tree: Block) -> list[Value]:
    """What the blocks write for each other: each value once, without those that are outputs of the tree."""
    found: dict[str, Value] = {}
    for block in walk(tree):
        for value in block.own.outputs:
            known = found.get(value.name)
            if known is None or (value.description and not known.description):
                found[value.name] = value
    results = {value.name for value in tree.total.outputs}
    return [value for name, value in found.items() if name not in results]


def _outline(block: ModularPipelineBlocks, name: str, path: str, variables: frozenset[str]) -> Block:
    """The outline of a block.

    Args:
        block: the block.
        name: its name.
        path: its path.
        variables: the loop variables that the loops around it give.
    """
    given = block.loop_variables if isinstance(block, LoopSequentialPipelineBlocks) else ()
    seen = variables.union(given)
    plain = Block(
        name=_line(name),
        path=_line(path),
        kind="sequence" if block.sub_blocks else "leaf",
        class_name=type(block).__name__,
        description=_lines(block.description),
        total=_declarations(
            block.inputs, block.intermediate_outputs, block.expected_components, block.expected_configs
        ),
        children=tuple(
            _outline(child, key, f"{path}.{key}" if path else key, seen) for key, child in block.sub_blocks.items()
        ),
        hides_loop=hides_loop(block),
    )
    if isinstance(block, LoopSequentialPipelineBlocks):
        return _loop(plain, block)
    if isinstance(block, ConditionalPipelineBlocks):
        return _choice(plain, block)
    if plain.children:
        return plain
    return replace(plain, own=plain.total, variables=_taken(block, variables))


def _declarations(
    inputs: Iterable[InputParam],
    outputs: Iterable[OutputParam],
    components: Iterable[ComponentSpec],
    configs: Iterable[ConfigSpec],
) -> Declarations:
    return Declarations(
        inputs=tuple(_input(param) for param in inputs),
        outputs=tuple(_output(param) for param in outputs),
        components=tuple(_component(spec) for spec in components),
        configs=tuple(_config(spec) for spec in configs),
    )


def _loop(plain: Block, loop: LoopSequentialPipelineBlocks) -> Block:
    return replace(
        plain,
        kind="loop",
        own=_declarations(
            loop.loop_inputs,
            loop.loop_intermediate_outputs,
            loop.loop_expected_components,
            loop.loop_expected_configs,
        ),
        variables=tuple(sorted(loop.loop_variables)),
        carried=tuple(carried_values(loop)),
    )


def _choice(plain: Block, choice: ConditionalPipelineBlocks) -> Block:
    conditions = _conditions(choice)
    return replace(
        plain,
        kind="choice",
        children=tuple(
            replace(child, condition=conditions.get(name, ""))
            for name, child in zip(choice.sub_blocks, plain.children, strict=True)
        ),
        triggers=tuple(dict.fromkeys(name for name in choice.block_trigger_inputs if name is not None)),
        may_skip=choice.may_be_skipped,
    )


def _conditions(choice: ConditionalPipelineBlocks) -> dict[str, str]:
    """When each block of a choice is chosen, by its name."""
    in_order = isinstance(choice, AutoPipelineBlocks) and type(choice).select_block is AutoPipelineBlocks.select_block
    conditions: dict[str, str] = {}
    if in_order:
        for name, trigger in zip(choice.block_names, choice.block_trigger_inputs, strict=False):
            if trigger is not None:
                conditions[name] = f"{'else if' if conditions else 'if'} {trigger} is given"
    if choice.default_block_name is not None:
        conditions[choice.default_block_name] = "otherwise" if conditions else "by default"
    return conditions


def _taken(leaf: ModularPipelineBlocks, variables: frozenset[str]) -> tuple[str, ...]:
    """The loop variables that a leaf takes, those of `variables` among the ones that it can do without."""
    wanted = loop_variables_of(type(leaf))
    return (*wanted.required, *(name for name in wanted.optional if name in variables))


def _input(param: InputParam) -> Value:
    default = None if param.required else _default(param)
    return Value(_line(input_key(param)), _type(param.type_hint), _lines(param.description), default)


def _default(param: InputParam) -> str:
    if param.defaults_by_block is None:
        return _brief(param.default)
    return " or ".join(dict.fromkeys(_brief(default) for default in param.defaults_by_block.values()))


def _output(param: OutputParam) -> Value:
    return Value(_line(param.name), _type(param.type_hint), _lines(param.description))


def _component(spec: ComponentSpec) -> Value:
    place = "/".join(str(part) for part in (spec.pretrained_model_name_or_path, spec.subfolder) if part)
    about = "\n".join(filter(None, (spec.description, f"from {place}" if place else "")))
    return Value(_line(str(spec.name)), _type(spec.type_hint), _lines(about))


def _config(spec: ConfigSpec) -> Value:
    return Value(_line(spec.name), "", _lines(spec.description), _brief(spec.default))


def _workflows(workflow_map: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Each workflow with the inputs that select it."""
    for name, selecting in (workflow_map or {}).items():
        spellings = selecting if isinstance(selecting, tuple) else (selecting,)
        needed = (", ".join(key for key, value in spelling.items() if value) for spelling in spellings)
        yield _line(name), _line(" or ".join(filter(None, needed)))


def _type(hint: Any) -> str:
    """A type hint as one writes it, without modules; empty for none and for `Any`."""
    if hint is None or hint is Any:
        return ""
    return _line(_type_text(hint))


def _type_text(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, UnionType) or origin is Union:
        return " | ".join(map(_type_text, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        return f"{_plain_type(hint if isinstance(hint, GenericAlias) else origin)}[{_type_list(arguments)}]"
    return _plain_type(hint)


def _type_list(hints: Iterable[Any]) -> str:
    return ", ".join(f"[{_type_list(hint)}]" if isinstance(hint, list) else _type_text(hint) for hint in hints)


def _plain_type(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if hint is Ellipsis:
        return "..."
    return str(hint if isinstance(hint, str) else getattr(hint, "__name__", hint))


def _brief(value: Any) -> str:
    """A short form of a default."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        return f"{type(value).__name__} {tuple(shape)}"
    if inspect.isclass(value) or inspect.isroutine(value):
        return str(value.__name__)
    text = _line(repr(value))
    return text if len(text) <= _LONGEST_DEFAULT else text[: _LONGEST_DEFAULT - 1] + "…"


def _lines(text: Any) -> str:
    """A text without the indentation of the source that it stands in, and without what would steer a terminal."""
    return "\n".join(_line(line, keep=True) for line in inspect.cleandoc(str(text or "")).splitlines()).strip()


def _line(text: str, keep: bool = False) -> str:
    """A text in one line of printable characters.

    Args:
        text: the text.
        keep: whether spaces at the beginning are kept.
    """
    lead = text[: len(text) - len(text.lstrip(" "))] if keep else ""
    printable = (c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return lead + " ".join("".join(printable).split())
