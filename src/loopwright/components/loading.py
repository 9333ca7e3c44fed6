"""Loading the components of a pipeline, one after the other.

Not side by side: while a model is loaded its library changes the default dtype of the whole process, and how new
modules are initialised, so that two loads at a time would disturb each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loopwright.errors import ComponentLoadError, UnknownComponentError, did_you_mean
from loopwright.specs import ComponentSpec

__all__ = ["load", "to_load"]


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


def load(
    specs: Mapping[str, ComponentSpec], names: list[str], options: Mapping[str, Any], progress: bool | None = None
) -> Iterator[tuple[str, Any]]:
    """Load components, each when it is asked for; yields their names and themselves.

    Args:
        specs: the specs by name; those of the components that are loaded remember where they came from.
        names: the components.
        options: keyword arguments for `from_pretrained`. A dict has a value for each component by name, and one for all
            others as `default`.
        progress: whether a progress bar is shown; None for where it goes to a terminal.

    Raises:
        ComponentLoadError: one of them could not be loaded; the message names it.
    """
    from tqdm.auto import tqdm

    for option, value in options.items():
        for name in value if isinstance(value, Mapping) and not _is_one_value(option) else ():
            if name not in specs and name != "default":
                raise UnknownComponentError(
                    f"`{option}` has a value for `{name}`, which is not a component"
                    f"{did_you_mean(str(name), [*specs, 'default'])}"
                )
    with tqdm(names, desc="loading", unit="component", disable=None if progress is None else not progress) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            yield name, specs[name].load(**_options_of(name, options))


def _options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for one component."""
    chosen = {}
    for option, value in options.items():
        if not isinstance(value, Mapping) or _is_one_value(option):
            chosen[option] = value
        elif name in value:
            chosen[option] = value[name]
        elif "default" in value:
            chosen[option] = value["default"]
    return chosen


def _is_one_value(option: str) -> bool:
    """Whether a dict is the value of an option, rather than one value for each component."""
    return option in ("max_memory", "proxies")
