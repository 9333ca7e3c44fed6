"""A server that is killed, in a process of its own: the short form of `make server-crash-loop`."""

from __future__ import annotations

from pathlib import Path

from tools.server_crash_loop import (
    CHECKPOINT_WRITTEN,
    RESULT_WRITTEN,
    CrashLoop,
    Kill,
    wrongs_in_trace,
)


def test_a_server_that_is_killed_loses_no_job_and_ends_each_once_in_the_same_bits(tmp_path: Path) -> None:
    loop = CrashLoop(tmp_path / "data", ["--deterministic", "--max-batch", "2", "--checkpoint-seconds", "0"], 8)
    loop.go_through(Kill(CHECKPOINT_WRITTEN, 5), load=3)
    loop.go_through(Kill(RESULT_WRITTEN, 2), load=1)
    assert loop.wrongs() == []
    assert (loop.kills, len(loop.answered)) == (2, 4)


def test_work_that_is_done_twice_is_noticed() -> None:
    once = ["ran a 0", "saved a 1", "ran a 1", "ran b 0", "ran a 1", "result a 0", "result a 0"]
    assert wrongs_in_trace(iter(once)) == []
    assert wrongs_in_trace(iter([*once, "ended a 0", "result b 0"])) == []
    assert wrongs_in_trace(iter([*once, "ended a 0", "result a 0"])) == ["a had ended, and then: result"]
    assert wrongs_in_trace(iter([*once, "ran a 0"])) == ["a ran iteration 0 again, and 1 were saved"]
