"""Kill a server with SIGKILL under load, again and again: no job is lost, computed twice, or ends in other bits.

The server kills itself at chosen moments, such as between writing a result and saying so in its database, or is killed
at random ones. Run by `make server-crash-loop`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import httpx

from tools.progress import progress

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0  # seconds after which a server that does nothing has failed
TRACE = "iterations.log"

# what the server is about to do, or has just done, when it kills itself
RANDOM = "at some time"
REQUEST_WRITTEN = "a request is in its folder, and not in the database"
CHECKPOINT_BEGUN = "a part of a checkpoint is written"
CHECKPOINT_WRITTEN = "a checkpoint is written"
RESULT_WRITTEN = "a result is in its files, and its outcome is not"
OUTCOME_WRITTEN = "an outcome is in its folder, and not in the database"
ROW_WRITTEN = "an end is in the database"
MOMENTS = (
    REQUEST_WRITTEN,
    CHECKPOINT_BEGUN,
    CHECKPOINT_WRITTEN,
    RESULT_WRITTEN,
    OUTCOME_WRITTEN,
    ROW_WRITTEN,
)


class Kill(NamedTuple):
    """When the server dies.

    Attributes:
        moment: one of `MOMENTS`, or `RANDOM`.
        count: how many such moments there are until then, itself included; for `RANDOM` how many seconds.
    """

    moment: str
    count: float


# In the process of the server.


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed, and still here")


def arm(kill: Kill | None, data_dir: Path) -> None:
    """Have this process write down what its jobs do, and kill itself at a moment."""
    from loopwright.run.checkpoints import LocalFolder
    from loopwright.server.folders import JobFolder
    from loopwright.server.runner import _Checkpoints, _Execution
    from loopwright.server.store import Store

    data_dir.mkdir(parents=True, exist_ok=True)
    trace = os.open(data_dir / TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    left = kill.count if kill is not None else 0

    def due(moment: str) -> bool:
        nonlocal left
        if kill is None or kill.moment != moment:
            return False
        left -= 1
        return left == 0

    def after(cls: Any, name: str, then: Callable[..., None]) -> None:
        call = getattr(cls, name)

        @wraps(call)
        def called(*arguments: Any) -> Any:
            result = call(*arguments)
            then(*arguments)
            return result

        setattr(cls, name, called)

    def iterated(execution: Any, event: Any) -> None:
        os.write(trace, f"ran {execution._job.id} {event.index}\n".encode())

    def saved(checkpoints: Any, name: str, data: bytes) -> None:
        os.write(trace, f"saved {checkpoints._job.id} {int(name[:8])}\n".encode())
        if due(CHECKPOINT_WRITTEN):
            die()

    def requested(*_: Any) -> None:
        if due(REQUEST_WRITTEN):
            die()

    def ended(folder: Any, _: str) -> None:
        os.write(trace, f"ended {folder.path.name} 0\n".encode())
        if due(OUTCOME_WRITTEN):
            die()

    def stored(store: Any, job: Any) -> None:
        if job.status == "succeeded" and due(ROW_WRITTEN):
            die()

    write = LocalFolder.write

    def write_file(folder: LocalFolder, name: str, data: bytes) -> None:
        if folder.path.name == "run" and due(CHECKPOINT_BEGUN):
            folder.path.mkdir(parents=True, exist_ok=True)
            (folder.path / ".killed.partial").write_bytes(data[: len(data) // 2])
            die()
        write(folder, name, data)
        if name.startswith("result-"):
            os.write(trace, f"result {folder.path.parent.name} 0\n".encode())
            if due(RESULT_WRITTEN):
                die()

    LocalFolder.write = write_file  # type: ignore[method-assign]
    after(_Execution, "_on_event", iterated)
    after(_Checkpoints, "write", saved)
    after(JobFolder, "write_request", requested)
    after(JobFolder, "write_outcome", ended)
    after(Store, "save", stored)


def serve(arguments: Sequence[str]) -> int:
    """What the process of the server does: `--serve MOMENT COUNT DATA_DIR` and the arguments of `loopwright serve`."""
    from loopwright.cli import main

    moment, count, data_dir, *rest = arguments
    arm(Kill(moment, float(count)) if moment in MOMENTS else None, Path(data_dir))
    return main(["serve", "--port", "0", "--data-dir", data_dir, *rest])


# In the process that kills.


class ServerProcess:
    """A server in a process of its own.

    Args:
        data_dir: its folder.
        kill: when it dies; None if it is not to.
        options: of `loopwright serve`.
    """

    def __init__(self, data_dir: Path, kill: Kill | None, options: Sequence[str]) -> None:
        moment, count = (kill.moment, kill.count) if kill is not None else ("never", 0)
        command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "tools.server_crash_loop", "--serve"]
        log = data_dir.with_name(data_dir.name + ".log")
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*command, moment, str(count), str(data_dir), *options],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if " is served at " not in line:
            if self.wait() == -signal.SIGKILL:
                raise Died
            raise RuntimeError(f"the server did not begin: {log.read_text()[-2000:]}")
        self.http = httpx.Client(base_url=line.strip().rpartition(" ")[2], timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if not self.has_died:
            self.kill()

    @property
    def id(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        code = self._process.wait(PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    @property
    def has_died(self) -> bool:
        return self._process.poll() is not None


class Died(Exception):
    """The server killed itself before it was ready."""


class Work(NamedTuple):
    """One job: the same twice ends in the same bits."""

    prompt: str
    seed: int
    steps: int

    def body(self) -> dict[str, Any]:
        return {"inputs": {"prompt": self.prompt, "num_inference_steps": self.steps}, "seed": self.seed}


def work(number: int, most_steps: int = 20) -> Work:
    prompts = ("red apple", "blue apple", "cat", "dog", "green pear")
    return Work(prompts[number % len(prompts)], number % 3, 4 + number % (most_steps - 3))


def submit(server: ServerProcess, job: Work) -> str | None:
    """Submit a job; its id, or None if the server died before it answered."""
    try:
        answer = server.http.post("/v1/jobs", json=job.body())
    except httpx.TransportError:
        return None
    if answer.status_code == 429:
        return None
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(server: ServerProcess, job_id: str) -> dict[str, Any]:
    """Follow a job to its end."""
    with server.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        for line in answer.iter_lines():
            if line == "id: end":
                break
    shown: dict[str, Any] = server.http.get(f"/v1/jobs/{job_id}").json()
    return shown


def digest(server: ServerProcess, job_id: str) -> str:
    """A digest of the files of a result."""
    files = server.http.get(f"/v1/jobs/{job_id}/result").json()["outputs"]["images"]["files"]
    data = b"".join(server.http.get(file["url"]).content for file in files)
    return hashlib.sha256(data).hexdigest()


def wrongs_in_trace(lines: Iterator[str]) -> list[str]:
    """Iterations that ran though they were saved, and jobs of which anything was computed after they had ended."""
    saved: dict[str, int] = {}
    has_ended: set[str] = set()
    found = []
    for line in lines:
        what, job_id, number = line.split()
        if job_id in has_ended:
            found.append(f"{job_id} had ended, and then: {what}")
        elif what == "saved":
            saved[job_id] = max(saved.get(job_id, 0), int(number))
        elif what == "ran" and int(number) < saved.get(job_id, 0):
            found.append(f"{job_id} ran iteration {number} again, and {saved[job_id]} were saved")
        elif what == "ended":
            has_ended.add(job_id)
    return found


class CrashLoop:
    """Servers in one folder, one after the other, each of which dies.

    Args:
        data_dir: the folder.
        options: of `loopwright serve`.
        most_steps: of a job.
    """

    def __init__(self, data_dir: Path, options: Sequence[str], most_steps: int = 20) -> None:
        self.data_dir, self.options, self._most_steps = data_dir, options, most_steps
        self.answered: dict[str, Work] = {}
        self.kills = 0
        self._number = 0

    def go_through(self, kill: Kill, load: int) -> None:
        """Start a server, submit jobs, and have it die."""
        try:
            server = ServerProcess(self.data_dir, kill, self.options)
        except Died:
            self.kills += 1
            return
        with server:
            for _ in range(load):
                job = work(self._number, self._most_steps)
                self._number += 1
                job_id = submit(server, job)
                if job_id is not None:
                    self.answered[job_id] = job
            if kill.moment == RANDOM:
                time.sleep(kill.count)
                server.kill()
            else:
                # it dies at its moment, or is through before there are so many of them
                self._wait(server)
        self.kills += 1

    def _wait(self, server: ServerProcess) -> None:
        for job_id in list(self.answered):
            try:
                ended(server, job_id)
            except httpx.TransportError:
                break
        if not server.has_died:
            server.kill()
        server.wait()

    def wrongs(self) -> list[str]:
        """Let all jobs end, and say what is wrong with them."""
        server = ServerProcess(self.data_dir, None, self.options)
        found = []
        with server:
            shown = {job_id: ended(server, job_id) for job_id in self.answered}
            found += [
                f"{job_id} is {job.get('status', 'lost')}: {job.get('error')}"
                for job_id, job in shown.items()
                if job.get("status") != "succeeded"
            ]
            digests = {job_id: digest(server, job_id) for job_id, job in shown.items() if job["status"] == "succeeded"}
            listed = self._all_ids(server)
            found += [f"{job_id} is not listed" for job_id in self.answered if job_id not in listed]
            server.stop()
        found += self._differing(digests)
        with (self.data_dir / TRACE).open() as trace:
            found += wrongs_in_trace(iter(trace))
        return found

    def _all_ids(self, server: ServerProcess) -> set[str]:
        found: list[str] = []
        more = True
        while more:
            after = f"&after={found[-1]}" if found else ""
            page = server.http.get(f"/v1/jobs?limit=100{after}").json()
            found += [job["id"] for job in page["data"]]
            more = page["has_more"]
        return set(found)

    def _differing(self, digests: dict[str, str]) -> list[str]:
        """Compare with the same jobs on a server that does not die."""
        kinds = sorted(set(self.answered.values()))
        undisturbed = self.data_dir.with_name(self.data_dir.name + "-undisturbed")
        server = ServerProcess(undisturbed, None, self.options)
        with server:
            ids = {kind: submit(server, kind) for kind in kinds}
            expected = {}
            for kind, job_id in ids.items():
                assert job_id is not None
                assert ended(server, job_id)["status"] == "succeeded"
                expected[kind] = digest(server, job_id)
            server.stop()
        return [
            f"{job_id} ({self.answered[job_id]}) ended in other bits"
            for job_id, found in digests.items()
            if found != expected[self.answered[job_id]]
        ]


def chosen_kills(count: int, seed: int) -> list[Kill]:
    """At each moment, and as often at random."""
    rng = random.Random(seed)
    kills = []
    for number in range(count):
        moment = RANDOM if number % 2 else MOMENTS[number // 2 % len(MOMENTS)]
        most = {RANDOM: 0, CHECKPOINT_BEGUN: 40, CHECKPOINT_WRITTEN: 40, REQUEST_WRITTEN: 4}.get(moment, 3)
        kills.append(Kill(moment, rng.randint(1, most) if most else rng.uniform(0.2, 3.0)))
    return kills


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--load", type=int, default=6, help="how many jobs are submitted to each server")
    parser.add_argument("--short", action="store_true", help="4 kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="server-crash-loop-"))
    options = ["--deterministic", "--checkpoint-seconds", "0", "--max-queue", "10000"]
    loop = CrashLoop(scratch / "data", options)
    try:
        for kill in progress(chosen_kills(4 if given.short else given.kills, given.seed), desc="killed"):
            loop.go_through(kill, given.load)
        wrongs = loop.wrongs()
        log = (scratch / "data.log").read_text().splitlines()
        if not wrongs:
            shutil.rmtree(scratch)
    except BaseException:
        print(f"everything is in {scratch}", file=sys.stderr)
        raise
    resumed = sum('"resumed": true' in line for line in log)
    print(
        "\n".join([*wrongs, f"{loop.kills} kills, {len(loop.answered)} jobs answered for, {resumed} times one went on"])
    )
    print(
        f"{len(wrongs)} wrong; everything is in {scratch}"
        if wrongs
        else "none lost, none computed twice, all bits as without a crash"
    )
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
