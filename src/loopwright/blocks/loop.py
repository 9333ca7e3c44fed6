"""`LoopSequentialPipelineBlocks`: blocks that run in every iteration of a loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from loopwright.blocks.composite import CompositePipelineBlocks
from loopwright.blocks.facts import combine_outputs, loop_inputs, union
from loopwright.blocks.source import given_variables
from loopwright.errors import DefinitionError, InvalidInputError, locate
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec
from loopwright.state import BlockState

__all__ = ["LoopSequentialPipelineBlocks"]


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
        children = self.sub_blocks.values()
        required = {*self.loop_required_inputs, *(name for block in children for name in block.required_inputs)}
        own = {param.name for param in self.loop_inputs}
        # what the loop gives as a variable is not asked of the user
        return [
            replace(param, required=param.name in required)
            for param in loop_inputs(self.loop_inputs, children)
            if param.name in own or param.name not in self.loop_variables
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
        raise DefinitionError(
            f"the loop `{type(self).__name__}` does not say what its iterations are: define `iterate`, which yields "
            f"a dict of the variables of each iteration"
        )

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        iterations = self.iterate(components, block_state)
        if not hasattr(iterations, "__next__"):
            raise DefinitionError(
                f"`{type(self).__name__}.iterate` returned a {type(iterations).__name__}; it must be a generator that "
                f"yields a dict of the variables of each iteration"
            )
        with closing(iterations):  # type: ignore[type-var]
            for variables in iterations:
                if not isinstance(variables, Mapping):
                    raise DefinitionError(
                        f"`{type(self).__name__}.iterate` yielded {variables!r}; it must yield a dict of loop "
                        f'variables, such as {{"i": i}}'
                    )
                components, block_state = self.loop_step(components, block_state, **variables)
        self.set_block_state(state, block_state)
        return components, state

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
        state._iteration += 1
        if state._outer_variables:
            kwargs = {**state._outer_variables, **kwargs}
        plan = self._sub_blocks.plan
        if plan is None or plan.count != len(kwargs):
            plan = self._plan(kwargs)
        try:
            variables = plan.pick(kwargs)
        except KeyError:
            plan = self._plan(kwargs)
            variables = plan.pick(kwargs)
        state._variables = kwargs
        if plan.calls is None:
            return self._run(plan.steps, components, state, kwargs)
        # the plain case, written out: short iterations are what a loop has most of
        arguments = (components, state, *variables)
        call = None
        try:
            for call in plan.calls:
                now_components, now_state = call(*arguments)
                if now_state is not state or now_components is not components:
                    components, state = now_components, now_state
                    arguments = (components, state, *variables)
        except Exception as error:
            raise self._located(error, plan.block_name(call), state, kwargs)  # noqa: B904
        return components, state

    def _locate(self, error: Exception, name: str, state: Any, variables: dict[str, Any]) -> None:
        locate(error, name, state._iteration - 1, variables)

    def _must_set(self, output_name: str, block_state: BlockState) -> bool:
        # without iterations the inputs pass through, and a block that may be skipped may have set nothing
        if block_state._iteration == 0:
            return False
        own = any(param.name == output_name for param in self.loop_intermediate_outputs)
        return own or any(output_name in block.certain_outputs for block in self.sub_blocks.values())

    def _unset_message(self, output_name: str) -> str:
        for name, block in self.sub_blocks.items():
            if output_name in block.certain_outputs:
                return f"in the loop block `{name}`: {block._unset_message(output_name)}"
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
            InvalidInputError: neither is given.
        """
        from tqdm.auto import tqdm

        config = self.__dict__.get("_progress_bar_config", {})
        if iterable is not None:
            return tqdm(iterable, **config)
        if total is not None:
            return tqdm(total=total, **config)
        raise InvalidInputError("`progress_bar` needs `iterable`, to go through, or `total`, the number of iterations")

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Set the arguments of the progress bar (`disable=True`, `desc="denoise"`), instead of those set before."""
        self._progress_bar_config = kwargs
