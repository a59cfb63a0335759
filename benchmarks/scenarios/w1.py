"""W1: how fast jobs are dispatched, one by one and in bulk, while nobody works."""

from __future__ import annotations

import time

from benchmarks import jobs
from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario


async def measure(bench: Bench) -> dict[str, float]:
    jobs.attach(str(bench.pipe.path), -1)  # for those who run a job when it is dispatched
    entrant, one, bulk = bench.entrant, bench.params["one"], bench.params["bulk"]
    for _ in range(20):
        await entrant.dispatch("noop")
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(one):
        await entrant.dispatch("noop")
    one_seconds, one_cpu = time.perf_counter() - started, time.process_time() - cpu
    arguments: list[tuple[object, ...]] = [()] * bulk
    started, cpu = time.perf_counter(), time.process_time()
    await entrant.dispatch_many("noop", arguments)
    bulk_seconds, bulk_cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "bulk": bulk / bulk_seconds,
        "bulk_us": bulk_cpu * 1e6 / bulk,
        "one": one / one_seconds,
        "one_us": one_cpu * 1e6 / one,
    }


SCENARIO = Scenario(
    "w1",
    "W1 dispatch",
    (
        Metric("bulk", "bulk /s"),
        Metric("bulk_us", "CPU µs", more_is_better=False, digits=1),
        Metric("one", "one by one /s"),
        Metric("one_us", "CPU µs", more_is_better=False, digits=1),
    ),
    measure,
    params={"one": 3_000, "bulk": 20_000},
    quick={"one": 300, "bulk": 2_000},
    counts=("one", "bulk"),
    chooses=False,
)
