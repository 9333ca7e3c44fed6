"""Declarations of what a pipeline is configured with: `ComponentSpec` and `ConfigSpec`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, Self

from loopwright.errors import ComponentLoadError, DefinitionError, brief, did_you_mean
from loopwright.specs.loading import load_component
from loopwright.specs.repository import Place

__all__ = ["LOADING_FIELDS", "ComponentSpec", "ConfigSpec"]

LOADING_FIELDS = ("pretrained_model_name_or_path", "subfolder", "variant", "revision")

_CREATION_METHODS = ("from_config", "from_pretrained")

# the load id of a component that was created from a configuration, and of a field that is not set
_NULL = "null"


@dataclass
class ConfigSpec:
    """A configuration value of a pipeline: not given per call, and saved with it."""

    name: str
    default: Any
    description: str | None = None


@dataclass(eq=False)
class ComponentSpec:
    """A component that a block works with, and how to make it.

    Two specs are equal if they have the same name, are made the same way, and are loaded from the same place.

    Attributes:
        name: the attribute of the pipeline that holds the component.
        type_hint: its class.
        description: one sentence for the reader of the documentation.
        config: the configuration for `create()`.
        pretrained_model_name_or_path: the repository, folder or file for `load()`. `repo` is another name for it.
        subfolder: the folder in the repository.
        variant: the variant of the weights (`fp16`).
        revision: the commit, branch or tag.
        default_creation_method: `from_config` if a new pipeline creates the component at once, `from_pretrained` if it
            waits to be loaded or given.
    """

    name: str | None = None
    type_hint: Any = None
    description: str | None = None
    config: Any = None
    pretrained_model_name_or_path: Any = field(default=None, metadata={"loading": True})
    subfolder: str | None = field(default="", metadata={"loading": True})
    variant: str | None = field(default=None, metadata={"loading": True})
    revision: str | None = field(default=None, metadata={"loading": True})
    default_creation_method: Literal["from_config", "from_pretrained"] = "from_pretrained"
    repo: InitVar[Any] = None

    def __post_init__(self, repo: Any) -> None:
        if repo is not None and self.pretrained_model_name_or_path is None:
            self.pretrained_model_name_or_path = repo
        if self.default_creation_method not in _CREATION_METHODS:
            given = self.default_creation_method
            hint = did_you_mean(str(given), _CREATION_METHODS)
            raise DefinitionError(
                f"`default_creation_method` of component `{self.name}` must be "
                f"{' or '.join(map(repr, _CREATION_METHODS))}, not {given!r}{hint}"
            )

    def __hash__(self) -> int:
        return hash((self.name, self.load_id, self.default_creation_method))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComponentSpec) and (
            (self.name, self.load_id, self.default_creation_method)
            == (other.name, other.load_id, other.default_creation_method)
        )

    @classmethod
    def loading_fields(cls) -> list[str]:
        """The names of the fields that say where the component is loaded from."""
        return list(LOADING_FIELDS)

    @property
    def load_id(self) -> str:
        """The loading fields, joined with `|`; `null` for a component that is created from its configuration."""
        if self.default_creation_method == "from_config":
            return _NULL
        values = (getattr(self, name) for name in LOADING_FIELDS)
        return "|".join(_NULL if value is None else str(value) for value in values)

    @classmethod
    def decode_load_id(cls, load_id: str) -> dict[str, str | None]:
        """The loading fields that a load id was made from."""
        parts = [] if load_id == _NULL else load_id.split("|")
        decoded: dict[str, str | None] = dict.fromkeys(LOADING_FIELDS)
        decoded.update((name, None if part == _NULL else part) for name, part in zip(LOADING_FIELDS, parts))  # noqa: B905
        return decoded

    @classmethod
    def from_component(cls, name: str, component: Any) -> Self:
        """The spec of a component that exists.

        Args:
            name: the name that the pipeline knows it by.
            component: a component that `load()` returned, or one without weights that has a configuration, such as a
                scheduler or a guider.

        Raises:
            ComponentLoadError: how to make the component again is not known.
        """
        load_id = getattr(component, "_diffusers_load_id", _NULL)
        if load_id != _NULL:
            return cls(name=name, type_hint=type(component), **cls.decode_load_id(load_id))  # type: ignore[arg-type]

        import torch
        from diffusers.configuration_utils import ConfigMixin

        if isinstance(component, ConfigMixin) and not isinstance(component, torch.nn.Module):
            return cls(
                name=name,
                type_hint=type(component),
                config=component.config,
                default_creation_method="from_config",
            )
        raise ComponentLoadError(
            f"no spec can be made from `{name}` ({type(component).__name__}): it was not loaded with "
            f"`ComponentSpec.load()`, and it is not a component without weights that has a configuration"
        )

    def create(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Make the component from a configuration.

        Args:
            config: used instead of the spec's own configuration.
            **kwargs: single values of the configuration.

        Raises:
            ComponentLoadError: `type_hint` is not a class, or cannot be made from the configuration; the cause is
                chained.
        """
        if not isinstance(self.type_hint, type):
            raise ComponentLoadError(
                f"component `{self.name}` cannot be created from a configuration: its spec has no class as `type_hint`"
            )
        values: Mapping[str, Any] = config or self.config or {}
        try:
            if hasattr(self.type_hint, "from_config"):
                component = self.type_hint.from_config(values, **kwargs)
            else:
                accepted = inspect.signature(self.type_hint).parameters
                given = {**values, **kwargs}
                component = self.type_hint(**{name: value for name, value in given.items() if name in accepted})
        except Exception as error:
            raise ComponentLoadError(
                f"component `{self.name}` ({self.type_hint.__name__}) could not be created from the configuration "
                f"{brief(dict(values))}: {error}"
            ) from error
        component._diffusers_load_id = _NULL
        if hasattr(component, "config"):
            self.config = component.config
        return component

    def load(self, **kwargs: Any) -> Any:
        """Load the component with the `from_pretrained` of its class, or `from_single_file` for a weights file.

        Args:
            **kwargs: a loading field replaces that of the spec, which remembers it; the rest goes to the class. What
                only models take (`dtype`, `device_map`, `quantization_config`) is not given to others.

        Raises:
            ComponentLoadError: the spec names no place to load from, or the loading failed; the message names the
                file and what is wrong with it, and the cause is chained. Weights that lack a part of the model count as
                failed.
        """
        fields = {name: kwargs.pop(name, getattr(self, name)) for name in LOADING_FIELDS}
        source = fields["pretrained_model_name_or_path"]
        if source is None:
            hint = f", {self.type_hint.__name__}" if isinstance(self.type_hint, type) else ""
            raise ComponentLoadError(
                f"component `{self.name}` cannot be loaded, as its `ComponentSpec` does not say from where: name a "
                f"repository or a folder, as in `ComponentSpec({self.name!r}{hint}, repo='owner/model')`"
            )
        place = Place(str(source), fields["subfolder"], fields["variant"], fields["revision"])
        component = load_component(str(self.name), self.type_hint, place, kwargs)
        self.type_hint = self.type_hint or type(component)
        for name, value in fields.items():
            setattr(self, name, value)
        component._diffusers_load_id = self.load_id
        return component


def _get_repo(spec: ComponentSpec) -> Any:
    return spec.pretrained_model_name_or_path


def _set_repo(spec: ComponentSpec, value: Any) -> None:
    spec.pretrained_model_name_or_path = value


# added after the dataclass was made, which would take a property in its body for the default of the argument `repo`
ComponentSpec.repo = property(_get_repo, _set_repo)  # type: ignore[attr-defined]
