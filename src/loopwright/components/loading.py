"""Loading the components of a pipeline: their files are downloaded side by side, then they are made one by one.

They are not made side by side: while a model is loaded its library changes the default dtype of the whole process, and
how new modules are initialised, so that two loads at a time would disturb each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from loopwright.components.fetching import fetch
from loopwright.components.manager import ComponentsManager
from loopwright.errors import ComponentLoadError, UnknownComponentError, UnknownInputError, did_you_mean
from loopwright.specs import LOADING_FIELDS, ComponentSpec
from loopwright.specs.diagnosis import variant_of
from loopwright.specs.loading import MODEL_OPTIONS
from loopwright.specs.repository import HUB_OPTIONS

__all__ = ["Origin", "load", "to_load"]

# options whose value is a dict, rather than one value for each component
_ONE_VALUE = ("max_memory", "proxies")
_OPTIONS = (*LOADING_FIELDS, *MODEL_OPTIONS, *HUB_OPTIONS, "config", "torch_dtype", "trust_remote_code")


def to_load(specs: Mapping[str, ComponentSpec], loaded: Iterable[str], names: Any = None) -> list[str]:
    """The names of the components that are to be loaded.

    Args:
        specs: the specs by name.
        loaded: the names of those that the pipeline has.
        names: the components that the user names; all that are missing and have a place to come from, if None.

    Raises:
        UnknownComponentError: there is no component of such a name.
        ComponentLoadError: one of them is not loaded, but made from its configuration.
    """
    if names is None:
        present = set(loaded)
        return [
            name
            for name, spec in specs.items()
            if spec.default_creation_method == "from_pretrained"
            and spec.pretrained_model_name_or_path is not None
            and name not in present
        ]
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in specs:
            raise UnknownComponentError(
                f"there is no component `{name}` to load{did_you_mean(str(name), specs)}; the blocks expect "
                f"{', '.join(f'`{known}`' for known in specs) or 'none'}"
            )
        if specs[name].default_creation_method != "from_pretrained":
            raise ComponentLoadError(
                f"component `{name}` is not loaded: it is made from its configuration when the pipeline is"
            )
    return chosen


@dataclass(frozen=True)
class Origin:
    """Where a pipeline comes from.

    Attributes:
        source: its folder or repository, None if it was made from blocks alone.
        hub_options: what the user said about the hub, such as a token.
    """

    source: str | None = None
    hub_options: Mapping[str, Any] = field(default_factory=dict)


def load(
    specs: Mapping[str, ComponentSpec],
    names: list[str],
    options: Mapping[str, Any],
    progress: bool | None = None,
    manager: ComponentsManager | None = None,
    origin: Origin = Origin(),
) -> Iterator[tuple[str, Any]]:
    """Load components, each when it is asked for; yields their names and themselves.

    Args:
        specs: the specs by name; those of the components that are loaded remember where they came from.
        names: the components.
        options: keyword arguments for `from_pretrained`. A dict has a value for each component by name, and one for all
            others as `default`.
        progress: whether a progress bar is shown; None for where it goes to a terminal.
        manager: what it has already is not loaded again.
        origin: where the pipeline comes from. What the user said about the hub there holds for its components too, and
            code that is trusted is trusted there alone.

    Raises:
        ComponentLoadError: one of them could not be loaded; the message names it.
        UnknownComponentError, UnknownInputError: an option is not one, or has a value for no component.
    """
    from tqdm.auto import tqdm

    _check_options(specs, options)
    with_options = {name: _options_of(specs[name], options, origin) for name in names}
    missing = [
        (specs[name], chosen)
        for name, chosen in with_options.items()
        if manager is None or manager.find_loaded(specs[name], chosen) is None
    ]
    if missing:
        fetch(missing)
    with tqdm(names, desc="loading", unit="component", disable=None if progress is None else not progress) as bar:
        for name in bar:
            spec, chosen = specs[name], with_options[name]
            bar.set_postfix_str(f"{name}{_size(spec, chosen)}")
            component = None if manager is None else manager.find_loaded(spec, chosen)
            yield name, spec.load(**chosen) if component is None else component


def _check_options(specs: Mapping[str, ComponentSpec], options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        # what a class takes besides is not known here; but libraries pass over what is misspelt
        if option not in _OPTIONS and (meant := get_close_matches(option, _OPTIONS, n=1, cutoff=0.75)):
            raise UnknownInputError(f"`load_components` takes no `{option}`, did you mean `{meant[0]}`?")
        for name in value if isinstance(value, Mapping) and option not in _ONE_VALUE else ():
            if name not in specs and name != "default":
                raise UnknownComponentError(
                    f"`{option}` has a value for `{name}`, which is not a component"
                    f"{did_you_mean(str(name), [*specs, 'default'])}"
                )


def _options_of(spec: ComponentSpec, options: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """The options for one component."""
    name = str(spec.name)
    chosen: dict[str, Any] = {}
    for option, value in options.items():
        if not isinstance(value, Mapping) or option in _ONE_VALUE:
            chosen[option] = value
        elif name in value:
            chosen[option] = value[name]
        elif "default" in value:
            chosen[option] = value["default"]
    quantization = chosen.get("quantization_config")
    if hasattr(quantization, "_resolve_quant_config"):  # one for all components of a pipeline
        chosen["quantization_config"] = _quantization(spec, quantization)
    if chosen.get("quantization_config", ...) is None:
        del chosen["quantization_config"]
    source = chosen.get("pretrained_model_name_or_path", spec.pretrained_model_name_or_path)
    own = origin.source is None or str(source) == origin.source
    if own:
        return {**origin.hub_options, **chosen}
    if chosen.pop("trust_remote_code", False):
        # whoever trusts the code of a pipeline does not mean that of every repository which its index names
        chosen["trust_remote_code"] = False
    return chosen


def _quantization(spec: ComponentSpec, config: Any) -> Any:
    """How a component is quantized by a `PipelineQuantizationConfig`; None if it is not.

    Raises:
        ComponentLoadError: the package that does it is not installed.
    """
    hint = spec.type_hint
    library = hint.__module__.partition(".")[0] if isinstance(hint, type) else "diffusers"
    return config._resolve_quant_config(is_diffusers=library == "diffusers", module_name=spec.name)


def _size(spec: ComponentSpec, options: Mapping[str, Any]) -> str:
    """How large the weights of a component are, for the progress bar; empty if that is not known."""
    source = Path(str(options.get("pretrained_model_name_or_path", spec.pretrained_model_name_or_path)))
    folder = source / (options.get("subfolder", spec.subfolder) or "")
    variant = options.get("variant", spec.variant)
    if source.is_file():
        sizes = {source.suffix: source.stat().st_size}
    else:
        sizes = Counter()
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix in (".safetensors", ".bin") and variant_of(path.name) == variant and path.is_file():
                sizes[path.suffix] += path.stat().st_size
    # the libraries take safetensors where there are some
    size = float(sizes.get(".safetensors") or max(sizes.values(), default=0))
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f", {size:.3g} {unit}" if size else ""
