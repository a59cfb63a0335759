"""W2x2: two worker processes drain, as a ratio to one in the same measurement.

Workers start on an empty queue, run a job each, and are frozen; then jobs are enqueued, and the workers thawed in one
moment. So the start of a process is in no figure. No worker knows which job is the last of all: each tells of every so
many, and the last ones of either are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence

from benchmarks import needs
from benchmarks.bench import Bench, WorkerHandle
from benchmarks.scenario import Metric, Scenario

TELLINGS = 200


async def measure(bench: Bench) -> dict[str, float]:
    count = bench.params["count"]
    one, two = await _drain(bench, count, 1), await _drain(bench, count, 2)
    return {"ratio": two["rate"] / one["rate"], **two, "one": one["rate"]}


async def _drain(bench: Bench, count: int, workers: int) -> dict[str, float]:
    every = max(1, count // TELLINGS)
    async with contextlib.AsyncExitStack() as stack:
        handles = [await stack.enter_async_context(bench.worker(expect=-1, every=every)) for _ in range(workers)]
        told = {str(handle.pid): 0 for handle in handles}
        sent = await _warm(bench, told)
        with _frozen(handles):
            await bench.entrant.dispatch_many("noop", [()] * count)
            worked, served = sum(handle.cpu_ns for handle in handles), bench.meter.read() if bench.meter else None
            started = time.monotonic_ns()
        now, end = started, sent + count - workers * every
        while sum(told.values()) < end:
            now = max(now, await _hear(bench, told))
        seconds = (now - started) / 1e9
        figures = {
            "rate": (sum(told.values()) - sent) / seconds,
            "workers": (sum(handle.cpu_ns for handle in handles) - worked) / 1e9 / seconds,
        }
        if bench.meter and served:
            cpu_us = bench.meter.read().cpu_since(served)
            if cpu_us is not None:
                figures["server"] = cpu_us / 1e6 / seconds
        return figures


async def _hear(bench: Bench, told: dict[str, int]) -> int:
    """Note how many jobs a worker has run. When it told so; 0 for what one of before had still to tell."""
    _, number, moment, _, pid = await bench.line()
    if pid not in told:
        return 0
    told[pid] = int(number)
    return int(moment)


async def _warm(bench: Bench, told: dict[str, int]) -> int:
    """One job after the other, until every worker has run one. The number sent."""
    sent = 0
    while not all(told.values()):
        await bench.entrant.dispatch("noop")
        sent += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                while True:
                    await _hear(bench, told)
    return sent


@contextlib.contextmanager
def _frozen(handles: Sequence[WorkerHandle]) -> Iterator[None]:
    for handle in handles:
        os.kill(handle.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for handle in handles:
            os.kill(handle.pid, signal.SIGCONT)


SCENARIO = Scenario(
    "w2x2",
    "W2x2 drain by two workers, times one",
    (
        Metric("ratio", "two / one", digits=2),
        Metric("rate", "two: jobs /s"),
        Metric("one", "one: jobs /s"),
        Metric("workers", "two: their CPUs busy", digits=2),
        Metric("server", "two: server CPUs busy", digits=2),
    ),
    measure,
    params={"count": 20_000},
    quick={"count": 4_000},
    counts=("count",),
    unfit=needs.single_workers,
    chooses=False,
)
