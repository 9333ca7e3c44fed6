"""What a start costs is a matter of what it imports: none of the large libraries before they are needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# rich, and what rich imports.
RICH = {"rich", "markdown_it", "mdurl", "pygments"}
# typer, and what typer imports, first for a list of commands, then to read the parameters of one.
TYPER = {"typer", "annotated_doc", "click", "shellingham", "typing_extensions"} | RICH
TYPER_PARAMETERS = TYPER | {"annotated_types", "pydantic", "pydantic_core", "typing_inspection"}

REPORT = """
import sys
before = set(sys.modules)
{statements}
imported = {{name.partition(".")[0] for name in set(sys.modules) - before}}
import json
print("imported", json.dumps(sorted(imported - set(sys.stdlib_module_names) - {{"loopwright"}})))
"""


def modules_imported_by(statements: str) -> set[str]:
    """The top-level modules, of neither the standard library nor Loopwright, that a new interpreter imports."""
    script = REPORT.format(statements=statements)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    names = json.loads(ran.stdout.rpartition("imported ")[2])
    # The standard library's table of how this Python was built; its name is not the same everywhere.
    return {name for name in names if not name.startswith("_sysconfigdata")}


def test_importing_the_package_imports_the_standard_library_only() -> None:
    assert modules_imported_by("import loopwright") == set()


def test_importing_the_classes_of_blocks_imports_the_standard_library_only() -> None:
    names = "LoopSequentialPipelineBlocks, ModularPipelineBlocks, InputParam, OutputParam"
    assert modules_imported_by(f"from loopwright import {names}") == set()


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], TYPER),
        (["--version"], TYPER),
        (["generate", "--help"], TYPER_PARAMETERS),
        (["serve", "--help"], TYPER_PARAMETERS),
        (["jobs", "watch", "--help"], TYPER_PARAMETERS),
    ],
    ids=lambda given: " ".join(["loopwright", *given]) if isinstance(given, list) else "",
)
def test_what_the_command_line_says_of_itself_takes_only_what_it_is_made_of(
    arguments: list[str], allowed: set[str]
) -> None:
    imported = modules_imported_by(
        f"sys.argv = {['loopwright', *arguments]!r}\n"
        "from loopwright.cli import main\n"
        "try:\n    sys.exit(main())\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    assert imported <= allowed
