"""What a pipeline works with: its components and configuration values, and their specs."""

from __future__ import annotations

import gc
from copy import deepcopy
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, FrozenDict
from diffusers.pipelines.pipeline_loading_utils import _fetch_class_library_tuple
from diffusers.utils import PushToHubMixin
from diffusers.utils.torch_utils import empty_device_cache

from loopwright.blocks.sub_blocks import from_diffusers
from loopwright.components.index import CREATED, MODULAR_INDEX
from loopwright.components.kinds import other_kind
from loopwright.components.loading import Origin, load, to_load
from loopwright.components.manager import ComponentsManager
from loopwright.components.model_card import write_model_card
from loopwright.components.pushing import create_repository, upload
from loopwright.components.saving import configuration, is_as_made, push_options, save_component, staged
from loopwright.errors import (
    ComponentLoadError,
    InvalidInputError,
    UnknownComponentError,
    UnknownInputError,
    did_you_mean,
    kind_of,
)
from loopwright.specs import ComponentSpec, ConfigSpec

__all__ = ["ComponentOwner"]


class ComponentOwner(ConfigMixin, PushToHubMixin):  # type: ignore[misc]
    """What has components and configuration values, as attributes: a pipeline."""

    config_name = MODULAR_INDEX
    _blocks: Any
    _components_manager: ComponentsManager | None = None
    _collection: str | None = None
    _component_specs: dict[str, ComponentSpec]
    _config_specs: dict[str, ConfigSpec]
    # where the pipeline comes from
    _origin = Origin()

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
            if (
                self._components_manager is not None
                and component is not None
                and spec.default_creation_method == "from_pretrained"
            ):
                self._components_manager.add(name, component, self._collection)

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

    def load_components(
        self, names: Any = None, workflow: str | None = None, progress: bool | None = None, **options: Any
    ) -> None:
        """Load components from where their specs say.

        Args:
            names: one or several names; all that are missing and have a place to come from, if None.
            workflow: the name of a workflow: only components that its blocks work with are loaded.
            progress: whether a progress bar is shown; None for where it goes to a terminal.
            **options: given to `from_pretrained`, such as `dtype`, `device_map`, `quantization_config`, `revision`: one
                value for all, or a dict with a value for each component by name and one for all others as `default`.

        Raises:
            UnknownComponentError: no block expects such a component.
            ComponentLoadError: one could not be loaded; those that came before it stay.
        """
        if workflow is not None and names is not None:
            raise InvalidInputError("`load_components` takes `names` or `workflow`, not both")
        present = [name for name, component in self.components.items() if component is not None]
        chosen = to_load(self._component_specs, present, names)
        if workflow is not None:
            used = self._names_in_workflow(workflow)
            chosen = [name for name in chosen if name in used]
        specs, manager, origin = self._component_specs, self._components_manager, self._origin
        for name, component in load(specs, chosen, options, progress, manager, origin):
            self.register_components(**{name: component})

    def unload_components(self, names: Any) -> None:
        """Take components out, one or several names; `load_components` brings them back.

        Raises:
            UnknownComponentError: no block expects such a component.
        """
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            if name not in self._component_specs:
                raise UnknownComponentError(self._unknown_component(name, settable=False))
        ids = {f"{name}_{id(getattr(self, name))}" for name in chosen}
        self.register_components(**dict.fromkeys(chosen))
        manager = self._components_manager
        if manager is not None:
            for component_id in ids & manager.components.keys():
                manager.remove(component_id)
        gc.collect()
        empty_device_cache()

    def save_pretrained(
        self,
        save_directory: Any,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the components, each in a folder of its name, and the index, which `from_pretrained` reads.

        All that is there is saved, also what was never loaded from anywhere; but for what the blocks make themselves,
        unless it was replaced by something else. The index says of components that are not there where they would have
        been loaded from. If anything fails, the folder is as it was before.

        Args:
            save_directory: the folder. Other files in it stay as they are.
            safe_serialization: whether weights are safetensors, or pickled.
            variant: the variant of the weights, for the names of their files.
            max_shard_size: how large a file of weights may be, in bytes or as `"5GB"`.
            push_to_hub: whether the folder is put into a repository on the hub, with a page that describes it.
            **kwargs: `repo_id`, its name, that of the folder if it is not given; `commit_message`, `private`,
                `create_pr`, `token`; `update_model_card`, whether the text of its page is written anew;
                `overwrite_modular_index=False`, by which the index goes on naming the places that components were
                loaded from.

        Raises:
            ComponentSaveError: something cannot be saved, or not be pushed.
            UnknownInputError: there is no such option.
        """
        options = push_options(save_directory, kwargs, ("overwrite_modular_index",))
        files = {"safe_serialization": safe_serialization, "variant": variant}
        if max_shard_size is not None:
            files["max_shard_size"] = max_shard_size
        repo_id = create_repository(options) if push_to_hub else None
        folder = Path(save_directory)
        with staged(folder) as staging:
            index = self._saved(
                staging, repo_id or str(save_directory), files, kwargs.get("overwrite_modular_index", True)
            )
            index.save_config(str(staging))
            if repo_id is not None:
                brings_code = (folder / "modular_config.json").is_file()
                update = bool(options["update_model_card"])
                write_model_card(self._blocks, staging, folder, repo_id, options["token"], update, brings_code)
        if repo_id is not None:
            upload(folder, repo_id, options, type(self).__name__)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """Put the pipeline into a repository on the hub, as `save_pretrained` would save it.

        Args:
            repo_id: the name of the repository.
            commit_message, private, token, create_pr, safe_serialization, variant: as for `save_pretrained`.
            subfolder: None; a pipeline is at the top of its repository.

        Returns:
            The name of the repository.

        Raises:
            ComponentSaveError: something cannot be saved, or not be pushed.
            InvalidInputError: a subfolder was given.
        """
        if subfolder:
            raise InvalidInputError(
                f"`subfolder` is {subfolder!r}, and a pipeline is at the top of its repository; leave it out"
            )
        hub = {"commit_message": commit_message, "private": private, "token": token, "create_pr": create_pr}
        with TemporaryDirectory() as folder:
            place = Path(folder) / "pipeline"
            self.save_pretrained(place, safe_serialization, variant, push_to_hub=True, repo_id=repo_id, **hub)
        return repo_id

    def _saved(self, folder: Path, source: str, files: dict[str, Any], overwrite: bool) -> Self:
        """Save the components; a copy of the pipeline's configuration says where they are then.

        Args:
            folder: where they are saved.
            source: the name that the index has for this place.
            files: what `save_component` takes.
            overwrite: whether the index says so of components, too, that were loaded from elsewhere.
        """
        declared = {spec.name: spec for spec in self._blocks.expected_components}
        entries = {name: value for name, value in self.config.items() if name != CREATED}
        created = {}
        for name, component in self.components.items():
            spec = self._component_specs[name]
            made = spec.default_creation_method == "from_config"
            if component is None:
                continue
            if made and is_as_made(declared.get(name), component):
                entries.pop(name, None)
                continue
            if made and not hasattr(component, "from_pretrained"):
                entries.pop(name, None)
                created[name] = (*_library_and_class(component), configuration(component))
                continue
            taken = save_component(name, component, folder / name, **files)
            if overwrite or made or getattr(component, "_diffusers_load_id", "null") == "null":
                place = {"pretrained_model_name_or_path": source, "subfolder": name, "revision": None}
                variant = files["variant"] if "variant" in taken else None
                spec = replace(spec, type_hint=type(component), variant=variant, repo=None, **place)
            entries[name] = (*_library_and_class(component), _spec_to_dict(spec))
        if created:
            entries[CREATED] = created
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _internal_dict=FrozenDict(entries))
        return copy

    def _names_in_workflow(self, workflow: str) -> set[str]:
        """The names of the components that the blocks of a workflow work with."""
        raise NotImplementedError

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
            # offloading puts a hook on the model itself as well: the others need not be gone through
            for module in model.modules() if "_hf_hook" in vars(model) else ():
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
    elif (wrong := other_kind(spec.type_hint, type(given))) is not None:
        what, advice = wrong, "give one of that kind"
    else:
        return
    raise ComponentLoadError(f"component `{name}` cannot be {what}: {advice}")


def _library_and_class(component: Any) -> tuple[str | None, str | None]:
    """The library of a component and the name of its class, as they stand in a pipeline's index."""
    if component is None:
        return None, None
    library, name = _fetch_class_library_tuple(component)
    return str(library), str(name)


def _spec_to_dict(spec: ComponentSpec) -> dict[str, Any]:
    """A spec as it stands in a pipeline's index."""
    type_hint = _library_and_class(spec.type_hint if isinstance(spec.type_hint, type) else None)
    return {"type_hint": type_hint, **{name: getattr(spec, name) for name in spec.loading_fields()}}
