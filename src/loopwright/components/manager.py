"""`ComponentsManager`: the components that pipelines share."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.utils.torch_utils import TorchDeviceBackend, empty_device_cache, get_device

from loopwright.components.devices import usable_device
from loopwright.components.offload import (
    AutoOffloadStrategy,
    CustomOffloadHook,
    OffloadStrategy,
    UserCustomOffloadHook,
)
from loopwright.components.report import INFO_FIELDS, component_info, components_table
from loopwright.components.turns import alone
from loopwright.errors import InvalidInputError, RunStateError, UnknownNameError, did_you_mean, kind_of
from loopwright.specs import ComponentSpec

__all__ = ["ComponentsManager"]

# options of loading that make no other component
_WITHOUT_EFFECT = {
    "cache_dir",
    "dtype",
    "local_files_only",
    "low_cpu_mem_usage",
    "proxies",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
}


class ComponentsManager:
    """The components of several pipelines, by id, and in which collections they are.

    A pipeline that is made with `components_manager=` puts its components here, and takes those that are here already
    instead of loading them again. An id is `name_number`: the name that the component has in a pipeline, and the
    identity of the object. A collection has one component of a name. Safe to use from several threads.

    Attributes:
        components: the components by id, in the order in which they came.
        added_time: when each was added, in seconds since the epoch.
        collections: the ids in each collection.
        model_hooks: the hooks of the models while they are offloaded, otherwise None.
    """

    _available_info_fields = list(INFO_FIELDS)

    def __init__(self) -> None:
        self.components: OrderedDict[str, Any] = OrderedDict()
        self.added_time: OrderedDict[str, float] = OrderedDict()
        self.collections: OrderedDict[str, set[str]] = OrderedDict()
        self.model_hooks: list[UserCustomOffloadHook] | None = None
        self._auto_offload_device: torch.device | None = None
        self._offload_strategy: OffloadStrategy | None = None
        # not held while a model is waited for: who uses it may come here
        self._lock = threading.RLock()

    @property
    def _auto_offload_enabled(self) -> bool:
        return self.model_hooks is not None

    # What is there

    def add(self, name: str, component: Any, collection: str | None = None) -> str:
        """Add a component, or only put it into one more collection.

        Another component of that name leaves the collection; it is removed if it is in no other. A component with the
        load id of another, which is the same loaded twice, is added with a warning.

        Args:
            name: the name that it has in pipelines.
            component: the component.
            collection: the collection to put it into.

        Returns:
            Its id.

        Raises:
            InvalidInputError: there is no component, or no name.
        """
        if not name:
            raise InvalidInputError(f"a component is added under a name, not under {name!r}")
        if component is None:
            raise InvalidInputError(f"there is no component to add as `{name}`: it is None")
        component_id = f"{name}_{id(component)}"
        with self._lock:
            is_new = component_id not in self.components
            is_known = any(component is other for other in self.components.values())
            load_id = self._load_id(component)
            twice = sorted(self._lookup_ids(load_id=load_id)) if load_id is not None and not is_known else []
            self.components[component_id] = component
            replaced: list[str] = []
            if is_new:
                self.added_time[component_id] = time.time()
            if collection:
                members = self.collections.setdefault(collection, set())
                replaced = [member for member in members if self._id_to_name(member) == name and member != component_id]
                members.add(component_id)
        if twice:
            warnings.warn(
                f"`{component_id}` was loaded from the same place as {', '.join(f'`{other}`' for other in twice)}: "
                f"`remove` the one that is not needed",
                stacklevel=2,
            )
        for member in replaced:
            self.remove_from_collection(member, str(collection))
        if isinstance(component, torch.nn.Module) and not is_known:
            try:
                self._offload(component_id, component)
            except BaseException:
                with self._lock:
                    self._forget(component_id)
                raise
        return component_id

    def remove_from_collection(self, component_id: str, collection: str) -> None:
        """Take a component out of a collection; if it is in no other, it is removed.

        Raises:
            UnknownNameError: there is no such collection, or it does not have this component.
        """
        with self._lock:
            members = self.collections.get(collection)
            if members is None:
                raise UnknownNameError(
                    f"there is no collection `{collection}`{did_you_mean(collection, self.collections)}"
                )
            if component_id not in members:
                raise UnknownNameError(
                    f"collection `{collection}` has no component `{component_id}`{did_you_mean(component_id, members)}"
                )
            members.remove(component_id)
            is_elsewhere = any(component_id in ids for ids in self.collections.values())
        if not is_elsewhere:
            self.remove(component_id)

    def remove(self, component_id: str) -> None:
        """Remove a component; a model is moved to the CPU, also for those who have it still.

        One that is offloaded is moved as soon as no run uses it; of others it is not known.

        Raises:
            UnknownNameError: there is no such component.
        """
        with self._lock:
            component = self._of_id(component_id)
            self._forget(component_id)
            is_last = all(component is not other for other in self.components.values())
            hooks = [hook for hook in self.model_hooks or () if hook.model is component and is_last]
            for hook in hooks:
                self.model_hooks.remove(hook)  # type: ignore[union-attr]
        if not isinstance(component, torch.nn.Module) or not is_last:
            return
        if hooks:
            _let_go(hooks)
        else:
            # what cannot be moved, such as some quantized models, is let go all the same
            with alone([component]), suppress(ValueError, RuntimeError):
                component.to("cpu")
        del component, hooks
        gc.collect()
        empty_device_cache()

    def search_components(
        self,
        names: str | None = None,
        collection: str | None = None,
        load_id: str | None = None,
        return_dict_with_names: bool = True,
    ) -> dict[str, Any]:
        """Components by name, collection and load id.

        Args:
            names: a name (`unet`), the beginning of names (`unet*`), a part of names (`*unet*`), several of these
                (`unet|vae*`), or all but these (`!unet`). A single name that no component has may be a part of names.
            collection: only those of this collection.
            load_id: only those that were loaded from there.
            return_dict_with_names: whether the result is by name, rather than by id.

        Raises:
            UnknownNameError: names were given, and no component has such a name.
            InvalidInputError: `names` is not text, or two components have the same name, and the result is by name.
        """
        if names is not None and not isinstance(names, str):
            raise InvalidInputError(f"`names` is one text, such as 'unet|vae*', not {kind_of(names)}")
        with self._lock:
            ids = self._lookup_ids(collection=collection, load_id=load_id)
            found = {key: component for key, component in self.components.items() if key in ids}
        if names is not None:
            known = {self._id_to_name(key) for key in found}
            is_meant = _pattern(names, known)
            found = {key: component for key, component in found.items() if is_meant(self._id_to_name(key))}
            if not found:
                where = f" in collection `{collection}`" if collection else ""
                raise UnknownNameError(
                    f"no component{where} is called `{names}`{did_you_mean(names.strip('!*'), known)}; "
                    f"there are {', '.join(f'`{name}`' for name in sorted(known)) or 'none'}"
                )
        return self._by_name(found) if return_dict_with_names else found

    def get_one(
        self,
        component_id: str | None = None,
        name: str | None = None,
        collection: str | None = None,
        load_id: str | None = None,
    ) -> Any:
        """The component of an id, or the only one that a search finds.

        Raises:
            UnknownNameError: there is none.
            InvalidInputError: there are several; or an id is given, and something else besides.
        """
        if component_id is not None:
            if not name is collection is load_id is None:
                raise InvalidInputError("give the id of a component, or what to search for, not both")
            with self._lock:
                return self._of_id(component_id)
        found = self.search_components(name, collection, load_id, return_dict_with_names=False)
        sought = ", ".join(
            f"{key} `{value}`"
            for key, value in (("name", name), ("collection", collection), ("load id", load_id))
            if value is not None
        )
        if not found:
            raise UnknownNameError(f"there is no component{f' of {sought}' if sought else ''}")
        if len(found) > 1:
            raise InvalidInputError(
                f"there are several components{f' of {sought}' if sought else ''}: "
                f"{', '.join(f'`{key}`' for key in found)}; give the id of one"
            )
        return next(iter(found.values()))

    def get_ids(self, names: str | list[str] | None = None, collection: str | None = None) -> list[str]:
        """The ids of the components of one or several names; an unknown name has none."""
        wanted = names if isinstance(names, list) else [names]
        with self._lock:
            ids = {key for name in wanted for key in self._lookup_ids(name=name, collection=collection)}
            return [key for key in self.components if key in ids]

    def get_components_by_ids(self, ids: list[str], return_dict_with_names: bool | None = True) -> dict[str, Any]:
        """The components of ids, by name or by id.

        Raises:
            UnknownNameError: there is no component of such an id.
            InvalidInputError: two have the same name, and the result is by name.
        """
        with self._lock:
            found = {key: self._of_id(key) for key in ids}
        return self._by_name(found) if return_dict_with_names else found

    def get_components_by_names(self, names: list[str], collection: str | None = None) -> dict[str, Any]:
        """The components of names; as `get_components_by_ids` of `get_ids`."""
        return self.get_components_by_ids(self.get_ids(names, collection))

    def get_model_info(self, component_id: str, fields: str | list[str] | None = None) -> dict[str, Any]:
        """What is known of a component.

        Args:
            component_id: its id.
            fields: one or several of `model_id`, `added_time`, `collection`, and for models `class_name`, `size_gb`,
                `adapters`, `has_hook`, `execution_device`, `ip_adapter`, `quantization`; all if None.

        Raises:
            UnknownNameError: there is no such component, or no such field.
        """
        wanted = [fields] if isinstance(fields, str) else fields
        for field in wanted or ():
            if field not in INFO_FIELDS:
                raise UnknownNameError(
                    f"there is no field `{field}`{did_you_mean(field, INFO_FIELDS)}; "
                    f"there are {', '.join(f'`{known}`' for known in INFO_FIELDS)}"
                )
        with self._lock:
            component = self._of_id(component_id)
            collections = [name for name, members in self.collections.items() if component_id in members]
            added = self.added_time[component_id]
        info = component_info(component_id, component, added, collections)
        return info if wanted is None else {field: value for field, value in info.items() if field in wanted}

    def find_loaded(self, spec: ComponentSpec, options: Mapping[str, Any]) -> Any:
        """A component that was loaded from where a spec says; None if there is none.

        Args:
            spec: the spec.
            options: what it would be loaded with; where they make it another component, there is none.
        """
        place = {name: options.get(name, getattr(spec, name)) for name in spec.loading_fields()}
        others = options.keys() - place.keys() - _WITHOUT_EFFECT
        with self._lock:
            ids = self._lookup_ids(load_id=replace(spec, repo=None, **place).load_id)
            found = [component for key, component in self.components.items() if key in ids]
        is_model = isinstance(spec.type_hint, type) and issubclass(spec.type_hint, torch.nn.Module)
        for component in found:
            if is_model and not isinstance(component, spec.type_hint):
                continue
            dtype = options.get("dtype", options.get("torch_dtype"))
            same_dtype = dtype in (None, "auto", getattr(component, "dtype", dtype))
            if same_dtype and (not others or not isinstance(component, torch.nn.Module)):
                return component
        return None

    def __repr__(self) -> str:
        with self._lock:
            collections = {
                key: [name for name, members in self.collections.items() if key in members] for key in self.components
            }
            return components_table(dict(self.components), collections)

    # Offloading

    def enable_auto_cpu_offload(
        self,
        device: str | int | torch.device | None = None,
        memory_reserve_margin: int | str = "3GB",
        offload_strategy: OffloadStrategy | None = None,
    ) -> None:
        """Keep models on the CPU, and bring each to a device when it is called.

        There it stays until it has to make room for another. Models that are added later are offloaded as well. A model
        that is in use by a run is not moved; a call waits where there is no room otherwise.

        Args:
            device: where the models run; the accelerator of this machine if None.
            memory_reserve_margin: memory of the device to leave free for what the models compute.
            offload_strategy: called with `hooks` (of the models on the device), `model_id`, `model` and
                `execution_device` (of the one that is called); returns the hooks of those that have to go. An
                `AutoOffloadStrategy` if None.

        Raises:
            InvalidInputError: there is no such device, or its free memory cannot be told.
            Exception: a model cannot be moved, as its library says. No model is offloaded then.
        """
        place = usable_device(get_device() if device is None else device)
        try:
            TorchDeviceBackend(place).mem_get_info()
        except (NotImplementedError, AttributeError, RuntimeError) as error:
            raise InvalidInputError(
                f"models cannot be offloaded from {place}, as torch does not tell how much of its memory is free: give "
                f"the device of an accelerator, such as 'cuda'"
            ) from error
        self.disable_auto_cpu_offload()
        with self._lock:
            self._auto_offload_device = torch.device(place.type, place.index or 0)
            self._offload_strategy = offload_strategy or AutoOffloadStrategy(memory_reserve_margin)
            self.model_hooks = []
            # a model may have several names
            models = {c: key for key, c in reversed(self.components.items()) if isinstance(c, torch.nn.Module)}
        if offload_strategy is None and any(map(_is_group_offload_enabled, models)):
            warnings.warn(
                "`AutoOffloadStrategy` goes by the size of models, and one that is offloaded in groups takes less of "
                "the device than that: give an `offload_strategy` of your own",
                stacklevel=2,
            )
        try:
            for model, component_id in reversed(models.items()):
                self._offload(component_id, model)
        except BaseException:
            self.disable_auto_cpu_offload()
            raise

    def set_offload_strategy(self, offload_strategy: OffloadStrategy) -> None:
        """Replace the strategy by which models are offloaded.

        Raises:
            RunStateError: models are not offloaded.
        """
        with self._lock:
            if self.model_hooks is None:
                raise RunStateError("models are not offloaded: call `enable_auto_cpu_offload(offload_strategy=...)`")
            self._offload_strategy = offload_strategy
            for hook in self.model_hooks:
                hook.hook.set_strategy(offload_strategy)

    def disable_auto_cpu_offload(self) -> None:
        """Stop offloading; all models are on the CPU then. Each is moved as soon as no run uses it."""
        with self._lock:
            hooks, self.model_hooks = self.model_hooks, None
            self._offload_strategy = None
        _let_go(hooks or [])

    def _offload(self, component_id: str, model: torch.nn.Module) -> None:
        with self._lock:
            hooks = self.model_hooks
        if hooks is None:
            return
        # the same list for all, which those that come later are seen in
        hook = CustomOffloadHook(self._auto_offload_device, hooks, self._offload_strategy)
        made = UserCustomOffloadHook(component_id, model, hook)
        made.attach()
        with self._lock:
            # others may have removed it, or ended offloading, meanwhile
            is_wanted = self.model_hooks is hooks and any(model is other for other in self.components.values())
            is_wanted = is_wanted and all(model is not other.model for other in hooks)
            if is_wanted:
                hook.offload_strategy = self._offload_strategy
                hooks.append(made)
        if not is_wanted:
            _let_go([made])

    def _forget(self, component_id: str) -> None:
        del self.components[component_id], self.added_time[component_id]
        for members in self.collections.values():
            members.discard(component_id)

    # Looking up

    def _lookup_ids(
        self,
        name: str | None = None,
        collection: str | None = None,
        load_id: str | None = None,
        components: OrderedDict[str, Any] | None = None,
    ) -> set[str]:
        """The ids of the components of a name, of a collection, and of a load id, as far as these are given."""
        with self._lock:
            members = self.collections.get(collection, set()) if collection else None
            return {
                key
                for key, component in (self.components if components is None else components).items()
                if (not name or self._id_to_name(key) == name)
                and (members is None or key in members)
                and (not load_id or self._load_id(component) == load_id)
            }

    @staticmethod
    def _id_to_name(component_id: str) -> str:
        return component_id.rpartition("_")[0]

    @staticmethod
    def _load_id(component: Any) -> str | None:
        """Where a component was loaded from, None if it was not."""
        load_id = getattr(component, "_diffusers_load_id", None)
        return None if load_id in (None, "null") else str(load_id)

    def _of_id(self, component_id: str) -> Any:
        if component_id not in self.components:
            raise UnknownNameError(
                f"there is no component `{component_id}`{did_you_mean(str(component_id), self.components)}"
            )
        return self.components[component_id]

    def _by_name(self, components: dict[str, Any]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for key, component in components.items():
            name = self._id_to_name(key)
            if name in named:
                raise InvalidInputError(
                    f"several components are called `{name}`: set `return_dict_with_names=False` to have them by id"
                )
            named[name] = component
        return named


def _let_go(hooks: list[UserCustomOffloadHook]) -> None:
    """Move models to the CPU, and take their hooks off."""
    for hook in hooks:
        with alone([hook.model]):
            hook.offload()
            hook.remove()


def _pattern(names: str, known: set[str]) -> Callable[[str], bool]:
    """Whether a name is meant by a search for names."""
    is_negated = names.startswith("!")
    terms = names.removeprefix("!").split("|")
    is_part = len(terms) == 1 and "*" not in names and terms[0] not in known

    def matches(name: str, term: str) -> bool:
        if is_part or term.startswith("*"):
            return term.strip("*") in name
        return name.startswith(term[:-1]) if term.endswith("*") else name == term

    return lambda name: any(matches(name, term) for term in terms) != is_negated
