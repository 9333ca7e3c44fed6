"""`IterativePipelineBlocks`: loops whose blocks work on the state of the pipeline, in the style of an open proposal.

diffusers' pull request 14159 proposes a second class of loops. Its wrappers give `loop_step` the `PipelineState` that
they got, and its blocks, `ModularLoopPipelineBlocks`, read and write it by `get_block_state` and `set_block_state`.
"""

from __future__ import annotations

from typing import Any

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.blocks.loop import LoopSequentialPipelineBlocks
from loopwright.errors import NotDefinedError
from loopwright.params import InputParam, OutputParam
from loopwright.state import BlockState, PipelineState

__all__ = ["IterativePipelineBlocks", "ModularLoopPipelineBlocks"]


class ModularLoopPipelineBlocks(ModularPipelineBlocks):
    """A block of an `IterativePipelineBlocks`, which takes the pipeline's state and the loop variables that it names.

    Any other block can be one as well.
    """


class IterativePipelineBlocks(LoopSequentialPipelineBlocks):
    """A loop whose blocks read and write the state of the pipeline, each by its own `get_block_state`.

        class Denoise(IterativePipelineBlocks):
            block_classes = [Predict, Step]
            block_names = ["predict", "step"]
            loop_inputs = [InputParam("timesteps", required=True)]

            def __call__(self, components, state):
                block_state = self.get_block_state(state)
                for i, t in enumerate(block_state.timesteps):
                    components, state = self.loop_step(components, state, i=i, t=t)
                return components, state

    The block state of the wrapper holds its `loop_inputs` alone. The names of the loop variables may be declared as
    `loop_variables`; otherwise they are those that its source tells.
    """

    def _reads(self) -> list[InputParam]:
        return self.loop_inputs

    def set_block_state(self, state: PipelineState | BlockState, block_state: PipelineState | BlockState) -> None:
        """Write the wrapper's `loop_intermediate_outputs`, and those of its `loop_inputs` that no block writes."""
        if block_state is state:
            # the blocks wrote to it themselves
            return
        written = {output.name for block in self.sub_blocks.values() for output in block.intermediate_outputs}
        own: list[InputParam | OutputParam] = [*self.loop_intermediate_outputs]
        own += [param for param in self.loop_inputs if param.name not in written]
        for param in own:
            if param.name is not None and param.name in block_state:
                state.set(param.name, block_state[param.name], param.kwargs_type)

    def __call__(self, components: Any, state: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        raise NotDefinedError(
            f"the loop `{type(self).__name__}` does not say what its iterations are: define "
            f"`__call__(self, components, state)`, which calls `self.loop_step(components, state, i=i)` for each"
        )
