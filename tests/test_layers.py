"""Imports only point down: the layers of docs/architecture.md, checked against every import statement in src/.

An import inside a function counts, and so does one for a type checker: each says that the module knows of the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "loopwright"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Bottom up. A layer is a module or a package right under the package's root; the root itself lies above them all.
# `modular_pipelines` only re-exports, and stands as low as that allows: what is written on the public names, as the
# diffusion blocks are, stands on it.
LAYERS = [
    "errors",
    "params",
    "state",
    "specs",
    "blocks",
    "check",
    "describe",
    "components",
    "run",
    "pipeline",
    "modular_pipelines",
    "batching",
    "diffusion",
    "bridge",
    "server",
    "cli",
]
ROOT = "__init__"


def layer_of(module: Path, package: Path = PACKAGE) -> str:
    return module.relative_to(package).with_suffix("").parts[0]


def imported_layers(module: Path, package: Path = PACKAGE) -> Iterator[tuple[int, str]]:
    """The line and the layer of each import of the package's own modules."""
    own_package = [package.name, *module.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        targets: list[list[str]] = []
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = own_package[: len(own_package) - node.level + 1] if node.level else []
            targets = [[*above, *(node.module or "").split("."), alias.name] for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            targets = [str(node.args[0].value).split(".")]
        for name, *rest in ([part for part in target if part] for target in targets):
            if name == package.name:
                # `from loopwright import check` may mean the layer or a name of the root: the layer, if there is one.
                yield node.lineno, rest[0] if rest and rest[0] in LAYERS else ROOT


def upward_imports(module: Path, package: Path = PACKAGE) -> list[str]:
    layers = [*LAYERS, ROOT]
    height = layers.index(layer_of(module, package))
    return [
        f"{module.relative_to(package)}:{line} imports {layer}"
        for line, layer in imported_layers(module, package)
        if layers.index(layer) > height
    ]


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer_of(module) for module in MODULES} <= {*LAYERS, ROOT, "__main__"}


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES if layer_of(module) not in (ROOT, "__main__")],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_imports_point_down(module: Path) -> None:
    assert upward_imports(module) == []


def test_modular_pipelines_is_re_exports_only() -> None:
    for module in sorted((PACKAGE / "modular_pipelines").rglob("*.py")):
        for statement in ast.parse(module.read_text(encoding="utf-8")).body:
            is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            is_all = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
            is_import = isinstance(statement, ast.Import | ast.ImportFrom)
            assert is_docstring or is_all or is_import, f"{module}:{statement.lineno}"


@pytest.mark.parametrize(
    "statement",
    [
        "import loopwright",
        "import loopwright.pipeline",
        "from loopwright import ModularPipeline",
        "from loopwright import pipeline",
        "from loopwright.pipeline import ModularPipeline",
        "from .. import pipeline",
        "from ..pipeline import ModularPipeline",
        "def late():\n    from loopwright.pipeline import ModularPipeline",
        "if TYPE_CHECKING:\n    from loopwright.pipeline import ModularPipeline",
        "importlib.import_module('loopwright.pipeline')",
    ],
)
def test_an_import_that_points_up_is_found(statement: str, tmp_path: Path) -> None:
    module = tmp_path / "loopwright" / "blocks" / "base.py"
    module.parent.mkdir(parents=True)
    module.write_text(statement)
    assert len(upward_imports(module, tmp_path / "loopwright")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "import torch",
        "from pipeline import ModularPipeline",
        "from . import pipeline",
        "from .pipeline import ModularPipeline",
        "from ..errors import DefinitionError",
        "from loopwright.blocks.loop import LoopSequentialPipelineBlocks",
        "from loopwright import params",
    ],
)
def test_an_import_that_points_down_or_sideways_is_not(statement: str, tmp_path: Path) -> None:
    module = tmp_path / "loopwright" / "blocks" / "base.py"
    module.parent.mkdir(parents=True)
    module.write_text(statement)
    assert upward_imports(module, tmp_path / "loopwright") == []
