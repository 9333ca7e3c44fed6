"""The values of one request: `PipelineState`, and `BlockState`, one block's view of them.

Both answer `get`, `set` and `get_by_kwargs`, so that a block that reads and writes its state through them runs at the
top of a pipeline and inside a loop alike. Neither imports torch at module level.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, overload

from loopwright.errors import InvalidInputError, UnknownValueError

__all__ = [
    "BlockState",
    "LoopRecord",
    "PipelineState",
    "fork_block_state",
    "fork_value",
    "fork_values",
    "is_progress_bar",
    "loop_record",
    "own_default",
    "own_record",
]


class _Unset:
    """Stands for a default that was not given, where None is a default like any other."""

    def __repr__(self) -> str:
        return "<unset>"


_UNSET = _Unset()


class LoopRecord:
    """What a loop keeps on the state that its blocks share.

    Attributes:
        iteration: how many iterations began.
        outer_variables: the variables of the loops around this one, the nearest winning; None if there are none.
        variables: the same, and the variables of this loop's current iteration.
        groups: the names of each group of values, as `PipelineState.kwargs_mapping`.
        plain: whether nothing but the loop's own variables and its blocks matters to an iteration.
    """

    __slots__ = ("groups", "iteration", "outer_variables", "plain", "variables")

    def __init__(self) -> None:
        self.iteration = 0
        self.outer_variables: Mapping[str, Any] | None = None
        self.variables: Mapping[str, Any] | None = None
        self.groups: dict[str, list[str]] = {}
        self.plain = False


@dataclass(repr=False)
class PipelineState:
    """The values of one request, by name.

    Blocks get a lenient state: `state.get("absent")` is None, as many blocks probe for what may not be there. The state
    that a pipeline returns to its caller is strict: an absent name is an `UnknownValueError` that names the nearest
    one.

    Attributes:
        values: the values by name.
        kwargs_mapping: for each group of values (`denoiser_input_fields`), the names in it, in the order of writing.
    """

    values: dict[str, Any] = field(default_factory=dict)
    kwargs_mapping: dict[str, list[str]] = field(default_factory=dict)

    # whether asking for an absent name is an error
    _strict = False
    # set where the wrapper of a loop lets its blocks share the pipeline's own state
    _loop: ClassVar[LoopRecord | None] = None

    def set(self, key: str, value: Any, kwargs_type: str | None = None) -> None:
        """Set the value of a name, and add the name to the group `kwargs_type` if one is given."""
        self.values[key] = value
        if kwargs_type is not None:
            names = self.kwargs_mapping.setdefault(kwargs_type, [])
            if key not in names:
                names.append(key)

    @overload
    def get(self, keys: str, default: Any = ...) -> Any: ...
    @overload
    def get(self, keys: list[str] | tuple[str, ...], default: Any = ...) -> dict[str, Any]: ...
    def get(self, keys: str | list[str] | tuple[str, ...], default: Any = _UNSET) -> Any:
        """The value of a name, or a dict of the values of several names.

        Raises:
            UnknownValueError: the state was returned by a pipeline, it has no such value, and no default was given.
        """
        if isinstance(keys, str):
            value = self.values.get(keys, default)
            if value is _UNSET:
                if self._strict:
                    raise UnknownValueError(keys, self.values)
                return None
            return value
        return {key: self.get(key, default) for key in keys}

    def get_by_kwargs(self, kwargs_type: str) -> dict[str, Any]:
        """The values of a group, by name, in the order in which they were first written."""
        return {name: self.values.get(name) for name in self.kwargs_mapping.get(kwargs_type, ())}

    def to_dict(self) -> dict[str, Any]:
        """`values` and `kwargs_mapping` as a dict of two entries."""
        return {"values": self.values, "kwargs_mapping": self.kwargs_mapping}

    def fork(self, memo: dict[int, Any] | None = None) -> PipelineState:
        """A lenient state of its own: tensors, generators and containers are copied, modules are shared.

        Names that share a tensor share its copy.

        Args:
            memo: copies by the `id` of their original, as for `copy.deepcopy`.

        Raises:
            InvalidInputError: a value cannot be copied; the message names it.
        """
        groups = {kind: list(names) for kind, names in self.kwargs_mapping.items()}
        return PipelineState(fork_values(self.values, {} if memo is None else memo), groups)

    def __getitem__(self, key: str) -> Any:
        """The value of a name; the same as `get`."""
        return self.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self.values

    # otherwise `__getitem__` would make it a sequence without end
    __iter__ = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("values", "kwargs_mapping") or name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            # an attribute would hide the value of that name
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values")
        # a state that is being unpickled has no values yet, and special names are asked for by copy and pickle
        if values is None or name.startswith("__"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        try:
            return values[name]
        except KeyError:
            raise UnknownValueError(name, values) from None

    def __repr__(self) -> str:
        values = "".join(f"    {name}: {_summary(value)}\n" for name, value in self.values.items())
        groups = "".join(f"    {kind}: {names}\n" for kind, names in self.kwargs_mapping.items())
        return f"PipelineState(\n  values={{\n{values}  }},\n  kwargs_mapping={{\n{groups}  }}\n)"


class BlockState:
    """One block's view of the state: its inputs as attributes, to which it adds its outputs.

    The blocks of a loop share one. There it also stands in for the `PipelineState`: `get` finds the variables of the
    current iteration, then those of outer loops, among the values.
    """

    __slots__ = ("__dict__", "__weakref__", "_loop")

    # most block states are not those of loops, nor inside one, and have none
    _loop: LoopRecord | None

    def __init__(self, **kwargs: Any) -> None:
        self._loop = None
        self.__dict__.update(kwargs)

    @overload
    def get(self, keys: str, default: Any = ...) -> Any: ...
    @overload
    def get(self, keys: list[str] | tuple[str, ...], default: Any = ...) -> dict[str, Any]: ...
    def get(self, keys: str | list[str] | tuple[str, ...], default: Any = None) -> Any:
        """The value of a name, or a dict of the values of several; `default` for a name that is absent."""
        if not isinstance(keys, str):
            return {key: self.get(key, default) for key in keys}
        loop = self._loop
        if loop is not None and loop.variables is not None and keys in loop.variables:
            return loop.variables[keys]
        return self.__dict__.get(keys, default)

    def set(self, key: str, value: Any, kwargs_type: str | None = None) -> None:
        """Set the value of a name, and add the name to the group `kwargs_type` if one is given."""
        self.__dict__[key] = value
        if kwargs_type is not None:
            names = loop_record(self).groups.setdefault(kwargs_type, [])
            if key not in names:
                names.append(key)

    def get_by_kwargs(self, kwargs_type: str) -> dict[str, Any]:
        """The values of a group, by name, in the order in which they were first written."""
        if self._loop is None:
            return {}
        return {name: self.__dict__.get(name) for name in self._loop.groups.get(kwargs_type, ())}

    def as_dict(self) -> dict[str, Any]:
        """A new dict of all values."""
        return dict(self.__dict__)

    def __getitem__(self, key: str) -> Any:
        """The value of a name, None if it is absent."""
        return self.__dict__.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.__dict__[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self.__dict__

    # otherwise `__getitem__` would make it a sequence without end
    __iter__ = None

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

        # An absent name is a plain `AttributeError` here, which the composite around the block explains: a class with
        # a `__getattr__` answers all of its attributes four times as slowly.
        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        values = "".join(f"    {name}: {_summary(value)}\n" for name, value in self.__dict__.items())
        return f"BlockState(\n{values})"


def loop_record(state: PipelineState | BlockState) -> LoopRecord:
    """What a loop keeps on a state, from here on if there was nothing."""
    loop = state._loop
    if loop is None:
        loop = state._loop = LoopRecord()  # type: ignore[misc]
    return loop


@contextmanager
def own_record(state: PipelineState | BlockState) -> Iterator[None]:
    """While a loop runs on a state that others work on as well: its iterations and variables are its own.

    Its blocks still see the variables of the loops around it.
    """
    around = state._loop
    state._loop = None  # type: ignore[misc]
    if around is not None:
        record = loop_record(state)
        record.outer_variables = record.variables = around.variables
        record.groups = around.groups
    try:
        yield
    finally:
        state._loop = around  # type: ignore[misc]


def _is_tensor_like(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _summary(value: Any) -> str:
    """A value for a repr; tensors and arrays by dtype and shape, also inside lists, tuples and dicts."""
    if _is_tensor_like(value):
        return f"Tensor(dtype={value.dtype}, shape={tuple(value.shape)})"
    if isinstance(value, (list, tuple)) and value and all(map(_is_tensor_like, value)):
        return f"{type(value).__name__}[{len(value)}] of tensors with shapes {[tuple(item.shape) for item in value]}"
    if type(value) in (list, tuple):
        inside = ", ".join(map(_summary, value))
        return f"[{inside}]" if type(value) is list else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_summary(item)}" for key, item in value.items()) + "}"
    return repr(value)


def is_progress_bar(value: Any) -> bool:
    """Whether a value is a `tqdm`, which belongs to the terminal: it is neither copied nor saved."""
    tqdm = sys.modules.get("tqdm")
    return tqdm is not None and isinstance(value, tqdm.tqdm)


def fork_value(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a value in which modules and progress bars are shared, and generators copied with their position.

    Args:
        value: anything that a state holds.
        memo: copies by the `id` of their original, as for `copy.deepcopy`; one for a whole state.
    """
    if id(value) in memo:
        return memo[id(value)]
    torch = sys.modules.get("torch")
    if (torch is not None and isinstance(value, torch.nn.Module)) or is_progress_bar(value):
        return value
    forked: Any
    if torch is not None and isinstance(value, torch.Generator):
        forked = value.clone_state()
    elif torch is not None and isinstance(value, torch.Tensor):
        forked = value.detach().clone()
    elif type(value) in (list, set):
        forked = type(value)()
        memo[id(value)] = forked
        _fill(forked, (fork_value(item, memo) for item in value))
        return forked
    elif type(value) is tuple:
        forked = tuple(fork_value(item, memo) for item in value)
    elif type(value) is dict:
        forked = {}
        memo[id(value)] = forked
        for key, item in value.items():
            forked[key] = fork_value(item, memo)
        return forked
    else:
        return copy.deepcopy(value, memo)
    memo[id(value)] = forked
    return forked


def fork_values(values: Mapping[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """Copies of values by name, as `fork_value` makes them.

    Raises:
        InvalidInputError: a value cannot be copied; the message names it.
    """
    forked = {}
    for name, value in values.items():
        try:
            forked[name] = fork_value(value, memo)
        except Exception as error:
            kind = type(value).__name__
            raise InvalidInputError(f"the value `{name}` ({kind}) cannot be copied: {error}") from error
    return forked


_UNCHANGEABLE = frozenset({type(None), bool, int, float, complex, str, bytes})


def own_default(default: Any) -> Any:
    """The default of an input for one call, so that what a block writes into it does not reach the next call.

    What cannot be copied is shared by all calls.
    """
    if type(default) in _UNCHANGEABLE:
        return default
    try:
        return fork_value(default, {})
    except Exception:
        return default


def fork_block_state(state: BlockState, memo: dict[int, Any]) -> BlockState:
    """A `BlockState` with copies of the values, in the same iteration."""
    fork = BlockState()
    fork.__dict__.update(fork_values(state.__dict__, memo))
    if state._loop is not None:
        loop = loop_record(fork)
        loop.groups = {kind: list(names) for kind, names in state._loop.groups.items()}
        loop.iteration = state._loop.iteration
        loop.variables, loop.outer_variables = state._loop.variables, state._loop.outer_variables
    return fork


def _fill(container: list[Any] | set[Any], items: Iterable[Any]) -> None:
    if isinstance(container, list):
        container.extend(items)
    else:
        container.update(items)
