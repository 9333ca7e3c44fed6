"""`CompositePipelineBlocks`: what sequences, conditionals and loops have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, Self

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.declarations import is_list, misspelt_attributes, require_declarations
from loopwright.blocks.driving import driver_of
from loopwright.blocks.facts import cached, combine_outputs, fresh, union, walk
from loopwright.blocks.missing_component import missing_component
from loopwright.blocks.sub_blocks import SubBlocks
from loopwright.blocks.variables import loop_variables_of, missing_variable
from loopwright.errors import (
    BlockTypeError,
    DefinitionError,
    LoopVariableError,
    LoopwrightError,
    OutputNotSetError,
    UnknownValueError,
    article,
    kind_of,
    locate,
)
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec
from loopwright.state import BlockState, PipelineState

__all__ = ["CompositePipelineBlocks"]


class Step(NamedTuple):
    """How a composite calls one of its blocks, when the loop variables in sight have certain names.

    Attributes:
        name: the name of the block.
        call: its bound `__call__`.
        variables: the names of the loop variables that it gets; None if it gets all of them.
        outputs: the outputs that it is sure to set, if it is a leaf; empty otherwise, as composites look after their
            own.
    """

    name: str
    call: Callable[..., tuple[Any, Any]]
    variables: tuple[str, ...] | None
    outputs: tuple[str, ...]


class Plan:
    """How a composite runs its blocks when the loop variables in sight have certain names.

    Attributes:
        names: those names.
        steps: a step for each block.
        calls: the calls of the blocks, if all of them take exactly these variables, in this order; none otherwise.
            They can be made with positional arguments then, which is what a loop of many short iterations spends its
            time on.
        count: how many names there are; -1 if the calls cannot be made so.
        pick: takes the variables out of a dict, as a tuple in the order of `names`; the value alone if there is one.
    """

    __slots__ = ("calls", "count", "names", "pick", "steps")

    def __init__(self, names: list[str], steps: tuple[Step, ...], uniform: bool) -> None:
        self.names = names
        self.count = len(names) if uniform else -1
        self.pick = _picker(names)
        self.steps = steps
        self.calls = tuple(step.call for step in steps) if uniform else ()

    def block_name(self, call: Any) -> str:
        """The name of the block that a call belongs to."""
        return next((step.name for step in self.steps if step.call is call), "")


def _picker(names: list[str]) -> Callable[[Mapping[str, Any]], Any]:
    """Takes the values of names out of a dict, as a tuple; the value alone if there is one."""
    return itemgetter(*names) if names else lambda variables: ()


class CompositePipelineBlocks(ModularPipelineBlocks):
    """A block that is made of blocks.

    Attributes:
        block_classes: the blocks, classes or instances, from which an instance makes its `sub_blocks`.
        block_names: their names.
    """

    block_classes: list[Any] = []
    block_names: list[str] = []

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if (args or kwargs) and cls.__init__.__module__.startswith("loopwright.blocks."):
            raise BlockTypeError(
                f"`{cls.__name__}()` takes no blocks; to put some together, give each a name: "
                f'`{cls.__name__}.from_blocks_dict({{"name": block}})`'
            )
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__()
        for attribute in ("block_classes", "block_names"):
            self._require_list(attribute)
        if len(self.block_names) != len(self.block_classes):
            misspelt = "".join(f"; it says `{w}`, did you mean `{r}`?" for w, r in misspelt_attributes(type(self)))
            raise DefinitionError(
                f"`{type(self).__name__}` has {len(self.block_classes)} block_classes and {len(self.block_names)} "
                f"block_names; each block needs one name{misspelt}"
            )
        twice = next((name for name, count in Counter(self.block_names).items() if count > 1), None)
        if twice is not None:
            raise DefinitionError(
                f"`{type(self).__name__}.block_names` has `{twice}` more than once; each block needs a name of its own"
            )
        self.sub_blocks = SubBlocks(zip(self.block_names, self.block_classes, strict=True))

    def _require_list(self, attribute: str) -> None:
        value = getattr(self, attribute)
        if not is_list(value):
            given = repr(value) if isinstance(value, str) else kind_of(value)
            raise DefinitionError(f"`{type(self).__name__}.{attribute}` must be a list, not {given}")

    @classmethod
    def from_blocks_dict(cls, blocks_dict: Mapping[str, Any], description: str | None = None) -> Self:
        """A composite of the given blocks.

        Args:
            blocks_dict: the blocks by name, instances or classes, in the order in which they run.
            description: replaces the description of the class.

        Raises:
            BlockTypeError: an item is not a block.
        """
        if not isinstance(blocks_dict, Mapping):
            raise BlockTypeError(
                f"`{cls.__name__}.from_blocks_dict` takes a dict of names and blocks, not {kind_of(blocks_dict)}; "
                f'write `{cls.__name__}.from_blocks_dict({{"name": block}})`'
            )
        composite = cls()
        composite.sub_blocks = SubBlocks(blocks_dict)
        composite.block_names = list(composite.sub_blocks)
        composite.block_classes = [type(block) for block in composite.sub_blocks.values()]
        if description is not None:
            composite.description = description
        return composite

    # What the composites compute from their blocks. The public properties give out copies of it.

    def _combine_inputs(self) -> list[InputParam]:
        raise NotImplementedError

    def _combine_outputs(self) -> list[OutputParam]:
        return combine_outputs(*((name, block.intermediate_outputs) for name, block in self.sub_blocks.items()))

    def _combine_components(self) -> list[ComponentSpec]:
        return union(spec for block in self.sub_blocks.values() for spec in block.expected_components)

    def _combine_configs(self) -> list[ConfigSpec]:
        return union(spec for block in self.sub_blocks.values() for spec in block.expected_configs)

    def _derived(self, key: str, combine: Callable[[Any], Any]) -> Any:
        """What follows from the declarations of the blocks.

        Raises:
            DefinitionError: what a block declares cannot be read.
        """
        try:
            return cached(self, key, combine)
        except (AttributeError, TypeError):
            for _, block in walk(self):
                require_declarations(block)
            raise

    @property
    def inputs(self) -> list[InputParam]:
        return fresh(self._derived("inputs", type(self)._combine_inputs))

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return fresh(self._derived("outputs", type(self)._combine_outputs))

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return list(self._derived("components", type(self)._combine_components))

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        return list(self._derived("configs", type(self)._combine_configs))

    @property
    def required_inputs(self) -> list[str]:
        """The names of the inputs that one of the blocks requires."""
        names = dict.fromkeys(name for block in self.sub_blocks.values() for name in block.required_inputs)
        taken = set(self.input_names)
        return [name for name in names if name in taken]

    @property
    def certain_outputs(self) -> frozenset[str]:
        return frozenset().union(*(block.certain_outputs for block in self.sub_blocks.values()))

    @property
    def model_name(self) -> str | None:  # type: ignore[override]
        return next((block.model_name for block in self.sub_blocks.values() if block.model_name is not None), None)

    @property
    def _requirements(self) -> dict[str, Any]:  # type: ignore[override]
        found = ((name, getattr(block, "_requirements", None)) for name, block in self.sub_blocks.items())
        return {name: requirements for name, requirements in found if requirements}

    # How the composites run their blocks.

    def _plan(self, variables: Mapping[str, Any]) -> Plan:
        """The plan for loop variables of these names, made anew when the blocks or the names change."""
        plan: Plan | None = self._sub_blocks.plan
        names = [*variables]
        if plan is None or plan.names != names:
            steps = tuple(self._step(name, block, names) for name, block in self._sub_blocks.items())
            uniform = all(
                loop_variables_of(type(b)).positional[: len(names)] == tuple(names) for b in self._sub_blocks.values()
            )
            plan = self._sub_blocks.plan = Plan(names, steps, uniform)
        return plan

    def _step(self, name: str, block: ModularPipelineBlocks, names: list[str]) -> Step:
        wanted = loop_variables_of(type(block))
        missing = [variable for variable in wanted.required if variable not in names]
        if missing:
            loop = type(self) if hasattr(self, "loop_step") else None
            raise LoopVariableError("; ".join(missing_variable(name, block, missing[0], names, loop)))
        takes = names if wanted.any else [n for n in names if n in wanted.required or n in wanted.optional]
        return Step(
            name=name,
            call=block._bound_call(),
            variables=None if takes == names else tuple(takes),
            outputs=() if block.sub_blocks else tuple(sorted(block.certain_outputs)),
        )

    def _run(self, steps: Iterable[Step], components: Any, state: Any, variables: dict[str, Any]) -> tuple[Any, Any]:
        """Run steps one after the other.

        Args:
            steps: some of the steps of the plan for the names of `variables`.
            components: the pipeline.
            state: a `PipelineState`, or in a loop the `BlockState`.
            variables: the loop variables in sight.

        Raises:
            OutputNotSetError: at the top of a pipeline, a leaf did not set an output that it declares.
        """
        at_top = type(state) is PipelineState
        driver = driver_of(components)
        if driver is not None:
            steps = driver.walk(steps)
        for name, call, wanted, outputs in steps:
            try:
                if not variables:
                    now_components, now_state = call(components, state)
                elif wanted is None:
                    now_components, now_state = call(components, state, **variables)
                else:
                    now_components, now_state = call(components, state, **{key: variables[key] for key in wanted})
                if now_state is not state or now_components is not components:
                    check_returned(self._sub_blocks[name], state, now_components, now_state)
                    components, state = now_components, now_state
                if at_top and outputs:
                    for output in outputs:
                        if output not in state.values and output in self._sub_blocks[name].certain_outputs:
                            raise OutputNotSetError(self._sub_blocks[name]._unset_message(output))
            except Exception as error:
                raise self._located(error, name, components, state, variables)  # noqa: B904
        return components, state

    def _located(
        self, error: Exception, name: str, components: Any, state: Any, variables: dict[str, Any]
    ) -> Exception:
        """The exception to raise for one that came out of a block: the same, with its location."""
        error = explained(error, self._sub_blocks[name], components, state)
        self._locate(error, name, state, variables)
        return error

    def _locate(self, error: Exception, name: str, state: Any, variables: dict[str, Any]) -> None:
        locate(error, name)


def run_whole(blocks: ModularPipelineBlocks, components: Any, state: PipelineState) -> PipelineState:
    """Run the blocks of a pipeline, and return the state that they leave.

    Raises:
        DefinitionError: they do not return `components` and the state.
    """
    try:
        now_components, now_state = blocks(components, state)
    except Exception as error:
        raise explained(error, blocks, components, state)  # noqa: B904
    check_returned(blocks, state, now_components, now_state)
    return now_state  # type: ignore[no-any-return]


def explained(error: Exception, block: ModularPipelineBlocks, components: Any, state: Any) -> Exception:
    """The error itself, or what it means if it comes from taking apart what the block returned.

    An error about None is most likely about a component of the block that is not loaded.

    Args:
        error: what the caller of the block caught.
        block: the block.
        components: what the block was called with.
        state: the same.
    """
    if not isinstance(error, (AttributeError, TypeError, ValueError)) or isinstance(error, LoopwrightError):
        return error
    if type(error) is AttributeError and type(error.obj) is BlockState:
        unknown = UnknownValueError(str(error.name), vars(error.obj), holder="the block state")
        return unknown.with_traceback(error.__traceback__)
    text = str(error)
    raised_here = error.__traceback__ is not None and error.__traceback__.tb_next is None
    single = re.search(r"non-iterable (\S+) object|'(\S+)' object is not iterable", text)
    if not raised_here or not (single or "unpack" in text):
        if "'NoneType' object" in text and not hasattr(error, "loopwright"):
            return missing_component(error, block, components)
        return error
    if single is None:
        return _wrong_return(block, state, "more than two values" if "too many" in text else "fewer than two values")
    kind = single[1] or single[2]
    known = {"NoneType": "nothing", "PipelineState": "only the state", "BlockState": "only the block state"}
    known[type(components).__name__] = "only `components`"
    return _wrong_return(block, state, known.get(kind, f"only {article(kind)} {kind}"))


def check_returned(block: ModularPipelineBlocks, state: Any, now_components: Any, now_state: Any) -> None:
    """Check the two values that a block returned.

    Args:
        block: the block.
        state: what it was called with.
        now_components: the first value.
        now_state: the second.

    Raises:
        DefinitionError: the second is not such a state, or the first cannot be `components`.
    """
    states = (PipelineState, BlockState)
    if isinstance(now_components, type(state)) and not isinstance(now_state, states):
        raise DefinitionError(
            f"`{type(block).__name__}.__call__` returned its two values in the wrong order, the state first; write "
            f"`return components, {_state_name(state)}`"
        )
    if isinstance(now_state, BlockState) and not isinstance(state, BlockState):
        raise DefinitionError(
            f"`{type(block).__name__}.__call__` returned the block state in place of the state; put it back with "
            f"`self.set_block_state(state, block_state)`, and write `return components, state`"
        )
    if not isinstance(now_state, type(state)):
        raise _wrong_return(block, state, f"{kind_of(now_state)} as the state")
    if isinstance(now_components, states):
        raise _wrong_return(block, state, f"{kind_of(now_components)} as `components`")


def _wrong_return(block: ModularPipelineBlocks, state: Any, what: str) -> DefinitionError:
    return DefinitionError(
        f"`{type(block).__name__}.__call__` returned {what}; it must return two values: "
        f"`return components, {_state_name(state)}`"
    )


def _state_name(state: Any) -> str:
    """What the state is called in the documentation."""
    return "block_state" if isinstance(state, BlockState) else "state"
