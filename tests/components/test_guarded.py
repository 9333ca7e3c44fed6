"""A guarded model stays what it is; its calls are known."""

from __future__ import annotations

import copy
import gc
import inspect
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import torch

from loopwright.components.guarded import guard, unguard, unguarded
from loopwright.components.turns import alone, is_inside
from tests.components.simulated import until_waiting
from tests.run.blocks import PATIENCE, Turnstile


class Model(torch.nn.Module):
    def forward(self, x: int, *, model: str = "") -> bool:
        """Whether the call is known."""
        return is_inside(self)

    def decode(self, x: int) -> bool:
        return is_inside(self)


def test_calls_are_known_while_a_model_is_guarded() -> None:
    model = Model()
    before = dict(vars(model))
    assert not model(1)
    guard(model)
    guard(model)
    assert model(1, model="named as the parameters of the guard are")
    assert model.decode(1)
    unguard(model)
    assert model(1)
    unguard(model)
    assert not model(1)
    assert not model.decode(1)
    assert vars(model) == before


def test_a_guarded_method_looks_like_the_method() -> None:
    model = Model()
    signature = inspect.signature(model.forward)
    guard(model)
    assert inspect.signature(model.forward) == signature
    assert model.forward.__doc__ == "Whether the call is known."
    assert "generate" not in vars(model)
    unguard(model)


def test_what_is_on_the_instance_is_called_and_put_back() -> None:
    model, calls = Model(), []

    def own(x: int) -> str:
        calls.append(is_inside(model))
        return "own"

    model.forward = own  # type: ignore[assignment]
    guard(model)
    assert model(1) == "own"
    with unguarded(model):
        assert model.forward is own
    assert model(1) == "own"
    unguard(model)
    assert model.forward is own
    assert calls == [True, True]


def test_what_wraps_a_guarded_method_stays() -> None:
    model: Any = Model()
    guard(model)
    guarded = model.forward
    model.forward = wrapping = lambda x: guarded(x)
    unguard(model)
    assert model.forward is wrapping
    assert model(1)
    assert "decode" not in vars(model)


def test_an_offloaded_model_is_brought_before_each_call() -> None:
    model, brought = Model(), []
    model._hf_hook = SimpleNamespace(bring=lambda model: brought.append(is_inside(model)))  # type: ignore[assignment]
    guard(model)
    model(1)
    model.decode(1)
    del model._hf_hook
    model(1)
    unguard(model)
    assert brought == [True, True]


def test_a_guard_does_not_keep_a_model() -> None:
    model = Model()
    guard(model)
    known = weakref.ref(model)
    del model
    gc.collect()
    assert known() is None


def test_a_call_that_waited_is_made_as_things_are_then() -> None:
    """While it waits, somebody takes off what it would have gone through."""
    model, turnstile, called = Model(), Turnstile(), []
    own = Model.forward.__get__(model)
    model.forward = lambda x: called.append("before")  # type: ignore[assignment, func-returns-value]
    guard(model)

    def change() -> None:
        with alone([model]):
            turnstile()
            with unguarded(model):
                model.forward = own  # type: ignore[method-assign]

    changing = threading.Thread(target=change)
    changing.start()
    turnstile.wait()
    calling = threading.Thread(target=lambda: called.append(model(1)))
    calling.start()
    until_waiting(1)
    turnstile.let_go()
    for thread in (changing, calling):
        thread.join(PATIENCE)
    assert called == [True]
    unguard(model)


def test_a_copy_is_guarded_for_itself() -> None:
    model = Model()
    guard(model)
    copied = copy.deepcopy(model)
    seen = []
    model.register_forward_hook(lambda *_: seen.append("the first"))
    assert copied(1)
    assert copied.decode(1)
    assert seen == []
    unguard(model)
    assert copied(1)
