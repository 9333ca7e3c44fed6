"""The values of one request: `PipelineState`, and `BlockState`, one block's view of them.

Both answer `get`, `set` and `get_by_kwargs`, so that a block that reads and writes its state through them runs at the
top of a pipeline and inside a loop alike. Neither imports torch at module level.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, overload

from loopwright.errors import InvalidInputError, UnknownValueError

__all__ = ["BlockState", "PipelineState"]


class _Unset:
    """Stands for a default that was not given, where None is a default like any other."""

    def __repr__(self) -> str:
        return "<unset>"


_UNSET = _Unset()


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

    # what a loop keeps on the state that its blocks share, for a wrapper that shares the pipeline's own
    _iteration: ClassVar[int] = 0
    _outer_variables: ClassVar[Mapping[str, Any] | None] = None
    _variables: ClassVar[Mapping[str, Any] | None] = None

    def __post_init__(self) -> None:
        self._strict = False

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

    def fork(self) -> PipelineState:
        """A lenient state of its own: tensors, generators and containers are copied, modules are shared.

        Names that share a tensor share its copy.

        Raises:
            InvalidInputError: a value cannot be copied; the message names it.
        """
        memo: dict[int, Any] = {}
        values = {}
        for name, value in self.values.items():
            try:
                values[name] = _fork(value, memo)
            except Exception as error:
                raise InvalidInputError(
                    f"the value `{name}` of the state that was passed in cannot be copied: {error}; remove it from the "
                    f"state, or pass it as an input of the call"
                ) from error
        return PipelineState(values, {kind: list(names) for kind, names in self.kwargs_mapping.items()})

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

    __slots__ = ("__dict__", "__weakref__", "_groups", "_iteration", "_outer_variables", "_variables")

    # the names of each kwargs group, as `PipelineState.kwargs_mapping`
    _groups: dict[str, list[str]]
    # iterations that began; only a loop's state counts them
    _iteration: int
    # the variables of the loops around this one, the nearest winning
    _outer_variables: Mapping[str, Any] | None
    # the same, and the variables of this loop's current iteration
    _variables: Mapping[str, Any] | None

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)

    @classmethod
    def holding(cls, values: dict[str, Any]) -> BlockState:
        """A state of these values; the dict is not copied."""
        state = cls.__new__(cls)
        state.__dict__ = values
        return state

    @overload
    def get(self, keys: str, default: Any = ...) -> Any: ...
    @overload
    def get(self, keys: list[str] | tuple[str, ...], default: Any = ...) -> dict[str, Any]: ...
    def get(self, keys: str | list[str] | tuple[str, ...], default: Any = None) -> Any:
        """The value of a name, or a dict of the values of several; `default` for a name that is absent."""
        if not isinstance(keys, str):
            return {key: self.get(key, default) for key in keys}
        if self._variables is not None and keys in self._variables:
            return self._variables[keys]
        return self.__dict__.get(keys, default)

    def set(self, key: str, value: Any, kwargs_type: str | None = None) -> None:
        """Set the value of a name, and add the name to the group `kwargs_type` if one is given."""
        self.__dict__[key] = value
        if kwargs_type is not None:
            names = self._groups.setdefault(kwargs_type, [])
            if key not in names:
                names.append(key)

    def get_by_kwargs(self, kwargs_type: str) -> dict[str, Any]:
        """The values of a group, by name, in the order in which they were first written."""
        return {name: self.__dict__.get(name) for name in self._groups.get(kwargs_type, ())}

    def as_dict(self) -> dict[str, Any]:
        """A new dict of all values."""
        return dict(self.__dict__)

    def __getitem__(self, key: str) -> Any:
        """The value of a name, None if it is absent."""
        return self.__dict__.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.__dict__[key] = value

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        # the bookkeeping of a loop, which most block states never need, begins when it is first asked for
        if name in ("_outer_variables", "_variables"):
            setattr(self, name, None)
            return None
        if name == "_iteration":
            self._iteration = 0
            return 0
        if name == "_groups":
            self._groups = {}
            return self._groups
        if name.startswith("__"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        raise UnknownValueError(name, self.__dict__, holder="the block state")

    def __repr__(self) -> str:
        values = "".join(f"    {name}: {_summary(value)}\n" for name, value in self.__dict__.items())
        return f"BlockState(\n{values})"


def _is_tensor_like(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _summary(value: Any) -> str:
    """A value for a repr; tensors and arrays by dtype and shape, also inside lists, tuples and dicts."""
    if _is_tensor_like(value):
        return f"Tensor(dtype={value.dtype}, shape={tuple(value.shape)})"
    if isinstance(value, (list, tuple)) and value and _is_tensor_like(value[0]):
        return f"{type(value).__name__}[{len(value)}] of tensors with shapes {[tuple(item.shape) for item in value]}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_summary(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _fork(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a value in which modules are shared and generators are copied with their position.

    Args:
        value: anything that a state holds.
        memo: copies by the `id` of their original, as for `copy.deepcopy`; one for a whole state.
    """
    if id(value) in memo:
        return memo[id(value)]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return value
    forked: Any
    if torch is not None and isinstance(value, torch.Generator):
        forked = value.clone_state()
    elif torch is not None and isinstance(value, torch.Tensor):
        forked = value.detach().clone()
    elif type(value) in (list, set):
        forked = type(value)()
        memo[id(value)] = forked
        _fill(forked, (_fork(item, memo) for item in value))
        return forked
    elif type(value) is tuple:
        forked = tuple(_fork(item, memo) for item in value)
    elif type(value) is dict:
        forked = {}
        memo[id(value)] = forked
        for key, item in value.items():
            forked[key] = _fork(item, memo)
        return forked
    else:
        return copy.deepcopy(value, memo)
    memo[id(value)] = forked
    return forked


def _fill(container: list[Any] | set[Any], items: Iterable[Any]) -> None:
    if isinstance(container, list):
        container.extend(items)
    else:
        container.update(items)
