"""Workflows: a chord of many jobs that do nothing against as many plain jobs, and a chain, link by link.

All of it goes the same way: the worker is there already, and the time is taken from the call that dispatches to the run
of the last job. The plain jobs are dispatched in bulk.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from benchmarks import needs
from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario


async def chord(bench: Bench) -> dict[str, float]:
    count, entrant = bench.params["count"], bench.entrant
    plain = await _whole(bench, count + 1, lambda: entrant.dispatch_many("noop", [()] * (count + 1)))
    waiting = await _drained(bench, count + 1, lambda: entrant.dispatch_many("noop", [()] * (count + 1)))
    whole = await _whole(bench, count + 1, lambda: entrant.chord(count))
    drained = await _drained(bench, count + 1, lambda: entrant.chord(count))
    return {
        "ratio": whole / plain,
        "drain_ratio": drained / waiting,
        "rate": (count + 1) / whole,
        "plain": (count + 1) / plain,
    }


async def chain(bench: Bench) -> dict[str, float]:
    count, entrant = bench.params["count"], bench.entrant
    seconds = await _whole(bench, count, lambda: entrant.chain(count))
    return {"link_ms": 1000 * seconds / count}


async def _whole(bench: Bench, count: int, dispatch: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the dispatch to the last run, with a worker that has run something already."""
    async with bench.worker(expect=count + 1) as worker:
        await bench.entrant.dispatch("noop")
        await bench.line()
        begun = time.monotonic_ns()
        await dispatch()
        last = await _last(bench, count, begun)
        del worker
    return (last - begun) / 1e9


async def _drained(bench: Bench, count: int, dispatch: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the first run to the last, of what was dispatched before the worker started."""
    await dispatch()
    async with bench.worker(expect=count) as worker:
        return (await bench.span(worker, count)).seconds


async def _last(bench: Bench, count: int, begun: int) -> int:
    seen = 0
    while True:
        words = await bench.line()
        if words[0] == "count":
            return int(words[2])
        seen += 1
        if seen == count:
            return int(words[1])


CHORD = Scenario(
    "chord",
    "A chord of no-op jobs, as a multiple of the same number of plain jobs",
    (
        Metric("ratio", "times plain", more_is_better=False, digits=2),
        Metric("drain_ratio", "drain alone", more_is_better=False, digits=2),
        Metric("rate", "members /s"),
        Metric("plain", "plain jobs /s"),
    ),
    chord,
    params={"count": 10_000},
    quick={"count": 1_000},
    counts=("count",),
    unfit=needs.chords,
    grows=False,
    chooses=False,
)

CHAIN = Scenario(
    "chain",
    "A chain, each link with the result of the one before",
    (Metric("link_ms", "ms a link", more_is_better=False, digits=2),),
    chain,
    params={"count": 1_000},
    quick={"count": 100},
    counts=("count",),
    unfit=needs.chains,
    grows=False,
    chooses=False,
)
