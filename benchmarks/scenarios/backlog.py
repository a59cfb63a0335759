"""Backlog: what a million jobs in store do to the drain, against the same without them.

Only the first jobs of the backlog are run and timed: as many as were there without it. In either case the server has
written to the disk what was enqueued, so that this is no part of the drain.
"""

from __future__ import annotations

from benchmarks import needs
from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario
from benchmarks.scenarios import w2


async def measure(bench: Bench) -> dict[str, float]:
    drained, backlog = bench.params["drained"], bench.params["backlog"]
    alone = await w2.drain(bench, "noop", drained, rested=True)
    ahead = await w2.drain(bench, "noop", drained, store=backlog, rested=True)
    figures = {"ratio": ahead["rate"] / alone["rate"], "rate": ahead["rate"], "alone": alone["rate"], "store": backlog}
    if "server_us" in alone:
        figures |= {"server_ratio": ahead["server_us"] / alone["server_us"], "server_us": ahead["server_us"]}
    return figures


SCENARIO = Scenario(
    "backlog",
    "Drain of the first jobs of a long backlog, times the same without it",
    (
        Metric("ratio", "W2 ratio", digits=2),
        Metric("rate", "jobs /s"),
        Metric("alone", "without /s"),
        Metric("server_ratio", "server CPU ratio", more_is_better=False, digits=2),
        Metric("server_us", "server CPU µs/job", more_is_better=False, digits=1),
        Metric("store", "jobs in store"),
    ),
    measure,
    params={"drained": 20_000, "backlog": 1_000_000},
    quick={"drained": 1_000, "backlog": 10_000},
    counts=("drained", "backlog"),
    unfit=needs.database,
    grows=False,
    chooses=False,
)
