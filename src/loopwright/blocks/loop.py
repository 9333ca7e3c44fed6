"""`LoopSequentialPipelineBlocks`: blocks that run in every iteration of a loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.composite import CompositePipelineBlocks, check_returned
from loopwright.blocks.driving import current_driver, driver_of
from loopwright.blocks.facts import combine_outputs, first_of_each, outside_reads, union, walk
from loopwright.blocks.source import given_variables, has_loop_inside
from loopwright.blocks.variables import RESERVED_VARIABLES, reserved_variable
from loopwright.errors import (
    DefinitionError,
    InvalidInputError,
    NotDefinedError,
    UnknownInputError,
    brief,
    did_you_mean,
    kind_of,
    locate,
)
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec
from loopwright.state import BlockState, loop_record, own_record

__all__ = ["LoopSequentialPipelineBlocks", "hides_loop"]


class LoopSequentialPipelineBlocks(CompositePipelineBlocks):
    """A loop: a wrapper that says what the iterations are, and blocks that run in each of them, on one `BlockState`.

    A wrapper defines `iterate`, a generator of the variables of each iteration:

        class Denoise(LoopSequentialPipelineBlocks):
            loop_inputs = [InputParam("timesteps", required=True)]

            def iterate(self, components, block_state):
                for i, t in enumerate(block_state.timesteps):
                    yield {"i": i, "t": t}

    or `__call__`, which gets a `block_state`, calls `self.loop_step(components, block_state, i=i, t=t)` for each
    iteration, and sets the state. Any block can be a block of a loop, loops too. A block gets those of the loop
    variables that its `__call__` names; blocks of inner loops also see the variables of outer ones, the nearest
    winning.

    Attributes:
        block_classes: the blocks, classes or instances.
        block_names: their names.
    """

    _progress_bar_config: dict[str, Any]

    @property
    def loop_inputs(self) -> list[InputParam]:
        """The values that the wrapper itself reads."""
        return []

    @property
    def loop_intermediate_outputs(self) -> list[OutputParam]:
        """The values that the wrapper itself writes."""
        return []

    @property
    def loop_expected_components(self) -> list[ComponentSpec]:
        """The components that the wrapper itself works with."""
        return []

    @property
    def loop_expected_configs(self) -> list[ConfigSpec]:
        """The configuration values that the wrapper itself reads."""
        return []

    @property
    def loop_required_inputs(self) -> list[str]:
        """The names of the values that the wrapper itself cannot run without."""
        return [param.name for param in self.loop_inputs if param.required and param.name is not None]

    @property
    def loop_variables(self) -> frozenset[str]:
        """The names of the variables that the loop gives in every iteration, as far as its source tells."""
        given = given_variables(type(self), LoopSequentialPipelineBlocks)
        return frozenset() if given is None else given.always

    def _combine_inputs(self) -> list[InputParam]:
        reads = self._outside_reads()
        required = {param.name for param in reads if param.required}
        return [replace(param, required=param.name in required) for param in first_of_each(reads)]

    def _reads(self) -> list[InputParam]:
        # a conditional in the loop sees what it chooses by, also if no block reads it
        return [*self._outside_reads(), *(InputParam(name) for name in sorted(self._get_trigger_inputs()))]

    def _outside_reads(self) -> list[InputParam]:
        """What the wrapper reads, then what its blocks read before it is written in an iteration, as each declares it.

        A block that reads what a later block writes reads the value of the iteration before, and in the first iteration
        an input. What the loop gives as a variable is not asked of the user. As all of them read one `BlockState`, a
        value that one block requires is required of the loop as soon as some reader has no default for it.
        """
        own, blocks = self.loop_inputs, self.sub_blocks.values()
        given = frozenset(self.loop_variables).difference(param.name for param in own if param.name is not None)
        required = {*self.loop_required_inputs, *(name for block in blocks for name in block.required_inputs)}
        return [
            replace(param, required=param.required or (param.default is None and param.name in required))
            for param in union([*own, *outside_reads(blocks)])
            if param.name not in given
        ]

    @property
    def required_inputs(self) -> list[str]:
        """The names of the inputs that the wrapper or one of the blocks requires."""
        return [param.name for param in self.inputs if param.required and param.name is not None]

    def _combine_outputs(self) -> list[OutputParam]:
        of_blocks = [(name, block.intermediate_outputs) for name, block in self.sub_blocks.items()]
        return combine_outputs(*of_blocks, ("", self.loop_intermediate_outputs))

    def _combine_components(self) -> list[ComponentSpec]:
        return union([*super()._combine_components(), *self.loop_expected_components])

    def _combine_configs(self) -> list[ConfigSpec]:
        return union([*super()._combine_configs(), *self.loop_expected_configs])

    @property
    def certain_outputs(self) -> frozenset[str]:
        """None: there may be no iteration."""
        return frozenset()

    def iterate(self, components: Any, block_state: BlockState) -> Iterator[Mapping[str, Any]]:
        """Yield the variables of each iteration.

        The blocks run at the `yield`: the code after it sees what they wrote, and may end the loop by returning.

        Args:
            components: the pipeline.
            block_state: the loop's inputs, and what its blocks have written so far.
        """
        raise NotDefinedError(
            f"the loop `{type(self).__name__}` does not say what its iterations are: define "
            f"`iterate(self, components, block_state)`, which yields a dict of the variables of each iteration"
        )

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        iterations = self.iterate(components, block_state)
        if not hasattr(iterations, "__next__"):
            raise DefinitionError(
                f"`{type(self).__name__}.iterate` returned {kind_of(iterations)}; it must be a generator that yields a "
                f"dict of the variables of each iteration"
            )
        driver = driver_of(components)
        ending: Any = closing(iterations) if hasattr(iterations, "close") else nullcontext()
        with ending:
            for variables in iterations:
                if type(variables) is not dict and not isinstance(variables, Mapping):
                    raise DefinitionError(
                        f"`{type(self).__name__}.iterate` yielded {brief(variables)}; it must yield a dict of loop "
                        f'variables, such as {{"i": i}}'
                    )
                try:
                    components, block_state = self.loop_step(components, block_state, **variables)
                except TypeError as error:
                    if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                        raise
                    raise DefinitionError(self._wrong_names(variables)) from error
                if driver is not None and driver.has_ended(self, block_state):
                    break
        self.set_block_state(state, block_state)
        return components, state

    def _bound_call(self) -> Callable[..., tuple[Any, Any]]:
        own = type(self).__call__ is not LoopSequentialPipelineBlocks.__call__
        return self._call_apart if own else super()._bound_call()

    def _call_apart(self, components: Any, state: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Run a wrapper that may let its blocks work on the state that it is given, as other loops do."""
        with own_record(state):
            return self(components, state, *args, **kwargs)

    def _wrong_names(self, variables: Mapping[Any, Any]) -> str:
        """What to tell an author whose `iterate` yielded names that cannot be those of loop variables."""
        for name in variables:
            if name in RESERVED_VARIABLES:
                return "; ".join(reserved_variable(type(self), "yielded", name))
        name = next((name for name in variables if not isinstance(name, str)), None)
        return (
            f"`{type(self).__name__}.iterate` yielded a loop variable whose name is {brief(name)}; a name must be a "
            f'string, such as {{"i": i}}'
        )

    @classmethod
    def _how_to_give(cls, variable: str) -> str:
        """What the author of the loop does so that it gives a variable."""
        if cls.__call__ is LoopSequentialPipelineBlocks.__call__:
            return f"yield `{variable}` in `{cls.__name__}.iterate`"
        return f"pass `{variable}` to `loop_step` in `{cls.__name__}`"

    def loop_total(self, components: Any, block_state: BlockState) -> int | None:
        """The number of iterations, for those who watch; None where it is not known before the end.

        Args:
            components: the pipeline.
            block_state: the loop's values, before its first iteration.
        """
        return None

    def loop_step(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Run all blocks of the loop once.

        Args:
            components: the pipeline.
            state: the `BlockState` that the blocks share.
            **kwargs: the variables of this iteration.

        Returns:
            `components` and `state`.

        Raises:
            LoopVariableError: a block requires a variable that is not given; none of the blocks ran.
        """
        try:
            loop = state._loop
        except AttributeError:
            raise self._wrong_state(state) from None
        plan = self._sub_blocks.plan
        if loop is None or not loop.plain or plan is None or plan.count != len(kwargs):
            return self._careful_step(components, state, kwargs)
        try:
            picked = plan.pick(kwargs)
        except KeyError:
            return self._careful_step(components, state, kwargs)
        # the plain case, written out: short iterations are what a loop has most of
        loop.iteration += 1
        loop.variables = kwargs
        call = None
        try:
            for call in plan.calls:
                if plan.count == 1:
                    now_components, now_state = call(components, state, picked)
                else:
                    now_components, now_state = call(components, state, *picked)
                if now_state is not state or now_components is not components:
                    name = plan.block_name(call)
                    check_returned(self._sub_blocks[name], state, now_components, now_state)
                    components, state = now_components, now_state
        except Exception as error:
            raise self._located(error, plan.block_name(call), components, state, kwargs)  # noqa: B904
        return components, state

    def _careful_step(self, components: Any, state: Any, variables: dict[str, Any]) -> tuple[Any, Any]:
        driver = driver_of(components)
        if driver is not None:
            return driver.iterate(self, components, state, variables)
        return self.run_iteration(components, state, variables)

    def run_iteration(self, components: Any, state: Any, variables: dict[str, Any]) -> tuple[Any, Any]:
        """Run all blocks of the loop once, whatever their variables, drivers or not."""
        loop = loop_record(state)
        if loop.outer_variables:
            variables = {**loop.outer_variables, **variables}
        loop.iteration += 1
        plan = self._plan(variables)
        loop.plain = not loop.outer_variables and driver_of(components) is None
        loop.variables = variables
        return self._run(plan.steps, components, state, variables)

    def _wrong_state(self, state: Any) -> DefinitionError:
        return DefinitionError(
            f"`{type(self).__name__}` gives `loop_step` {kind_of(state)} as the state; write "
            f"`components, block_state = self.loop_step(components, block_state, i=i)`"
        )

    def _locate(self, error: Exception, name: str, state: Any, variables: dict[str, Any]) -> None:
        locate(error, name, loop_record(state).iteration - 1, variables)

    def _must_set(self, output_name: str, block_state: BlockState) -> bool:
        # without iterations the inputs pass through, and a block that may be skipped may have set nothing
        if block_state._loop is None or block_state._loop.iteration == 0:
            return False
        own = any(param.name == output_name for param in self.loop_intermediate_outputs)
        return own or any(output_name in block.certain_outputs for block in self.sub_blocks.values())

    def _unset_message(self, output_name: str) -> str:
        for path, block in walk(self):
            if not block.sub_blocks and output_name in block.certain_outputs:
                return (
                    f"block `{path}` (`{type(block).__name__}`) of the loop declares the output `{output_name}` and "
                    f"did not set it: assign `block_state.{output_name}`, or take it out of `intermediate_outputs`"
                )
        return (
            f"`{type(self).__name__}` declares the output `{output_name}` and did not set it: assign "
            f"`block_state.{output_name}`, or take it out of `loop_intermediate_outputs`"
        )

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        """A progress bar (`tqdm`) for the iterations.

        Args:
            iterable: what to go through, in which case the bar moves by itself.
            total: the number of iterations, in which case `bar.update()` moves it.

        Raises:
            InvalidInputError: neither is given, or a number is given to go through.
        """
        from tqdm.auto import tqdm

        if isinstance(iterable, int):
            raise InvalidInputError(
                f"`progress_bar` cannot go through {iterable}; for a number of iterations write "
                f"`self.progress_bar(total={iterable})`"
            )
        config = self.__dict__.get("_progress_bar_config", {})
        driver = current_driver.get()
        if driver is not None:
            length = len(iterable) if total is None and hasattr(iterable, "__len__") else total
            config = driver.bar_config(self, config, length)
        if iterable is not None:
            return tqdm(iterable, **config)
        if total is not None:
            return tqdm(total=total, **config)
        raise InvalidInputError("`progress_bar` needs `iterable`, to go through, or `total`, the number of iterations")

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Set the arguments of the progress bar (`disable=True`, `desc="denoise"`), instead of those set before.

        Raises:
            UnknownInputError: a progress bar has no such argument, or it is set by the loop.
        """
        from tqdm import tqdm

        known = {*inspect.signature(tqdm.__init__).parameters, "display"} - {"self", "iterable", "total", "kwargs"}
        for name in kwargs:
            if name not in known:
                raise UnknownInputError(f"a progress bar takes no `{name}` here{did_you_mean(name, known)}")
        self._progress_bar_config = kwargs


def hides_loop(block: ModularPipelineBlocks) -> bool:
    """Whether a block that is no loop goes through iterations by itself, by its source.

    A run does not see them: they are neither events nor saved, and what ends or pauses it acts at calls of models.
    """
    return not isinstance(block, LoopSequentialPipelineBlocks) and has_loop_inside(type(block), ModularPipelineBlocks)
