"""`ModularPipeline`: blocks and the components they work with, ready to be called."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.utils import PushToHubMixin

from loopwright.blocks import (
    ConditionalPipelineBlocks,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    SequentialPipelineBlocks,
    walk,
)
from loopwright.blocks.facts import cached
from loopwright.blocks.sub_blocks import as_block
from loopwright.check import raise_errors
from loopwright.errors import (
    BlockLocation,
    DefinitionError,
    InvalidInputError,
    MissingInputError,
    OutputNotSetError,
    UnknownComponentError,
    UnknownInputError,
    UnknownValueError,
    did_you_mean,
    nearest,
)
from loopwright.params import InputParam
from loopwright.specs import ComponentSpec, ConfigSpec
from loopwright.state import PipelineState

__all__ = ["ModularPipeline"]


class ModularPipeline(ConfigMixin, PushToHubMixin):  # type: ignore[misc]
    """Blocks and the components they work with, ready to be called: `pipe(prompt="red apple", output="images")`.

    Components and configuration values are attributes of the pipeline. One pipeline serves many calls; what belongs to
    a call is in its `PipelineState`.

    Args:
        blocks: the blocks, or a class of blocks.
        pretrained_model_name_or_path: where the specs of the components are read from.
        components_manager: the `ComponentsManager` that the components are shared through.
        collection: the name under which the manager groups them.
        workflow: the name of a workflow; only its blocks are kept, and only its components are expected.

    Raises:
        CheckError: the blocks do not fit together; see `loopwright.check`.
    """

    config_name = "modular_model_index.json"
    hf_device_map: dict[str, Any] | None = None
    default_blocks_name: str | None = None

    def __init__(
        self,
        blocks: ModularPipelineBlocks | type[ModularPipelineBlocks] | None = None,
        pretrained_model_name_or_path: Any = None,
        components_manager: Any = None,
        collection: str | None = None,
        workflow: str | None = None,
    ) -> None:
        if blocks is None:
            raise DefinitionError(f"`{type(self).__name__}` needs `blocks`: the blocks that it runs")
        if pretrained_model_name_or_path is not None or components_manager is not None or collection is not None:
            raise NotImplementedError(
                "this version does not load components by itself, and has no ComponentsManager: load them, and give "
                "them to `update_components`"
            )
        tree: ModularPipelineBlocks = as_block(blocks, "blocks")
        if workflow is not None:
            tree = tree.get_workflow(workflow)
        raise_errors(tree)
        self._blocks = tree
        self._component_specs: dict[str, ComponentSpec] = {
            str(spec.name): deepcopy(spec) for spec in tree.expected_components
        }
        self._config_specs: dict[str, ConfigSpec] = {spec.name: deepcopy(spec) for spec in tree.expected_configs}
        self.register_components(
            **{
                name: spec.create() if spec.default_creation_method == "from_config" else None
                for name, spec in self._component_specs.items()
            }
        )
        self.register_to_config(
            _blocks_class_name=type(tree).__name__,
            **{name: spec.default for name, spec in self._config_specs.items()},
        )

    # Blocks

    @property
    def blocks(self) -> ModularPipelineBlocks:
        """A copy of the blocks; changing it does not change the pipeline."""
        return deepcopy(self._blocks)

    @property
    def doc(self) -> str:
        """The documentation of the blocks."""
        return self._blocks.doc

    @property
    def default_call_parameters(self) -> dict[str | None, Any]:
        """The inputs of a call with their defaults."""
        return {param.name: param.default for param in self._blocks.inputs}

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Set the arguments of the progress bars (`disable=True`) of all loops, at any depth."""
        for _, block in walk(self._blocks):
            if isinstance(block, LoopSequentialPipelineBlocks):
                block.set_progress_bar_config(**kwargs)

    # Components and configuration

    @property
    def components(self) -> dict[str, Any]:
        """The components by name; None for those that are not loaded."""
        return {name: self.__dict__[name] for name in self._component_specs if name in self.__dict__}

    @property
    def component_names(self) -> list[str]:
        return list(self.components)

    @property
    def null_component_names(self) -> list[str]:
        """The names of the components that are not loaded."""
        return [name for name, component in self.components.items() if component is None]

    @property
    def pretrained_component_names(self) -> list[str]:
        """The names of the components that are loaded, or given."""
        return [name for name, s in self._component_specs.items() if s.default_creation_method == "from_pretrained"]

    @property
    def config_component_names(self) -> list[str]:
        """The names of the components that are created from their configuration."""
        return [name for name, s in self._component_specs.items() if s.default_creation_method == "from_config"]

    def get_component_spec(self, name: str) -> ComponentSpec:
        """A copy of the spec of a component.

        Raises:
            UnknownComponentError: no block expects such a component.
        """
        if name not in self._component_specs:
            raise UnknownComponentError(self._unknown_component(name))
        return deepcopy(self._component_specs[name])

    def register_components(self, **kwargs: Any) -> None:
        """Set components as they are, without changing their specs; `update_components` is what users call.

        Raises:
            UnknownComponentError: no block expects such a component.
        """
        for name, component in kwargs.items():
            if name not in self._component_specs:
                raise UnknownComponentError(self._unknown_component(name))
            spec = self._component_specs[name]
            if spec.default_creation_method == "from_pretrained":
                self.register_to_config(**{name: (*_library_and_class(component), _spec_to_dict(spec))})
            setattr(self, name, component)

    def update_components(self, **kwargs: Any) -> None:
        """Replace components and configuration values.

        Args:
            **kwargs: components by name, as objects or as specs from which they are created or loaded; or configuration
                values by name. None takes a component out.

        Raises:
            UnknownComponentError: no block expects a component or configuration value of that name. Nothing is changed.
        """
        for name in kwargs:
            if name not in self._component_specs and name not in self._config_specs:
                raise UnknownComponentError(self._unknown_component(name))
        components: dict[str, Any] = {}
        specs: dict[str, ComponentSpec] = {}
        for name, given in kwargs.items():
            if name not in self._component_specs:
                continue
            component = given
            if isinstance(given, ComponentSpec):
                component = given.create() if given.default_creation_method == "from_config" else given.load()
            components[name] = component
            specs[name] = self._updated_spec(name, component)
        self._component_specs.update(specs)
        self.register_components(**components)
        configs = {name: value for name, value in kwargs.items() if name in self._config_specs}
        for name, value in configs.items():
            self._config_specs[name].default = value
        self.register_to_config(**configs)

    def _updated_spec(self, name: str, component: Any) -> ComponentSpec:
        current = self._component_specs[name]
        if component is None:
            return current
        loaded = getattr(component, "_diffusers_load_id", None) is not None
        if current.default_creation_method == "from_pretrained" and not loaded:
            return ComponentSpec(name=name, type_hint=type(component), description=current.description)
        return ComponentSpec.from_component(name, component)

    def _unknown_component(self, name: str) -> str:
        known = [*self._component_specs, *self._config_specs]
        return (
            f"no block of this pipeline expects a component or configuration value `{name}`"
            f"{did_you_mean(name, known)}; "
            + (f"they expect {', '.join(f'`{n}`' for n in sorted(known))}" if known else "they expect none")
        )

    def __getattr__(self, name: str) -> Any:
        attributes = self.__dict__
        if name in attributes.get("_config_specs", ()):
            return attributes["_internal_dict"][name]
        known = [*attributes.get("_component_specs", ()), *attributes.get("_config_specs", ())]
        hint = "" if name.startswith("_") else did_you_mean(name, known)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}", name=name, obj=self)

    # Devices and dtypes

    def _modules(self) -> list[torch.nn.Module]:
        return [component for component in self.components.values() if isinstance(component, torch.nn.Module)]

    @property
    def device(self) -> torch.device:
        """The device of the first model, the CPU if there is none."""
        parameter = next((p for module in self._modules() for p in module.parameters()), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first model, float32 if there is none."""
        for module in self._modules():
            dtype = getattr(module, "dtype", None)
            if dtype is not None:
                return dtype  # type: ignore[no-any-return]
        return torch.float32

    @property
    def _execution_device(self) -> torch.device:
        """The device on which models run: where offloading hooks move them to, otherwise `device`."""
        for model in self._modules():
            for module in model.modules():
                hook = getattr(module, "_hf_hook", None)
                device = getattr(hook, "execution_device", None)
                if device is not None:
                    return torch.device(device)
        return self.device

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move all models to a device, a dtype, or both, as `torch.nn.Module.to` does.

        Returns:
            The pipeline itself.
        """
        kwargs.pop("silence_dtype_warnings", None)
        unknown = set(kwargs) - {"device", "dtype"}
        if unknown or len(args) > 2:
            raise TypeError(
                f"`to` takes a device, a dtype, or both, not {', '.join(map(repr, [*args, *sorted(unknown)]))}"
            )
        for module in self._modules():
            module.to(*args, **kwargs)
        return self

    # Calls

    def __call__(self, state: PipelineState | None = None, output: Any = None, **kwargs: Any) -> Any:
        """Run the blocks.

        Args:
            state: values to start from, such as an earlier call returned. It is copied, not changed.
            output: what to return: a name for its value, a list of names for a dict of their values, None for the
                state.
            **kwargs: the inputs of the blocks.

        Raises:
            UnknownInputError: an input that no block has.
            MissingInputError: an input is missing that a block requires.
            UnknownValueError: `output` names a value that no block makes. The blocks did not run.
        """
        run_state = self._start_state(state, kwargs)
        self._check_output(output, run_state)
        try:
            with torch.no_grad():
                _, run_state = self._blocks(self, run_state)
            self._check_leaf(run_state)
        except Exception as error:
            location = getattr(error, "loopwright", None)
            if isinstance(location, BlockLocation):
                location.closed = True
            raise
        if output is None:
            run_state._strict = True
            return run_state
        return run_state.get(list(output) if isinstance(output, tuple) else output, None)

    def _start_state(self, state: PipelineState | None, inputs: dict[str, Any]) -> PipelineState:
        """The state that the blocks start with: what was passed in, the inputs of the call, and defaults."""
        if state is None:
            run_state = PipelineState()
        elif isinstance(state, PipelineState):
            run_state = state.fork()
        else:
            raise InvalidInputError(f"`state` is a {type(state).__name__}; it must be a `PipelineState`")
        values = run_state.values
        rest = dict(inputs)
        declared, needs = cached(self._blocks, "call", _call_facts)
        defaults = []
        for name, default, kwargs_type in declared:
            if name in rest:
                run_state.set(name, rest.pop(name), kwargs_type)
            elif kwargs_type is not None and kwargs_type in rest:
                self._set_group(run_state, kwargs_type, rest.pop(kwargs_type))
            elif name is not None and name not in values:
                defaults.append((name, default, kwargs_type))
        if rest:
            raise UnknownInputError(self._unknown_input(next(iter(rest))))
        for name, path in needs:
            if values.get(name) is None:
                raise MissingInputError(name, [key for key, value in values.items() if value is not None], path)
        for name, default, kwargs_type in defaults:
            if name not in values:
                run_state.set(name, default, kwargs_type)
        return run_state

    def _set_group(self, state: PipelineState, kwargs_type: str, group: Any) -> None:
        if not isinstance(group, dict):
            raise InvalidInputError(
                f"input `{kwargs_type}` is a {type(group).__name__}; it must be a dict of the group's values by name"
            )
        for name, value in group.items():
            state.set(name, value, kwargs_type)

    def _unknown_input(self, name: str) -> str:
        declared, _ = cached(self._blocks, "call", _call_facts)
        names = [known for known, _, _ in declared if known is not None]
        groups = [kwargs_type for known, _, kwargs_type in declared if known is None]
        message = f"unknown input `{name}`{did_you_mean(name, [*names, *groups, 'output', 'state'])}"
        if name in self._component_specs or name in self._config_specs:
            message = (
                f"unknown input `{name}`: it is a component or configuration value; set it with `update_components`"
            )
        elif groups and nearest(name, names) is None:
            message += f"; if it belongs to a group, pass it as `{groups[0]}={{{name!r}: ...}}`"
        taken = ", ".join(f"`{known}`" for known in [*names, *groups])
        return f"{message}; this pipeline takes {taken or 'no inputs'}"

    def _check_output(self, output: Any, state: PipelineState) -> None:
        if output is None:
            return
        if not isinstance(output, (str, list, tuple)) or not all(isinstance(name, str) for name in output):
            raise InvalidInputError(f"`output` is {output!r}; it must be the name of a value, or a list of names")
        known = cached(self._blocks, "declared names", _declared_names)
        for name in [output] if isinstance(output, str) else output:
            if name not in known and name not in state.values:
                raise UnknownValueError(name, [*known, *state.values], holder="the result of this pipeline")

    def _check_leaf(self, state: Any) -> None:
        """A pipeline of a single leaf has no composite that looks whether it set its outputs."""
        if isinstance(state, PipelineState) and not self._blocks.sub_blocks:
            for name in self._blocks.certain_outputs:
                if name not in state.values:
                    raise OutputNotSetError(self._blocks._unset_message(name))


def _call_facts(
    blocks: ModularPipelineBlocks,
) -> tuple[list[tuple[str | None, Any, str | None]], tuple[tuple[str, str], ...]]:
    """Name, default and group of each input of a call; and the inputs without which it must fail."""
    return [(param.name, param.default, param.kwargs_type) for param in blocks.inputs], _needs(blocks)


def _declared_names(blocks: ModularPipelineBlocks) -> frozenset[str]:
    """All names that blocks of the tree read or write."""
    names: set[str] = set()
    for _, block in walk(blocks):
        names.update(block.input_names)
        names.update(block.output_names)
        names.update(block.intermediate_output_names)
    return frozenset(names)


def _needs(blocks: ModularPipelineBlocks) -> tuple[tuple[str, str], ...]:
    """Inputs without which a call must fail, each with the path of the first block that requires it.

    An input counts whose first reader requires it, or has no default for it while a later reader requires it. What an
    earlier block may write is left out, even if that block may be skipped; and so is what only a branch requires.
    """
    taken = set(blocks.input_names)
    settled: set[str] = set()
    found: dict[str, str] = {}

    def read(params: list[InputParam], path: str) -> None:
        for param in params:
            if param.name is None or param.name in settled or param.name not in taken:
                continue
            if param.required:
                found.setdefault(param.name, path)
            elif param.default is not None or param.defaults_by_block:
                settled.add(param.name)

    def visit(block: ModularPipelineBlocks, path: str) -> None:
        if isinstance(block, LoopSequentialPipelineBlocks):
            read(block.loop_inputs, path)
        plain = type(block).__call__ is SequentialPipelineBlocks.__call__
        if plain or isinstance(block, LoopSequentialPipelineBlocks):
            for name, child in block.sub_blocks.items():
                visit(child, f"{path}.{name}" if path else name)
        elif isinstance(block, ConditionalPipelineBlocks):
            settled.update(param.name for param in block.inputs if param.name is not None)
        else:
            read(block.inputs, path)
        settled.update(block.intermediate_output_names)

    visit(blocks, "")
    return tuple(found.items())


def _library_and_class(component: Any) -> tuple[str | None, str | None]:
    """The library of a component and the name of its class, as they stand in a pipeline's index."""
    if component is None:
        return None, None
    cls = type(getattr(component, "_orig_mod", component))  # what `torch.compile` wraps is meant
    return cls.__module__.split(".")[0], cls.__name__


def _spec_to_dict(spec: ComponentSpec) -> dict[str, Any]:
    """A spec as it stands in a pipeline's index."""
    hint = spec.type_hint
    type_hint = (hint.__module__.split(".")[0], hint.__name__) if isinstance(hint, type) else (None, None)
    return {"type_hint": type_hint, **{name: getattr(spec, name) for name in spec.loading_fields()}}
