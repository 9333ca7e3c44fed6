"""`batched`: a pipeline whose runs make their calls of models together."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from accelerate.utils.modeling import convert_file_size_to_int

from loopwright.batching.admission import Client
from loopwright.batching.batcher import Batcher
from loopwright.batching.member import Member
from loopwright.batching.memory import RunMemory
from loopwright.errors import DefinitionError, InvalidInputError, RunStateError, kind_of
from loopwright.pipeline import ModularPipeline
from loopwright.run.memory import memory_gauge

__all__ = ["batched"]

_A_CONTEXT = "`batched(pipe)` is a context: `with batched(pipe) as b: b(...)`"


class batched(AbstractContextManager[Any]):
    """Run many requests of a pipeline at once, with shared forwards: `with batched(pipe, max_batch=8) as b: ...`.

    `b` is a pipeline of the same class, with the same models, which many threads call. `b.client(name, priority=0)` is
    the same for one client; `b.report()` says what was done. Leaving the context waits for the runs; those that are
    paused are cancelled, and all are if an exception leaves it.

    Args:
        pipe: the pipeline.
        max_batch: how many calls share a forward at most.
        max_active: how many runs go on at once, the others wait to begin; twice `max_batch` if None.
        deterministic: whether the bits of a result depend on its request alone, not on what else runs. Forwards of
            models in loops then always have as many rows as `max_batch` calls, which costs that much for a request that
            runs alone; other models are called for each run by itself.
        memory_budget: how many bytes all runs together may take beside the models, or text, as "3GB": as many runs
            begin as fit, by what runs were measured to take. None for no limit.
        prove_every: after how many merged forwards of a kind their results are compared with separate ones again.

    Raises:
        InvalidInputError: one of these cannot be used.
    """

    def __init__(
        self,
        pipe: Any,
        max_batch: int = 8,
        max_active: int | None = None,
        deterministic: bool = False,
        *,
        memory_budget: int | str | None = None,
        prove_every: int = 1000,
    ) -> None:
        if not isinstance(pipe, ModularPipeline):
            raise InvalidInputError(_no_pipeline(pipe))
        if isinstance(memory_budget, str):
            memory_budget = _bytes(memory_budget)
        _require_count("max_batch", max_batch)
        _require_count("prove_every", prove_every)
        for name, count in (("max_active", max_active), ("memory_budget", memory_budget)):
            if count is not None:
                _require_count(name, count)
        if not isinstance(deterministic, bool):
            raise InvalidInputError(f"`deterministic` is {deterministic!r}; it must be True or False")
        gauge = None if memory_budget is None else memory_gauge(pipe)
        self._pipe = pipe
        self._batcher = Batcher(
            {name: component for name, component in pipe.components.items() if isinstance(component, torch.nn.Module)},
            max_batch,
            2 * max_batch if max_active is None else max_active,
            RunMemory(memory_budget, None if gauge is None else gauge.sample),
            deterministic,
            prove_every,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RunStateError(_A_CONTEXT)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not (name in ("client", "report") or hasattr(self._pipe, name)):
            raise AttributeError(f"'batched' object has no attribute '{name}'", name=name, obj=self)
        raise RunStateError(_A_CONTEXT)

    async def __aenter__(self) -> Any:
        raise RunStateError(f"{_A_CONTEXT}; a plain `with` is right in coroutines too")

    async def __aexit__(self, *_: Any) -> None:
        """Is never reached."""

    def __enter__(self) -> Any:
        pipeline = _for_client(self._pipe, self._batcher, Client())
        self._batcher.begin()
        return pipeline

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._batcher.end(cancel=kind is not None)


class _Batch:
    """What a pipeline knows of the batch that its runs belong to."""

    def __init__(self, batcher: Batcher, client: Client) -> None:
        self._batcher, self._client = batcher, client

    def presence(self, view: Any, control: Any) -> Member:
        """What tells where a run is."""
        return self._batcher.presence(view, control, self._client)


def _for_client(pipe: Any, batcher: Batcher, whose: Client) -> Any:
    """The pipeline whose runs belong to a batch."""

    def client(name: str, priority: int = 0) -> Any:
        """The pipeline for one client.

        Args:
            name: the client. Among runs of equal priority, each client gets its turn.
            priority: runs of a higher one begin first.

        Raises:
            InvalidInputError: one of these cannot be used.
            RunStateError: the batch is over.
        """
        batcher.require_open()
        if not isinstance(name, str):
            raise InvalidInputError(f"the name of a client is {name!r}; it must be a string")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidInputError(f"`priority` is {priority!r}; it must be a whole number")
        return _for_client(pipe, batcher, Client(name, priority))

    client.__qualname__ = "client"
    view = pipe._view()
    for name, value in {"client": client, "report": batcher.report, "_batch": _Batch(batcher, whose)}.items():
        if name in pipe._component_specs or name in pipe._config_specs:
            raise DefinitionError(
                f"a block of this pipeline expects a component or configuration value `{name}`, which is what a "
                f"batched pipeline calls something else; give it another name"
            )
        view.__dict__[name] = value
    return view


def _no_pipeline(given: Any) -> str:
    """What to tell somebody who gave what is no pipeline of ours."""
    kind = kind_of(given)
    if not isinstance(given, type) and any(
        cls.__module__.startswith(("diffusers.pipelines.", "diffusers.modular_pipelines."))
        for cls in type(given).__mro__
    ):
        return (
            f"`pipe` is {kind} of diffusers; make it one of ours: `batched(from_diffusers(pipe))`, with `from "
            f"loopwright.bridge import from_diffusers`"
        )
    return f"`pipe` is {kind}; it must be a pipeline: `blocks.init_pipeline()`"


def _bytes(budget: str) -> int:
    try:
        return convert_file_size_to_int(budget)  # type: ignore[no-any-return]
    except ValueError:
        raise InvalidInputError(
            f"`memory_budget` is {budget!r}; it must be a number of bytes, or text, such as '3GB'"
        ) from None


def _require_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"`{name}` is {value!r}; it must be a whole number, at least 1")
