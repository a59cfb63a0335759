"""W3: from dispatch in one process to the start in another, on an idle worker, at a steady pace."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario

WARM_UP = 20


async def measure(bench: Bench) -> dict[str, float]:
    return await late(bench, bench.params["count"], bench.params["pace"])


async def late(bench: Bench, count: int, pace: int) -> dict[str, float]:
    """Percentiles, in milliseconds, of `count` dispatches at so many a second."""
    async with bench.worker(expect=-1):
        for _ in range(WARM_UP):
            await bench.entrant.dispatch("stamp", time.monotonic_ns())
            await bench.line()
        await asyncio.sleep(0.2)
        start = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / pace - time.monotonic()))
            await bench.entrant.dispatch("stamp", time.monotonic_ns())
        late = sorted([int((await bench.line())[1]) / 1e6 for _ in range(count)])
    return {"p50": late[count // 2], "p95": late[int(count * 0.95)], "p99": late[int(count * 0.99)]}


SCENARIO = Scenario(
    "w3",
    "W3 dispatch to start across processes, 100 a second",
    tuple(Metric(name, f"{name} ms", more_is_better=False, digits=2) for name in ("p50", "p95", "p99")),
    measure,
    params={"count": 600, "pace": 100},
    quick={"count": 100, "pace": 100},
)
