"""What the index of a pipeline says: its class, its blocks, and where each component comes from.

There are two kinds. `modular_model_index.json` has, for each component, its library, its class and a spec;
`model_index.json`, that of classic pipelines, has the library and the class, and the component lies in the folder of
its name.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any

from loopwright.components.repository import Repository
from loopwright.errors import ComponentLoadError, brief, did_you_mean
from loopwright.specs import LOADING_FIELDS, ComponentSpec, ConfigSpec

__all__ = ["CLASSIC_INDEX", "MODULAR_INDEX", "PipelineIndex", "read_index"]

MODULAR_INDEX = "modular_model_index.json"
CLASSIC_INDEX = "model_index.json"

# an index names classes: they are looked for in these libraries alone, so that it does not choose what is imported
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
    """

    repository: Repository
    file: str
    pipeline_class: str | None = None
    blocks_class: str | None = None
    components: dict[str, tuple[str | None, str | None, dict[str, Any]]] = field(default_factory=dict)
    configs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_classic(self) -> bool:
        return self.file == CLASSIC_INDEX

    def spec(self, spec: ComponentSpec) -> ComponentSpec:
        """A component's spec with what the index says about it.

        Raises:
            ComponentLoadError: the index names a class that there is not.
        """
        if spec.name not in self.components:
            return spec
        library, class_name, fields = self.components[spec.name]
        type_hint = self._class(spec.name, library, class_name) if class_name is not None else spec.type_hint
        place = {name: fields[name] for name in LOADING_FIELDS if name in fields}
        found = replace(spec, type_hint=type_hint, default_creation_method="from_pretrained", repo=None, **place)
        folder = self.repository.folder
        if folder is not None and (folder / (found.subfolder or "")).is_dir():
            # a copy of a repository still names the repository: what lies here is taken from here
            found = replace(found, pretrained_model_name_or_path=str(folder), revision=None, repo=None)
        return found

    def config(self, spec: ConfigSpec) -> ConfigSpec:
        """A configuration value's spec, with the value that the index has for it as the default."""
        return replace(spec, default=self.configs[spec.name]) if spec.name in self.configs else spec

    def _class(self, name: str, library: str | None, class_name: str) -> type[Any]:
        place = f"{self.file} of {self.repository}"
        if library not in _LIBRARIES:
            # the folder of a classic pipeline's own code in diffusers, such as `stable_diffusion`
            within = f"diffusers.pipelines.{library}"
            if importlib.util.find_spec(within) is None:
                raise ComponentLoadError(
                    f"{place} takes component `{name}` from the library `{library}`; only classes of "
                    f"{' and '.join(_LIBRARIES)} are loaded. Load it yourself, and give it to "
                    f"`pipe.update_components({name}=...)`"
                )
            library = within
        module = importlib.import_module(library)
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            raise ComponentLoadError(
                f"{place} says that component `{name}` is a `{class_name}`, which {library} does not have"
                f"{did_you_mean(class_name, [known for known in dir(module) if known[0].isupper()])}"
            )
        return found


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
        repository, file, values.get("_class_name"), values.get("_blocks_class_name"), components, configs
    )


def _is_component(value: list[Any]) -> bool:
    names = all(name is None or isinstance(name, str) for name in value[:2])
    return names and (len(value) == 2 or isinstance(value[2], dict))
