"""Kill a run with SIGKILL at every iteration and at random moments, resume it, and compare the picture bit for bit.

Some are killed again while they are resumed, once or twice.

One process loads the model and forks for each kill; the child sends the signal to itself. Run by `make crash-loop`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from loopwright import Checkpoint
from loopwright.diffusion import embedded_pipeline
from loopwright.errors import CheckpointError
from loopwright.run.checkpoints import LocalFolder
from tools.progress import progress

# what is going on when the signal comes
WRITE_BEGINS = "a write begins"
BYTE = "a part of the file is written"
BEFORE_RENAME = "the file is written, and has no name"
AFTER_RENAME = "the file has its name, and the folder is not synced"
WRITTEN = "the checkpoint is written"
REMOVE = "an older file is to be removed"
FORWARD = "the model is called"
READ = "a checkpoint is read"
MOMENTS = (WRITE_BEGINS, BYTE, BEFORE_RENAME, AFTER_RENAME, WRITTEN, REMOVE, FORWARD)
MOMENTS_OF_RESUMING = (*MOMENTS, READ)


class Kill(NamedTuple):
    """When a child kills itself.

    Attributes:
        moment: one of `MOMENTS_OF_RESUMING`.
        count: how many such moments there are until then, itself included.
        part: how much of the file is written, for `BYTE`.
    """

    moment: str
    count: int
    part: float = 0.5


class Pictures:
    """The runs of one short picture.

    Args:
        steps: the number of steps.
    """

    def __init__(self, steps: int) -> None:
        self.pipe = embedded_pipeline()
        self.pipe.set_progress_bar_config(disable=True)
        self.steps = steps

    def whole(self, folder: Path | None = None) -> torch.Tensor:
        checkpoint = None if folder is None else Checkpoint(folder)
        generator = torch.Generator().manual_seed(11)
        images: torch.Tensor = self.pipe(
            prompt="red apple",
            num_inference_steps=self.steps,
            generator=generator,
            output_type="pt",
            output="images",
            checkpoint=checkpoint,
        )
        return images

    def resumed(self, folder: Path) -> torch.Tensor:
        images: torch.Tensor = self.pipe.resume(folder, output="images").result()
        return images


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed, and still here")


def arm(pipe: Any, kill: Kill) -> None:
    """Let this process kill itself at a moment."""
    left = kill.count

    def due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def around(call: Callable[..., Any], before: bool) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            if before and due():
                die()
            result = call(*arguments)
            if not before and due():
                die()
            return result

        return called

    def write_a_part(folder: LocalFolder, name: str, data: bytes) -> None:
        if due():
            folder.path.mkdir(parents=True, exist_ok=True)
            with open(folder.path / ".killed.partial", "wb") as file:
                file.write(data[: int(kill.part * len(data))])
            die()
        write(folder, name, data)

    write = LocalFolder.write
    if kill.moment == BYTE:
        LocalFolder.write = write_a_part  # type: ignore[method-assign]
    elif kill.moment in (WRITE_BEGINS, WRITTEN):
        LocalFolder.write = around(write, kill.moment == WRITE_BEGINS)  # type: ignore[method-assign]
    elif kill.moment in (BEFORE_RENAME, AFTER_RENAME):
        os.replace = around(os.replace, kill.moment == BEFORE_RENAME)
    elif kill.moment == REMOVE:
        LocalFolder.remove = around(LocalFolder.remove, True)  # type: ignore[method-assign]
    elif kill.moment == READ:
        LocalFolder.read = around(LocalFolder.read, False)  # type: ignore[method-assign]
    else:
        pipe.transformer.register_forward_pre_hook(lambda *_: die() if due() else None)


def in_a_child(work: Callable[[], None]) -> int:
    """Do something in a fork of this process; the signal that ended it, 0 if it went well, -1 if not."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    return -1 if os.WEXITSTATUS(status) else 0


def survives(pictures: Pictures, kills: Sequence[Kill], expected: torch.Tensor) -> str | None:
    """What went wrong when a run was killed and resumed, as often as there are kills; None if nothing did."""
    scratch = Path(tempfile.mkdtemp(prefix="crash-loop-"))
    folder, found = scratch / "run", scratch / "images"

    def attempt(kill: Kill | None, begins: bool) -> None:
        if kill is not None:
            arm(pictures.pipe, kill)
        try:
            images = pictures.whole(folder) if begins else pictures.resumed(folder)
        except CheckpointError as error:
            # it was killed before it had saved anything
            if "holds no checkpoint" not in str(error) or any(folder.glob("*.safetensors")):
                raise
            images = pictures.whole(folder)
        torch.save(images, found)

    def run(kill: Kill | None, begins: bool) -> int:
        return in_a_child(lambda: attempt(kill, begins))

    try:
        killed = False
        for kill in (*kills, None):
            ended = run(kill, begins=not killed)
            if ended not in (0, signal.SIGKILL):
                return "the resumed run failed" if killed else "the run failed by itself"
            if ended == 0:
                break
            killed = True
        if not torch.equal(torch.load(found, weights_only=True), expected):
            return "the picture is another one"
        left = [path.name for path in folder.glob(".*")]
        return f"the folder still has {', '.join(left)}" if left and killed else None
    finally:
        shutil.rmtree(scratch)


def chosen_kills(steps: int, iterations: list[int], moments: int, again: int, seed: int) -> list[tuple[Kill, ...]]:
    """The kills of each run."""
    rng = random.Random(seed)

    def early() -> Kill:
        return Kill(rng.choice(MOMENTS), rng.randint(1, max(1, steps // 2)), rng.random())

    def resuming() -> Kill:
        moment = rng.choice(MOMENTS_OF_RESUMING)
        return Kill(moment, 1 if moment == READ else rng.randint(1, max(1, steps // 4)), rng.random())

    return [
        *((Kill(WRITTEN, iteration),) for iteration in iterations),
        *((Kill(rng.choice(MOMENTS), rng.randint(1, steps), rng.random()),) for _ in range(moments)),
        *((early(), *(resuming() for _ in range(1 + n % 2))) for n in range(again)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--iterations", type=int, nargs="*", help="after which to kill; default: all")
    parser.add_argument("--moments", type=int, default=100, help="how many random moments")
    parser.add_argument("--again", type=int, default=30, help="how many runs are killed again while they are resumed")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    given = parser.parse_args()
    # a fork has none of the threads of its parent, and would wait for them
    torch.set_num_threads(1)
    pictures = Pictures(given.steps)
    scratch = Path(tempfile.mkdtemp(prefix="crash-loop-"))
    try:
        if in_a_child(lambda: torch.save(pictures.whole(), scratch / "whole")) != 0:
            return 1
        expected = torch.load(scratch / "whole", weights_only=True)
    finally:
        shutil.rmtree(scratch)
    iterations = list(range(1, given.steps + 1)) if given.iterations is None else given.iterations
    kills = chosen_kills(given.steps, iterations, given.moments, given.again, given.seed)
    failures = []
    for killed in progress(kills, desc="killed and resumed"):
        failure = survives(pictures, killed, expected)
        if failure is not None:
            failures.append(f"{killed}: {failure}")
    print("\n".join([*failures, f"{len(kills) - len(failures)} of {len(kills)} runs survived"]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
