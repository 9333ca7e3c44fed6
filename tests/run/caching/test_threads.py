"""Several threads, one cache, and its bound."""

from __future__ import annotations

from typing import Any

from tests.blocks.arithmetic import AddOne, Double, Repeat
from tests.run.blocks import in_threads, pipeline


def test_threads_share_a_cache() -> None:
    pipe = pipeline(first=Double, loop=Repeat.from_blocks_dict({"add": AddOne}))
    cache = pipe.cache(max_bytes=2000)
    assert cache is pipe.cache(max_bytes=1000)

    def call(x: int) -> Any:
        return [pipe(x=n % 7, output="x") for n in range(x, x + 20)]

    found = in_threads(*[lambda x=x: call(x) for x in range(8)])
    assert found == [[2 * (n % 7) + 3 for n in range(x, x + 20)] for x in range(8)]
    assert 0 < cache.bytes <= 1000
    pipe.cache(max_bytes=0)
    assert cache.bytes == 0
