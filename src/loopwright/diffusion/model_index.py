"""`model_index.json`, the table of contents of a model folder in diffusers' layout; imports no large library."""

from __future__ import annotations

import json
from pathlib import Path

from loopwright.errors import InvalidInputError

__all__ = ["EMBEDDED_MODEL", "read_model_index"]

EMBEDDED_MODEL = Path(__file__).parent / "embedded" / "model"

# classes are looked up by name in these alone: a model folder must not choose what is imported
_LIBRARIES = ("diffusers", "transformers")


def read_model_index(folder: str | Path) -> dict[str, tuple[str, str]]:
    """For each component of the folder its library and class.

    Raises:
        InvalidInputError: the folder is not there, or is not a model in diffusers' layout.
    """
    folder = Path(folder)
    path = folder / "model_index.json"
    if not folder.is_dir():
        raise InvalidInputError(f"there is no model folder {folder}")
    if not path.is_file():
        raise InvalidInputError(f"{folder} is not a model folder: it has no model_index.json")
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).items()
    except (ValueError, AttributeError) as error:
        raise InvalidInputError(f"{path} is not a JSON object: {error}") from error
    index = {name: (entry[0], entry[1]) for name, entry in entries if isinstance(entry, list) and len(entry) == 2}
    for name, (library, _) in index.items():
        if library not in _LIBRARIES:
            raise InvalidInputError(
                f"{path} wants `{name}` from `{library}`; only classes of {' and '.join(_LIBRARIES)} are loaded"
            )
    return index
