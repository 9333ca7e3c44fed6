"""`ModularPipeline`: blocks and the components they work with, ready to be called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from dataclasses import replace
from os import PathLike
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.utils import PushToHubMixin

from loopwright.blocks import (
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    walk,
)
from loopwright.blocks.composite import run_whole
from loopwright.blocks.sub_blocks import as_block, from_diffusers
from loopwright.check import CALL_OPTIONS, raise_errors
from loopwright.errors import (
    BlockTypeError,
    ComponentLoadError,
    DefinitionError,
    OutputNotSetError,
    UnknownComponentError,
    UnknownInputError,
    close_location,
    did_you_mean,
    kind_of,
)
from loopwright.run import Event, Execution, Run, RunOptions, is_run_scoped
from loopwright.run.asynchronous import events_of, result_of
from loopwright.run.exclusive import needs_exclusive
from loopwright.run.request import check_output, start_state
from loopwright.run.resuming import branched, resumed
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
    # set on the view that a run has of its pipeline
    _driver: Any = None

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
        if isinstance(blocks, (str, PathLike)):
            raise BlockTypeError(
                f"`blocks` is the {type(blocks).__name__} {str(blocks)!r}, and a pipeline is made of blocks; for a "
                f"model in a folder, write `load_pipeline(TextToImageBlocks(), folder)`, both from "
                f"`loopwright.diffusion`; for blocks of your own, give the blocks here, and their components to "
                f"`pipe.update_components(...)`"
            )
        tree: ModularPipelineBlocks = as_block(blocks, "`blocks`")
        if workflow is not None:
            tree = tree.get_workflow(workflow)
        raise_errors(tree)
        for name in [*tree.component_names, *(spec.name for spec in tree.expected_configs)]:
            if hasattr(ModularPipeline, str(name)):
                raise DefinitionError(_taken_name(tree, str(name)))
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

    def _repr_html_(self) -> str:
        return self._blocks._repr_html_()

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
        return {name: getattr(self, name) for name in self._component_specs}

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
            raise UnknownComponentError(self._unknown_component(name, settable=False))
        return deepcopy(self._component_specs[name])

    def register_components(self, **kwargs: Any) -> None:
        """Set components as they are, without changing their specs; `update_components` is what users call.

        Raises:
            UnknownComponentError: no block expects such a component.
        """
        for name, component in kwargs.items():
            if name not in self._component_specs:
                raise UnknownComponentError(self._unknown_component(name, settable=False))
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
            ComponentLoadError: what is given cannot be a component, or could not be made or loaded. Nothing is changed.
        """
        for name, given in kwargs.items():
            if name not in self._component_specs and name not in self._config_specs:
                raise UnknownComponentError(self._unknown_component(name))
            if name in self._component_specs:
                _require_component(name, given, self._component_specs[name])
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
        # made anew, as the view of a run shares them
        self._component_specs = {**self._component_specs, **specs}
        self.register_components(**components)
        configs = {name: value for name, value in kwargs.items() if name in self._config_specs}
        self._config_specs = {
            name: replace(spec, default=configs.get(name, spec.default)) for name, spec in self._config_specs.items()
        }
        self.register_to_config(**configs)

    def _updated_spec(self, name: str, component: Any) -> ComponentSpec:
        current = self._component_specs[name]
        if component is None:
            return current
        loaded = getattr(component, "_diffusers_load_id", None) is not None
        if current.default_creation_method == "from_pretrained" and not loaded:
            return ComponentSpec(name=name, type_hint=type(component), description=current.description)
        return ComponentSpec.from_component(name, component)

    def _unknown_component(self, name: str, settable: bool = True) -> str:
        """What to tell somebody who named a component that there is not.

        Args:
            name: the name.
            settable: whether configuration values were meant as well.
        """
        if name in self._config_specs:
            return (
                f"`{name}` is a configuration value, not a component: it is `pipe.{name}`, set by `update_components`"
            )
        known = [*self._component_specs, *(self._config_specs if settable else ())]
        kind = "component or configuration value" if settable else "component"
        return f"no block of this pipeline expects a {kind} `{name}`{did_you_mean(name, known)}; " + (
            f"they expect {', '.join(f'`{n}`' for n in sorted(known))}" if known else "they expect none"
        )

    def __getattr__(self, name: str) -> Any:
        attributes = self.__dict__
        if name in attributes.get("_config_specs", ()):
            return attributes["_internal_dict"][name]
        originals = attributes.get("_originals", ())
        if name in originals:
            copied = attributes[name] = deepcopy(originals[name])
            return copied
        hint = ""
        if not name.startswith("_"):
            known = [*attributes.get("_component_specs", ()), *attributes.get("_config_specs", ())]
            listed = ", ".join(f"`{component}`" for component in known)
            hint = f"{did_you_mean(name, known)}; " + (
                f"its components and configuration values are {listed}" if known else "its blocks expect no components"
            )
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
        for name in sorted(unknown):
            hint = did_you_mean(name, ("device", "dtype"))
            raise UnknownInputError(f"`to` takes a device, a dtype, or both, and no `{name}`{hint}")
        if len(args) > 2:
            raise UnknownInputError(f"`to` takes a device, a dtype, or both, not {len(args)} values")
        for module in self._modules():
            module.to(*args, **kwargs)
        return self

    # Calls

    def __call__(
        self,
        state: PipelineState | None = None,
        output: Any = None,
        callbacks: Any = None,
        checkpoint: Any = None,
        timeout: float | None = None,
        progress: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the blocks.

        Args:
            state: values to start from, such as an earlier call returned. It is copied, not changed.
            output: what to return: a name for its value, a list of names for a dict of their values, None for the
                state.
            callbacks: called after each iteration of a loop: one or several callables that take the event, or that take
                `pipe, i, t, callback_kwargs`; or a dict with `on_event`, `callback_on_step_end` and
                `callback_on_step_end_tensor_inputs`. See `loopwright.run.Callbacks`.
            checkpoint: where and how often the run is saved, a `Checkpoint`; `resume` goes on from there.
            timeout: seconds that the run may take.
            progress: False hides progress bars, True shows them, None leaves it to the blocks.
            **kwargs: the inputs of the blocks.

        Raises:
            UnknownInputError: an input that no block has.
            MissingInputError: an input is missing that a block requires.
            UnknownValueError: `output` names a value that no block makes. The blocks did not run.
            RunTimeoutError: the run took longer than `timeout`.
        """
        run_state = start_state(self, state, kwargs)
        if output is not None:
            check_output(self, output, run_state)
        try:
            if callbacks is checkpoint is timeout is progress is None and not self._needs_exclusive():
                with torch.no_grad():
                    run_state = run_whole(self._blocks, self._view(), run_state)
            else:
                options = RunOptions.read(output, callbacks, checkpoint, timeout, progress)
                run_state = Execution(self, run_state, options).run()
            return self._returned(run_state, output)
        except Exception as error:
            close_location(error)
            raise

    def start(self, state: PipelineState | None = None, **kwargs: Any) -> Run:
        """Run the blocks in a thread of their own, and return the `Run` at once, to watch and steer it.

        Takes what a call takes; mistakes in it are raised here.
        """
        return Run(self._execution(state, kwargs, held=False))

    def stream(self, state: PipelineState | None = None, **kwargs: Any) -> Run:
        """A `Run` that begins when it is iterated: `for event in pipe.stream(prompt="red apple"): ...`.

        Takes what a call takes; mistakes in it are raised here. Leaving the iteration early cancels it, unless the run
        is kept.
        """
        return Run(self._execution(state, kwargs, held=True), held=True)

    async def acall(self, state: PipelineState | None = None, **kwargs: Any) -> Any:
        """A call for asyncio: the event loop goes on meanwhile. Cancelling the task cancels the run."""
        return await result_of(self.stream(state, **kwargs))

    def astream(self, state: PipelineState | None = None, **kwargs: Any) -> AsyncIterator[Event]:
        """`stream` for asyncio: `async for event in pipe.astream(prompt="red apple"): ...`."""
        return events_of(self.stream(state, **kwargs))

    def resume(
        self,
        path: Any,
        *,
        fall_back: bool = False,
        classes: Sequence[type] = (),
        output: Any = None,
        callbacks: Any = None,
        timeout: float | None = None,
        progress: bool | None = None,
        **inputs: Any,
    ) -> Run:
        """Go on with a run that was saved by `checkpoint=Checkpoint(path)`, in this process or another.

        Its result is what the first call would have returned. Saving goes on as before, in the same folder.

        Args:
            path: the folder of the run, or a `Storage`.
            fall_back: whether to go on from an earlier checkpoint, with a warning, if the last one is damaged.
            classes: as for `Checkpoint`.
            output, callbacks, timeout, progress: as for a call; they are not saved.
            **inputs: need not be given again; those that are given are compared with those that were saved.

        Raises:
            CheckpointError: there is nothing to go on from.
            CheckpointDamagedError: the last checkpoint is not what was written.
            CheckpointMismatchError: this is not the pipeline that the run was saved in, or an input is not the one that
                it began with; the message says what differs.
        """
        options = {"output": output, "callbacks": callbacks, "timeout": timeout, "progress": progress}
        return Run(resumed(self, path, inputs, classes, fall_back, **options))

    def branch(
        self,
        path: Any,
        *,
        at: int,
        classes: Sequence[type] = (),
        checkpoint: Any = None,
        output: Any = None,
        callbacks: Any = None,
        timeout: float | None = None,
        progress: bool | None = None,
        **changes: Any,
    ) -> Run:
        """Go another way from a checkpoint: `pipe.branch("run-1", at=12, prompt="green apple")`.

        The blocks before the loop run again, with the changed inputs. Of what the blocks of the loop had written, the
        values of iteration `at` are taken, and the random numbers go on from there, unless their generator is changed.
        The saved run stays as it is.

        Args:
            path: the folder of a run; save it with `Checkpoint(path, keep=None)` to have all of its iterations.
            at: after how many iterations, counted over all loops.
            classes: as for `Checkpoint`.
            checkpoint: where the new run is saved, if it is to be: another folder.
            output, callbacks, timeout, progress: as for a call.
            **changes: the inputs that are to be others.

        Raises:
            CheckpointError: there is no such checkpoint.
            CheckpointMismatchError: this is not the pipeline that the run was saved in, or the changes change the
                iterations of its loops.
            UnknownInputError: an input that no block has.
        """
        options = {"output": output, "callbacks": callbacks, "timeout": timeout, "progress": progress}
        return Run(branched(self, path, at, changes, classes, checkpoint=checkpoint, **options))

    def _execution(self, state: PipelineState | None, kwargs: dict[str, Any], held: bool) -> Execution:
        options = {name: kwargs.pop(name) for name in CALL_OPTIONS & kwargs.keys()}
        read = RunOptions.read(**options)
        run_state = start_state(self, state, kwargs)
        if read.output is not None:
            check_output(self, read.output, run_state)
        return Execution(self, run_state, read, held)

    def _returned(self, state: PipelineState, output: Any) -> Any:
        """What a call returns of the state that the blocks left."""
        if not self._blocks._sub_blocks:
            self._check_leaf(state)
        if output is None:
            state._strict = True
            return state
        return state.get(list(output) if isinstance(output, tuple) else output, None)

    def _view(self, driver: Any = None) -> Self:
        """The pipeline as one run sees it, which the blocks get as `components`.

        A shallow copy: what blocks assign to it stays in the run. Components that a run changes are left out, and
        copied when they are first asked for.
        """
        attributes = self.__dict__
        view = object.__new__(type(self))
        view.__dict__.update(attributes)
        own = view.__dict__
        scoped = {name: own.pop(name) for name in self._component_specs if is_run_scoped(own.get(name))}
        own["_originals"] = {**attributes.get("_originals", {}), **scoped}
        own["_driver"] = driver
        return view

    def _needs_exclusive(self) -> bool:
        """Whether a run has to have some of the components for itself at times."""
        own = self.__dict__
        originals = own.get("_originals", own)
        return needs_exclusive(own.get(name) or originals.get(name) for name in self._component_specs)

    def _own_components(self) -> dict[str, Any]:
        """The components of a view that the run has copied for itself."""
        return {name: self.__dict__[name] for name in self._component_specs if is_run_scoped(self.__dict__.get(name))}

    def _loop_paths(self) -> list[str]:
        return [path for path, block in walk(self._blocks) if isinstance(block, LoopSequentialPipelineBlocks)]

    def _check_leaf(self, state: Any) -> None:
        """A pipeline of a single leaf has no composite that looks whether it set its outputs."""
        if isinstance(state, PipelineState):
            for name in self._blocks.certain_outputs:
                if name not in state.values:
                    raise OutputNotSetError(self._blocks._unset_message(name))


def _taken_name(tree: ModularPipelineBlocks, name: str) -> str:
    """What to tell somebody whose block expects a component or configuration value that hides one of the pipeline's."""
    expecting = [
        (path, block, kind)
        for path, block in walk(tree)
        for kind, specs in (("component", block.expected_components), ("configuration value", block.expected_configs))
        if any(spec.name == name for spec in specs)
    ]
    path, block, kind = expecting[-1]  # the composites around it come first
    cls = f"`{type(block).__name__}`"
    return (
        f"{f'block `{path}` ({cls})' if path else cls} expects a {kind} `{name}`, which is an attribute of every "
        f"pipeline; give it another name"
    )


def _require_component(name: str, given: Any, spec: ComponentSpec) -> None:
    """Check that what is given for a component can be one.

    Raises:
        ComponentLoadError: it is a class, the name of a repository, or a spec of diffusers.
    """
    hint = f", {spec.type_hint.__name__}" if isinstance(spec.type_hint, type) else ""
    what = kind_of(given)
    if isinstance(given, type):
        advice = f"give an instance of it, or `ComponentSpec({name!r}, {given.__name__}, ...)`, which makes one"
    elif isinstance(given, (str, PathLike)):
        what = f"the {type(given).__name__} {str(given)!r}"
        spec_given = f"ComponentSpec({name!r}{hint}, repo={str(given)!r})"
        advice = f"to load it from a repository or a folder, write `pipe.update_components({name}={spec_given})`"
    elif from_diffusers(given, ComponentSpec):
        what, advice = "a `ComponentSpec` of diffusers", "import `ComponentSpec` from `loopwright`"
    else:
        return
    raise ComponentLoadError(f"component `{name}` cannot be {what}: {advice}")


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
