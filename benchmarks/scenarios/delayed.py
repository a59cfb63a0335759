"""Delayed: what jobs for an hour ahead do to W3, W2 and an idle worker, against the same without them."""

from __future__ import annotations

from benchmarks import needs
from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario
from benchmarks.scenarios import idle, w2, w3

AHEAD = 3_600.0


async def measure(bench: Bench) -> dict[str, float]:
    without = await _figures(bench)
    await bench.entrant.delay_many("noop", AHEAD, bench.params["delayed"])
    behind = await _figures(bench)
    ratios = {f"{name}_ratio": behind[name] / without[name] for name in ("p50", "p99", "rate") if without[name]}
    return behind | ratios | {"idle_more": behind["cpu_ms"] - without["cpu_ms"]}


async def _figures(bench: Bench) -> dict[str, float]:
    return {
        **await w3.late(bench, bench.params["late"], bench.params["pace"]),
        **await w2.drain(bench, "noop", bench.params["drained"]),
        **await idle.rest(bench, bench.params["seconds"]),
    }


SCENARIO = Scenario(
    "delayed",
    "With jobs for an hour ahead in store, and as a ratio to without",
    (
        Metric("p50_ratio", "W3 p50 ratio", more_is_better=False, digits=2),
        Metric("p50", "p50 ms", more_is_better=False, digits=2),
        Metric("p99_ratio", "p99 ratio", more_is_better=False, digits=2),
        Metric("p99", "p99 ms", more_is_better=False, digits=2),
        Metric("rate_ratio", "W2 ratio", digits=2),
        Metric("rate", "jobs /s"),
        Metric("cpu_ms", "idle CPU ms in 20 s", more_is_better=False, digits=1),
        Metric("idle_more", "more than without", more_is_better=False, digits=1),
        Metric("commands_s", "commands sent /s", more_is_better=False, digits=2),
    ),
    measure,
    params={"delayed": 100_000, "late": 600, "pace": 100, "drained": 20_000, "seconds": 20.0},
    quick={"delayed": 2_000, "late": 100, "drained": 1_000, "seconds": 2.0},
    counts=("drained",),
    unfit=needs.delays,
    chooses=False,
)
