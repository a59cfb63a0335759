"""The bars: what Camora is to reach. Printed as "pass" or "falls short"; nothing fails because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.runner import Figures

__all__ = ["BARS", "Bar", "Verdict", "judge"]


@dataclass(frozen=True)
class Bar:
    """`limit` is for the figure itself, or, with `times`, for its ratio to that entrant's figure in the same run."""

    scenario: str
    entrant: str
    metric: str
    limit: float
    text: str
    at_least: bool = False
    times: str = ""


@dataclass(frozen=True)
class Verdict:
    """`value` is None where the run did not measure it."""

    bar: Bar
    value: float | None

    @property
    def word(self) -> str:
        """pass, falls short, or not measured."""
        if self.value is None:
            return "not measured"
        good = self.value >= self.bar.limit if self.bar.at_least else self.value <= self.bar.limit
        return "pass" if good else "falls short"


BARS: Sequence[Bar] = (
    Bar("w2", "camora_memory", "cpu_us", 12, "memory: worker CPU µs per no-op job, receive to settled"),
    Bar("w2", "camora_memory", "total_us", 25, "memory: CPU µs per no-op job, dispatch to settled"),
    Bar("w2", "camora_memory", "rate", 60_000, "memory: drained jobs a second", at_least=True),
    Bar("w2", "camora_sqlite", "rate", 25_000, "SQLite: drained jobs a second", at_least=True),
    Bar(
        "w2",
        "camora_sqlite",
        "rate",
        5,
        "SQLite: drain, times Huey without fsync",
        at_least=True,
        times="huey_sqlite",
    ),
    Bar(
        "w2",
        "camora_sqlite",
        "rate",
        5,
        "SQLite: drain, times Huey with fsync",
        at_least=True,
        times="huey_sqlite_fsync",
    ),
    Bar("w1", "camora_sqlite", "bulk", 50_000, "SQLite: bulk dispatch a second", at_least=True),
    Bar("w1", "camora_memory", "bulk", 50_000, "memory: bulk dispatch a second", at_least=True),
    Bar("idle", "camora_sqlite", "cpu_ms", 30, "SQLite: CPU ms of an idle worker in 20 s"),
    Bar("w3", "camora_sqlite", "p50", 6, "SQLite: dispatch to start across processes, median ms"),
    Bar("w4", "camora_sqlite", "seconds", 0.70, "SQLite: 5,000 sleeps of 10 ms, 100 at once, seconds"),
    Bar("idle", "camora_memory", "rss", 45, "RSS MiB of a worker without a backend library"),
    Bar("idle", "camora_sqlite", "rss", 60, "RSS MiB of a worker with SQLAlchemy"),
    Bar("import", "camora_memory", "ms", 100, "import camora, ms"),
    Bar("import", "camora_memory", "backends", 0, "import camora: backend libraries loaded"),
)


def judge(medians: Mapping[str, Mapping[str, Figures]]) -> list[Verdict]:
    """Each bar against the medians, by scenario and entrant."""
    verdicts = []
    for bar in BARS:
        of_scenario = medians.get(bar.scenario, {})
        value = of_scenario.get(bar.entrant, {}).get(bar.metric)
        if bar.times and value is not None:
            other = of_scenario.get(bar.times, {}).get(bar.metric)
            value = value / other if other else None
        verdicts.append(Verdict(bar, value))
    return verdicts
