"""What the package shows: a name is public on purpose, or it is private."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import loopwright

# What the root imports for its own type hints.
HELPERS = {"TYPE_CHECKING", "Any", "annotations"}
SOURCE = Path(loopwright.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that ruff keeps `__all__` in."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def declared_names(module: Path) -> list[str] | None:
    """The module's `__all__`, read and not run."""
    for statement in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["__all__"]:
            return list(ast.literal_eval(statement.value))
    return None


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_all_is_sorted(module: Path) -> None:
    names = declared_names(module)
    if names is not None:
        assert names == sorted(set(names), key=order)


def test_the_package_exposes_what_all_says() -> None:
    exposed = {
        name
        for name in dir(loopwright)
        if not name.startswith("_") and not isinstance(getattr(loopwright, name), ModuleType)
    }
    private = {name for name in loopwright.__all__ if name.startswith("_")}
    assert exposed - HELPERS == set(loopwright.__all__) - private
    for name in loopwright.__all__:
        assert getattr(loopwright, name) is not None


def test_a_module_does_not_take_the_place_of_a_name() -> None:
    """`loopwright.check` is the function, also after `import loopwright.check` has bound the module of that name."""
    shared = sorted({module.stem for module in SOURCE.glob("*.py")} & set(loopwright.__all__))
    script = "\n".join(
        [f"import loopwright.{name}" for name in shared]
        + [f"assert not isinstance(loopwright.{name}, type(loopwright)), {name!r}" for name in shared]
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = loopwright.no_such_name


def test_the_version_is_that_of_the_distribution() -> None:
    assert loopwright.__version__ == importlib.metadata.version("loopwright")
