"""Trees of blocks by description: what a test draws at random, builds with a library, and interprets by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d", "e")
VARIABLES = ("i", "j")
MODULUS = 199  # values stay among the integers that Python holds once, so that "changed" means the same as "unequal"


@dataclass
class Read:
    """An input of a leaf. One that is required has no default."""

    name: str
    default: int | None = None
    required: bool = False


@dataclass(eq=False)
class Leaf:
    """A block that adds up what it reads.

    Attributes:
        in_loop: whether it works on the `BlockState` of the loop itself, instead of taking its own from the state.
        variables: the loop variables that its `__call__` names; None if it takes all there are.
        changes: an input that it changes though it is not among its outputs.
    """

    reads: list[Read]
    writes: list[str]
    constant: int
    in_loop: bool = False
    variables: tuple[str, ...] | None = ()
    changes: str | None = None
    component: str | None = None


@dataclass(eq=False)
class Composite:
    """A sequence.

    Attributes:
        children: the blocks by name.
        visible: the variables of the loops around the children.
        inside_loop: whether there is one.
    """

    children: dict[str, Any]
    visible: tuple[str, ...] = ()
    inside_loop: bool = False


@dataclass(eq=False)
class Choice(Composite):
    """A conditional: nothing given chooses the default, all triggers given the first block, some of them the last."""

    triggers: tuple[str, ...] = ()
    default: str | None = None


@dataclass(eq=False)
class Auto(Composite):
    """The first block whose trigger is given; None is the trigger of the default."""

    triggers: tuple[str | None, ...] = ()


@dataclass(eq=False)
class Loop(Composite):
    """`least + count % 4` iterations; ends early once the value `until` has reached `bound`.

    Attributes:
        gives: the variables of its iterations.
        by_hand: whether it has a `__call__`, rather than `iterate`.
        count: the input that says how often.
    """

    gives: tuple[str, ...] = ("i",)
    by_hand: bool = False
    count: str = "a"
    count_default: int = 2
    least: int = 0
    until: str | None = None
    bound: int = 0


Node = Leaf | Composite


@dataclass
class Param:
    """What the contracts say about an input of a tree: `defaults` has several entries if branches disagree."""

    name: str
    defaults: tuple[int | None, ...]
    required: bool = False

    @property
    def default(self) -> int | None:
        return self.defaults[0] if len(set(self.defaults)) == 1 else None


def weigh(constant: int, values: list[int], variables: dict[str, int]) -> int:
    """The sum that a leaf computes. Both the blocks and the interpreter use it: it is arithmetic, not semantics."""
    weighted = sum((k + 2) * value for k, value in enumerate(values))
    return (constant + weighted + sum((ord(name) - 96) * value for name, value in variables.items())) % MODULUS


def blocks_of(library: ModuleType) -> SimpleNamespace:
    """The classes from which trees are built, on the classes of a library (loopwright's or diffusers')."""
    InputParam, OutputParam = library.InputParam, library.OutputParam

    class Compute(library.ModularPipelineBlocks):
        description = "adds up what it reads"

        def __init__(self, leaf: Leaf) -> None:
            super().__init__()
            self.reads = list(leaf.reads)
            self.writes = list(leaf.writes)
            self.constant = leaf.constant
            self.in_loop = leaf.in_loop
            self.changes = leaf.changes
            self.component = leaf.component

        @property
        def inputs(self) -> list[Any]:
            return [InputParam(read.name, default=read.default, required=read.required) for read in self.reads]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [OutputParam(name) for name in self.writes]

        @property
        def expected_components(self) -> list[Any]:
            return [library.ComponentSpec(self.component, type_hint=int)] if self.component else []

        def compute(self, components: Any, state: Any, **variables: int) -> tuple[Any, Any]:
            block_state = state if self.in_loop else self.get_block_state(state)
            values = []
            for read in self.reads:
                value = block_state[read.name]
                values.append((read.default or 0) if value is None else value)
            if self.changes is not None:
                block_state[self.changes] = ((block_state[self.changes] or 0) + 1) % MODULUS
            total = weigh(self.constant, values, variables)
            for k, name in enumerate(self.writes):
                block_state[name] = (total + k) % MODULUS
            if not self.in_loop:
                self.set_block_state(state, block_state)
            return components, state

    class ComputeAlone(Compute):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            return self.compute(components, state)

    class ComputeWithI(Compute):
        def __call__(self, components: Any, state: Any, i: int) -> tuple[Any, Any]:
            return self.compute(components, state, i=i)

    class ComputeWithJ(Compute):
        def __call__(self, components: Any, state: Any, *, j: int) -> tuple[Any, Any]:
            return self.compute(components, state, j=j)

    class ComputeWithBoth(Compute):
        def __call__(self, components: Any, state: Any, j: int, i: int) -> tuple[Any, Any]:
            return self.compute(components, state, i=i, j=j)

    class ComputeWithAll(Compute):
        def __call__(self, components: Any, state: Any, **variables: int) -> tuple[Any, Any]:
            return self.compute(components, state, **variables)

    class Pick(library.ConditionalPipelineBlocks):
        description = "one block, chosen by how many triggers are given"

        def select_block(self, **triggers: Any) -> str | None:
            given = [value for value in triggers.values() if value is not None]
            if not given:
                return None
            return self.block_names[0] if len(given) == len(triggers) else self.block_names[-1]

    class Repeating(library.LoopSequentialPipelineBlocks):
        description = "a loop"
        loop: Loop

        @property
        def loop_inputs(self) -> list[Any]:
            return [InputParam(self.loop.count, default=self.loop.count_default)]

        @property
        def loop_intermediate_outputs(self) -> list[Any]:
            return [OutputParam("laps")]

        def indices(self, block_state: Any) -> range:
            return range(self.loop.least + block_state[self.loop.count] % 4)

        def ends(self, block_state: Any, index: int) -> bool:
            block_state["laps"] = index + 1
            return self.loop.until is not None and (block_state[self.loop.until] or 0) >= self.loop.bound

    class RepeatI(Repeating):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, int]]:
            for index in self.indices(block_state):
                yield {"i": index}
                if self.ends(block_state, index):
                    return

    class RepeatJ(Repeating):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, int]]:
            for index in self.indices(block_state):
                yield {"j": 2 * index + 1}
                if self.ends(block_state, index):
                    return

    class RepeatBoth(Repeating):
        def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, int]]:
            for index in self.indices(block_state):
                yield dict(i=index, j=2 * index + 1)  # noqa: C408
                if self.ends(block_state, index):
                    return

    class ByHandI(Repeating):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for index in self.indices(block_state):
                components, block_state = self.loop_step(components, block_state, i=index)
                if self.ends(block_state, index):
                    break
            self.set_block_state(state, block_state)
            return components, state

    class ByHandJ(Repeating):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for index in self.indices(block_state):
                components, block_state = self.loop_step(components, block_state, j=2 * index + 1)
                if self.ends(block_state, index):
                    break
            self.set_block_state(state, block_state)
            return components, state

    class ByHandBoth(Repeating):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            block_state = self.get_block_state(state)
            for index in self.indices(block_state):
                components, block_state = self.loop_step(components, block_state, i=index, j=2 * index + 1)
                if self.ends(block_state, index):
                    break
            self.set_block_state(state, block_state)
            return components, state

    return SimpleNamespace(
        leaves={
            (): ComputeAlone,
            ("i",): ComputeWithI,
            ("j",): ComputeWithJ,
            ("i", "j"): ComputeWithBoth,
            None: ComputeWithAll,
        },
        loops={
            (("i",), False): RepeatI,
            (("j",), False): RepeatJ,
            (("i", "j"), False): RepeatBoth,
            (("i",), True): ByHandI,
            (("j",), True): ByHandJ,
            (("i", "j"), True): ByHandBoth,
        },
        sequence=library.SequentialPipelineBlocks,
        choice=Pick,
        auto=library.AutoPipelineBlocks,
    )


def build(node: Node, classes: SimpleNamespace, built: dict[int, Any] | None = None) -> Any:
    """A tree of blocks. A node that stands in several places becomes one block in several places.

    Args:
        node: the description.
        classes: from `blocks_of`.
        built: the blocks by the `id` of their nodes, to which new ones are added.
    """
    built = {} if built is None else built
    if id(node) not in built:
        built[id(node)] = _build(node, classes, built)
        # a node that is gone could leave its id to another; no object has the id 0
        built.setdefault(0, []).append(node)
    return built[id(node)]


def _build(node: Node, classes: SimpleNamespace, built: dict[int, Any]) -> Any:
    if isinstance(node, Leaf):
        return classes.leaves[node.variables](node)
    children = {name: build(child, classes, built) for name, child in node.children.items()}
    if isinstance(node, Choice | Auto):
        fields = {
            "block_names": list(children),
            "block_classes": list(children.values()),
            "block_trigger_inputs": list(node.triggers),
        }
        if isinstance(node, Choice):
            return type("Choice", (classes.choice,), {**fields, "default_block_name": node.default})()
        return type("Auto", (classes.auto,), {**fields, "description": "one block, chosen by what is given"})()
    if isinstance(node, Loop):
        loop = classes.loops[node.gives, node.by_hand].from_blocks_dict(children)
        loop.loop = node
        return loop
    return classes.sequence.from_blocks_dict(children)


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in getattr(node, "children", {}).values():
        yield from walk(child)


# Strategies


def integers() -> st.SearchStrategy[int]:
    return st.integers(0, 9)


@st.composite
def leaves(draw: st.DrawFn, visible: tuple[str, ...] = (), inside_loop: bool = False, peer: bool = False) -> Leaf:
    """A leaf for a place inside loops that give the `visible` variables.

    Args:
        peer: whether it is for a place that diffusers supports.
    """
    in_loop = inside_loop and (peer or draw(st.booleans()))
    readable = NAMES if in_loop else (*NAMES, *visible)
    reads = [
        draw(
            st.one_of(
                st.builds(Read, st.just(name), integers()),
                st.builds(Read, st.just(name)),
                st.builds(Read, st.just(name), required=st.just(True)),
            )
        )
        for name in draw(st.lists(st.sampled_from(readable), unique=True, max_size=3))
    ]
    writes = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
    changeable = [read.name for read in reads if read.name in NAMES]
    if peer:
        variables = visible
    else:
        choices: list[tuple[str, ...] | None] = [(), ("i",), ("j",), ("i", "j"), None]
        variables = draw(st.sampled_from([c for c in choices if c is None or set(c) <= set(visible)]))
        if variables is None and not visible:
            variables = ()
    return Leaf(
        reads=reads,
        writes=writes,
        constant=draw(integers()),
        in_loop=in_loop,
        variables=variables,
        changes=draw(st.sampled_from(changeable)) if changeable and draw(st.booleans()) else None,
        component=draw(st.sampled_from([None, "model", "scheduler"])),
    )


@st.composite
def nodes(
    draw: st.DrawFn, depth: int = 4, visible: tuple[str, ...] = (), inside_loop: bool = False, peer: bool = False
) -> Node:
    """A tree at most `depth` composites deep, for a place as in `leaves`."""
    leaf_only = depth == 0 or (peer and inside_loop)
    kind = (
        "leaf" if leaf_only else draw(st.sampled_from(["leaf", "leaf", "sequence", "loop", "loop", "choice", "auto"]))
    )
    if kind == "leaf":
        return draw(leaves(visible, inside_loop, peer))
    return draw(composites(kind, depth, visible, inside_loop, peer))


@st.composite
def composites(
    draw: st.DrawFn,
    kind: str | None = None,
    depth: int = 4,
    visible: tuple[str, ...] = (),
    inside_loop: bool = False,
    peer: bool = False,
) -> Composite:
    """A tree with a composite at its root, for a place as in `leaves`."""
    kind = kind or draw(st.sampled_from(["sequence", "sequence", "loop", "choice", "auto"]))
    gives = draw(st.sampled_from([("i",), ("j",), ("i", "j")])) if kind == "loop" else ()
    within = tuple(name for name in VARIABLES if name in visible or name in gives)
    inside = inside_loop or kind == "loop"
    width = draw(st.integers(1, 3))
    children = {f"{kind}{k}": draw(nodes(depth - 1, within, inside, peer)) for k in range(width)}
    place = {"children": children, "visible": within, "inside_loop": inside}
    if kind == "loop":
        return Loop(
            **place,
            gives=gives,
            by_hand=peer or draw(st.booleans()),
            count=draw(st.sampled_from(NAMES)),
            count_default=draw(integers()),
            least=1 if peer else 0,
            until=draw(st.sampled_from([None, *NAMES])),
            bound=draw(st.integers(0, MODULUS)),
        )
    readable = (*NAMES, *visible)
    if kind == "choice":
        triggers = tuple(draw(st.lists(st.sampled_from(readable), unique=True, min_size=1, max_size=2)))
        return Choice(**place, triggers=triggers, default=draw(st.sampled_from([None, *children])))
    if kind == "auto":
        named = draw(st.lists(st.sampled_from(readable), min_size=width, max_size=width))
        if draw(st.booleans()):
            named[draw(st.integers(0, width - 1))] = None  # type: ignore[call-overload]
        return Auto(**place, triggers=tuple(named))
    return Composite(**place)
