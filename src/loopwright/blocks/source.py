"""What the source of a block says about loops: the variables that one gives, and loops that a block hides.

Sources are read, never run. Where a source is missing, or says it in a way that is not understood, the answer is that
nothing is known, and the callers hold their peace.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

__all__ = [
    "GivenVariables",
    "given_variables",
    "has_loop_inside",
    "keeps_block_state",
    "own_methods",
    "positional_steps",
    "steps_in",
    "syntax_tree",
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


@lru_cache(maxsize=4096)
def syntax_tree(function: Any) -> ast.FunctionDef | None:
    """The syntax tree of a function, None if its source cannot be had, or has been edited since it was loaded."""
    try:
        inner = inspect.unwrap(function)
        code = inner.__code__
        tree = ast.parse(textwrap.dedent(inspect.getsource(inner)))
    except (AttributeError, OSError, TypeError, SyntaxError):
        return None
    node = next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)
    return node if node is not None and _is_source_of(node, code) else None


def _is_source_of(node: ast.FunctionDef, code: CodeType) -> bool:
    """Whether a function was loaded from this source, as far as its names tell."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    count = code.co_argcount + code.co_kwonlyargcount
    if node.name != code.co_name or [argument.arg for argument in arguments] != list(code.co_varnames[:count]):
        return False
    attributes = {
        inner.attr for statement in node.body for inner in ast.walk(statement) if isinstance(inner, ast.Attribute)
    }
    # names with two underscores in front are changed by the compiler
    return {name for name in attributes if not name.startswith("__")} <= _names_in(code)


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def given_variables(loop_class: type, base: type) -> GivenVariables | None:
    """The variables that a loop wrapper gives, None if its source does not tell.

    Args:
        loop_class: the class of the wrapper.
        base: `LoopSequentialPipelineBlocks`, whose `__call__` gives what `iterate` yields.
    """
    if loop_class.__call__ is base.__call__:
        function = syntax_tree(loop_class.iterate)  # type: ignore[attr-defined]
        found = None if function is None else _yielded(function)
    else:
        found = []
        for method in own_methods(loop_class, base):
            function = syntax_tree(method)
            steps = None if function is None else _passed_to_loop_step(function)
            if steps is None:
                return None
            found.extend(steps)
    if not found:
        return None
    return GivenVariables(frozenset.intersection(*found), frozenset.union(*found))


def own_methods(loop_class: type, base: type) -> Iterator[Any]:
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
    found, calls = [], list(steps_in(function))
    if sum(isinstance(node, ast.Attribute) and _is_own_step(node, function) for node in ast.walk(function)) > len(
        calls
    ):
        return None  # it is called by another name
    for call in calls:
        names = _keyword_names(call)
        if names is None or len(call.args) > 2:
            return None
        found.append(names - {"components", "state"})
    return found


def steps_in(function: ast.FunctionDef) -> Iterator[ast.Call]:
    """The calls of a loop's own `loop_step` in one of its methods."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _is_own_step(node.func, function):
            yield node


def _is_own_step(node: ast.AST, method: ast.FunctionDef) -> bool:
    """Whether code names `self.loop_step`, or `super().loop_step`."""
    if not isinstance(node, ast.Attribute) or node.attr != "loop_step":
        return False
    own = {argument.arg for argument in method.args.args[:1]}
    return ast.unparse(node.value) in {*own, "super()"}


def positional_steps(loop_class: type, base: type) -> Iterator[tuple[list[str], list[str]]]:
    """The calls of `self.loop_step` that give more by position than `components` and the state.

    Yields:
        The positional and the keyword arguments of each, as source.
    """
    if inspect.getattr_static(loop_class, "loop_step") is not inspect.getattr_static(base, "loop_step"):
        return  # one of its own takes what it likes
    for method in own_methods(loop_class, base):
        function = syntax_tree(method)
        for call in () if function is None else steps_in(function):
            if len(call.args) > 2 and not any(isinstance(value, ast.Starred) for value in call.args):
                yield [ast.unparse(value) for value in call.args], [ast.unparse(keyword) for keyword in call.keywords]


def _keyword_names(call: ast.Call) -> frozenset[str] | None:
    names = [keyword.arg for keyword in call.keywords]
    return None if None in names else frozenset(name for name in names if name is not None)


def keeps_block_state(block_class: type, base: type) -> bool:
    """Whether the methods of a block take values out of the state and none of them puts any back.

    Args:
        block_class: the class of the block.
        base: the class whose methods are not the block's own.
    """
    called: set[str] = set()
    for method in own_methods(block_class, base):
        function = syntax_tree(method)
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
    functions = [function for method in own_methods(block_class, base) if (function := syntax_tree(method)) is not None]
    if any(_moves_scheduler(loop) for function in functions for loop in _for_and_while(function)):
        return True
    call = syntax_tree(block_class.__call__)
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
