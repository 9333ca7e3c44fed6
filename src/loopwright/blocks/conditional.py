"""`ConditionalPipelineBlocks` and `AutoPipelineBlocks`: one of several blocks, chosen by the inputs."""

from __future__ import annotations

from typing import Any

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.composite import CompositePipelineBlocks
from loopwright.blocks.driving import driver_of
from loopwright.blocks.facts import combine_inputs, combine_outputs, fresh
from loopwright.blocks.loop import LoopSequentialPipelineBlocks
from loopwright.errors import DefinitionError, NotDefinedError, did_you_mean, kind_of
from loopwright.params import InputParam, OutputParam

__all__ = ["AutoPipelineBlocks", "ConditionalPipelineBlocks"]


class ConditionalPipelineBlocks(CompositePipelineBlocks):
    """One of several blocks, chosen by `select_block` from whether some inputs are given.

    Attributes:
        block_classes: the blocks, classes or instances.
        block_names: their names.
        block_trigger_inputs: the names of the inputs that `select_block` gets.
        default_block_name: the block that runs if `select_block` returns None. If it is None as well, nothing runs.
    """

    block_trigger_inputs: list[str | None] = []
    default_block_name: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self._require_list("block_trigger_inputs")
        if self.default_block_name is not None and self.default_block_name not in self.block_names:
            raise DefinitionError(
                f"`{type(self).__name__}.default_block_name` is `{self.default_block_name}`, which is not one of its "
                f"block_names{did_you_mean(self.default_block_name, self.block_names)}"
            )

    def select_block(self, **kwargs: Any) -> str | None:
        """The name of the block to run, None for the default.

        Args:
            **kwargs: the values of the `block_trigger_inputs`, None for those that are not given. The choice may depend
                only on which of them are None: `get_execution_blocks` makes it without knowing the values.
        """
        raise NotDefinedError(
            f"`{type(self).__name__}` does not define `select_block`: define `select_block(self, **kwargs)`, which "
            f"returns the name of the block to run, or None"
        )

    def _select_name(self, values: Any) -> str | None:
        """The name of the block to run for a state or a dict, None to skip."""
        triggers = {name: values.get(name) for name in self.block_trigger_inputs if name is not None}
        name = self.select_block(**triggers)
        if name is None:
            name = self.default_block_name
        if name is not None and name not in self._sub_blocks:
            given = f"`{name}`" if isinstance(name, str) else kind_of(name)  # type: ignore[redundant-expr]
            raise DefinitionError(
                f"`{type(self).__name__}.select_block` returned {given}, which is not the name of one of its blocks"
                f"{did_you_mean(str(name), self._sub_blocks)}; they are {', '.join(f'`{n}`' for n in self._sub_blocks)}"
            )
        return name

    def _combine_inputs(self) -> list[InputParam]:
        combined = fresh(combine_inputs(*((name, block.inputs) for name, block in self.sub_blocks.items())))
        required = set(self.required_inputs)
        for param in combined:
            param.required = param.name in required
        return combined

    @property
    def required_inputs(self) -> list[str]:
        """The names of the inputs that all of the blocks require; none if the choice may fall on no block."""
        if self.may_be_skipped or not self.sub_blocks:
            return []
        first, *others = (block.required_inputs for block in self.sub_blocks.values())
        return [name for name in first if all(name in names for names in others)]

    @property
    def outputs(self) -> list[OutputParam]:
        return combine_outputs(*((name, block.outputs) for name, block in self.sub_blocks.items()))

    @property
    def may_be_skipped(self) -> bool:
        return self.default_block_name is None

    @property
    def certain_outputs(self) -> frozenset[str]:
        if self.may_be_skipped or not self.sub_blocks:
            return frozenset()
        return frozenset.intersection(*(block.certain_outputs for block in self.sub_blocks.values()))

    def __call__(self, components: Any, state: Any, **variables: Any) -> tuple[Any, Any]:
        name = self._select_name(state)
        driver = driver_of(components)
        if driver is not None:
            name = driver.chosen(self, name)
        if name is None:
            return components, state
        chosen = [step for step in self._plan(variables).steps if step.name == name]
        return self._run(chosen, components, state, variables)

    def get_execution_blocks(self, **kwargs: Any) -> ModularPipelineBlocks | None:
        """The block that would run for these inputs, down to a block that chooses no more; None if it would be skipped.

        Args:
            **kwargs: inputs; only whether one is None counts.
        """
        name = self._select_name(kwargs)
        block: ModularPipelineBlocks | None = None if name is None else self.sub_blocks[name]
        if block is None or not block.sub_blocks or isinstance(block, LoopSequentialPipelineBlocks):
            return block
        return block.get_execution_blocks(**kwargs)


class AutoPipelineBlocks(ConditionalPipelineBlocks):
    """One of several blocks: the first whose trigger input is given.

        class Encode(AutoPipelineBlocks):
            block_classes = [EncodeMask, EncodeImage, EncodeText]
            block_names = ["inpaint", "image2image", "text2image"]
            block_trigger_inputs = ["mask_image", "image", None]

    Attributes:
        block_trigger_inputs: for each block its trigger; None marks the block that runs if no trigger is given.
    """

    def __init__(self) -> None:
        super().__init__()
        if self.default_block_name is not None:
            raise DefinitionError(
                f"`{type(self).__name__}` sets `default_block_name`; the default of an `AutoPipelineBlocks` is the "
                f"block whose entry in `block_trigger_inputs` is None"
            )
        self._require_triggers()
        if None in self.block_trigger_inputs:
            self.default_block_name = self.block_names[self.block_trigger_inputs.index(None)]

    def _require_triggers(self) -> None:
        if len(self.block_trigger_inputs) != len(self.block_names):
            raise DefinitionError(
                f"`{type(self).__name__}` has {len(self.block_names)} blocks and {len(self.block_trigger_inputs)} "
                f"block_trigger_inputs; each block needs one, None for the default"
            )

    def select_block(self, **kwargs: Any) -> str | None:
        """The name of the first block whose trigger input is given."""
        self._require_triggers()
        for trigger, name in zip(self.block_trigger_inputs, self.block_names, strict=True):
            if trigger is not None and kwargs.get(trigger) is not None:
                return name
        return None
