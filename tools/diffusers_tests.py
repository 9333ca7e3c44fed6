"""The tests that diffusers has of its modular pipelines, run against the classes of Loopwright.

Takes the folder of a checkout of diffusers, fetches nothing, and leaves the checkout as it is. The tests are copied to
a temporary folder, where their imports are replaced, and run there without a network; once more as they are, against
the installed diffusers, to compare. The tests of families, in folders of their own, stay aside.
Run by `make diffusers-tests CHECKOUT=folder`.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

TESTS = Path("tests") / "modular_pipelines"
# what they need of the rest of diffusers' tests
NEEDED = ("tests/__init__.py", "tests/conftest.py", "tests/testing_utils.py")
# what a test says that cannot reach the hub
OFFLINE = re.compile(r"OfflineModeIsEnabled|LocalEntryNotFoundError|hub cannot be reached|no network|outgoing traffic")

# Tests that fail here on purpose. docs/compatibility.md has each reason in full.
_NO_BLOCK = (
    "what is put together has classes that are no blocks, which is an error; there, they fail when they are called. "
    "Besides, blocks without a class that could be loaded again are not saved"
)
ON_PURPOSE = {
    "TestBlockKwargsTypeInputs.test_user_inputs_passed_by_name_are_not_tagged": (
        "an input that no block has is an error; there, it is ignored"
    ),
    "TestModularCustomBlocks.test_trust_remote_code_not_propagated_to_external_repo": (
        "a component that cannot be loaded is an error; there, a warning, and the component is None"
    ),
    "TestCustomBlockRequirements.test_conditional_block_requirements_save_load": _NO_BLOCK,
    "TestCustomBlockRequirements.test_loop_block_requirements_save_load": _NO_BLOCK,
    "TestCustomBlockRequirements.test_sequential_block_requirements_save_load": _NO_BLOCK,
    "TestCustomBlockRequirements.test_sequential_block_requirements_warnings": _NO_BLOCK,
}

NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise OSError("there is no network here")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""


class Outcome(NamedTuple):
    """What became of a test: `passed`, `failed`, `skipped` or `needs a network`, and the last line of what it said."""

    state: str
    message: str


class Replaced(NamedTuple):
    """A file whose imports are replaced, and the names in it that are still diffusers' own."""

    source: str
    theirs: list[str]


def replace_imports(source: str) -> Replaced:
    """Import from Loopwright what it has of what is imported from diffusers' modular pipelines.

    Code in strings stays as it is: it stands for files of others.
    """
    lines = source.splitlines(keepends=True)
    theirs: list[str] = []
    for node in sorted(imports(source), key=lambda node: -node.lineno):
        assert node.module is not None
        ours, rest = [], []
        for alias in node.names:
            (ours if is_ours(node.module, alias.name) else rest).append(ast.unparse(alias))
        if node.module != "diffusers":
            theirs += [f"{node.module}.{name}" for name in rest]
        module = re.sub(r"^diffusers", "loopwright", node.module)
        sides, indent = ((module, ours), (node.module, rest)), " " * node.col_offset
        made = [f"from {name} import {', '.join(found)}" for name, found in sides if found]
        lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{line}\n" for line in made]
    # they also look at what is logged, under the name of the module that logs it
    replaced = re.sub(r'(get_logger\(")diffusers(\.modular_pipelines)', r"\1loopwright\2", "".join(lines))
    return Replaced(replaced, theirs)


def imports(source: str) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and re.match(r"diffusers(\.modular_pipelines\b|$)", node.module or ""):
            yield node


def is_ours(module: str, name: str) -> bool:
    """Whether Loopwright has a name of a module of diffusers."""
    try:
        found = importlib.import_module(re.sub(r"^diffusers", "loopwright", module))
    except ModuleNotFoundError:
        return False
    return hasattr(found, name)


def copy_tests(checkout: Path, folder: Path, ours: bool) -> list[str]:
    """Copy the tests; returns the names that they import from diffusers' modular part and that Loopwright lacks."""
    for needed in NEEDED:
        (folder / needed).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkout / needed, folder / needed)
    sources = [*(checkout / TESTS).glob("*.py"), *(checkout / TESTS / "testing_utils").glob("*.py")]
    theirs: list[str] = []
    for path in sources:
        source = path.read_text(encoding="utf-8")
        if ours:
            source, names = replace_imports(source)
            theirs += names
        copied = folder / path.relative_to(checkout)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(source, encoding="utf-8")
    (folder / "no_network.py").write_text(NO_NETWORK, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return sorted(set(theirs))


def run_tests(folder: Path) -> dict[str, Outcome]:
    """Run the tests in a folder."""
    report = folder / "report.xml"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", str(TESTS), "-q", "-p", "no_network", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, f"--junitxml={report}"], cwd=folder, env=environment, capture_output=True, text=True
    )
    if not report.exists():
        sys.exit(f"pytest did not run:\n{ran.stdout}\n{ran.stderr}")
    return dict(outcomes(ElementTree.parse(report)))


def outcomes(report: ElementTree.ElementTree) -> Iterator[tuple[str, Outcome]]:
    for case in report.iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        told = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        if told is None:
            yield name, Outcome("passed", "")
            continue
        message = (told.get("message") or told.text or "").strip().partition("\n")[0]
        if told.tag == "skipped":
            yield name, Outcome("skipped", message)
        else:
            text = f"{told.get('message')}\n{told.text}"
            yield name, Outcome("needs a network" if OFFLINE.search(text) else "failed", message)


def internal_tests(checkout: Path) -> set[str]:
    """The tests that call `combine_inputs`, which is no public name."""
    found = set()
    for path in (checkout / TESTS).glob("test_*.py"):
        for cls in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for test in cls.body if isinstance(cls, ast.ClassDef) else []:
                if isinstance(test, ast.FunctionDef) and "combine_inputs(" in ast.unparse(test):
                    found.add(f"{cls.name}.{test.name}")
    return {name for name in found if ".test_" in name}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="the folder of a checkout of diffusers")
    checkout: Path = parser.parse_args(arguments).checkout
    if not (checkout / TESTS).is_dir():
        sys.exit(f"{checkout} is no checkout of diffusers: it has no folder {TESTS}")
    sides: dict[str, dict[str, Outcome]] = {}
    kept: list[str] = []
    for side in ("diffusers", "loopwright"):
        with tempfile.TemporaryDirectory() as folder:
            kept = copy_tests(checkout, Path(folder), ours=side == "loopwright")
            sides[side] = run_tests(Path(folder))
    return report(sides["diffusers"], sides["loopwright"], internal_tests(checkout), kept)


def report(theirs: dict[str, Outcome], ours: dict[str, Outcome], internal: set[str], kept: list[str]) -> int:
    """Print what became of the tests; returns how many fail here that should not."""
    states = ("passed", "failed", "needs a network", "skipped")
    print(f"{'':12} {'tests':>8}" + "".join(f"{state:>18}" for state in states) + f"{'on combine_inputs':>20}")
    for side, found in (("diffusers", theirs), ("loopwright", ours)):
        counts = Counter(outcome.state for outcome in found.values())
        passed = sum(found[name].state == "passed" for name in internal & found.keys())
        print(f"{side:12} {len(found):8}" + "".join(f"{counts[state]:18}" for state in states) + f"{passed:13} passed")
    print(f"\nnames that stay diffusers' own: {', '.join(kept) or 'none'}")
    failures = 0
    for name, outcome in sorted(ours.items()):
        there = theirs.get(name, Outcome("not run", ""))
        if outcome.state == there.state or outcome.state == "passed":
            continue
        if name in ON_PURPOSE:
            print(f"\non purpose   {name}: {ON_PURPOSE[name]}")
        else:
            print(f"\n{outcome.state:12} {name}, in diffusers: {there.state}\n  {outcome.message}")
            failures += there.state == "passed"
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
