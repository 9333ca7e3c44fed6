"""What a tree of blocks means, written naively from the contracts: dicts and recursion, nothing of the library."""

from __future__ import annotations

from typing import Any

from tests.blocks.trees import MODULUS, Auto, Choice, Composite, Leaf, Loop, Node, Param, walk, weigh


class Missing(Exception):
    """A required input has no value."""


# What a tree declares


def outputs_of(node: Node) -> list[str]:
    if isinstance(node, Leaf):
        return list(node.writes)
    names = [name for child in node.children.values() for name in outputs_of(child)]
    if isinstance(node, Loop):
        names.append("laps")
    return list(dict.fromkeys(names))


def required_of(node: Node) -> set[str]:
    if isinstance(node, Leaf):
        return {read.name for read in node.reads if read.required}
    of_children = [required_of(child) for child in node.children.values()]
    if isinstance(node, Choice | Auto):
        return set.intersection(*of_children) if default_of(node) is not None else set()
    if isinstance(node, Loop):
        return {param.name for param in outside_reads(node) if param.required}
    return set().union(*of_children) & {param.name for param in inputs_of(node)}


def inputs_of(node: Node) -> list[Param]:
    if isinstance(node, Leaf):
        return [Param(read.name, (read.default,), read.required) for read in node.reads]
    if isinstance(node, Choice | Auto):
        branches: dict[str, list[int | None]] = {}
        for child in node.children.values():
            for param in inputs_of(child):
                branches.setdefault(param.name, []).extend(param.defaults)
        required = required_of(node)
        return [Param(name, tuple(dict.fromkeys(found)), name in required) for name, found in branches.items()]
    first: dict[str, Param] = {}
    for param in outside_reads(node):
        first.setdefault(param.name, param)
    if isinstance(node, Loop):
        required = required_of(node)
        return [Param(name, param.defaults, name in required) for name, param in first.items()]
    return list(first.values())


def outside_reads(node: Composite) -> list[Param]:
    """What a sequence or a loop reads from outside, as each of its readers declares it.

    The readers in a loop share their values: where one block requires a value, those that have no default do.
    """
    reads = [Param(node.count, (node.count_default,))] if isinstance(node, Loop) else []
    written = set(node.gives) if isinstance(node, Loop) else set()
    for child in node.children.values():
        reads.extend(param for param in inputs_of(child) if param.name not in written and param not in reads)
        if not (isinstance(child, Choice | Auto) and default_of(child) is None):
            written.update(outputs_of(child))
    if isinstance(node, Loop):
        required = set().union(*(required_of(child) for child in node.children.values()))
        return [Param(p.name, p.defaults, p.required or (p.default is None and p.name in required)) for p in reads]
    return reads


def components_of(node: Node) -> list[str]:
    if isinstance(node, Leaf):
        return [node.component] if node.component else []
    return list(dict.fromkeys(name for child in node.children.values() for name in components_of(child)))


def default_of(node: Choice | Auto) -> str | None:
    if isinstance(node, Choice):
        return node.default
    return next((name for name, trigger in zip(node.children, node.triggers, strict=True) if trigger is None), None)


# What a tree does


def call(node: Node, given: dict[str, Any]) -> dict[str, Any]:
    """A call of a pipeline: its inputs, or their defaults, are there from the start."""
    values = dict(given)
    for param in inputs_of(node):
        values.setdefault(param.name, param.default)
    run(node, values, {})
    return values


def run(node: Node, values: dict[str, Any], variables: dict[str, int]) -> None:
    """Run a tree.

    Args:
        node: the tree.
        values: the values that it shares with its neighbours, changed in place.
        variables: the loop variables in sight. They hide values of their name, and are never written.
    """
    if isinstance(node, Leaf):
        _run_leaf(node, values, variables)
    elif isinstance(node, Loop):
        _run_loop(node, values, variables)
    elif isinstance(node, Choice | Auto):
        chosen = _choose(node, {**values, **variables})
        if chosen is not None:
            run(node.children[chosen], values, variables)
    else:
        for child in node.children.values():
            run(child, values, variables)


def _choose(node: Choice | Auto, seen: dict[str, Any]) -> str | None:
    names = list(node.children)
    if isinstance(node, Auto):
        for name, trigger in zip(names, node.triggers, strict=True):
            if trigger is not None and seen.get(trigger) is not None:
                return name
        return default_of(node)
    given = sum(seen.get(trigger) is not None for trigger in node.triggers)
    if given == 0:
        return node.default
    return names[0] if given == len(node.triggers) else names[-1]


def _run_leaf(leaf: Leaf, values: dict[str, Any], variables: dict[str, int]) -> None:
    taken = variables if leaf.variables is None else {name: variables[name] for name in leaf.variables}
    view = values if leaf.in_loop else _view(leaf, values, variables)
    before = dict(view)
    numbers = [_first(view.get(read.name), read.default, 0) for read in leaf.reads]
    if leaf.changes is not None:
        view[leaf.changes] = ((view.get(leaf.changes) or 0) + 1) % MODULUS
    total = weigh(leaf.constant, numbers, taken)
    for k, name in enumerate(leaf.writes):
        view[name] = (total + k) % MODULUS
    if not leaf.in_loop:
        _write_back(leaf, view, before, values, variables)


def _run_loop(loop: Loop, values: dict[str, Any], variables: dict[str, int]) -> None:
    view = _view(loop, values, variables)
    before = dict(view)
    for index in range(loop.least + view[loop.count] % 4):
        own = {"i": index, "j": 2 * index + 1}
        for child in loop.children.values():
            run(child, view, {**variables, **{name: own[name] for name in loop.gives}})
        view["laps"] = index + 1
        if loop.until is not None and (view.get(loop.until) or 0) >= loop.bound:
            break
    _write_back(loop, view, before, values, variables)


def _view(node: Leaf | Loop, values: dict[str, Any], variables: dict[str, int]) -> dict[str, Any]:
    """The inputs of a block, with defaults for those that have no value.

    A loop has one view for the wrapper and its blocks, with what its conditionals choose by: of the defaults, the last
    counts.
    """
    view: dict[str, Any] = {}
    for param in outside_reads(node) if isinstance(node, Loop) else inputs_of(node):
        value = _first(variables.get(param.name), values.get(param.name))
        if value is None and param.required:
            raise Missing(param.name)
        view[param.name] = _first(value, param.default, view.get(param.name))
    triggers = {name for inner in walk(node) if isinstance(inner, Choice | Auto) for name in inner.triggers if name}
    for name in triggers - view.keys():
        view[name] = _first(variables.get(name), values.get(name))
    return view


def _write_back(
    node: Node, view: dict[str, Any], before: dict[str, Any], values: dict[str, Any], variables: dict[str, int]
) -> None:
    """Outputs go back, and inputs that were changed; a value that was None becomes the default of its first reader."""
    for name in outputs_of(node):
        if name in view:
            values[name] = view[name]
    for name, value in before.items():
        filled_in = values.get(name) is None and name not in variables
        if view[name] != value or (filled_in and view[name] is not None):
            values[name] = view[name]


def _first(*candidates: Any) -> Any:
    """The first that is not None."""
    return next((value for value in candidates if value is not None), None)
