"""The modes of the caller hold in the thread of a run, and nothing that happens there comes back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.blocks.arithmetic import AddOne, Repeat
from tests.run.blocks import Do, pipeline

variable: ContextVar[str] = ContextVar("variable", default="unset")


def in_run(function: Callable[[], Any], around: AbstractContextManager[Any]) -> Any:
    """What a function gives in a block of a run that was started under a context."""
    with around:
        run = pipeline(do=Do(lambda *_: function())).start(output="x")
    return run.result()


def autocast() -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled("cpu"), torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype


def test_inference_mode() -> None:
    assert in_run(torch.is_inference_mode_enabled, torch.inference_mode()) is True
    assert in_run(torch.is_inference_mode_enabled, nullcontext()) is False


def test_blocks_run_without_gradients_as_in_a_plain_call() -> None:
    assert in_run(torch.is_grad_enabled, torch.enable_grad()) is False


def test_autocast() -> None:
    assert in_run(autocast, torch.autocast("cpu", torch.bfloat16)) == (True, torch.bfloat16)
    assert in_run(autocast, nullcontext()) == (False, torch.float32)


def test_the_default_device() -> None:
    assert in_run(lambda: torch.ones(1).device.type, torch.device("meta")) == "meta"
    torch.set_default_device("meta")
    try:
        assert in_run(lambda: torch.ones(1).device.type, nullcontext()) == "meta"
    finally:
        torch.set_default_device(None)


def test_function_and_dispatch_modes() -> None:
    calls: list[str] = []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(function.__name__)
            return function(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(function.__name__.split(".")[0])
            return function(*args, **(kwargs or {}))

    for mode in (Functions(), Dispatches()):
        calls.clear()
        in_run(lambda: torch.ones(1), mode)
        assert calls.count("ones") == 1


def test_context_variables() -> None:
    token = variable.set("of the caller")
    try:
        assert in_run(variable.get, nullcontext()) == "of the caller"
    finally:
        variable.reset(token)


def test_nothing_leaks_back() -> None:
    def change() -> None:
        variable.set("of the run")
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled("cpu", True)
        torch.set_default_device("meta")

    before = variable.get(), torch.is_grad_enabled(), autocast(), torch.get_default_device()
    in_run(change, nullcontext())
    assert (variable.get(), torch.is_grad_enabled(), autocast(), torch.get_default_device()) == before


@pytest.mark.parametrize("here", [torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta")])
def test_a_peek_has_the_modes_of_the_run_whatever_those_of_its_caller(here: AbstractContextManager[Any]) -> None:
    def modes(*_: Any) -> Any:
        return torch.is_inference_mode_enabled(), autocast(), torch.ones(1).device.type

    expected = modes()
    run = pipeline(loop=Repeat.from_blocks_dict({"add": AddOne}), ask=Do(modes)).stream(x=0, steps=1)
    for event in run:
        with here:
            before = modes()
            assert event.peek("x") == expected
            assert modes() == before
    assert run.result().x == expected
