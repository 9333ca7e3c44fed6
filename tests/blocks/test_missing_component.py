"""A block that works with a component that is not loaded says so, and which one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loopwright import ComponentSpec, ModularPipelineBlocks, SequentialPipelineBlocks
from loopwright.errors import MissingComponentError
from tests.blocks.arithmetic import Repeat

HELPED = (
    "`Uses` works with the component `net`, which is not loaded: `pipe.load_components()`, or "
    "`pipe.update_components(net=..., other=...)`"
)


def using(function: Callable[..., Any], in_loop: bool = False) -> Any:
    """A pipeline of one block, which calls a function with its components."""

    class Uses(ModularPipelineBlocks):
        expected_components = [ComponentSpec("net", repo="a/place"), ComponentSpec("other")]

        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            function(components)
            return components, state

    block: Any = Repeat.from_blocks_dict({"uses": Uses}) if in_loop else Uses
    return SequentialPipelineBlocks.from_blocks_dict({"part": block}).init_pipeline()


def helper(net: Any) -> Any:
    return net(1, 2)


def in_a_variable(components: Any) -> Any:
    net = components.net
    return net.config


def over_lines(components: Any) -> Any:
    return components.net(
        1,
        other=[components.net],
    )


USES: dict[str, Callable[[Any], Any]] = {
    "called": lambda components: components.net(components, 1),
    "a method of it called": lambda components: components.net.decode(components.net.config.scale),
    "an attribute of it read": lambda components: 1 + components.net.config.scale,
    "an item of it read": lambda components: components.net["a"],
    "gone through": lambda components: [each + 1 for each in components.net],
    "given to a function that calls it": lambda components: helper(components.net),
    "in a variable": in_a_variable,
    "in a closure": lambda components: (lambda net: [net.config for _ in range(2)])(components.net),
    "over several lines": over_lines,
}


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("use", USES)
def test_a_component_that_is_not_loaded_is_named(use: str, in_loop: bool) -> None:
    with pytest.raises(MissingComponentError) as caught:
        using(USES[use], in_loop)()
    assert str(caught.value) == HELPED
    assert isinstance(caught.value.__cause__, (AttributeError, TypeError))
    assert "'NoneType' object" in str(caught.value.__cause__)
    assert caught.value.loopwright.path == ("part.uses" if in_loop else "part")  # type: ignore[attr-defined]
    assert USES[use].__code__ in [entry.frame.code.raw for entry in caught.traceback]


def test_a_run_says_so_too() -> None:
    for call in (lambda pipe: pipe.start().result(), lambda pipe: list(pipe.stream()), lambda pipe: pipe(timeout=60)):
        with pytest.raises(MissingComponentError) as caught:
            call(using(USES["called"]))
        assert str(caught.value) == HELPED


def test_one_that_has_no_place_to_come_from_is_to_be_given() -> None:
    pipe = using(lambda components: components.other.config)
    pipe.update_components(net=1)
    with pytest.raises(MissingComponentError) as caught:
        pipe()
    assert str(caught.value) == (
        "`Uses` works with the component `other`, which is not loaded: `pipe.update_components(other=...)`"
    )


def test_one_that_only_another_block_declares_is_named_too() -> None:
    class Borrows(ModularPipelineBlocks):
        def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
            return helper(components.net), state

    class Declares(ModularPipelineBlocks):
        expected_components = [ComponentSpec("net"), ComponentSpec("other")]

    pipe = SequentialPipelineBlocks.from_blocks_dict({"borrows": Borrows, "declares": Declares}).init_pipeline()
    with pytest.raises(MissingComponentError) as caught:
        pipe()
    assert str(caught.value) == (
        "`Borrows` works with the component `net`, which is not loaded: `pipe.update_components(net=...)`"
    )
    assert caught.value.loopwright.path == "borrows"  # type: ignore[attr-defined]


def test_something_else_that_is_none_keeps_its_error_with_a_note() -> None:
    def fails(components: Any) -> Any:
        found = {"net": components.net}.get("unet")
        return found.config

    with pytest.raises(AttributeError) as caught:
        using(fails)()
    assert caught.value.__notes__[0] == (
        "the components `net`, `other` are not loaded: `pipe.update_components(net=..., other=...)`"
    )


def test_a_block_may_go_without_a_component() -> None:
    pipe = using(lambda components: None if components.net is None else components.net())
    assert pipe().values == {}


def test_a_component_that_is_there_is_not_blamed() -> None:
    class Holds:
        net = None

    pipe = using(lambda components: components.net.net())
    pipe.update_components(net=Holds())
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        pipe()
