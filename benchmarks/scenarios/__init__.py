"""What is measured: one module each. `measure` runs in a process of its own, once for each entrant and round."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.scenario import Scenario
from benchmarks.scenarios import (
    backlog,
    bloat,
    delayed,
    footprint,
    horizon,
    idle,
    w1,
    w2,
    w2c,
    w2x2,
    w3,
    w4,
    w5,
    workflows,
)

__all__ = ["SCENARIOS"]

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        w1.SCENARIO,
        w2.SCENARIO,
        w2.WITH_RESULTS,
        w2c.SCENARIO,
        w2c.WITH_RESULTS,
        w2x2.SCENARIO,
        w3.SCENARIO,
        w4.SCENARIO,
        w5.SCENARIO,
        idle.SCENARIO,
        delayed.SCENARIO,
        backlog.SCENARIO,
        bloat.SCENARIO,
        horizon.SCENARIO,
        footprint.SCENARIO,
        workflows.CHORD,
        workflows.CHAIN,
    )
}
