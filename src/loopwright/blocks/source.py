"""What the source of a block says about the names it uses: the loop variables that a loop gives, the values that it
reads and writes on its `BlockState`.

Sources are read, never run. Where a source is missing, or says it in a way that is not understood, the answer is that
nothing is known, and the callers hold their peace.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

__all__ = [
    "GivenVariables",
    "StateAccess",
    "given_variables",
    "has_loop_inside",
    "keeps_block_state",
    "positional_steps",
    "state_access",
    "wrapper_access",
]


@dataclass(frozen=True)
class GivenVariables:
    """The names of the variables that a loop gives to its blocks.

    Attributes:
        always: given in every iteration.
        ever: given in some iteration.
    """

    always: frozenset[str]
    ever: frozenset[str]


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


@lru_cache(maxsize=4096)
def _function(function: Any) -> ast.FunctionDef | None:
    """The syntax tree of a function, None if its source cannot be had."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return None
    return next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)


def given_variables(loop_class: type, base: type) -> GivenVariables | None:
    """The variables that a loop wrapper gives, None if its source does not tell.

    Args:
        loop_class: the class of the wrapper.
        base: `LoopSequentialPipelineBlocks`, whose `__call__` gives what `iterate` yields.
    """
    if loop_class.__call__ is base.__call__:
        function = _function(loop_class.iterate)  # type: ignore[attr-defined]
        found = None if function is None else _yielded(function)
    else:
        found = []
        for method in _own_methods(loop_class, base):
            function = _function(method)
            steps = None if function is None else _passed_to_loop_step(function)
            if steps is None:
                return None
            found.extend(steps)
    if not found:
        return None
    return GivenVariables(frozenset.intersection(*found), frozenset.union(*found))


def _own_methods(loop_class: type, base: type) -> Iterator[Any]:
    """The methods of a wrapper that it does not have from the base class."""
    for name in dir(loop_class):
        method = inspect.getattr_static(loop_class, name)
        if inspect.isfunction(method) and inspect.getattr_static(base, name, None) is not method:
            yield method


def _yielded(function: ast.FunctionDef) -> list[frozenset[str]] | None:
    """For each `yield` of a generator the names in the dict that it yields; None if one is not a plain dict."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.YieldFrom):
            return None
        if not isinstance(node, ast.Yield):
            continue
        value = node.value
        if isinstance(value, ast.Dict) and all(isinstance(key, ast.Constant) for key in value.keys):
            found.append(frozenset(str(key.value) for key in value.keys if isinstance(key, ast.Constant)))
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
            names = _keyword_names(value)
            if names is None or value.args:
                return None
            found.append(names)
        else:
            return None
    return found


def _passed_to_loop_step(function: ast.FunctionDef) -> list[frozenset[str]] | None:
    """For each call of `loop_step` the names of its keyword arguments; None if one gives variables in another way."""
    found = []
    for node in _steps(function):
        names = _keyword_names(node)
        if names is None or len(node.args) > 2:
            return None
        found.append(names - {"components", "state"})
    return found


def _steps(function: ast.FunctionDef) -> Iterator[ast.Call]:
    """The calls of `loop_step` in a function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "loop_step":
            yield node


def positional_steps(loop_class: type, base: type) -> Iterator[tuple[list[str], list[str]]]:
    """The calls of `self.loop_step` that give more by position than `components` and the state.

    Yields:
        The positional and the keyword arguments of each, as source.
    """
    if inspect.getattr_static(loop_class, "loop_step") is not inspect.getattr_static(base, "loop_step"):
        return  # one of its own takes what it likes
    for method in _own_methods(loop_class, base):
        function = _function(method)
        for call in () if function is None else _steps(function):
            on_self = isinstance(call.func, ast.Attribute) and _is_name(call.func.value, "self")
            if on_self and len(call.args) > 2 and not any(isinstance(value, ast.Starred) for value in call.args):
                yield [ast.unparse(value) for value in call.args], [ast.unparse(keyword) for keyword in call.keywords]


def _keyword_names(call: ast.Call) -> frozenset[str] | None:
    names = [keyword.arg for keyword in call.keywords]
    return None if None in names else frozenset(name for name in names if name is not None)


@lru_cache(maxsize=4096)
def state_access(function: Any) -> StateAccess | None:
    """What a block's `__call__` does with the state it is given, None if its source cannot be had.

    Only a block of a loop, which works on the shared `BlockState` itself, has its accesses listed. For one that calls
    `self.get_block_state`, what it declares is all that it can see.
    """
    node = _function(function)
    if node is None or len(node.args.args) < 3:
        return None
    return _access(node, node.args.args[2].arg, harmless=())


def wrapper_access(loop_class: type, base: type) -> StateAccess | None:
    """What the methods of a loop wrapper write to its block state, None if a source cannot be had."""
    total = StateAccess()
    for method in _own_methods(loop_class, base):
        node = _function(method)
        if node is None:
            return None
        for name in _block_state_names(node):
            access = _access(node, name, harmless=("loop_step", "set_block_state", "iterate"))
            total.writes |= access.writes
            total.opaque |= access.opaque
    return total


def keeps_block_state(block_class: type, base: type) -> bool:
    """Whether the methods of a block take values out of the state and none of them puts any back.

    Args:
        block_class: the class of the block.
        base: the class whose methods are not the block's own.
    """
    called: set[str] = set()
    for method in _own_methods(block_class, base):
        function = _function(method)
        if function is None:
            return False
        called.update(
            node.func.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        )
    return "get_block_state" in called and not called & {"set_block_state", "set"}


def has_loop_inside(block_class: type, base: type) -> bool:
    """Whether a block that is no loop goes through iterations by itself, where nobody sees them.

    A leaf does so if it moves a scheduler in a `for` or `while`, a composite if its own `__call__` runs its blocks in
    one.

    Args:
        block_class: the class of the block.
        base: the class whose methods are not the block's own.
    """
    functions = [function for method in _own_methods(block_class, base) if (function := _function(method)) is not None]
    if any(_moves_scheduler(loop) for function in functions for loop in _for_and_while(function)):
        return True
    call = _function(block_class.__call__)
    return call is not None and any(_runs_blocks(loop) for loop in _for_and_while(call))


def _for_and_while(function: ast.FunctionDef) -> Iterator[ast.For | ast.While]:
    return (node for node in ast.walk(function) if isinstance(node, (ast.For, ast.While)))


def _moves_scheduler(loop: ast.For | ast.While) -> bool:
    """Whether a scheduler makes a step in a loop: `components.scheduler.step(...)`."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "step"
        and "scheduler" in ast.unparse(node.func.value)
        for node in ast.walk(loop)
    )


def _runs_blocks(loop: ast.For | ast.While) -> bool:
    """Whether all blocks of a composite run in each iteration of a loop, which does more than go through them once."""
    head = loop.iter if isinstance(loop, ast.For) else loop.test
    return not _mentions_blocks(head) and any(map(_mentions_blocks, loop.body))


def _mentions_blocks(node: ast.AST) -> bool:
    """Whether code reaches for the blocks of its composite: by `self.sub_blocks`, or by `super().__call__`."""
    return any(
        isinstance(inner, ast.Attribute)
        and (inner.attr == "sub_blocks" or (inner.attr == "__call__" and ast.unparse(inner.value) == "super()"))
        for inner in ast.walk(node)
    )


def _block_state_names(function: ast.FunctionDef) -> set[str]:
    """The names that hold a block state: what `get_block_state` returned, and an argument called `block_state`."""
    names = {argument.arg for argument in function.args.args if argument.arg == "block_state"}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Attribute) and called.attr == "get_block_state":
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def _access(function: ast.FunctionDef, name: str, harmless: tuple[str, ...]) -> StateAccess:
    access = StateAccess()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and _is_name(node.value, name) and not isinstance(node.ctx, ast.Load):
            access.writes.add(node.attr)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if called not in (*harmless, "getattr", "hasattr") and any(_is_name(item, name) for item in arguments):
                access.opaque = True
        elif isinstance(node, ast.Subscript) and _is_name(node.value, name) and not isinstance(node.ctx, ast.Load):
            access.opaque = True
    written: set[str] = set()
    for kind, attribute in _certain_accesses(function.body, name):
        if kind == "write":
            written.add(attribute)
        elif attribute not in written:
            access.reads.add(attribute)
    return access


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _certain_accesses(body: list[ast.stmt], name: str) -> Iterator[tuple[str, str]]:
    """Reads and writes of attributes in statements that run whatever the values are, in their order.

    A statement that may return, and what comes after it, is left out; a write in a branch counts as a write, so that a
    read after it is not blamed.
    """
    for statement in body:
        if isinstance(statement, ast.With):
            for item in statement.items:
                yield from _reads_in(item.context_expr, name)
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
        if node.attr not in ("get", "set", "get_by_kwargs", "as_dict"):
            yield "read", node.attr
        return
    for child in ast.iter_child_nodes(node):
        yield from _reads_in(child, name)
