"""What it means that a block failed on a None: most likely one of its components is not there."""

from __future__ import annotations

import dis
from typing import Any

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.errors import MissingComponentError

__all__ = ["missing_component"]

# what takes the value of a name
_LOADS = frozenset({"LOAD_ATTR", "LOAD_DEREF", "LOAD_FAST", "LOAD_GLOBAL", "LOAD_METHOD", "LOAD_NAME"})

# what works with the value that the instruction before it made
_OF_ONE_VALUE = frozenset({"BEFORE_WITH", "GET_ITER", "LOAD_ATTR", "LOAD_METHOD"})


def missing_component(error: Exception, block: ModularPipelineBlocks, components: Any) -> Exception:
    """The error to raise for one about None.

    Where the expression that was None is a component (`components.vae`, or a variable `vae`), that it is not there is
    what is wrong; blocks also work with components that only others declare. A component may be None, and another thing
    may be None as well: elsewhere the error stays what it is, with a note of what is not loaded.

    Args:
        error: an `AttributeError` or a `TypeError` about None that came out of the block.
        block: the block.
        components: what the block was called with.
    """
    specs = getattr(components, "_component_specs", {})
    missing = [str(name) for name in block.component_names if name and getattr(components, name, None) is None]
    name = _name_of_none(error)
    if name is not None and name not in missing and name in specs and getattr(components, name, None) is None:
        missing = [name, *missing]
    if not missing:
        return error
    given = f"`pipe.update_components({', '.join(f'{each}=...' for each in missing)})`"
    if name not in missing:
        listed = ", ".join(f"`{each}`" for each in missing)
        what = f"the component {listed} is" if len(missing) == 1 else f"the components {listed} are"
        error.add_note(f"{what} not loaded: {given}")
        return error
    loaded = "`pipe.load_components()`, or " if getattr(specs.get(name), "pretrained_model_name_or_path", None) else ""
    explained = MissingComponentError(
        f"`{type(block).__name__}` works with the component `{name}`, which is not loaded: {loaded}{given}"
    )
    explained.__cause__ = error
    return explained.with_traceback(error.__traceback__)


def _name_of_none(error: Exception) -> str | None:
    """The name of what was None where an error was raised: of the attribute, or of the variable."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return None
    before: list[dis.Instruction] = []
    for instruction in dis.get_instructions(traceback.tb_frame.f_code):
        if instruction.offset == traceback.tb_lasti:
            if instruction.opname in _OF_ONE_VALUE:
                before = before[-1:]
            else:
                # what is called, or has items, stands at the beginning of the expression that failed
                start, end = _range(instruction)
                before = [each for each in before if _range(each)[0] == start and _range(each)[1] <= end]
            loads = [(_range(each)[1], each.offset, each.argval) for each in before if each.opname in _LOADS]
            return str(max(loads)[2]) if loads else None
        before.append(instruction)
    return None


def _range(instruction: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the expression of an instruction begins in the source, and where it ends."""
    where = instruction.positions
    numbers = (-1 if where is None or number is None else number for number in (where or ())[:4])
    first, last, begin, stop = numbers
    return (first, begin), (last, stop)
