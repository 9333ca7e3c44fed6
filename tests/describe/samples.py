"""Small trees that the tests of all formats describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loopwright import (
    AutoPipelineBlocks,
    ComponentSpec,
    ConditionalPipelineBlocks,
    ConfigSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)


class Block(ModularPipelineBlocks):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        return components, state


class Load(Block):
    description = "Loads `x`."
    inputs = [InputParam("path", str, required=True, description="Where it is.")]
    intermediate_outputs = [OutputParam("x", int, "A number.")]
    expected_components = [ComponentSpec("reader", dict, "Reads files.", repo="a/b", subfolder="reader")]
    expected_configs = [ConfigSpec("strict", True, "Whether to refuse what is odd.")]


class Add(Block):
    """Without a description."""

    inputs = [InputParam("x", int, required=True), InputParam("step", int, default=1)]
    intermediate_outputs = [OutputParam("x", int)]


class Keep(Block):
    """With a group of values."""

    inputs = [InputParam("x", int, required=True), InputParam(kwargs_type="extra")]
    intermediate_outputs = [OutputParam("kept", list[int], "What was kept.")]

    def __call__(self, components: Any, block_state: Any, i: int = 0, j: int = 0) -> tuple[Any, Any]:
        return components, block_state


class KeepEach(Keep):
    """With a loop variable that it requires."""

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        return components, block_state


class Count(LoopSequentialPipelineBlocks):
    description = "Counts to `n`."
    loop_inputs = [InputParam("n", int, default=3)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.n):
            yield {"i": i}


class Rows(Count):
    loop_inputs = [InputParam("rows", int, required=True)]
    loop_intermediate_outputs = [OutputParam("table", list)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for j in range(block_state.rows):
            yield {"j": j}


class Choose(ConditionalPipelineBlocks):
    block_classes = [Load, Add]
    block_names = ["load", "add"]
    block_trigger_inputs = ["path"]
    default_block_name = "add"

    def select_block(self, path: Any) -> str | None:
        return None if path is None else "load"


class Auto(AutoPipelineBlocks):
    block_classes = [Load, Add]
    block_names = ["load", "add"]
    block_trigger_inputs = ["path", "step"]


HOSTILE = "end\" --> x; <b>|&amp;[({`#35;'\\"


class Hostile(Block):
    description = f"</style><script>alert(1)</script>\n{HOSTILE}"
    inputs = [InputParam(HOSTILE, str, default=HOSTILE, description=HOSTILE)]
    intermediate_outputs = [OutputParam(HOSTILE, description=HOSTILE)]
    expected_components = [ComponentSpec(HOSTILE, description=HOSTILE)]
    expected_configs = [ConfigSpec(HOSTILE, HOSTILE, HOSTILE)]


def sequence() -> SequentialPipelineBlocks:
    return SequentialPipelineBlocks.from_blocks_dict({"load": Load, "add": Add}, description="Loads and adds.")


def loop() -> Count:
    """A loop that carries a value."""
    return Count.from_blocks_dict({"add": Add, "keep": Keep})


def loop_in_loop() -> SequentialPipelineBlocks:
    rows = Rows.from_blocks_dict({"count": Count.from_blocks_dict({"add": Add}), "keep": Keep})
    return SequentialPipelineBlocks.from_blocks_dict({"load": Load, "rows": rows})


def hostile() -> SequentialPipelineBlocks:
    """Every name and text means something to Mermaid or to HTML."""
    inner = Rows.from_blocks_dict({HOSTILE: Hostile, "end": Auto})
    return SequentialPipelineBlocks.from_blocks_dict({HOSTILE: Hostile, "subgraph": inner, "class\nx": Choose})
