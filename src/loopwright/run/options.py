"""The options that a call, `start` and `stream` share; no input of a pipeline may take their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loopwright.blocks import LoopSequentialPipelineBlocks, ModularPipelineBlocks, walk
from loopwright.blocks.source import given_variables
from loopwright.errors import InvalidInputError, did_you_mean
from loopwright.run.checkpoints import Checkpoint

__all__ = ["Callbacks", "RunOptions", "StepEnd", "require_steps"]

_STEP_END = "callback_on_step_end"
_TENSOR_INPUTS = "callback_on_step_end_tensor_inputs"
_ON_EVENT = "on_event"


@dataclass(frozen=True)
class StepEnd:
    """A callback in the convention of diffusers, with the names of the values that it is given.

    Attributes:
        function: called as `function(pipe, i, t, callback_kwargs)`; returns a dict of values to change, or None.
        tensor_inputs: the names of the values in `callback_kwargs`.
    """

    function: Callable[[Any, int, Any, dict[str, Any]], Mapping[str, Any] | None]
    tensor_inputs: tuple[str, ...] = ("latents",)


@dataclass(frozen=True)
class Callbacks:
    """What is called after each iteration: callbacks of a step's end, and plain ones that get the event."""

    step_end: tuple[StepEnd, ...] = ()
    on_event: tuple[Callable[[Any], Any], ...] = ()

    @classmethod
    def read(cls, given: Any) -> Callbacks:
        """The callbacks that a caller gave: one, several, or a dict under the names that diffusers has for them.

        A callable that names four arguments, or has `tensor_inputs` (a `PipelineCallback` of diffusers), is called at
        the end of a step; one that can be called with one argument gets the event.

        Raises:
            InvalidInputError: it is none of these.
        """
        if given is None:
            return cls()
        if isinstance(given, Mapping):
            return cls._read_named(given)
        step_end: list[StepEnd] = []
        on_event: list[Callable[[Any], Any]] = []
        several = isinstance(given, Iterable) and not isinstance(given, str) and not callable(given)
        for callback in given if several else [given]:
            if isinstance(callback, StepEnd):
                step_end.append(callback)
            elif callable(callback) and hasattr(callback, "tensor_inputs"):
                step_end.append(StepEnd(callback, tuple(callback.tensor_inputs)))
            elif callable(callback):
                if _takes(callback, 4) and (_names_arguments(callback, 4) or not _takes(callback, 1)):
                    step_end.append(StepEnd(callback))
                elif _takes(callback, 1):
                    on_event.append(callback)
                else:
                    raise InvalidInputError(
                        f"the callback {_name(callback)} takes neither one argument, the event, nor the four of "
                        f"`{_STEP_END}`: write `def callback(event)`, or `def callback(pipe, i, t, callback_kwargs)`"
                    )
            else:
                raise InvalidInputError(
                    f"`callbacks` holds {callback!r}, which cannot be called; give a function that takes the event"
                )
        return cls(tuple(step_end), tuple(on_event))

    @classmethod
    def _read_named(cls, given: Mapping[str, Any]) -> Callbacks:
        names = (_STEP_END, _TENSOR_INPUTS, _ON_EVENT)
        for name in given:
            if name not in names:
                raise InvalidInputError(
                    f"`callbacks` has an entry `{name}`{did_you_mean(name, names)}; it may have "
                    f"{', '.join(f'`{known}`' for known in names)}"
                )
        step_end = given.get(_STEP_END)
        on_event = given.get(_ON_EVENT)
        for name, function in ((_STEP_END, step_end), (_ON_EVENT, on_event)):
            if function is not None and not callable(function):
                raise InvalidInputError(f"`callbacks` has {function!r} as `{name}`, which cannot be called")
        tensor_inputs = tuple(given.get(_TENSOR_INPUTS) or getattr(step_end, "tensor_inputs", None) or ("latents",))
        return cls(
            () if step_end is None else (StepEnd(step_end, tensor_inputs),), () if on_event is None else (on_event,)
        )


@dataclass(frozen=True)
class RunOptions:
    """The options of one run.

    Attributes:
        output: what is returned: a name, a list of names, None for the state.
        callbacks: what is called after each iteration.
        checkpoint: where and how often the run is saved, None for never.
        timeout: seconds that the run may take, None for no limit. Time for which it waits, for whoever
            paused it, for a reader or for its turn to begin, does not count.
        progress: False hides progress bars, True shows them, None leaves it to the blocks.
    """

    output: Any = None
    callbacks: Callbacks = Callbacks()
    checkpoint: Checkpoint | None = None
    timeout: float | None = None
    progress: bool | None = None

    @classmethod
    def read(
        cls,
        output: Any = None,
        callbacks: Any = None,
        checkpoint: Any = None,
        timeout: Any = None,
        progress: Any = None,
    ) -> RunOptions:
        """The options as a caller gave them.

        Raises:
            InvalidInputError: one of them cannot be used.
        """
        if timeout is not None and (
            isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0
        ):
            raise InvalidInputError(f"`timeout` is {timeout!r}; it must be a positive number of seconds")
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            raise InvalidInputError(
                f"`checkpoint` is {checkpoint!r}; it must be a `Checkpoint`, such as `Checkpoint('run-1')`"
            )
        if progress is not None and not isinstance(progress, bool):
            raise InvalidInputError(
                f"`progress` is {progress!r}; it must be True, to show progress bars, False, to hide them, or None"
            )
        return cls(output, Callbacks.read(callbacks), checkpoint, timeout, progress)


def require_steps(blocks: ModularPipelineBlocks, callbacks: Callbacks) -> None:
    """Check that callbacks of a step's end will be called, as far as the sources of the loops tell.

    Raises:
        InvalidInputError: no loop gives the variables `i` and `t` that they take.
    """
    if not callbacks.step_end:
        return
    found = [block for _, block in walk(blocks)]
    loops = [block for block in found if isinstance(block, LoopSequentialPipelineBlocks)]
    given = [given_variables(type(loop), LoopSequentialPipelineBlocks) for loop in loops]
    may_have_steps = any(variables is None or {"i", "t"} <= variables.ever for variables in given)
    if loops and not may_have_steps and not any(map(_holds_blocks, found)):
        raise InvalidInputError(
            "the callback takes `i` and `t`, and no loop of this pipeline gives both; write `def callback(event)`, "
            "which is called after each iteration of each loop"
        )


def _holds_blocks(block: ModularPipelineBlocks) -> bool:
    """Whether a block has blocks, besides those of the tree, that it may call by itself."""
    values = [value for name, value in vars(block).items() if name != "_sub_blocks"]
    values += [item for value in values if isinstance(value, (list, tuple)) for item in value]
    values += [item for value in values if isinstance(value, dict) for item in value.values()]
    return any(isinstance(value, ModularPipelineBlocks) for value in values)


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many positional arguments; one that does not tell takes a single one."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return count == 1
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _names_arguments(function: Callable[..., Any], count: int) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters) >= count


def _name(function: Any) -> str:
    return f"`{getattr(function, '__name__', type(function).__name__)}`"
