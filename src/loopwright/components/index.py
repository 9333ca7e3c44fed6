"""What the index of a pipeline says: its class, its blocks, and where each component comes from.

There are two kinds. `modular_model_index.json` has, for each component, its library, its class and a spec;
`model_index.json`, that of classic pipelines, has the library and the class, and the component lies in the folder of
its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loopwright.components.kinds import kind_of_component, other_kind
from loopwright.errors import ComponentLoadError, article, brief, did_you_mean
from loopwright.specs import LOADING_FIELDS, ComponentSpec, ConfigSpec, Repository

__all__ = [
    "CLASSIC_INDEX",
    "CREATED",
    "MODULAR_INDEX",
    "PipelineIndex",
    "index_entry",
    "library_and_class",
    "read_index",
]

MODULAR_INDEX = "modular_model_index.json"
CLASSIC_INDEX = "model_index.json"
# in the index of a pipeline that was saved here: what is made from a configuration that is not that of the blocks;
# diffusers passes over it
CREATED = "_created_components"

# an index names classes: they are looked for in these libraries, and in what the user has imported
_LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True)
class PipelineIndex:
    """The index of a pipeline.

    Attributes:
        repository: where it stands.
        file: its name.
        pipeline_class: the name of the class of the pipeline, None if it is not said.
        blocks_class: the name of the class of its blocks, None if it is not said.
        components: for each component its library, its class and the fields of its spec.
        configs: the other values.
        created: for each component that is made from a configuration its library, its class and the configuration.
        version: the version of diffusers that wrote it, None if it is not said.
    """

    repository: Repository
    file: str
    pipeline_class: str | None = None
    blocks_class: str | None = None
    components: dict[str, tuple[str | None, str | None, dict[str, Any]]] = field(default_factory=dict)
    configs: dict[str, Any] = field(default_factory=dict)
    created: dict[str, tuple[str, str, dict[str, Any]]] = field(default_factory=dict)
    version: str | None = None

    @property
    def is_classic(self) -> bool:
        return self.file == CLASSIC_INDEX

    def spec(self, spec: ComponentSpec) -> ComponentSpec:
        """A component's spec with what the index says about it.

        Raises:
            ComponentLoadError: the index names a class that there is not, or one of another kind; or what it says
                cannot be read.
        """
        if spec.name in self.configs:
            expected = "[library, class]" if self.is_classic else "[library, class, {...}]"
            raise ComponentLoadError(
                f"{self._place} has {brief(self.configs[spec.name])} for component `{spec.name}`, where {expected} "
                f"belongs{self._written_by}; save the pipeline anew, or correct the file"
            )
        if spec.name in self.created:
            return replace(spec, **self._creation(spec), default_creation_method="from_config", repo=None)
        if spec.name not in self.components:
            return spec
        library, class_name, fields = self.components[spec.name]
        type_hint = self._type_hint(spec, library, class_name)
        place = {name: fields[name] for name in LOADING_FIELDS if name in fields}
        if "repo" in fields:  # its name in indexes of diffusers before 0.37
            place.setdefault("pretrained_model_name_or_path", fields["repo"])
        found = replace(spec, type_hint=type_hint, default_creation_method="from_pretrained", repo=None, **place)
        source = found.pretrained_model_name_or_path
        folder = self.repository.folder
        if folder is not None and _is_here(folder / (found.subfolder or ""), found.type_hint):
            # a copy of a repository still names the repository: what lies here is taken from here
            found = replace(found, pretrained_model_name_or_path=str(folder), revision=None, repo=None)
        elif source == self.repository.source and found.revision is None:
            # all of a repository comes from the same commit
            found = replace(found, revision=self.repository.revision, repo=None)
        return found

    def config(self, spec: ConfigSpec) -> ConfigSpec:
        """A configuration value's spec, with the value that the index has for it as the default."""
        return replace(spec, default=self.configs[spec.name]) if spec.name in self.configs else spec

    def _creation(self, spec: ComponentSpec) -> dict[str, Any]:
        """The class of a component that is made from a configuration, and the configuration."""
        from diffusers.configuration_utils import ConfigMixin

        library, class_name, config = self.created[str(spec.name)]
        found = self._type_hint(spec, library, class_name)
        if found is not spec.type_hint and not issubclass(found, ConfigMixin):
            # a file does not choose what is called, and with what
            raise ComponentLoadError(
                f"{self._place} makes component `{spec.name}` from {article(class_name)} `{class_name}` of {library}, "
                f"which is not made from a configuration; correct the file"
            )
        return {"type_hint": found, "config": config}

    def _type_hint(self, spec: ComponentSpec, library: str | None, class_name: str | None) -> Any:
        """The class of a component."""
        if class_name is None or _is_called(spec.type_hint, library, class_name):
            return spec.type_hint
        found = self._class(str(spec.name), library, class_name)
        wrong = other_kind(spec.type_hint, found)
        if wrong is not None:
            raise ComponentLoadError(
                f"{self._place} has for component `{spec.name}` {wrong}; correct the file, or use blocks that work "
                f"with it"
            )
        return found

    def _class(self, name: str, library: str | None, class_name: str) -> type[Any]:
        place = self._place
        if library not in _LIBRARIES and library not in sys.modules:
            # the folder of a classic pipeline's own code in diffusers, such as `stable_diffusion`
            within = f"diffusers.pipelines.{library}"
            if not str(library).isidentifier() or importlib.util.find_spec(within) is None:
                raise ComponentLoadError(
                    f"{place} takes component `{name}` from `{library}`, and an index does not choose what is "
                    f"imported; if you trust it, `import {library}` before"
                )
            library = within
        module = importlib.import_module(str(library))
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            raise ComponentLoadError(
                f"{place} says that component `{name}` is {article(class_name)} `{class_name}`, which "
                f"{' '.join(filter(None, (library, getattr(module, '__version__', None))))} does not have"
                f"{did_you_mean(class_name, [known for known in dir(module) if known[0].isupper()])}{self._written_by}"
            )
        if found.__module__.startswith(("diffusers.utils.dummy_", "transformers.utils.dummy_")):
            # what stands there in the place of a class that needs more packages
            backends: Any = getattr(found, "_backends")  # noqa: B009, mypy knows no such attribute of a class
            try:
                importlib.import_module(found.__module__.partition(".")[0]).utils.requires_backends(found, backends)
            except ImportError as error:
                said = " ".join(str(error).split())
                raise ComponentLoadError(
                    f"component `{name}` of {place} needs a package that is not installed: {said}"
                ) from error
        return found

    @property
    def _place(self) -> str:
        return f"{self.file} of {self.repository}"

    @property
    def _written_by(self) -> str:
        import diffusers

        known = self.version in (None, diffusers.__version__)
        return "" if known else f"; the index was written by diffusers {self.version}"


def read_index(repository: Repository) -> PipelineIndex | None:
    """The index of a repository; None if it has none.

    Raises:
        ComponentLoadError: the index cannot be read, or is not what it should be.
    """
    for file in (MODULAR_INDEX, CLASSIC_INDEX):
        values = repository.json(file)
        if values is not None:
            return _index(repository, file, values)
    return None


def _index(repository: Repository, file: str, values: dict[str, Any]) -> PipelineIndex:
    components: dict[str, tuple[str | None, str | None, dict[str, Any]]] = {}
    configs = {}
    length = 2 if file == CLASSIC_INDEX else 3
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if not isinstance(value, list) or len(value) != length or not _is_component(value):
            configs[name] = value
            continue
        fields = {"pretrained_model_name_or_path": repository.source, "revision": repository.revision}
        if file == CLASSIC_INDEX:
            if value[1] is None:
                continue  # a component that the pipeline does not have
            fields["subfolder"] = name
            components[name] = value[0], value[1], fields
        else:
            said = value[2]
            hint = said.get("type_hint") or (None, None)
            components[name] = value[0] or hint[0], value[1] or hint[1], said
    for key in ("_class_name", "_blocks_class_name"):
        if not isinstance(values.get(key), (str, type(None))):
            raise ComponentLoadError(f"{file} of {repository} has {brief(values[key])} as `{key}`; it must be a name")
    return PipelineIndex(
        repository,
        file,
        values.get("_class_name"),
        values.get("_blocks_class_name"),
        components,
        configs,
        _created(f"{file} of {repository}", values.get(CREATED) or {}),
        values.get("_diffusers_version"),
    )


def _is_component(value: list[Any]) -> bool:
    if not _are_names(value[:2]):
        return False
    if len(value) == 2:
        return True
    fields = value[2]
    return (
        isinstance(fields, dict)
        and _are_names(fields.get(name) for name in (*LOADING_FIELDS, "repo"))
        and (not (hint := fields.get("type_hint")) or (isinstance(hint, list) and len(hint) == 2 and _are_names(hint)))
    )


def _are_names(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def _created(place: str, values: Any) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The components that are made from a configuration.

    Raises:
        ComponentLoadError: what is said about them cannot be read.
    """
    found = values.items() if isinstance(values, dict) else [("", values)]
    for name, value in found:
        if not (name and isinstance(value, list) and len(value) == 3 and all(map(isinstance, value, (str, str, dict)))):
            raise ComponentLoadError(
                f"{place} has {brief(value)} for {f'component `{name}` in ' if name else ''}`{CREATED}`, where "
                f"{'[library, class, {...}]' if name else 'a JSON object'} belongs; save the pipeline anew, or correct "
                f"the file"
            )
    return {name: tuple(value) for name, value in found}


def _is_called(cls: Any, library: str | None, class_name: str) -> bool:
    """Whether an index means a class that the blocks name."""
    return (
        isinstance(cls, type)
        and cls.__name__ == class_name
        and library in (cls.__module__, cls.__module__.split(".")[0])
    )


def _is_here(folder: Path, cls: Any) -> bool:
    """Whether the files of a component are in a folder."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if cls is None or kind_of_component(cls) == "model":
        return any(name.endswith((".safetensors", ".bin")) for name in names)
    config = getattr(cls, "config_name", None)
    return config in names if config is not None else any("config" in name for name in names)


def index_entry(component: Any, spec: ComponentSpec) -> tuple[str | None, str | None, dict[str, Any]]:
    """What an index says of a component: its library, its class, and where it is loaded from.

    Args:
        component: the component, None if it is not loaded.
        spec: its spec.
    """
    type_hint = library_and_class(spec.type_hint if isinstance(spec.type_hint, type) else None)
    fields = {name: getattr(spec, name) for name in LOADING_FIELDS}
    return *library_and_class(component), {"type_hint": type_hint, **fields}


def library_and_class(component: Any) -> tuple[str | None, str | None]:
    """The library of a component, or of a class, and the name of the class, as an index has them."""
    from diffusers.pipelines.pipeline_loading_utils import _fetch_class_library_tuple

    if component is None:
        return None, None
    if not hasattr(component, "__module__"):
        # an object of a builtin class, such as a number
        component = type(component)
    library, name = _fetch_class_library_tuple(component)
    return str(library), str(name)
