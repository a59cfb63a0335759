"""Horizon: somebody's transaction is left open, and the server can clean up nothing of what jobs leave behind.

The rate of the last fifth of a long drain is compared with the first fifth's, and W3 after it with W3 before it.
"""

from __future__ import annotations

from benchmarks import needs
from benchmarks.bench import Bench
from benchmarks.postgres_tables import held_horizon
from benchmarks.scenario import Metric, Scenario
from benchmarks.scenarios import w3

PARTS = 5


async def measure(bench: Bench) -> dict[str, float]:
    late, pace = bench.params["late"], bench.params["pace"]
    with held_horizon(bench.entrant.place.url):
        before = await w3.late(bench, late, pace)
        first, last = await _fifths(bench, bench.params["count"])
        after = await w3.late(bench, late, pace)
    ratios = {f"{name}_ratio": after[name] / before[name] for name in ("p50", "p99") if before[name]}
    return {
        "rate_ratio": last / first,
        "first": first,
        "last": last,
        **ratios,
        "p50": after["p50"],
        "p99": after["p99"],
    }


async def _fifths(bench: Bench, count: int) -> tuple[float, float]:
    """Jobs a second, in the first part of a drain and in the last one."""
    part = count // PARTS
    await bench.entrant.dispatch_many("noop", [()] * (part * PARTS + 1))
    told: list[int] = []
    async with bench.worker(expect=-1, every=part):
        while len(told) <= PARTS:  # of the first job, and of each so many after it
            told.append(int((await bench.line())[2]))
    return part * 1e9 / (told[1] - told[0]), part * 1e9 / (told[PARTS] - told[PARTS - 1])


SCENARIO = Scenario(
    "horizon",
    "With a transaction left open: the last fifth of a drain and W3 after it, times the first fifth and W3 before",
    (
        Metric("rate_ratio", "last / first", digits=2),
        Metric("first", "first /s"),
        Metric("last", "last /s"),
        Metric("p50_ratio", "W3 p50 ratio", more_is_better=False, digits=2),
        Metric("p50", "p50 ms", more_is_better=False, digits=2),
        Metric("p99_ratio", "p99 ratio", more_is_better=False, digits=2),
        Metric("p99", "p99 ms", more_is_better=False, digits=2),
    ),
    measure,
    params={"count": 100_000, "late": 600, "pace": 100},
    quick={"count": 5_000, "late": 100},
    counts=("count",),
    unfit=needs.postgresql,
    grows=False,
    chooses=False,
)
