"""`SequentialPipelineBlocks`: blocks that run one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.composite import CompositePipelineBlocks
from loopwright.blocks.conditional import ConditionalPipelineBlocks
from loopwright.blocks.facts import first_of_each, outside_reads
from loopwright.blocks.loop import LoopSequentialPipelineBlocks
from loopwright.errors import DefinitionError, NotDefinedError, UnknownNameError, brief, did_you_mean
from loopwright.params import InputParam

__all__ = ["SequentialPipelineBlocks"]


class SequentialPipelineBlocks(CompositePipelineBlocks):
    """Blocks that run one after the other.

    Its inputs are what a block reads and no earlier block writes. With a `_workflow_map` (workflow name to a dict of
    the inputs that select it, or a tuple of such dicts), it knows its workflows by name.

    Attributes:
        block_classes: the blocks, classes or instances.
        block_names: their names.
    """

    def _combine_inputs(self) -> list[InputParam]:
        return first_of_each(outside_reads(self.sub_blocks.values()))

    def __call__(self, components: Any, state: Any, **variables: Any) -> tuple[Any, Any]:
        return self._run(self._plan(variables).steps, components, state, variables)

    def get_execution_blocks(self, **kwargs: Any) -> SequentialPipelineBlocks:
        """The blocks that would run for these inputs, without conditionals and nesting; loops stay whole.

        Args:
            **kwargs: inputs; only whether one is None counts. Outputs of blocks that run count as given to later ones.
        """
        selected: dict[str, ModularPipelineBlocks] = {}
        given = dict(kwargs)

        def select(name: str, block: ModularPipelineBlocks | None) -> None:
            if isinstance(block, ConditionalPipelineBlocks):
                block = block.get_execution_blocks(**given)
            if block is None:
                return
            if block.sub_blocks and not isinstance(block, LoopSequentialPipelineBlocks):
                for inner, child in block.sub_blocks.items():
                    select(f"{name}.{inner}", child)
                return
            selected[name] = block
            given.update((output.name, True) for output in block.intermediate_outputs)

        for name, block in self.sub_blocks.items():
            select(name, block)
        return SequentialPipelineBlocks.from_blocks_dict(selected)

    @property
    def available_workflows(self) -> list[str]:
        """The names of the workflows."""
        return list(self._workflow_map) if self._workflow_map is not None else super().available_workflows

    def get_workflow(self, workflow_name: str) -> SequentialPipelineBlocks:
        """The blocks that run in a workflow.

        Raises:
            UnknownNameError: there is no workflow of that name.
        """
        if self._workflow_map is None:
            raise NotDefinedError(f"`{type(self).__name__}` has no workflows: it does not set `_workflow_map`")
        if workflow_name not in self._workflow_map:
            raise UnknownNameError(
                f"`{type(self).__name__}` has no workflow `{workflow_name}`"
                f"{did_you_mean(workflow_name, self._workflow_map)}; "
                f"it has {', '.join(f'`{name}`' for name in self._workflow_map)}"
            )
        triggers = self._workflow_map[workflow_name]
        # several spellings of one workflow select the same blocks
        spelling = triggers[0] if isinstance(triggers, tuple) and triggers else triggers
        if not isinstance(spelling, Mapping):
            names = [name for name in spelling if isinstance(name, str)] if isinstance(spelling, (list, set)) else []
            raise DefinitionError(
                f"`{type(self).__name__}._workflow_map` has {brief(triggers)} for `{workflow_name}`; it must be a dict "
                f"of the inputs that select the workflow, such as {dict.fromkeys(names or ['prompt'], True)}, or a "
                f"tuple of such dicts"
            )
        return self.get_execution_blocks(**spelling)
