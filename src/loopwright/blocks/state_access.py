"""Which values a block reads and writes on the `BlockState` of its loop, as its source says.

As with all that is read from sources: what is not understood is not blamed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from loopwright.blocks.source import own_methods, steps_in, syntax_tree

__all__ = ["StateAccess", "stale_block_state", "state_access", "wrapper_access"]


@dataclass
class StateAccess:
    """The names of values that a function reads and writes as attributes of its block state.

    Attributes:
        reads: read whatever happens, before the function itself writes them.
        writes: written, perhaps only in some cases.
        opaque: whether the block state is handed to other code, which may do anything with it.
    """

    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    opaque: bool = False


_MAY_NOT_BE_EVALUATED = (
    ast.BoolOp,
    ast.IfExp,
    ast.Lambda,
    ast.GeneratorExp,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
)


# what may be done with a state without anything being written to it
_READING_METHODS = ("get", "get_by_kwargs", "as_dict")
_READING_FUNCTIONS = ("getattr", "hasattr")


@lru_cache(maxsize=4096)
def state_access(function: Any) -> StateAccess | None:
    """What a block's `__call__` does with the state it is given, None if its source cannot be had.

    Only a block of a loop, which works on the shared `BlockState` itself, has its accesses listed. For one that calls
    `self.get_block_state`, what it declares is all that it can see.
    """
    node = syntax_tree(function)
    if node is None or len(node.args.args) < 3:
        return None
    return _access(node, node.args.args[2].arg, _READING_FUNCTIONS)


def wrapper_access(loop_class: type, base: type) -> StateAccess | None:
    """What the methods of a loop wrapper write to its block state, None if a source cannot be had."""
    total = StateAccess()
    for method in own_methods(loop_class, base):
        node = syntax_tree(method)
        if node is None:
            return None
        names, understood = _block_state_names(node)
        for name in names:
            access = _access(node, name, (*_READING_FUNCTIONS, "loop_step", "set_block_state", "iterate"))
            total.writes |= access.writes
            total.opaque |= access.opaque
        # blocks that work on another state than these find other values there
        total.opaque |= not understood or any(
            not isinstance(state, ast.Name) or state.id not in names for state in map(_state_of_step, steps_in(node))
        )
    return total


def stale_block_state(loop_class: type, base: type) -> tuple[str, str] | None:
    """The state that a wrapper gives to its blocks, and another one that it writes back to that after the loop.

    Args:
        loop_class: the class of the wrapper.
        base: `LoopSequentialPipelineBlocks`.

    Returns:
        Their names in the source: what the blocks wrote to the first is undone by the second. None if there are none.
    """
    if inspect.getattr_static(loop_class, "set_block_state") is not inspect.getattr_static(base, "set_block_state"):
        return None
    for method in own_methods(loop_class, base):
        node = syntax_tree(method)
        if node is None:
            continue
        names, _ = _block_state_names(node)
        given = {state.id for state in map(_state_of_step, steps_in(node)) if isinstance(state, ast.Name)} - names
        for call in ast.walk(node):
            written_back = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
            if written_back and call.func.attr == "set_block_state" and len(call.args) == 2:  # type: ignore[attr-defined]
                target, source = call.args  # type: ignore[attr-defined]
                if any(_is_name(target, name) for name in given) and any(_is_name(source, name) for name in names):
                    return target.id, source.id
    return None


def _state_of_step(call: ast.Call) -> ast.expr | None:
    """The state that a call of `loop_step` is given."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "state"]
    return call.args[1] if len(call.args) > 1 else next(iter(given), None)


def _block_state_names(function: ast.FunctionDef) -> tuple[set[str], bool]:
    """The names that hold a block state: what `get_block_state` returned, and the argument of `iterate`.

    Returns:
        The names, and whether they are all.
    """
    names = {argument.arg for argument in function.args.args if argument.arg == "block_state"}
    if function.name == "iterate":
        names.update(argument.arg for argument in function.args.args[2:3])
    understood = set()
    for node in ast.walk(function):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and _gets_block_state(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(target, ast.Name) for target in targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
                understood.add(node.value)
    return names, all(node in understood for node in ast.walk(function) if _gets_block_state(node))


def _gets_block_state(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get_block_state"


def _access(function: ast.FunctionDef, name: str, harmless: tuple[str, ...]) -> StateAccess:
    """What a function does with what it calls `name`.

    Args:
        function: the function.
        name: the name.
        harmless: the functions that it may be handed to.
    """
    access = StateAccess(opaque=_is_handed_on(function, name, harmless))
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and _is_name(node.value, name) and not isinstance(node.ctx, ast.Load):
            access.writes.add(node.attr)
    written: set[str] = set()
    for kind, attribute in _certain_accesses(function.body, name):
        if kind == "write":
            written.add(attribute)
        elif attribute not in written:
            access.reads.add(attribute)
    return access


def _is_handed_on(function: ast.FunctionDef, name: str, harmless: tuple[str, ...]) -> bool:
    """Whether something may be written to a state in another way than by `name.attribute = value`."""
    understood = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute):
            plain = not node.attr.startswith("__") and (node.attr != "set" or not isinstance(node.ctx, ast.Load))
            understood.add(node.value if plain else None)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in harmless:
                understood.update([*node.args, *(keyword.value for keyword in node.keywords)])
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            understood.add(node.value)
        elif isinstance(node, ast.Compare):
            understood.update([node.left, *node.comparators])
        elif isinstance(node, ast.Return):
            understood.update(node.value.elts if isinstance(node.value, ast.Tuple) else [node.value])
    return any(
        _is_name(node, name)
        and isinstance(getattr(node, "ctx", None), (ast.Load, type(None)))
        and node not in understood
        for node in ast.walk(function)
    )


def _is_name(node: ast.AST, name: str) -> bool:
    """Whether an expression is the value of a name, which it may have given to it: `(name := ...)`."""
    named = node.target if isinstance(node, ast.NamedExpr) else node
    return isinstance(named, ast.Name) and named.id == name


def _certain_accesses(body: list[ast.stmt], name: str) -> Iterator[tuple[str, str]]:
    """Reads and writes of attributes in statements that run whatever the values are, in their order.

    A statement that may return, and what comes after it, is left out; a write in a branch counts as a write, so that a
    read after it is not blamed.
    """
    for statement in body:
        if isinstance(statement, ast.With):
            for item in statement.items:
                yield from _reads_in(item.context_expr, name)
                if item.optional_vars is not None:
                    yield from _writes_in(item.optional_vars, name)
            yield from _certain_accesses(statement.body, name)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            if isinstance(statement, ast.AugAssign):
                yield from _reads_in(_as_load(statement.target), name)
            if statement.value is not None:
                yield from _reads_in(statement.value, name)
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                yield from _writes_in(target, name)
        elif isinstance(statement, (ast.Expr, ast.Return)):
            if statement.value is not None:
                yield from _reads_in(statement.value, name)
        else:
            yield from _writes_in(statement, name)
        if any(isinstance(node, (ast.Return, ast.Raise)) for node in ast.walk(statement)):
            return


def _as_load(target: ast.expr) -> ast.expr:
    return ast.Attribute(target.value, target.attr, ast.Load()) if isinstance(target, ast.Attribute) else target


def _writes_in(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and _is_name(inner.value, name) and not isinstance(inner.ctx, ast.Load):
            yield "write", inner.attr


def _reads_in(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Attributes that evaluating an expression reads for certain, not those that `and`, `or` or `if` may leave out."""
    if isinstance(node, _MAY_NOT_BE_EVALUATED):
        return
    if isinstance(node, ast.Attribute) and _is_name(node.value, name) and isinstance(node.ctx, ast.Load):
        if node.attr not in _READING_METHODS:
            yield "read", node.attr
        return
    for child in ast.iter_child_nodes(node):
        yield from _reads_in(child, name)
