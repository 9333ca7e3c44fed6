"""A guarded model stays what it is; its calls are known."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch

from loopwright.components.guarded import guard, unguard, unguarded
from loopwright.components.turns import is_inside


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


def test_something_is_done_before_each_call() -> None:
    model, done = Model(), []

    def before() -> None:
        done.append(is_inside(model))

    guard(model)
    guard(model, before)
    model(1)
    model.decode(1)
    unguard(model, before)
    model(1)
    unguard(model)
    assert done == [True, True]


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
