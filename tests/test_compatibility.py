"""docs/compatibility.md lists each public attribute of diffusers' modular API, and says what is true of it here."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import diffusers.modular_pipelines as theirs
import pytest

import loopwright.modular_pipelines as ours

DOCUMENT = Path(__file__).parent.parent / "docs" / "compatibility.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<state>\w+) \| (?P<note>.*?) ?\|$")


def tables() -> dict[str, dict[str, tuple[str, str]]]:
    """Class name to attribute name to state and note."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            found[line[4:]] = {}
        elif found and (row := ROW.match(line)):
            found[list(found)[-1]][row["name"]] = (row["state"], row["note"])
    return found


TABLES = tables()
CELLS = [(cls, name, state, note) for cls, rows in TABLES.items() for name, (state, note) in rows.items()]
PUBLIC_CLASSES = [
    name
    for name in dir(ours)
    if isinstance(getattr(ours, name), type) and isinstance(getattr(theirs, name, None), type)
]


def public_attributes(cls: type) -> set[str]:
    fields: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    names = {name for name in {*dir(cls), *fields} if not name.startswith("_")}
    return names - set(dir(OrderedDict)) if issubclass(cls, OrderedDict) else names


def is_inherited(cls: type, name: str) -> bool:
    """Whether a class of blocks has the attribute unchanged from the base of all blocks."""
    base = theirs.ModularPipelineBlocks
    same = inspect.getattr_static(cls, name, None) is inspect.getattr_static(base, name, None)
    return cls is not base and issubclass(cls, base) and same


def test_every_public_class_has_a_table() -> None:
    assert sorted(TABLES) == sorted(PUBLIC_CLASSES)
    assert set(theirs.__dict__.get("_import_structure", {}).get("modular_pipeline", PUBLIC_CLASSES)) <= set(TABLES)


@pytest.mark.parametrize("class_name", TABLES)
def test_every_public_attribute_has_a_row(class_name: str) -> None:
    cls = getattr(theirs, class_name)
    own = {name for name in public_attributes(cls) if not is_inherited(cls, name)}
    assert own <= set(TABLES[class_name])


@pytest.mark.parametrize("class_name", TABLES)
def test_no_row_names_what_is_not_there(class_name: str) -> None:
    rows = {name for name in TABLES[class_name] if not name.startswith("_")}
    assert rows <= public_attributes(getattr(theirs, class_name))


@pytest.mark.parametrize(("class_name", "name", "state", "note"), CELLS, ids=lambda cell: str(cell)[:40])
def test_a_row_says_what_is_true(class_name: str, name: str, state: str, note: str) -> None:
    cls = getattr(ours, class_name)
    set_by_instances = {"_blocks", "_component_specs", "_config_specs", "_progress_bar_config"}
    exists = hasattr(cls, name) or name in getattr(cls, "__dataclass_fields__", {}) or name in set_by_instances
    assert state in ("same", "differs", "later", "absent")
    assert exists == (state not in ("later", "absent"))
    assert note or state == "same"
    if state == "same":
        mine, peer = (_parameters(getattr(module, class_name), name) for module in (ours, theirs))
        assert mine == peer


def _parameters(cls: type, name: str) -> list[str] | None:
    """The names of a method's parameters, None for what is not a method."""
    attribute = inspect.getattr_static(cls, name, None)
    function = getattr(attribute, "__func__", attribute)
    return list(inspect.signature(function).parameters) if inspect.isfunction(function) else None


@pytest.mark.parametrize("submodule", ["components_manager", "modular_pipeline", "modular_pipeline_utils"])
def test_the_submodules_that_people_import_are_there(submodule: str) -> None:
    module = __import__(f"loopwright.modular_pipelines.{submodule}", fromlist=["*"])
    peer = __import__(f"diffusers.modular_pipelines.{submodule}", fromlist=["*"])
    for name in PUBLIC_CLASSES:
        if getattr(getattr(peer, name, None), "__module__", None) == peer.__name__:
            assert getattr(module, name) is getattr(ours, name)
