"""Idle: what a worker costs that has nothing to do."""

from __future__ import annotations

import asyncio

from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario

WINDOW = 20.0


async def measure(bench: Bench) -> dict[str, float]:
    seconds = bench.params["seconds"]
    async with bench.worker(expect=1) as worker:
        await bench.entrant.dispatch("noop")  # it works: now it can be idle
        await bench.line()
        await asyncio.sleep(2.0)
        before = worker.cpu_ns
        await asyncio.sleep(seconds)
        return {"cpu_ms": (worker.cpu_ns - before) / 1e6 * WINDOW / seconds, "rss": worker.rss_mib}


SCENARIO = Scenario(
    "idle",
    "Idle worker",
    (
        Metric("cpu_ms", "CPU ms in 20 s", more_is_better=False, digits=1),
        Metric("rss", "RSS MiB", more_is_better=False, digits=1),
    ),
    measure,
    params={"seconds": 20.0},
    quick={"seconds": 4.0},
)
