"""The documentation does what it says: its Python runs, so do its `loopwright` commands, and its diagram is true.

The snippets of a document run in their order, in one namespace and one folder, as a reader would run them. A snippet is
left out only where its fence says so: ```python no-run. What a snippet prints is what the comments beside or below its
`print` show; `...` stands for anything. A snippet that is a file is written: ```python file=paint.py.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from loopwright import describe
from loopwright.diffusion import TextToImageBlocks

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]+)[^)]*\)")
SHELLS = {"bash", "console"}


@dataclass
class Snippet:
    info: list[str]
    line: int
    text: str

    @property
    def runs(self) -> bool:
        return bool(self.info) and self.info[0] in {"python"} | SHELLS and "no-run" not in self.info

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.info if word.startswith("file=")), None)

    @property
    def commands(self) -> list[str]:
        """The `loopwright` commands of a shell snippet: without the prompt, and with continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = [line.removeprefix("$ ") for line in lines]
        return [command for command in commands if command.startswith("loopwright ")]

    @property
    def output(self) -> str:
        """What a Python snippet prints, by its comments, as a regular expression."""
        lines = self.text.splitlines()
        patterns = []
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Expr) and ast.unparse(node).startswith("print("):
                beside = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()
                below = itertools.takewhile(lambda line: line.startswith("#"), map(str.strip, lines[node.end_lineno :]))
                shown = [comment.removeprefix("#").removeprefix(" ") for comment in filter(None, [beside, *below])]
                pattern = re.escape("\n".join(shown)).replace(re.escape("..."), ".*") + "\n" if shown else "(?s:.*)"
                patterns.append((node.lineno, pattern))
        return "".join(pattern for _, pattern in sorted(patterns))


def snippets(markdown: str) -> Iterator[Snippet]:
    lines = iter(enumerate(markdown.splitlines(), start=1))
    for number, line in lines:
        if opening := FENCE.match(line):
            indent = len(opening["indent"])
            text = []
            for _, inner in lines:
                if inner.strip() == opening["ticks"]:
                    break
                text.append(inner[indent:] if inner[:indent].isspace() else inner)
            yield Snippet(opening["info"].split(), number + 1, "\n".join(text) + "\n")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_snippets_of_a_document_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A module of its own: what a snippet defines can be looked up by its module's name, as in a reader's script.
    module = ModuleType(f"snippets_of_{document.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for snippet in snippets(document.read_text(encoding="utf-8")):
        if not snippet.runs:
            continue
        if snippet.file is not None:
            Path(snippet.file).write_text(snippet.text, encoding="utf-8")
        elif snippet.info[0] == "python":
            # Preceded by empty lines, so that a traceback shows the document's line.
            source = "\n" * (snippet.line - 1) + snippet.text
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(source, str(document), "exec"), vars(module))
            if not re.fullmatch(snippet.output, printed.getvalue()):
                pytest.fail(f"{document.name}:{snippet.line}: the comments show another output\n{printed.getvalue()}")
        for command in snippet.commands if snippet.info[0] in SHELLS else []:
            run_command(command, f"{document.name}:{snippet.line}")


def run_command(command: str, place: str) -> None:
    script = shutil.which("loopwright", path=str(Path(sys.executable).parent))
    assert script is not None, "the command is not installed beside this Python: `make env` does that"
    arguments = shlex.split(command, comments=True)[1:]
    ran = subprocess.run([script, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ran.returncode == 0, f"{place}: {command}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_of_a_document_lead_to_files(document: Path) -> None:
    paths = [match["path"] for match in LINK.finditer(document.read_text(encoding="utf-8"))]
    assert [path for path in paths if not (document.parent / path).exists()] == []


def test_the_readme_shows_the_blocks_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- blocks:begin -->\n")[2].partition("<!-- blocks:end -->\n")[0]
    described = describe(TextToImageBlocks(), format="mermaid")
    assert shown == f"```mermaid\n{described}\n```\n", "`make readme` writes it anew"


def test_snippets_are_found() -> None:
    markdown = (
        "Text\n```python\na = 1\n\nb = 2\n```\n"
        "- in a list\n  ```bash\n  loopwright check \\\n    module:name\n  pip install loopwright\n  ```\n"
        "```console\n$ loopwright describe\na tree\n```\n"
        "```python no-run\nraise\n```\n```text\nnothing\n```\n"
        "````markdown\n```python\nraise\n```\n````\n"
    )
    found = list(snippets(markdown))
    assert [(snippet.info, snippet.line) for snippet in found if snippet.runs] == [
        (["python"], 3),
        (["bash"], 9),
        (["console"], 14),
    ]
    assert found[0].text == "a = 1\n\nb = 2\n"
    assert [shlex.split(command) for command in found[1].commands] == [["loopwright", "check", "module:name"]]
    assert found[2].commands == ["loopwright describe"]


def test_what_a_snippet_prints_is_what_its_comments_show() -> None:
    text = (
        "print(1)  # 1\n"
        "for i in range(2):\n    print(i)\n    # 0\n    # 1\n\n# not printed\n"
        "print('a long line')  # a ...\n"
        "print('not shown')\n"
    )
    shown = re.compile(Snippet(["python"], 1, text).output)
    assert shown.fullmatch("1\n0\n1\na long line\nanything\n")
    assert not shown.fullmatch("1\n0\n2\na long line\nanything\n")
    assert not shown.fullmatch("1\n0\n1\nanother line\nanything\n")
    assert not re.fullmatch(Snippet(["python"], 1, "x = 1\n").output, "printed\n")
