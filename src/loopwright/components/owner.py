"""What a pipeline works with: its components and configuration values, and their specs."""

from __future__ import annotations

import gc
import warnings
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from os import PathLike
from typing import Any, Self

import torch
from diffusers.utils.torch_utils import empty_device_cache

from loopwright.blocks.sub_blocks import from_diffusers
from loopwright.components.devices import usable_device
from loopwright.components.index import index_entry
from loopwright.components.kinds import other_kind
from loopwright.components.loading import Origin, load, to_load
from loopwright.components.manager import ComponentsManager
from loopwright.components.offload import is_offloaded
from loopwright.components.stored import StoredComponents
from loopwright.errors import (
    ComponentLoadError,
    InvalidInputError,
    RunStateError,
    UnknownComponentError,
    UnknownInputError,
    brief,
    did_you_mean,
    kind_of,
)
from loopwright.specs import ComponentSpec, ConfigSpec

__all__ = ["ComponentOwner"]


class ComponentOwner(StoredComponents):
    """What has components and configuration values, as attributes: a pipeline."""

    _components_manager: ComponentsManager | None = None
    _collection: str | None = None
    _component_specs: dict[str, ComponentSpec]
    _config_specs: dict[str, ConfigSpec]
    # where the pipeline comes from
    _origin = Origin()

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
                self.register_to_config(**{name: index_entry(component, spec)})
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
                _require_component(name, given, self._declared_spec(name))
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
        """Load components from where their specs say. Where there is nothing to load, a warning names what is missing.

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
        used = self._component_specs.keys() if workflow is None else self._names_in_workflow(workflow)
        chosen = [name for name in chosen if name in used] if names is None else chosen
        specs, manager, origin = self._component_specs, self._components_manager, self._origin
        for name, component in load(specs, chosen, options, progress, manager, origin):
            self.register_components(**{name: component})
        if names is None and not chosen:
            _warn_of_missing([name for name in specs if name in used and name not in present])

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

    def _names_in_workflow(self, workflow: str) -> set[str]:
        """The names of the components that the blocks of a workflow work with."""
        raise NotImplementedError

    def _declared_spec(self, name: str) -> ComponentSpec:
        """The spec of a component as the blocks declare it, whatever stands there now."""
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
            # others may ask for it at the same time
            return attributes.setdefault(name, deepcopy(originals[name]))
        hint = ""
        if not name.startswith("_"):
            known = [*attributes.get("_component_specs", ()), *attributes.get("_config_specs", ())]
            listed = ", ".join(f"`{component}`" for component in known)
            cls: Any = type(self)
            meant = did_you_mean(name, known) or _method_meant(name, cls)
            hint = f"{meant}; " + (
                f"its components and configuration values are {listed}" if known else "its blocks expect no components"
            )
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}", name=name, obj=self)

    # Devices and dtypes

    def _uncopied_components(self) -> list[Any]:
        """The components in order, without the copies that a run makes of some when they are first asked for."""
        own = self.__dict__
        originals = own.get("_originals", own)
        return [own[name] if name in own else originals.get(name) for name in self._component_specs]

    def _modules(self) -> list[torch.nn.Module]:
        named = zip(self._component_specs, self._uncopied_components(), strict=True)
        return [getattr(self, name) for name, component in named if isinstance(component, torch.nn.Module)]

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

        Raises:
            UnknownInputError: there is no such argument.
            InvalidInputError: one is neither a device of this machine nor a dtype.
            RunStateError: a model is offloaded, and moves by itself. No model was moved.
        """
        kwargs.pop("silence_dtype_warnings", None)
        unknown = set(kwargs) - {"device", "dtype"}
        for name in sorted(unknown):
            hint = did_you_mean(name, ("device", "dtype"))
            raise UnknownInputError(f"`to` takes a device, a dtype, or both, and no `{name}`{hint}")
        if len(args) > 2:
            raise UnknownInputError(f"`to` takes a device, a dtype, or both, not {len(args)} values")
        dtype = kwargs.get("dtype")
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise InvalidInputError(f"`dtype` is {brief(dtype)}; it must be a dtype of torch, such as `torch.float16`")
        for value in (*args, kwargs.get("device")):
            if isinstance(value, (str, int, torch.device)):
                usable_device(value)
        device: torch.device | None = torch._C._nn._parse_to(*args, **kwargs)[0]
        for name, component in self.components.items() if device is not None else ():
            if isinstance(component, torch.nn.Module) and is_offloaded(component):
                raise RunStateError(
                    f"`{name}` is offloaded, so it moves to its device when it is called: leave it to that, or call "
                    f"`disable_auto_cpu_offload()` of the `ComponentsManager` before"
                )
        for module in self._modules():
            module.to(*args, **kwargs)
        return self


@lru_cache(maxsize=1024)
def _method_meant(name: str, cls: type) -> str:
    """The end of a message: the method that is spelled nearly so. Remembered, as blocks ask again and again."""
    match = get_close_matches(name, [each for each in dir(cls) if not each.startswith("_")], n=1, cutoff=0.8)
    return f", did you mean `{match[0]}`?" if match else ""


def _warn_of_missing(names: list[str]) -> None:
    """Tell somebody who loaded all components, and had nothing to load, which of them are not there."""
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        are = f"component {listed} is missing and has" if len(names) == 1 else f"{listed} are missing and have"
        warnings.warn(
            f"nothing was loaded: {are} no place to come from; give "
            f"`pipe.update_components({', '.join(f'{name}=...' for name in names)})`",
            stacklevel=3,
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
    elif (wrong := other_kind(spec.type_hint, type(given))) is not None:
        what, advice = wrong, "give one of that kind"
    else:
        return
    raise ComponentLoadError(f"component `{name}` cannot be {what}: {advice}")
