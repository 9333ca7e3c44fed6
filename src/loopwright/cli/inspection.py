"""`loopwright describe` and `loopwright check`: look at blocks without running them."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from loopwright.errors import InvalidInputError, did_you_mean, kind_of

from .arguments import writable_path
from .notices import silence_notices

__all__ = ["check", "describe", "import_target"]

_SUFFIX_OF = {"text": ".txt", "mermaid": ".mmd", "html": ".html"}

_Target = Annotated[
    str | None,
    typer.Argument(
        help="A model folder, or `module:attribute` of blocks or a pipeline; the embedded model if not given."
    ),
]
_Workflow = Annotated[str | None, typer.Option(help="Only the blocks of this workflow.")]


def describe(
    target: _Target = None,
    form: Annotated[str, typer.Option("--format", help="text, mermaid or html.")] = "text",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write instead of stdout.")] = None,
    workflow: _Workflow = None,
) -> None:
    """Describe blocks: the tree, with loops, inputs, outputs and components."""
    _check_choice("--format", form, tuple(_SUFFIX_OF))
    if output is not None:
        _check_suffix(output, form)
        writable_path(output, (_SUFFIX_OF[form],))
    blocks = _blocks(target, workflow)
    from loopwright.describe import describe as describe_blocks

    text = describe_blocks(blocks, format=cast(Literal["text", "mermaid", "html"], form))
    if output is None:
        typer.echo(text)
    else:
        try:
            output.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(f"cannot write {output}: {error.strerror or error}") from error
        typer.echo(str(output))


def check(
    target: _Target = None,
    form: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    workflow: _Workflow = None,
) -> None:
    """Check blocks for mistakes; exit code 1 if there are errors."""
    _check_choice("--format", form, ("text", "json"))
    blocks = _blocks(target, workflow)
    from loopwright.check import check as check_blocks

    findings = check_blocks(blocks)
    if form == "json":
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(str(finding))
        counts = [
            (sum(finding.severity == severity for finding in findings), severity)
            for severity in ("error", "warning", "note")
        ]
        typer.echo(", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInputError(f"{option} must be {' or '.join(choices)}, not {value!r}{did_you_mean(value, choices)}")


def _check_suffix(path: Path, form: str) -> None:
    """Check that the suffix of a path is that of the format, and say which ones there are."""
    suffix = path.suffix.lower()
    if suffix == _SUFFIX_OF[form] or path.is_dir():
        return
    for other, its_suffix in _SUFFIX_OF.items():
        if suffix == its_suffix:
            raise InvalidInputError(
                f"cannot write {path}: {suffix} is for --format {other}, and --format {form} ends in {_SUFFIX_OF[form]}"
            )
    each = ", ".join(f"{its_suffix} (--format {other})" for other, its_suffix in _SUFFIX_OF.items())
    given = f"not {suffix}" if suffix else "and this has no suffix"
    raise InvalidInputError(f"cannot write {path}: a description ends in {each}, {given}")


def _blocks(target: str | None, workflow: str | None) -> Any:
    """What the user named, as blocks.

    Raises:
        InvalidInputError: there is no such module or attribute, or it is not blocks.
        ComponentLoadError: it is a folder, and no model.
    """
    if target is None:
        from loopwright.diffusion.workflows import AutoImageBlocks

        found: Any = AutoImageBlocks()
    elif Path(target).is_dir():
        found = _of_folder(target)
    else:
        found = import_target(target)
    if isinstance(found, type):
        found = _instance(str(target), found)
    found = getattr(found, "blocks", found)
    if not hasattr(found, "sub_blocks"):
        raise InvalidInputError(
            f"{target} is {kind_of(found)}; it must be a class or an instance of blocks, or a pipeline"
        )
    from loopwright.blocks.sub_blocks import as_block

    # those of diffusers become ours
    blocks = as_block(found, str(target))
    return blocks if workflow is None else blocks.get_workflow(workflow)


def import_target(target: str) -> Any:
    """What `module:attribute` names.

    Raises:
        InvalidInputError: it is not of that form, or there is no such module or attribute.
    """
    module_name, separator, attribute = target.partition(":")
    if not (separator and module_name and attribute):
        raise InvalidInputError(
            f"{target!r} is neither a model folder nor of the form module:attribute, such as my_blocks:Denoise"
        )
    # a command has its own folder first on the path, and users have their modules where they are
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            hint = f"; write {target.replace('.py:', ':')}" if ".py:" in target else ""
            raise InvalidInputError(f"there is no module {error.name}, here or installed{hint}") from error
        raise InvalidInputError(f"the module {module_name} cannot be imported: {error}") from error
    except Exception as error:
        raise InvalidInputError(f"the module {module_name} cannot be imported: {_in_a_line(error)}") from error
    finally:
        sys.path.remove(os.getcwd())
    found = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InvalidInputError(
                f"the module {module_name} has no attribute `{attribute}`{did_you_mean(name, dir(found))}"
            )
        found = getattr(found, name)
    return found


def _of_folder(folder: str) -> Any:
    """The blocks, or a pipeline, that a model folder is served with.

    Raises:
        ComponentLoadError: there is no model in it.
    """
    silence_notices()
    from loopwright.diffusion.loading import has_components_of
    from loopwright.diffusion.workflows import AutoImageBlocks
    from loopwright.modular_pipelines import ModularPipeline

    blocks = AutoImageBlocks()
    return blocks if has_components_of(blocks, folder) else ModularPipeline.from_pretrained(folder)


def _instance(target: str, cls: type) -> Any:
    try:
        return cls()
    except TypeError as error:
        raise InvalidInputError(f"{target} needs arguments: {error}; name an instance instead") from error


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
