"""Bloat: what is left of the tables and indexes once all jobs have run and a VACUUM has passed, and again after that.

Indexes keep their pages for what comes next, so the second time tells whether they are used again. The worker has
ended before the VACUUM.
"""

from __future__ import annotations

import asyncio

from benchmarks import needs
from benchmarks.bench import Bench
from benchmarks.postgres_tables import Size, size, vacuum
from benchmarks.scenario import Metric, Scenario


async def measure(bench: Bench) -> dict[str, float]:
    count, url = bench.params["count"], bench.entrant.place.url
    empty = await asyncio.to_thread(size, url)
    full, first = await _round(bench, count)
    _, second = await _round(bench, count)
    return {
        "again": second.total / first.total,
        "left": first.total / full.total,
        "empty": empty.total,
        "full": full.total,
        "first": first.total,
        "second": second.total,
        "tables": second.tables,
        "indexes": second.indexes,
    }


async def _round(bench: Bench, count: int) -> tuple[Size, Size]:
    url = bench.entrant.place.url
    await bench.entrant.dispatch_many("noop", [()] * count)
    full = await asyncio.to_thread(size, url)
    async with bench.worker(expect=count) as worker:
        await bench.span(worker, count)
    await asyncio.to_thread(vacuum, url)
    return full, await asyncio.to_thread(size, url)


SCENARIO = Scenario(
    "bloat",
    "Tables and indexes after a drain and a VACUUM, and after a second",
    (
        Metric("again", "second / first", more_is_better=False, digits=2),
        Metric("left", "first / full", more_is_better=False, digits=2),
        Metric("empty", "empty MiB", more_is_better=False, digits=2),
        Metric("full", "full MiB", more_is_better=False, digits=2),
        Metric("first", "first MiB", more_is_better=False, digits=2),
        Metric("second", "second MiB", more_is_better=False, digits=2),
        Metric("tables", "of it tables", more_is_better=False, digits=2),
        Metric("indexes", "indexes", more_is_better=False, digits=2),
    ),
    measure,
    params={"count": 50_000},
    quick={"count": 2_000},
    counts=("count",),
    unfit=needs.postgresql,
    grows=False,
    chooses=False,
)
