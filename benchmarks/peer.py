"""Our diffusion blocks as blocks of diffusers: the same leaves, declared with its classes and run by its engine."""

from __future__ import annotations

import copy
import inspect
from dataclasses import fields
from typing import Any

import diffusers.modular_pipelines as theirs

import loopwright.modular_pipelines as ours

LEAF = ("inputs", "intermediate_outputs", "expected_components", "description")
LOOP = ("loop_inputs", "loop_intermediate_outputs", "loop_expected_components", "description")
OWN = ("scheduler", "guider")


def peer_of(pipeline: Any) -> Any:
    """A pipeline of diffusers of the same leaves, with the same components."""
    return _with_components(_translated(pipeline.blocks), pipeline, pipeline.components)


def clone(peer: Any, own: tuple[str, ...] = OWN) -> Any:
    """A pipeline of diffusers for one thread, as a careful user makes it.

    Args:
        peer: a pipeline of diffusers.
        own: the names of the components of which it gets copies: those that a call changes.
    """
    components = peer.components
    return _with_components(
        peer.blocks, peer, {**components, **{name: copy.deepcopy(components[name]) for name in own}}
    )


def _with_components(blocks: Any, source: Any, components: dict[str, Any]) -> Any:
    made = blocks.init_pipeline()
    made.update_components(**components)
    # as a configuration value it is there an attribute only with a warning at each use
    made.model_prediction = source.model_prediction
    return made


def _translated(block: Any) -> Any:
    """A sequence, loop or leaf of ours as one of diffusers."""
    if isinstance(block, ours.LoopSequentialPipelineBlocks):
        made = _block(block, theirs.LoopSequentialPipelineBlocks, LOOP)
        made.sub_blocks = theirs.InsertableDict(
            {name: _block(child, theirs.ModularPipelineBlocks, LEAF) for name, child in block.sub_blocks.items()}
        )
        made.set_progress_bar_config(disable=True)
        return made
    if block.sub_blocks:
        children = {name: _translated(child) for name, child in block.sub_blocks.items()}
        return theirs.SequentialPipelineBlocks.from_blocks_dict(children)
    return _block(block, theirs.ModularPipelineBlocks, LEAF)


def _block(block: Any, base: Any, declarations: tuple[str, ...]) -> Any:
    """An instance of a class of diffusers with the methods, the declarations and the attributes of a block of ours."""
    methods = {
        name: value
        for cls in type(block).__mro__[::-1]
        if not cls.__module__.startswith("loopwright.blocks")
        for name, value in vars(cls).items()
        if isinstance(value, staticmethod) or (inspect.isfunction(value) and name != "__init__")
    }
    methods["__call__"] = _loop if "iterate" in methods else _with_variables(methods["__call__"])
    declared = {name: _declared(getattr(block, name)) for name in declarations}
    made = type(type(block).__name__, (base,), {**methods, **declared})()
    vars(made).update({name: value for name, value in vars(block).items() if not name.startswith("_")})
    return made


def _declared(value: Any) -> Any:
    if isinstance(value, str):
        return value
    made = []
    for item in value:
        cls = getattr(theirs, type(item).__name__)
        made.append(cls(**{field.name: getattr(item, field.name) for field in fields(cls) if field.init}))
    return made


def _loop(self: Any, components: Any, state: Any) -> tuple[Any, Any]:
    """The `__call__` of a loop as the guide of diffusers writes it, over the iterations of ours."""
    block_state = self.get_block_state(state)
    for variables in self.iterate(components, block_state):
        components, block_state = self.loop_step(components, block_state, **variables)
    self.set_block_state(state, block_state)
    return components, state


def _with_variables(call: Any) -> Any:
    """A `__call__` that takes all variables of a loop, as blocks of diffusers must, and uses those that it names."""
    names = [name for name in inspect.signature(call).parameters if name in ("i", "t")]
    if not names:
        return call

    def called(self: Any, components: Any, state: Any, **variables: Any) -> Any:
        return call(self, components, state, **{name: variables[name] for name in names})

    return called
