"""W4: jobs that sleep 10 ms, 100 at once: what the framework adds while jobs wait. The ideal is count / 10,000 s."""

from __future__ import annotations

import time

from benchmarks import jobs
from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario

NAP, CONCURRENCY = 0.01, 100


async def measure(bench: Bench) -> dict[str, float]:
    count = bench.params["count"]
    ideal = count * NAP / CONCURRENCY
    if bench.in_process is not None:
        jobs.attach(str(bench.pipe.path), count)
        started = time.perf_counter()
        async with bench.worker(expect=count, concurrency=CONCURRENCY) as worker:
            await bench.entrant.dispatch_many("nap", [(NAP,)] * count)
            await bench.span(worker, count)
            seconds = time.perf_counter() - started
    else:
        await bench.entrant.dispatch_many("nap", [(NAP,)] * count)
        async with bench.worker(expect=count, concurrency=CONCURRENCY) as worker:
            # The first job tells when its nap is over.
            seconds = (await bench.span(worker, count)).seconds + NAP
    return {"of_ideal": seconds / ideal, "seconds": seconds}


SCENARIO = Scenario(
    "w4",
    "W4 5,000 jobs of 10 ms sleep, 100 at once",
    (
        Metric("of_ideal", "x ideal", more_is_better=False, digits=2),
        Metric("seconds", "seconds", more_is_better=False, digits=2),
    ),
    measure,
    params={"count": 5_000},
    quick={"count": 1_000},
    counts=("count",),
    grows=False,
)
