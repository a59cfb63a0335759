"""What a person reads, and what a machine reads."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bars import Verdict
from benchmarks.runner import Outcome
from benchmarks.scenario import Metric, Scenario

__all__ = ["as_data", "machine", "show_bars", "show_scenario", "show_skipped"]


def machine() -> str:
    """The class of machine: what a figure means depends on it."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def show_scenario(
    console: Console,
    scenario: Scenario,
    outcomes: Sequence[Outcome],
    baseline: str,
    about: Mapping[str, Mapping[str, Any]],
) -> None:
    """One table: medians, and the first metric as a ratio to the baseline's in this run."""
    table = Table(title=scenario.title, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("entrant")
    used = [metric for metric in scenario.metrics if any(metric.name in outcome.medians for outcome in outcomes)]
    for metric in used:
        table.add_column(metric.title, justify="right")
    table.add_column(f"ratio to {baseline}", justify="right")
    table.add_column("rounds", justify="right")
    table.add_column("note")
    first = scenario.metrics[0]
    base = next((outcome.medians.get(first.name) for outcome in outcomes if outcome.entrant == baseline), None)
    for outcome in sorted(outcomes, key=lambda outcome: _rank(outcome, first)):
        medians = outcome.medians
        cells = [_figure(medians.get(metric.name), metric) for metric in used]
        ratio = f"{medians[first.name] / base:.3g}" if base and first.name in medians else ""
        notes = [outcome.variant, _guarantee(about.get(outcome.entrant, {})), outcome.problem[:160]]
        style = "cyan" if outcome.entrant.startswith("camora") else None
        table.add_row(
            outcome.entrant, *cells, ratio, str(len(outcome.samples) or ""), "; ".join(filter(None, notes)), style=style
        )
    console.print(table)


def _guarantee(about: Mapping[str, Any]) -> str:
    guarantee = str(about.get("guarantee", ""))
    return "" if guarantee == "at least once" else guarantee


def _rank(outcome: Outcome, metric: Metric) -> float:
    value = outcome.medians.get(metric.name)
    if value is None:
        return float("inf")
    return -value if metric.more_is_better else value


def _figure(value: float | None, metric: Metric) -> str:
    return "" if value is None else f"{value:,.{metric.digits}f}"


def show_skipped(console: Console, skipped: Mapping[str, str]) -> None:
    """Who did not take part, and why."""
    for name, why in skipped.items():
        console.print(f"[yellow]skipped[/] {name}: {why}", highlight=False)


def show_bars(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The bars that this run could judge."""
    measured = [verdict for verdict in verdicts if verdict.value is not None]
    if not measured:
        return
    table = Table(title="Bars", title_justify="left", title_style="bold", header_style="bold")
    table.add_column("bar")
    table.add_column("limit", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("verdict")
    for verdict in measured:
        sign = "≥" if verdict.bar.at_least else "≤"
        colour = "green" if verdict.word == "pass" else "red"
        value = verdict.value or 0.0
        shown = f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
        table.add_row(verdict.bar.text, f"{sign} {verdict.bar.limit:,g}", shown, f"[{colour}]{verdict.word}[/]")
    console.print(table)


def as_data(
    results: Mapping[str, Sequence[Outcome]],
    about: Mapping[str, Mapping[str, Any]],
    skipped: Mapping[str, str],
    verdicts: Sequence[Verdict],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything, for `--json`."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "run": dict(run),
        "entrants": dict(about),
        "skipped": dict(skipped),
        "scenarios": {
            name: {
                outcome.entrant: {
                    "medians": outcome.medians,
                    "samples": outcome.samples,
                    "variant": outcome.variant,
                    "problem": outcome.problem,
                }
                for outcome in outcomes
            }
            for name, outcomes in results.items()
        },
        "bars": [
            {"bar": verdict.bar.text, "limit": verdict.bar.limit, "value": verdict.value, "verdict": verdict.word}
            for verdict in verdicts
        ],
    }
