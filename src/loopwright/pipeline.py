"""`ModularPipeline`: blocks and the components they work with, ready to be called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from typing import Any, Self

import torch

from loopwright.blocks import (
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    walk,
)
from loopwright.blocks.composite import run_whole
from loopwright.blocks.registry import provided
from loopwright.blocks.sub_blocks import as_block
from loopwright.check import CALL_OPTIONS, raise_errors
from loopwright.components import (
    CLASSIC_INDEX,
    MODULAR_INDEX,
    ComponentOwner,
    ComponentsManager,
    Origin,
    PipelineIndex,
    Repository,
    read_index,
)
from loopwright.components.turns import plainly_acting_as
from loopwright.errors import (
    BlockTypeError,
    ComponentLoadError,
    DefinitionError,
    InvalidInputError,
    OutputNotSetError,
    UnknownInputError,
    close_location,
    did_you_mean,
    kind_of,
)
from loopwright.run import BlockCache, Event, Execution, Run, RunOptions, is_run_scoped
from loopwright.run.asynchronous import events_of, result_of
from loopwright.run.exclusive import needs_exclusive
from loopwright.run.request import check_output, start_state
from loopwright.run.resuming import branched, resumed
from loopwright.run.tokenizers import one_encoding_at_a_time
from loopwright.specs import ComponentSpec
from loopwright.specs.repository import HUB_OPTIONS
from loopwright.state import PipelineState

__all__ = ["ModularPipeline"]

_OF_A_PIPELINE = ("_blocks", "_component_specs", "_config_specs", "_internal_dict")
_OF_A_VIEW = ("_driver", "_interrupt", "_originals")


class ModularPipeline(ComponentOwner):
    """Blocks and the components they work with, ready to be called: `pipe(prompt="red apple", output="images")`.

    Components and configuration values are attributes of the pipeline. One pipeline serves many calls; what belongs to
    a call is in its `PipelineState`.

    Args:
        blocks: the blocks, or a class of blocks.
        pretrained_model_name_or_path: a folder, or the name of a repository on the hub, with an index of a pipeline:
            where its components come from is read there. `load_components` loads them.
        components_manager: the `ComponentsManager` that the components are shared through.
        collection: the name under which the manager groups them.
        workflow: the name of a workflow; only its blocks are kept, and only its components are expected.
        **hub_options: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`, `proxies`.

    Raises:
        ComponentLoadError: the index is not there, or cannot be read.
        UnknownInputError: there is no such option.
        CheckError: the blocks do not fit together; see `loopwright.check`.
    """

    hf_device_map: dict[str, Any] | None = None
    default_blocks_name: str | None = None
    # set on the view that a run has of its pipeline
    _driver: Any = None
    # what runs take over from earlier ones; None if nothing is kept
    _block_cache: BlockCache | None = None
    # what merges the calls of models of several runs; set on the pipeline that `loopwright.batching.batched` gives
    _batch: Any = None

    def __init__(
        self,
        blocks: ModularPipelineBlocks | type[ModularPipelineBlocks] | None = None,
        pretrained_model_name_or_path: Any = None,
        components_manager: Any = None,
        collection: str | None = None,
        workflow: str | None = None,
        **hub_options: Any,
    ) -> None:
        if not isinstance(components_manager, ComponentsManager | None):
            raise InvalidInputError(
                f"`components_manager` must be a `loopwright.ComponentsManager`, not {kind_of(components_manager)} of "
                f"{type(components_manager).__module__.partition('.')[0]}"
            )
        _require_hub_options(hub_options)
        self._components_manager = components_manager
        self._collection = collection
        index = None
        self._pretrained_model_name_or_path = pretrained_model_name_or_path
        if pretrained_model_name_or_path is not None:
            told = {option: value for option, value in hub_options.items() if option != "revision"}
            repository = Repository(pretrained_model_name_or_path, **hub_options)
            # a folder may be written in several ways, with a slash at the end
            self._origin = Origin(str(repository.folder or repository), told)
            index = read_index(repository)
            if index is None:
                raise ComponentLoadError(
                    f"{pretrained_model_name_or_path} holds no pipeline: it has neither {MODULAR_INDEX} nor "
                    f"{CLASSIC_INDEX}"
                )
        if blocks is None:
            blocks = self._default_blocks(index)
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
        self._component_specs = {str(spec.name): deepcopy(spec) for spec in tree.expected_components}
        self._config_specs = {spec.name: deepcopy(spec) for spec in tree.expected_configs}
        if index is not None:
            self._component_specs = {name: index.spec(spec) for name, spec in self._component_specs.items()}
            self._config_specs = {name: index.config(spec) for name, spec in self._config_specs.items()}
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

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        trust_remote_code: bool = False,
        components_manager: Any = None,
        collection: str | None = None,
        workflow: str | None = None,
        **hub_options: Any,
    ) -> Any:
        """A pipeline as a folder or a repository describes it; `load_components` loads its components.

        It may be what `save_pretrained` wrote, here or in diffusers; a classic pipeline of diffusers, which gets the
        blocks of its family; or a repository with blocks of its own.

        Args:
            pretrained_model_name_or_path: the folder, or the name of the repository on the hub.
            trust_remote_code: whether code that the repository brings may run.
            components_manager, collection, workflow, **hub_options: as for the class.

        Raises:
            ComponentLoadError: there is no pipeline, or it cannot be read; or it brings code, which is not trusted.
            UnknownInputError: there is no such option.
        """
        _require_hub_options(hub_options)
        repository = Repository(pretrained_model_name_or_path, **hub_options)
        pipeline_class, blocks = provided("blocks of a repository")(repository, trust_remote_code)
        index = read_index(repository)
        if cls is not ModularPipeline and not issubclass(pipeline_class, cls):
            pipeline_class = cls
        return pipeline_class(
            blocks,
            None if index is None else pretrained_model_name_or_path,
            components_manager,
            collection,
            workflow,
            # the commit that the blocks came from, though the branch may have moved on meanwhile
            **{**hub_options, "revision": repository.revision},
        )

    def _default_blocks(self, index: PipelineIndex | None) -> Any:
        """The blocks where none are given: those of the class, or those that the index names."""
        name = self.default_blocks_name if index is None else index.blocks_class or self.default_blocks_name
        if name is None:
            raise DefinitionError(f"`{type(self).__name__}` needs `blocks`: the blocks that it runs")
        return provided("blocks by name")(name)

    def _names_in_workflow(self, workflow: str) -> set[str]:
        return {name for name in self._blocks.get_workflow(workflow).component_names if name is not None}

    def _declared_spec(self, name: str) -> ComponentSpec:
        return next(spec for spec in self._blocks.expected_components if spec.name == name)

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

    # Calls

    def cache(self, max_bytes: int = 2**30) -> BlockCache:
        """Keep the results of blocks, and take them over in later runs in which nothing that a block reads has changed.

        What is kept is the result of each block outside loops, and of each loop as a whole. A run that changes only the
        seed then skips the text encoder, and one that changes only the decoder skips the loop. The results are the
        same, bit for bit. A block is taken for a function of the values and components that it reads: what it reads
        elsewhere (files, the clock, global variables) is not seen, and its warnings are given only when it really runs.
        Blocks that draw random numbers or change their inputs always run; `run.cache_report()` says which, and why.

        A loop that is taken over has no iterations, so no events: a run that somebody iterates goes past it. With
        `callbacks` or `checkpoint`, and when a saved run goes on, loops run anyway.

        Args:
            max_bytes: how many bytes to keep at most, where the tensors are; what was used least recently goes first.
                0 turns the cache off and forgets everything.

        Returns:
            The cache, with `bytes` and `clear()`.

        Raises:
            InvalidInputError: `max_bytes` is not a number of bytes.
        """
        cache = BlockCache(0) if self._block_cache is None else self._block_cache
        cache.resize(max_bytes)
        self._block_cache = cache if max_bytes else None
        return cache

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
            plain = callbacks is checkpoint is timeout is progress is None and self._block_cache is None
            if plain and self._batch is None and not self._needs_exclusive():
                view = self._view()
                with torch.no_grad(), plainly_acting_as(view), one_encoding_at_a_time(self._uncopied_components()):
                    run_state = run_whole(self._blocks, view, run_state)
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
        held: bool = False,
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
            held: whether it begins only when it is iterated, or its result is asked for, as `stream` does. Otherwise it
                begins at once, and iterations that pass before it is iterated have no event.
            output, callbacks, timeout, progress: as for a call; they are not saved.
            **inputs: need not be given again; those that are given are compared with those that were saved.

        Raises:
            CheckpointError: there is nothing to go on from.
            CheckpointDamagedError: the last checkpoint is not what was written.
            CheckpointMismatchError: this is not the pipeline that the run was saved in, or an input is not the one that
                it began with; the message says what differs.
        """
        if "checkpoint" in inputs:
            raise UnknownInputError(
                "`resume` takes no `checkpoint`: the run goes on being saved where it was; leave it out"
            )
        options = {"output": output, "callbacks": callbacks, "timeout": timeout, "progress": progress}
        return Run(resumed(self, path, inputs, classes, fall_back, held, **options), held)

    def branch(
        self,
        path: Any,
        *,
        at: int,
        classes: Sequence[type] = (),
        held: bool = False,
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
            held: as for `resume`.
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
        return Run(branched(self, path, at, changes, classes, held, checkpoint=checkpoint, **options), held)

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
        return needs_exclusive(self._uncopied_components())

    def _own_components(self) -> dict[str, Any]:
        """The components of a view that the run has copied for itself."""
        return {name: self.__dict__[name] for name in self._component_specs if is_run_scoped(self.__dict__.get(name))}

    def _assigned(self, pipeline: ModularPipeline, with_configuration: bool = False) -> dict[str, Any]:
        """What blocks assigned to a view of a pipeline, apart from components.

        Args:
            pipeline: the pipeline.
            with_configuration: whether what a pipeline is made of and configured with counts as well.
        """
        shared = pipeline.__dict__
        left_out = {*pipeline._component_specs, *_OF_A_VIEW, *(() if with_configuration else _OF_A_PIPELINE)}
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in left_out and (name not in shared or shared[name] is not value)
        }

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


def _require_hub_options(options: Mapping[str, Any]) -> None:
    """Check that what is said about a repository can be said.

    Raises:
        UnknownInputError: it cannot; most likely it is meant for the components, which are loaded later.
    """
    for name in options:
        if name in HUB_OPTIONS:
            continue
        hint = did_you_mean(name, (*HUB_OPTIONS, "collection", "components_manager", "trust_remote_code", "workflow"))
        raise UnknownInputError(
            f"a pipeline is not made with `{name}`{hint}; components are given to `update_components`, and what they "
            f"are loaded with, such as `dtype`, to `load_components`"
        )
