"""Schemathesis against a server: all of its checks, thousands of requests made from the description of the API.

Run by `make api-fuzz`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.server_crash_loop import ServerProcess

ROOT = Path(__file__).parent.parent
# of a job that is cancelled there is still to be seen that it was
AFTER_CANCEL = ("GET /v1/jobs/{job_id}", "GET /v1/jobs/{job_id}/events")
# what is of the right form and cannot be done, as the description says
UNPROCESSABLE = ["2xx", "401", "403", "404", "406", "409", "422", "429"]

CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = {unprocessable}

"""
OPERATION = """
[[operations]]
include-name = {name}
checks.use_after_free.enabled = false

"""


def configuration() -> str:
    text = CONFIGURATION.format(unprocessable=json.dumps(UNPROCESSABLE))
    return text + "".join(OPERATION.format(name=json.dumps(name)) for name in AFTER_CANCEL)


def fuzz(url: str, examples: int, seed: int, folder: Path, phases: str = "") -> tuple[int, int, str]:
    """Send requests and say what comes of it; the exit code, how many there were, and what was said.

    Args:
        url: the server.
        examples: of each operation and phase.
        seed: of the examples.
        folder: for what schemathesis reads and writes.
        phases: which of its phases, with commas between; all if empty.
    """
    (folder / "schemathesis.toml").write_text(configuration())
    report = folder / "events.ndjson"
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run"]
    command += [f"{url}/openapi.json", "--checks", "all", "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--request-timeout", "60", "--continue-on-failure", "--no-color"]
    command += ["--report", "ndjson", "--report-ndjson-path", str(report)]
    command += ["--phases", phases] if phases else []
    lines = []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for line in running.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return running.returncode, requests_in(report), "".join(lines)


def requests_in(report: Path) -> int:
    """How many requests a report tells of."""
    return sum(count(json.loads(line)) for line in report.read_text().splitlines()) if report.is_file() else 0


def count(value: Any) -> int:
    """The interactions in a part of a report."""
    if isinstance(value, dict):
        here = len(value["interactions"]) if isinstance(value.get("interactions"), dict) else 0
        return here + sum(count(item) for item in value.values() if isinstance(item, (dict, list)))
    return sum(count(item) for item in value) if isinstance(value, list) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=350, help="of each operation and phase")
    parser.add_argument("--least", type=int, default=5_000, help="requests that there must be")
    parser.add_argument("--short", action="store_true", help="a few examples")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    examples, least = (5, 100) if given.short else (given.examples, given.least)
    with tempfile.TemporaryDirectory(prefix="api-fuzz-") as name:
        folder = Path(name)
        options = ["tests.server.pipelines:painting", "--max-batch", "4", "--max-steps", "5", "--max-pixels", "4096"]
        server = ServerProcess(folder / "data", None, options)
        with server:
            code, requests, _ = fuzz(str(server.http.base_url).rstrip("/"), examples, given.seed, folder)
            healthy = server.http.get("/healthz").status_code == 200
            ended = server.stop()
    print(f"{requests} requests; the server {'is well' if healthy and ended == 0 else 'is not well'}")
    return 0 if code == 0 and healthy and ended == 0 and requests >= least else 1


if __name__ == "__main__":
    sys.exit(main())
