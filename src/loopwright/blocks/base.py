"""`ModularPipelineBlocks`: what every block is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Self

from loopwright.blocks import documentation, epoch, facts
from loopwright.blocks.declarations import require_declarations
from loopwright.blocks.registry import provided
from loopwright.blocks.stored import StoredBlocks
from loopwright.blocks.sub_blocks import SubBlocks, refuse_cycle
from loopwright.errors import (
    BlockTypeError,
    DefinitionError,
    MissingInputError,
    NotDefinedError,
    OutputNotSetError,
    kind_of,
)
from loopwright.params import InputParam, OutputParam
from loopwright.specs import ComponentSpec, ConfigSpec
from loopwright.state import BlockState, PipelineState, loop_record, own_default

__all__ = ["ModularPipelineBlocks"]

_new_block_state = BlockState.__new__


class Description:
    """A description that a class computes and an instance may replace (`block.description = "..."`)."""

    def __init__(self, compute: Callable[[Any], str]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, block: Any, owner: type | None = None) -> Any:
        return self if block is None else self._compute(block)


class ModularPipelineBlocks(StoredBlocks):
    """A step of a pipeline: what it reads and writes, what it works with, and `__call__`, which does the work.

    A subclass declares `inputs`, `intermediate_outputs`, `expected_components`, `expected_configs` and `description`,
    as class attributes or as properties, and defines `__call__(self, components, state)`:

        class Double(ModularPipelineBlocks):
            inputs = [InputParam("x", required=True)]
            intermediate_outputs = [OutputParam("x")]

            def __call__(self, components, state):
                block_state = self.get_block_state(state)
                block_state.x = block_state.x * 2
                self.set_block_state(state, block_state)
                return components, state

    A block holds no weights and no data of a request; one instance serves many runs at a time.

    Attributes:
        model_name: the family of models that the block is for.
        sub_blocks: the blocks that this one is made of, by name; empty for a leaf.
    """

    model_name: str | None = None
    _requirements: dict[str, str] | None = None
    _workflow_map: dict[str, Any] | None = None
    # the class of pipelines that the blocks of a family need; None if any will do
    _pipeline_class: type[Any] | None = None

    _cache: facts.FactCache
    _sub_blocks: SubBlocks

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # here, so that a subclass whose `__init__` does not call that of its base is whole as well
        block = super().__new__(cls)
        block.__dict__["_cache"] = facts.FactCache()
        block.__dict__["_sub_blocks"] = SubBlocks()
        return block

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        epoch.advance()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        epoch.advance()

    def __init__(self) -> None:
        pass

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("description")
        if isinstance(own, property) and own.fset is None and own.fget is not None:
            cls.description = Description(own.fget)  # type: ignore[method-assign]

    @Description
    def description(self) -> str:
        """What the block does, for the reader of the documentation."""
        return ""

    @property
    def inputs(self) -> list[InputParam]:
        """The values that the block reads."""
        return []

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The values that the block writes."""
        return []

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """The components that the block works with."""
        return []

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        """The configuration values that the block reads from the pipeline."""
        return []

    @property
    def sub_blocks(self) -> SubBlocks:
        return self._sub_blocks

    @sub_blocks.setter
    def sub_blocks(self, blocks: dict[str, Any]) -> None:
        if not isinstance(blocks, Mapping):
            raise BlockTypeError(f"`sub_blocks` must be a dict of names and blocks, not {kind_of(blocks)}")
        children = blocks if isinstance(blocks, SubBlocks) else SubBlocks(blocks)
        for name, block in children.items():
            refuse_cycle(name, block, lambda inner: inner is self)
        self._sub_blocks = children

    @property
    def outputs(self) -> list[OutputParam]:
        """The values that the block leaves to its user: its intermediate outputs, unless a subclass says otherwise."""
        return self.intermediate_outputs

    @property
    def required_inputs(self) -> list[str]:
        """The names of the inputs that the block cannot run without."""
        return [param.name for param in self.inputs if param.required and param.name is not None]

    @property
    def input_names(self) -> list[str]:
        return [param.name for param in self.inputs if param.name is not None]

    @property
    def intermediate_output_names(self) -> list[str]:
        return [param.name for param in self.intermediate_outputs]

    @property
    def output_names(self) -> list[str]:
        return [param.name for param in self.outputs]

    @property
    def component_names(self) -> list[str | None]:
        return [spec.name for spec in self.expected_components]

    @property
    def may_be_skipped(self) -> bool:
        """Whether the block may do nothing, so that later blocks cannot count on its outputs."""
        return False

    @property
    def certain_outputs(self) -> frozenset[str]:
        """The names of the outputs that are set whatever the inputs are."""
        return frozenset(param.name for param in self.intermediate_outputs)

    def get_execution_blocks(self, **kwargs: Any) -> ModularPipelineBlocks | None:
        """The blocks that would run for these inputs; for conditionals and sequences."""
        raise NotDefinedError(
            f"`{type(self).__name__}` chooses no blocks by its inputs: only conditionals and sequences do"
        )

    @property
    def available_workflows(self) -> list[str]:
        """The names of the workflows; for blocks with a `_workflow_map`."""
        raise NotDefinedError(f"`{type(self).__name__}` has no workflows: it does not set `_workflow_map`")

    def get_workflow(self, workflow_name: str) -> ModularPipelineBlocks:
        """The blocks of one workflow; for blocks with a `_workflow_map`."""
        raise NotDefinedError(f"`{type(self).__name__}` has no workflows: it does not set `_workflow_map`")

    def init_pipeline(
        self,
        pretrained_model_name_or_path: Any = None,
        components_manager: Any = None,
        collection: str | None = None,
    ) -> Any:
        """A `ModularPipeline` of a copy of these blocks.

        Args:
            pretrained_model_name_or_path: where the specs of the components are read from.
            components_manager: the `ComponentsManager` that the pipeline shares its components with.
            collection: the name under which the manager groups them.

        Raises:
            CheckError: the blocks do not fit together; see `loopwright.check`.
        """
        needed = (block._pipeline_class for _, block in facts.walk(self))
        pipeline_class = next(filter(None, needed), None) or provided("pipeline")
        return pipeline_class(
            blocks=deepcopy(self),
            pretrained_model_name_or_path=pretrained_model_name_or_path,
            components_manager=components_manager,
            collection=collection,
        )

    def __call__(self, components: Any, state: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Do the work of the block.

        Args:
            components: the pipeline; components and configuration values are its attributes.
            state: the `PipelineState`, or, for a block of a loop, the `BlockState` that the loop's blocks share. A
                block of a loop also gets the loop's variables that it names as further arguments.

        Returns:
            `components` and `state`.
        """
        raise NotDefinedError(
            f"`{type(self).__name__}` does not define `__call__`: define `__call__(self, components, state)`, which "
            f"does the work of the block and returns `components, state`"
        )

    def _bound_call(self) -> Callable[..., tuple[Any, Any]]:
        """What a composite calls to run the block."""
        call: Callable[..., tuple[Any, Any]] = type(self).__call__.__get__(self)
        return call

    def get_block_state(self, state: PipelineState | BlockState) -> BlockState:
        """The block's view of the state: its inputs, with defaults where a value is missing or None.

        Raises:
            MissingInputError: a required input has no value.
        """
        cache = self._cache
        reads, _, _, groups = cache.access if cache.epoch is epoch.current and cache.access else self._access()
        holder: Any = state.values if type(state) is PipelineState else state
        block_state = _new_block_state(BlockState)
        block_state._loop = None
        values = block_state.__dict__
        for name, default, required in reads:
            value = holder.get(name)
            if value is None:
                if required:
                    raise MissingInputError(name, available=_names(state))
                if default is not None:
                    value = own_default(default)
            values[name] = value
        if groups:
            for kwargs_type in groups:
                group = {key: value for key, value in state.get_by_kwargs(kwargs_type).items() if value is not None}
                values.update(group)
                values.setdefault(kwargs_type, {}).update(group)
                loop_record(block_state).groups[kwargs_type] = list(group)
        outer = state._loop
        if outer is not None and outer.variables is not None:
            loop = loop_record(block_state)
            loop.outer_variables = loop.variables = outer.variables
        return block_state

    def set_block_state(self, state: PipelineState | BlockState, block_state: BlockState) -> None:
        """Write the block's outputs, and the inputs that it changed, to the state.

        Raises:
            OutputNotSetError: the block did not set an output that it declares.
        """
        cache = self._cache
        _, writes, changeable, groups = (
            cache.access if cache.epoch is epoch.current and cache.access else self._access()
        )
        values = block_state.__dict__
        holder: Any = state.values if type(state) is PipelineState else state
        target = state.__dict__ if holder is state else holder
        for name, kwargs_type in writes:
            if name not in values:
                if self._must_set(name, block_state):
                    raise OutputNotSetError(self._unset_message(name))
            elif kwargs_type is None:
                target[name] = values[name]
            else:
                state.set(name, values[name], kwargs_type)
        for name, kwargs_type in changeable:
            if name in values and holder.get(name) is not values[name]:
                state.set(name, values[name], kwargs_type)
        for kwargs_type in groups:
            for name, known in state.get_by_kwargs(kwargs_type).items():
                if name in values and values[name] is not known:
                    target[name] = values[name]

    def _reads(self) -> list[InputParam]:
        """What the block takes from its state; a name may be declared several times."""
        return self.inputs

    def _access(self) -> Access:
        """What the block declares; asked for when what the cache has at hand no longer holds."""
        access: Access = facts.cached(self, "access", _access)
        self._cache.access = access
        return access

    def _must_set(self, output_name: str, block_state: BlockState) -> bool:
        """Whether an output that `set_block_state` does not find is the author's mistake."""
        if isinstance(block_state, PipelineState):
            raise DefinitionError(
                f"`{type(self).__name__}` gives `set_block_state` the pipeline state in place of the block state: "
                f"write `self.set_block_state(state, block_state)`"
            )
        return True

    def _unset_message(self, output_name: str) -> str:
        return (
            f"`{type(self).__name__}` declares the output `{output_name}` and did not set it: assign "
            f"`block_state.{output_name}` before `self.set_block_state(state, block_state)`, or take it out of "
            f"`intermediate_outputs`"
        )

    def _get_trigger_inputs(self) -> set[str]:
        """The names of the inputs that choose blocks anywhere in the tree."""
        return {
            trigger
            for _, block in facts.walk(self)
            for trigger in getattr(block, "block_trigger_inputs", None) or ()
            if trigger is not None
        }

    @property
    def doc(self) -> str:
        """What the block does, needs, reads and writes, as text."""
        description = self.description
        if self._workflow_map is not None:
            description = f"{description}\n\n{documentation.format_workflow(self._workflow_map)}"
        return documentation.make_doc_string(
            self.inputs,
            self.outputs,
            description,
            class_name=type(self).__name__,
            expected_components=self.expected_components,
            expected_configs=self.expected_configs,
        )

    def __repr__(self) -> str:
        return documentation.represent(self)

    def _repr_html_(self) -> str:
        html: str = provided("describe")(self, format="html")
        return html


class Access(NamedTuple):
    """What a block declares, as its state needs it.

    Attributes:
        reads: name, default and requiredness of each input, each name once.
        writes: name and group of each output.
        changeable: name and group of each input that is not an output.
        groups: the groups of values that the block reads.
    """

    reads: tuple[tuple[str, Any, bool], ...]
    writes: tuple[tuple[str, str | None], ...]
    changeable: tuple[tuple[str, str | None], ...]
    groups: tuple[str, ...]


def _access(block: ModularPipelineBlocks) -> Access:
    require_declarations(block)
    reads: dict[str, tuple[Any, bool]] = {}
    changeable: dict[str, str | None] = {}
    groups: dict[str, None] = {}
    writes = dict.fromkeys((param.name, param.kwargs_type) for param in block.intermediate_outputs)
    written = {name for name, _ in writes}
    for param in block._reads():
        key = facts.input_key(param)
        if param.name is None:
            groups[str(param.kwargs_type)] = None
            continue
        # of a name that is declared twice, the last default counts, and it is required if one declaration says so
        default, required = reads.get(key, (None, False))
        reads[key] = param.default if param.default is not None else default, required or param.must_be_given
        if key not in written:
            changeable.setdefault(key, param.kwargs_type)
    return Access(
        tuple((name, *declared) for name, declared in reads.items()),
        tuple(writes),
        tuple(changeable.items()),
        tuple(groups),
    )


def _names(state: PipelineState | BlockState) -> list[str]:
    """The names of the values that a state holds, for a message."""
    values = state.values if isinstance(state, PipelineState) else state.as_dict()
    return [name for name, value in values.items() if value is not None]
