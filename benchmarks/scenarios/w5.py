"""W5: dispatch a job and wait for its result, 50 at once."""

from __future__ import annotations

import asyncio
import itertools
import time

from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario

CONCURRENCY = 50


async def measure(bench: Bench) -> dict[str, float]:
    count = bench.params["count"]
    async with bench.worker(expect=-1) as worker:
        for number in range(5):
            await bench.entrant.roundtrip(number)
        numbers = itertools.islice(itertools.count(), count)
        took: list[float] = []

        async def caller() -> None:
            for number in numbers:
                asked = time.perf_counter()
                if await bench.entrant.roundtrip(number) != number:
                    raise AssertionError(f"the result of {number} is wrong")
                took.append(time.perf_counter() - asked)

        before, worked, called = bench.meter.read() if bench.meter else None, worker.cpu_ns, time.process_time()
        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
        seconds = time.perf_counter() - started
        figures = {"rate": count / seconds, "p50": sorted(took)[count // 2] * 1000}
        if bench.meter and before:
            after = bench.meter.read()
            figures |= {
                "caller_us": (time.process_time() - called) * 1e6 / count,
                "worker_us": (worker.cpu_ns - worked) / 1e3 / count,
            }
            cpu_us = after.cpu_since(before)
            if cpu_us is not None:
                figures["server_us"] = cpu_us / count
            executed = after.executed_since(before)
            if bench.meter.prompt and executed is not None:
                figures["executed"] = executed / count
    return figures


SCENARIO = Scenario(
    "w5",
    "W5 dispatch and await the result, 50 at once",
    (
        Metric("rate", "results /s"),
        Metric("p50", "p50 ms", more_is_better=False, digits=1),
        Metric("caller_us", "caller CPU µs", more_is_better=False, digits=1),
        Metric("worker_us", "worker CPU µs", more_is_better=False, digits=1),
        Metric("server_us", "server CPU µs", more_is_better=False, digits=1),
        Metric("executed", "server commands", more_is_better=False, digits=2),
    ),
    measure,
    params={"count": 3_000, "results": True},
    quick={"count": 300},
    counts=("count",),
)
