"""Whole processes, from the start of Python to its end."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageChops

from .handwritten import GUIDANCE, STEPS
from .measure import Result, in_turns, loopwright, python, run_process

PROMPT = "red apple"
SEED = 0


def imports(repetitions: int) -> list[Result]:
    ours = {
        "`import loopwright`": (python("import loopwright"), 0.3),
        "`loopwright --help`": (loopwright("--help"), 0.5),
    }
    theirs = python("import diffusers.modular_pipelines")
    results = []
    with TemporaryDirectory() as folder:
        for name, (command, bar_seconds) in ours.items():
            times = in_turns(
                lambda command=command: run_process(command, Path(folder)),
                lambda: run_process(theirs, Path(folder)),
                calls=1,
                repetitions=repetitions,
            )
            remark = "against `import diffusers.modular_pipelines`"
            results.append(Result(f"the process {name}", *times, bar_seconds=bar_seconds, remark=remark))
    return results


def generate(repetitions: int, model: Path) -> list[Result]:
    """A picture from a cold start: the command line against the hand-written script."""
    script = Path(__file__).with_name("handwritten.py")
    with TemporaryDirectory() as name:
        folder = Path(name)
        ours = loopwright("generate", PROMPT, "-o", "ours.png", "--model", str(model), "--no-show")
        ours += ["--steps", str(STEPS), "--guidance", str(GUIDANCE), "--seed", str(SEED)]
        run = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        theirs = python(run, str(script))
        theirs += [str(model), PROMPT, str(SEED), "theirs.png"]
        times = in_turns(
            lambda: run_process(ours, folder), lambda: run_process(theirs, folder), calls=1, repetitions=repetitions
        )
        difference = ImageChops.difference(
            Image.open(folder / "ours.png").convert("RGB"), Image.open(folder / "theirs.png").convert("RGB")
        )
        same = difference.getbbox() is None
    return [
        Result(
            "the process `loopwright generate`",
            *times,
            bar=1.25,
            remark="against a script that uses the models by hand; "
            + ("the same picture" if same else "ANOTHER PICTURE"),
        )
    ]
