"""Which calls share a forward, who is waited for, and that nobody's trouble is anybody else's."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
import torch

from loopwright.batching import batched
from loopwright.batching.forwards import Forwards
from loopwright.batching.member import Seat
from loopwright.batching.models import Method
from loopwright.errors import RunCancelledError, RunTimeoutError
from tests.batching.blocks import Gathered, Model, pipeline, row
from tests.run.blocks import PATIENCE, Turnstile


def started(b: Any, count: int, **inputs: Any) -> list[Any]:
    """Runs that make their first calls when all of them are in their loops."""
    together = Gathered(count)
    return [
        b.start(
            **{
                "x": row(n),
                "around": together,
                "output": "x",
                **{name: value(n) if callable(value) else value for name, value in inputs.items()},
            }
        )
        for n in range(count)
    ]


def sits_down(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever a run begins to wait for its call."""

    def wait(seat: Seat) -> None:
        seated.release()
        original(seat)

    seated, original = threading.Semaphore(0), Seat.wait
    monkeypatch.setattr(Seat, "wait", wait)
    return seated


def results(runs: list[Any]) -> list[Any]:
    return [run.result(PATIENCE) for run in runs]


def test_runs_of_mixed_steps_take_as_many_forwards_as_the_longest(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe, max_batch=8) as b:
        runs = started(b, 8, steps=lambda n: 2 + n)
        got = results(runs)
        report = b.report().models["model"]
    assert all(torch.equal(x, 2 ** (2 + n) * row(n)) for n, x in enumerate(got))
    assert report.forwards == 9
    assert report.calls == sum(range(2, 10))


def test_a_full_batch_does_not_wait_for_more(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe, max_batch=2) as b:
        together, turnstile = Gathered(3), Turnstile()
        slow = b.start(x=row(9), around=lambda i: (together(i), turnstile() if i == 0 else None), output="x")
        runs = [b.start(x=row(n), around=together, output="x") for n in range(2)]
        turnstile.wait()
        # the third is in its loop, and awaited by nobody who is two
        got = results(runs)
        turnstile.let_go()
        assert torch.equal(slow.result(PATIENCE), 8 * row(9))
    assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(got))


def test_a_single_run_waits_for_nobody(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe) as b:
        assert torch.equal(b(x=row(1), output="x"), 8 * row(1))
        assert b.report().models["model"].sizes == {1: 3}


def test_a_run_in_a_slow_block_does_not_hold_the_others() -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe) as b:
        together = Gathered(3)
        slow = b.start(x=row(9), around=lambda i: (together(i), turnstile() if i == 1 else None), output="x")
        runs = [b.start(x=row(n), steps=20, around=together, output="x") for n in range(2)]
        turnstile.wait()
        assert all(torch.equal(x, 2**20 * row(n)) for n, x in enumerate(results(runs)))
        turnstile.let_go()
        assert torch.equal(slow.result(PATIENCE), 8 * row(9))


def test_a_run_in_a_callback_does_not_hold_the_others() -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe) as b:
        slow = b.start(x=row(9), callbacks=lambda event: turnstile() if event.index == 0 else None, output="x")
        turnstile.wait()
        assert torch.equal(b(x=row(1), steps=20, output="x"), 2**20 * row(1))
        turnstile.let_go()
        assert torch.equal(slow.result(PATIENCE), 8 * row(9))


def test_a_reader_who_takes_no_event_does_not_hold_the_others() -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe) as b:
        watched = b.stream(x=row(9), output="x")
        for _ in watched:
            assert torch.equal(b(x=row(1), output="x"), 8 * row(1))
        assert torch.equal(watched.result(PATIENCE), 8 * row(9))


def test_a_paused_run_is_not_waited_for(clock: Any) -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe) as b:
        paused = b.start(x=row(9), around=lambda i: turnstile() if i == 1 else None, output="x")
        turnstile.wait()
        paused.pause()
        turnstile.let_go()
        # time stands still, so it is not patience that ends
        assert torch.equal(b(x=row(1), output="x"), 8 * row(1))
        paused.go_on()
        assert torch.equal(paused.result(PATIENCE), 8 * row(9))


def test_a_run_that_left_its_loop_is_not_waited_for(clock: Any) -> None:
    from tests.batching.blocks import Times
    from tests.run.blocks import Do
    from tests.run.blocks import pipeline as of_blocks

    turnstile = Turnstile()
    pipe = of_blocks(loop=Times, after=Do(lambda _, x, **__: turnstile() if x[0, 0] < 0 else None))
    pipe.update_components(model=Model(lambda x: 2 * x).eval())
    with batched(pipe) as b:
        late = b.start(x=row(-9), steps=1)
        turnstile.wait()
        assert torch.equal(b(x=row(1), output="x"), 8 * row(1))
        turnstile.let_go()
        late.result(PATIENCE)


def test_signatures_take_turns_and_none_starves(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe, max_batch=2, max_active=6) as b:
        runs = started(b, 6, x=lambda n: row(n, width=4 + n % 3), steps=30)
        got = results(runs)
        sizes = b.report().models["model"].sizes
    assert all(torch.equal(x, 2**30 * row(n, width=4 + n % 3)) for n, x in enumerate(got))
    assert sizes == {2: 90}


def test_calls_that_few_make_are_not_passed_over_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a pair of four has been served, the other pair fills the next batch, and the first is awaited again."""

    def served(x: torch.Tensor) -> torch.Tensor:
        if len(x) == 2:
            pairs.append(len(x))
            if len(pairs) > 1:
                back.release(2)
            for _ in range(2 if len(pairs) > 1 else 5):
                assert seated.acquire(timeout=PATIENCE)
        return 2 * x

    pairs: list[int] = []
    back = threading.Semaphore(0)
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe, max_batch=2, max_active=5) as b:
        # so that calls are trusted
        results(started(b, 2, steps=1))
        pipe.model.function, seated, together = served, sits_down(monkeypatch), Gathered(5)
        few = b.start(x=row(0, width=5), around=together, steps=1, output="x")
        many = [b.start(x=row(n), around=lambda i: back.acquire() if i else together(i), steps=10**9) for n in range(4)]
        try:
            assert torch.equal(few.result(PATIENCE), 2 * row(0, width=5))
        finally:
            for run in many:
                run.cancel()
            seated.release(9)
            back.release(9)


def refuse(bad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if (x == bad).any():
        raise ValueError("a bad row")
    return 2 * x


@pytest.mark.parametrize("deterministic", [False, True])
def test_one_bad_request_fails_alone(deterministic: bool) -> None:
    # its last row becomes 4 times what it was after two iterations
    pipe = pipeline(lambda x: refuse(4 * row(2)[0, 3], x))
    with batched(pipe, deterministic=deterministic) as b:
        runs = started(b, 4, steps=5)
        for n, run in enumerate(runs):
            if n == 2:
                with pytest.raises(ValueError, match="a bad row") as caught:
                    run.result(PATIENCE)
                assert "iteration 2 of loop `loop`" in str(caught.value.__notes__)
            else:
                assert torch.equal(run.result(PATIENCE), 32 * row(n))
        # the kind of call is still trusted
        assert b.report().refusals == []
        assert b.report().models["model"].retries == 4


def test_two_bad_requests_have_errors_of_their_own() -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"rows from {x[0, 0].item():g}")

    with batched(pipeline(fail)) as b:
        errors = []
        for run in started(b, 2):
            with pytest.raises(ValueError, match="rows from") as caught:
                run.result(PATIENCE)
            errors.append(caught.value)
    assert [str(error) for error in errors] == ["rows from 0", "rows from 1"]


def test_a_cancelled_run_leaves_the_others_as_they_were() -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe) as b:
        together, turnstile = Gathered(3), Turnstile()
        cancelled = b.start(x=row(9), around=lambda i: (together(i), turnstile() if i == 2 else None), steps=9)
        runs = [b.start(x=row(n), around=together, steps=9, output="x") for n in range(2)]
        turnstile.wait()
        cancelled.cancel()
        turnstile.let_go()
        assert all(torch.equal(x, 2**9 * row(n)) for n, x in enumerate(results(runs)))
        with pytest.raises(RunCancelledError):
            cancelled.result(PATIENCE)


def test_a_run_that_is_cancelled_while_its_call_is_made_leaves_the_others_as_they_were() -> None:
    turnstile = Turnstile()

    def wait(x: torch.Tensor) -> torch.Tensor:
        if len(x) == 3 and not waited:
            waited.append(True)
            turnstile()
        return 2 * x

    waited: list[bool] = []
    pipe = pipeline(wait)
    with batched(pipe) as b:
        runs = started(b, 3)
        turnstile.wait()
        runs[0].cancel()
        turnstile.let_go()
        assert torch.equal(runs[1].result(PATIENCE), 8 * row(1))
        assert torch.equal(runs[2].result(PATIENCE), 8 * row(2))
        with pytest.raises(RunCancelledError):
            runs[0].result(PATIENCE)


def test_a_run_whose_call_is_queued_when_its_time_is_over_is_not_made(clock: Any) -> None:
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe) as b:
        together = Gathered(2)
        timed = b.start(x=row(9), timeout=1e-9, around=together)
        other = b.start(x=row(1), around=lambda i: (together(i), turnstile() if i == 0 else None), output="x")
        turnstile.wait()
        turnstile.let_go()
        with pytest.raises(RunTimeoutError):
            timed.result(PATIENCE)
        assert torch.equal(other.result(PATIENCE), 8 * row(1))


def short_of_memory(x: torch.Tensor, room: int, kind: type[Exception]) -> torch.Tensor:
    if len(x) > room:
        raise kind("CUDA out of memory. Tried to allocate 20.00 GiB")
    return 2 * x


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch_and_is_remembered(clock: Any, kind: type[Exception]) -> None:
    pipe = pipeline(lambda x: short_of_memory(x, 3, kind))
    with batched(pipe) as b:
        got = results(started(b, 8, steps=10))
        report = b.report().models["model"]
    assert all(torch.equal(x, 2**10 * row(n)) for n, x in enumerate(got))
    # 8 and 4 are too many, and are not tried again
    assert report.halved == 2
    assert pipe.model.rows.count(8) == pipe.model.rows.count(4) == 1
    assert max(report.sizes) == 2


def test_in_deterministic_mode_memory_is_measured_before_the_first_result(clock: Any) -> None:
    pipe = pipeline(lambda x: short_of_memory(x, 3, torch.OutOfMemoryError))
    with batched(pipe, deterministic=True) as b:
        got = results(started(b, 8, steps=10))
        report = b.report().models["model"]
    assert all(torch.equal(x, 2**10 * row(n)) for n, x in enumerate(got))
    assert report.halved == 2
    # from then on all forwards have two rows
    assert set(pipe.model.rows[-40:]) == {2}


def test_a_request_that_does_not_fit_by_itself_fails_alone() -> None:
    pipe = pipeline(lambda x: short_of_memory(x, 3, torch.OutOfMemoryError))
    with batched(pipe) as b:
        large = b.start(x=row(0, rows=4))
        runs = started(b, 2)
        assert all(torch.equal(x, 8 * row(n)) for n, x in enumerate(results(runs)))
        with pytest.raises(torch.OutOfMemoryError):
            large.result(PATIENCE)


def test_a_request_with_too_many_rows_leaves_the_others_their_batch(clock: Any) -> None:
    pipe = pipeline(lambda x: short_of_memory(x, 6, torch.OutOfMemoryError))
    with batched(pipe) as b:
        together = Gathered(5)
        large = b.start(x=row(0, rows=8), around=together)
        runs = [b.start(x=row(n), around=together, steps=6, output="x") for n in range(4)]
        assert all(torch.equal(x, 2**6 * row(n)) for n, x in enumerate(results(runs)))
        with pytest.raises(torch.OutOfMemoryError):
            large.result(PATIENCE)
        assert b.report().models["model"].sizes[4] >= 5


def test_calls_with_several_rows_share_forwards_with_others(clock: Any) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe) as b:
        got = results(started(b, 3, x=lambda n: row(n, rows=1 + n)))
        assert b.report().models["model"].sizes == {3: 3}
    assert all(torch.equal(x, 8 * row(n, rows=1 + n)) for n, x in enumerate(got))


def test_modes_of_torch_that_differ_are_not_mixed(clock: Any) -> None:
    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), torch.is_inference_mode_enabled()))
        return 2 * x

    seen: list[tuple[int, bool]] = []
    pipe = pipeline(look)
    with batched(pipe) as b:
        together = Gathered(4)
        runs = [b.start(x=row(n), around=together, steps=2, output="x") for n in range(2)]
        with torch.inference_mode():
            runs += [b.start(x=row(n), around=together, steps=2, output="x") for n in range(2)]
        got = results(runs)
    assert all(torch.equal(x, 4 * row(n % 2)) for n, x in enumerate(got))
    assert [rows for rows, _ in seen if rows > 2] == []
    assert seen.count((2, True)) >= 2
    assert seen.count((2, False)) >= 2


def test_a_thread_that_is_interrupted_takes_its_call_back(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = threading.Event()

    def wait(seat: Seat) -> None:
        if threading.current_thread() is threading.main_thread():
            interrupted.set()
            raise KeyboardInterrupt
        original(seat)

    original = Seat.wait
    monkeypatch.setattr(Seat, "wait", wait)
    pipe, turnstile = pipeline(lambda x: 2 * x), Turnstile()
    with batched(pipe) as b:
        run = b.start(x=row(1), around=lambda i: turnstile() if i == 0 else None, output="x")
        turnstile.wait()
        with pytest.raises(KeyboardInterrupt):
            b(x=row(2))
        turnstile.let_go()
        assert interrupted.is_set()
        assert torch.equal(run.result(PATIENCE), 8 * row(1))
        assert b.report().queued == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_block_that_has_its_model_alone_may_wait_for_a_run_of_its_own_batch(deterministic: bool) -> None:
    made: list[Any] = []
    pipe = pipeline(lambda x: 2 * x)
    pipe.model.peft_config = {"default": "an adapter"}
    with batched(pipe, deterministic=deterministic) as b:
        run = b.start(x=row(1), around=lambda i: made.append(b(x=row(5), output="x")), output="x")
        assert torch.equal(run.result(PATIENCE), 8 * row(1))
    assert all(torch.equal(x, 8 * row(5)) for x in made)
    assert len(made) == 3


def test_a_mistake_in_the_batch_itself_ends_the_runs_that_wait_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline(lambda x: 2 * x)
    with batched(pipe, max_batch=8, deterministic=True) as b:
        with monkeypatch.context() as broken:
            broken.setattr(Forwards, "most", lambda *_: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                b(x=row(0), steps=2, output="x")
        assert torch.equal(b(x=row(0), steps=2, output="x"), pipe(x=row(0), steps=2, output="x"))


def test_of_very_many_reasons_those_that_came_last_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopwright.batching.forwards._MOST_REFUSALS", 2)
    model = Model(lambda x: x)
    forwards, method = Forwards({id(model): "model"}, 8, False, 9), Method(model, "forward")
    for reason in "abaac":
        forwards.count_refused(method, reason)
    assert [(refusal.reason, refusal.calls) for refusal in forwards.refusals()] == [("a", 3), ("c", 1)]
    assert forwards.reports()["model"].calls == 5


def test_the_report_says_in_words_what_was_done(clock: Any) -> None:
    pipe = pipeline(lambda x, **_: 2 * x)
    with batched(pipe) as b:
        results(started(b, 2, extra={"cache": object()}))
        results(started(b, 2))
        text = str(b.report())
    assert f"{'model':24} {12:8} {9:8} {6:8} {6:8} {12 / 9:11.2f} {3:7}" in text
    assert re.search("alone: model.forward, [3-6] calls: `cache` holds an object of class `object`", text)
    assert "0 runs active, 0 waiting to begin, 0 calls queued" in text


def test_calls_outside_of_loops_share_the_forwards_for_which_they_wait(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turnstile, original = Turnstile(), tiny.decoder.decode

    def decode(latents: torch.Tensor) -> torch.Tensor:
        if not rows:
            rows.append(len(latents))
            turnstile()
        else:
            rows.append(len(latents))
        return original(latents)  # type: ignore[no-any-return]

    rows: list[int] = []
    requests = [{"text": n, "steps": 2} for n in range(4)]
    alone = [tiny(**request, generator=torch.Generator().manual_seed(0)) for request in requests]
    tiny.decoder.decode = decode
    first, others = Turnstile(), Turnstile()
    with batched(tiny) as b:
        runs = [
            b.start(
                **request,
                generator=torch.Generator().manual_seed(0),
                callbacks=lambda event, n=n: (others if n else first)() if event.index == 1 else None,
            )
            for n, request in enumerate(requests)
        ]
        for at_end_of_loop in (first, others, others, others):
            at_end_of_loop.wait()
        # the forward of the first goes on while the others come
        first.let_go()
        turnstile.wait()
        seated = sits_down(monkeypatch)
        others.let_go(3)
        for _ in range(3):
            assert seated.acquire(timeout=PATIENCE)
        assert b.report().queued == 3
        turnstile.let_go()
        results = [run.result(PATIENCE) for run in runs]
        assert b.report().models["decoder"].sizes == {1: 1, 3: 1}
    del tiny.decoder.decode
    for result, expected in zip(results, alone, strict=True):
        assert torch.allclose(result.images, expected.images, atol=1e-5)
