"""The exceptions that a user of Loopwright meets.

    LoopwrightError
    ├── DefinitionError (ValueError)        a block, or a tree of blocks, is not well defined
    │   ├── BlockTypeError (TypeError)        something that is not a block stands where a block belongs
    │   ├── LoopVariableError                 a loop does not give a variable that one of its blocks requires
    │   ├── NotDefinedError (NotImplementedError)   a class lacks what its author must define
    │   └── CheckError                        `loopwright.check` found errors; `.findings` holds them
    ├── UnknownInputError (TypeError)       a call names an input that the pipeline does not have
    ├── MissingInputError (ValueError)      a required input was not given
    ├── InvalidInputError (ValueError)      an input has a value that cannot be used
    ├── UnknownComponentError (TypeError)   a component or configuration value that no block expects
    ├── MissingComponentError (ValueError)  a component is needed and was not loaded
    ├── ComponentLoadError (ValueError)     a component could not be created or loaded
    ├── ComponentSaveError (ValueError)     a component, a pipeline or blocks could not be saved or pushed
    ├── UnknownNameError (KeyError, ValueError)   no workflow, block or template of that name
    ├── UnknownValueError (KeyError, AttributeError)   a state holds no value of that name
    ├── OutputNotSetError (ValueError)      a block declared an output and did not set it
    ├── CheckpointError (ValueError)        a run cannot be saved to, or resumed from, a folder
    │   ├── CheckpointDamagedError            a file of it is not what was written
    │   ├── CheckpointMismatchError           the pipeline is not the one that was saved
    │   └── UnsavableValueError (TypeError)   a value of the run cannot be saved
    ├── RunCancelledError (RuntimeError)    the result of a run was asked for that was cancelled
    ├── RunStateError (RuntimeError)        a run is not in a state in which it can do what it was asked for
    ├── RunTimeoutError (TimeoutError)      a run took longer than its `timeout`
    ├── RequestRefusedError (ValueError)    a server does not do what a request asks for
    └── StorageError (OSError)              the data folder of a server cannot be read or written

An exception that a block raises by itself is not wrapped: it reaches the caller as it is, with a note of where it
happened, and with `error.loopwright`, a `BlockLocation`, for code that wants to know. Where it comes from a component
that is None, it is the cause of a `MissingComponentError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "BlockLocation",
    "BlockTypeError",
    "CheckError",
    "CheckpointDamagedError",
    "CheckpointError",
    "CheckpointMismatchError",
    "ComponentLoadError",
    "ComponentSaveError",
    "DefinitionError",
    "InvalidInputError",
    "LoopVariableError",
    "LoopwrightError",
    "MissingComponentError",
    "MissingInputError",
    "NotDefinedError",
    "OutputNotSetError",
    "RequestRefusedError",
    "RunCancelledError",
    "RunStateError",
    "RunTimeoutError",
    "StorageError",
    "UnknownComponentError",
    "UnknownInputError",
    "UnknownNameError",
    "UnknownValueError",
    "UnsavableValueError",
    "article",
    "brief",
    "brief_pair",
    "close_location",
    "did_you_mean",
    "kind_of",
    "locate",
    "nearest",
]


class LoopwrightError(Exception):
    """Base class of every exception that Loopwright itself raises."""


class DefinitionError(LoopwrightError, ValueError):
    """A block, or a tree of blocks, is not well defined."""


class BlockTypeError(DefinitionError, TypeError):
    """Something that is not a block stands where a block belongs."""


class LoopVariableError(DefinitionError):
    """A loop does not give a variable that one of its blocks requires."""


class NotDefinedError(DefinitionError, NotImplementedError):
    """A class lacks what its author must define, such as `__call__`."""


class CheckError(DefinitionError):
    """The static check found errors.

    Attributes:
        findings: all findings of severity `error`.
    """

    def __init__(self, message: str, findings: list[Any]) -> None:
        super().__init__(message)
        self.findings = findings


class UnknownInputError(LoopwrightError, TypeError):
    """A call names an input that the pipeline does not have."""


class MissingInputError(LoopwrightError, ValueError):
    """A required input was not given.

    Args:
        input_name: the input.
        available: the names that do have a value.
        path: the path of the block that needs it; if None, the message takes it from the location of the error.
    """

    def __init__(self, input_name: str, available: Iterable[str] = (), path: str | None = None) -> None:
        super().__init__(input_name)
        self.input_name = input_name
        self.available = sorted(available)
        self.path = path

    def __str__(self) -> str:
        location = getattr(self, "loopwright", None)
        path = self.path if self.path is not None else getattr(location, "path", "")
        needed = f", which block `{path}` needs" if path else ""
        given = ", ".join(f"`{name}`" for name in self.available)
        return f"missing the required input `{self.input_name}`{needed}; " + (
            f"these have a value: {given}" if given else "no value was given"
        )


class InvalidInputError(LoopwrightError, ValueError):
    """An input has a value that cannot be used."""


class UnknownComponentError(LoopwrightError, TypeError):
    """A component or configuration value that no block of the pipeline expects."""


class MissingComponentError(LoopwrightError, ValueError):
    """A component is needed and was not loaded."""


class ComponentLoadError(LoopwrightError, ValueError):
    """A component could not be created or loaded."""


class ComponentSaveError(LoopwrightError, ValueError):
    """A component, a pipeline or blocks could not be saved, or not be pushed to the hub."""


class UnknownNameError(LoopwrightError, KeyError, ValueError):
    """No workflow, block or template of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownValueError(LoopwrightError, KeyError, AttributeError):
    """A state holds no value of that name.

    The message is composed when it is shown: `hasattr(state, name)` raises this exception often, and must stay cheap.

    Args:
        value_name: the name that was asked for.
        available: the names that the state holds.
        holder: what the state is called in the message.
    """

    def __init__(self, value_name: str, available: Iterable[str], holder: str = "the pipeline state") -> None:
        super().__init__(value_name)
        self.value_name = value_name
        self.available = available
        self.holder = holder

    def __str__(self) -> str:
        names = sorted(set(self.available))
        held = f"it holds {', '.join(f'`{name}`' for name in names)}" if names else "it is empty"
        return f"{self.holder} has no value `{self.value_name}`{did_you_mean(self.value_name, names)}; {held}"


class OutputNotSetError(LoopwrightError, ValueError):
    """A block declared an output and did not set it."""


class CheckpointError(LoopwrightError, ValueError):
    """A run cannot be saved to, or resumed from, a folder."""


class CheckpointDamagedError(CheckpointError):
    """A file of a checkpoint is not what was written."""


class CheckpointMismatchError(CheckpointError):
    """The pipeline that a run is to be resumed in is not the one in which it was saved."""


class UnsavableValueError(CheckpointError, TypeError):
    """A value of a run cannot be saved."""


class RunCancelledError(LoopwrightError, RuntimeError):
    """The result of a run was asked for that was cancelled."""


class RunStateError(LoopwrightError, RuntimeError):
    """A run is not in a state in which it can do what it was asked for."""


class RunTimeoutError(LoopwrightError, TimeoutError):
    """A run took longer than its `timeout`."""


class RequestRefusedError(LoopwrightError, ValueError):
    """A server does not do what a request asks for.

    Args:
        message: what is wrong, and what to write instead.
        status: the status of the HTTP answer.
        code: one word for programs, such as `unknown_input`.
        param: the part of the request that is wrong, None if it is no single one.
        retry_after: seconds after which the same request may be taken; None if there is no use in that.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after


class StorageError(LoopwrightError, OSError):
    """The data folder of a server cannot be read or written.

    Args:
        message: what is wrong.
        is_full: whether the disk is full.
    """

    def __init__(self, message: str, is_full: bool = False) -> None:
        super().__init__(message)
        self.is_full = is_full


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is most like `name`, or None if none is alike.

    A candidate of which `name` is a part, or that is a part of `name`, counts as alike. Words count for more than
    letters, unless nearly all letters agree: `steps` is like `num_inference_steps`, not like `state`. One letter or two
    are like a candidate that begins with them: `i` is like `index`.
    """
    known = [candidate for candidate in candidates if candidate]

    def closest(alike: Iterable[str]) -> str | None:
        return min(alike, key=lambda c: (abs(len(c) - len(name)), c), default=None)

    def by_letters(cutoff: float) -> str | None:
        return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)

    if len(name) < 3:
        return by_letters(0.6) or closest(c for c in known if name and c.startswith(name))
    words = {c: set(c.lower().split("_")) for c in (name, *known)}
    parts = [c for c in known if words[name] <= words[c] or words[c] <= words[name] or name in c or c in name]
    sharing = [c for c in known if words[name] & words[c]]
    return by_letters(0.8) or closest(c for c in parts if len(c) > 2) or by_letters(0.6) or closest(sharing)


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The end of a message, such as ``", did you mean `latents`?"``; empty if no candidate is alike."""
    match = nearest(name, candidates)
    return f", did you mean `{match}`?" if match is not None else ""


def article(name: str) -> str:
    """`a` or `an`, by how the name of a class sounds: an int, an ndarray, a UNet2DModel, an LMSDiscreteScheduler."""
    name = name.lstrip("_")
    if name[:2].isupper():  # spoken letter by letter
        return "an" if name[0] in "AEFHILMNORSX" else "a"
    like_you = name.lower().startswith(("uint", "uni", "use"))
    return "an" if (name[:1].lower() in "aeiou" and not like_you) or name.startswith("nd") else "a"


def kind_of(value: Any) -> str:
    """What a value is, for a message: "a str", "an int", "the class `Linear`", "None"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class `{value.__name__}`"
    name = type(value).__name__
    return f"{article(name)} {name}"


class BlockLocation:
    """Where in a tree of blocks an exception was raised.

    Attributes:
        path: names of the blocks from the outermost to the one that failed, joined with dots (`denoise.denoiser`).
        iterations: for each loop on the path, outermost first, its path, the index of the iteration, and the variables.
        closed: whether the exception has left its pipeline. Raised again, or out of a block that called that pipeline,
            it gets a new location.
    """

    def __init__(self) -> None:
        self.closed = False
        self._names: list[str] = []
        self._loops: list[tuple[int, int, Mapping[str, Any]]] = []
        self._note: str | None = None

    @property
    def path(self) -> str:
        return ".".join(reversed(self._names))

    @property
    def iterations(self) -> list[tuple[str, int, dict[str, Any]]]:
        # a loop is remembered by its distance from the innermost block, because the names above it come later
        names = list(reversed(self._names))
        return [
            (".".join(names[: len(names) - depth]), index, dict(variables))
            for depth, index, variables in reversed(self._loops)
        ]

    def add_block(self, name: str) -> None:
        """Put the name of the next outer block before the path."""
        self._names.append(name)

    def add_iteration(self, index: int, variables: Mapping[str, Any]) -> None:
        """Record the iteration in which the block at the head of the path ran; its loop is the next outer block."""
        self._loops.append((len(self._names), index, variables))

    def describe(self) -> str:
        """One line: ``in block `denoise.denoiser`, iteration 3 of loop `denoise` (i=3, t=801)``."""
        parts = [f"in block `{self.path}`"] if self._names else []
        for path, index, variables in reversed(self.iterations):
            given = ", ".join(f"{name}={brief(value)}" for name, value in variables.items())
            loop = f"loop `{path}`" if path else "the loop"
            parts.append(f"iteration {index} of {loop}" + (f" ({given})" if given else ""))
        return ", ".join(parts)

    def annotate(self, error: BaseException) -> None:
        """Write `describe()` into the notes of `error`, in place of what this location wrote there before."""
        notes: list[str] = getattr(error, "__notes__", [])
        if self._note in notes:
            notes.remove(self._note)
        self._note = self.describe()
        if self._note:
            error.add_note(self._note)


def locate(
    error: Exception, block_name: str | None, index: int | None = None, variables: Mapping[str, Any] | None = None
) -> None:
    """Record on `error` that it passed through a block; each composite calls this for its own sub-block.

    Args:
        error: the exception on its way up. It gets a note and `error.loopwright`.
        block_name: the name of the sub-block that it came out of, None for a block without a name.
        index: the index of the iteration, if the composite is a loop.
        variables: the variables of that iteration.
    """
    location = getattr(error, "loopwright", None)
    if not isinstance(location, BlockLocation) or location.closed:
        location = BlockLocation()
        error.loopwright = location  # type: ignore[attr-defined]
    if block_name is not None:
        location.add_block(block_name)
    if index is not None:
        location.add_iteration(index, variables or {})
    location.annotate(error)


def close_location(error: BaseException) -> None:
    """Record on `error` that it has left its pipeline."""
    location = getattr(error, "loopwright", None)
    if isinstance(location, BlockLocation):
        location.closed = True


def brief(value: Any) -> str:
    """A short form of a value for a message. Tensors are shown by shape unless they are single numbers on the CPU."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        device = getattr(value, "device", None)
        if len(shape) == 0 and getattr(device, "type", "cpu") == "cpu":
            return f"{value.item():g}"
        return f"<{type(value).__name__} of shape {tuple(shape)}>"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def brief_pair(now: Any, was: Any) -> tuple[str, str]:
    """Short forms of two values that differ, apart from each other."""
    told = brief(now), brief(was)
    if told[0] != told[1]:
        return told
    has_elements = hasattr(now, "shape") and hasattr(now, "dtype")
    return told[0] + (" of other elements" if has_elements else " (another one)"), told[1]
