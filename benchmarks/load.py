"""The load generator: a process of its own that sends requests to a server and writes down what it gets, as JSON.

It also says how many seconds of a processor it took itself.

python -m benchmarks.load URL PLAN.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 600.0  # seconds


async def send(client: httpx.AsyncClient, request: dict[str, Any]) -> dict[str, Any]:
    """One request: when it was sent, when its first step was done, and when its picture was there."""
    sent = time.time()
    body = {"prompt": request["prompt"], "num_inference_steps": request["steps"], "seed": request["seed"]}
    answer = await client.post("/v1/images/generations", json=body, headers={"Accept": "image/png"})
    done = time.time()
    answer.raise_for_status()
    assert answer.content.startswith(b"\x89PNG"), answer.content[:80]
    first = answer.headers.get("x-first-step")
    if first is None:
        job = await client.get(f"/v1/jobs/{answer.headers['x-job-id']}")
        first = job.json()["first_step_at"]
    return {"steps": request["steps"], "sent": sent, "done": done, "first": float(first)}


async def saturate(client: httpx.AsyncClient, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """So many requests at a time, for so long; what ends later does not count."""
    requests = iter(plan["requests"])
    until = time.time() + plan["seconds"]
    results = []

    async def keep_sending() -> None:
        while time.time() < until:
            results.append(await send(client, next(requests)))

    await asyncio.gather(*(keep_sending() for _ in range(plan["at_once"])))
    return results


async def arrive(client: httpx.AsyncClient, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests that come when they come, whether earlier ones are done or not."""
    began = time.time()

    async def at(request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(max(began + request["at"] - time.time(), 0))
        return await send(client, request)

    return list(await asyncio.gather(*map(at, plan["requests"])))


async def one_by_one(client: httpx.AsyncClient, plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [await send(client, request) for request in plan["requests"]]


async def main() -> None:
    url, path = sys.argv[1:]
    plan = json.loads(Path(path).read_text())
    how = {"saturate": saturate, "arrive": arrive, "one by one": one_by_one}[plan["how"]]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        began = time.process_time()
        results = await how(client, plan)
        print(json.dumps({"results": results, "cpu": time.process_time() - began}))


if __name__ == "__main__":
    asyncio.run(main())
