"""W2: one worker process drains what was enqueued before it started.

The rate is taken from the first job's run to the last job's, CPU from the worker's own process time over the same
span. In-process entrants settle all jobs within the span; `total_us` is their dispatching and working together.
"""

from __future__ import annotations

import os
import time

from benchmarks import jobs
from benchmarks.bench import Bench
from benchmarks.entrant import InProcessEntrant
from benchmarks.processes import rss_mib
from benchmarks.scenario import Metric, Scenario


async def measure(bench: Bench) -> dict[str, float]:
    count = bench.params["count"]
    if bench.in_process is not None:
        return await _in_process(bench, bench.in_process, count)
    await bench.entrant.dispatch_many("noop", [()] * count)
    async with bench.worker(expect=count) as worker:
        span = await bench.span(worker, count)
        return {"rate": span.rate, "cpu_us": span.cpu_us, "rss": worker.rss_mib}


async def _in_process(bench: Bench, entrant: InProcessEntrant, count: int) -> dict[str, float]:
    jobs.attach(str(bench.pipe.path), count)
    ends: list[tuple[float, float]] = []

    def done() -> None:
        ends.append((time.perf_counter(), time.process_time()))

    await entrant.drain(0, done)  # everything is imported and connected
    begun = time.process_time()
    await entrant.fill(count)
    started, cpu = time.perf_counter(), time.process_time()
    await entrant.drain(count, done)
    ended, total = ends[-1]
    return {
        "rate": count / (ended - started),
        "cpu_us": (total - cpu) * 1e6 / count,
        "total_us": (total - begun) * 1e6 / count,
        "rss": rss_mib(os.getpid()),
    }


SCENARIO = Scenario(
    "w2",
    "W2 drain of no-op jobs by one worker",
    (
        Metric("rate", "jobs /s"),
        Metric("cpu_us", "worker CPU µs/job", more_is_better=False, digits=1),
        Metric("total_us", "with dispatch µs/job", more_is_better=False, digits=1),
        Metric("rss", "RSS MiB", more_is_better=False),
    ),
    measure,
    params={"count": 20_000},
    quick={"count": 2_000},
    counts=("count",),
)
