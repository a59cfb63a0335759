"""W2: one worker process drains what was enqueued before it started. W2r: with a result of each job kept.

The rate is taken from the first job's run to the last job's, CPU from the worker's own process time over the same
span. In-process entrants settle all jobs within the span; `total_us` is their dispatching and working together.
"""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks import jobs, needs
from benchmarks.bench import Bench
from benchmarks.entrant import InProcessEntrant
from benchmarks.processes import rss_mib
from benchmarks.scenario import Metric, Scenario


async def measure(bench: Bench) -> dict[str, float]:
    count = bench.params["count"]
    if bench.in_process is not None:
        return await _in_process(bench, bench.in_process, count)
    return await drain(bench, bench.params["job"], count)


async def drain(bench: Bench, job: str, count: int, *, store: int = 0, rested: bool = False) -> dict[str, float]:
    """Enqueue so many, or `store` if that is more, then start a worker and have it run `count`.

    The server's figures are of the worker's start and the drain; what the server executed is read when the worker has
    gone, and so with what its end took. With `rested` the server first writes to the disk what it has put off.
    """
    arguments: list[tuple[int, ...]] = [() if job == "noop" else (1,)] * max(count, store)
    await bench.entrant.dispatch_many(job, arguments)
    if bench.meter and rested:
        await asyncio.to_thread(bench.meter.rest)
    before = bench.meter.read() if bench.meter else None
    async with bench.worker(expect=count) as worker:
        span = await bench.span(worker, count)
        figures = {"rate": span.rate, "cpu_us": span.cpu_us, "rss": worker.rss_mib}
        cpu_us = bench.meter.read().cpu_since(before) if bench.meter and before else None
    if cpu_us is not None:
        figures["server_us"] = cpu_us / count
    executed = bench.meter.read().executed_since(before) if bench.meter and before else None
    if executed is not None:
        figures["executed"] = executed / count
    return figures


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


METRICS = (
    Metric("rate", "jobs /s"),
    Metric("cpu_us", "worker CPU µs/job", more_is_better=False, digits=1),
    Metric("total_us", "with dispatch µs/job", more_is_better=False, digits=1),
    Metric("rss", "RSS MiB", more_is_better=False),
    Metric("server_us", "server CPU µs/job", more_is_better=False, digits=1),
    Metric("executed", "commands, or transactions/job", more_is_better=False, digits=2),
)

SCENARIO = Scenario(
    "w2",
    "W2 drain of no-op jobs by one worker",
    METRICS,
    measure,
    params={"count": 20_000, "job": "noop"},
    quick={"count": 2_000},
    counts=("count",),
)

WITH_RESULTS = Scenario(
    "w2r",
    "W2r drain of jobs whose result is kept, by one worker",
    METRICS,
    measure,
    params={"count": 20_000, "job": "answer", "results": True},
    quick={"count": 2_000},
    counts=("count",),
    unfit=lambda about: needs.own_process(about) or needs.results(about),
    chooses=False,
)
