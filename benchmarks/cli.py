"""The command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import catalog, report
from benchmarks.bars import judge
from benchmarks.redis_server import FLAVOURS
from benchmarks.runner import Outcome, Runner
from benchmarks.scenarios import SCENARIOS

__all__ = ["main"]

QUICK = ("raw_sqlite", "huey_sqlite", "camora_memory", "camora_sqlite")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Camora, its peers, and the raw limit.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the scenarios and the entrants")
    run = commands.add_parser("run", help="measure")
    run.add_argument("--scenario", default="", help="comma-separated; all when left out")
    run.add_argument("--entrants", default="", help="comma-separated; all when left out")
    run.add_argument("--rounds", type=int, default=0, help="default 3; 1 with --quick")
    run.add_argument("--baseline", default="raw_sqlite", help="what ratios refer to")
    run.add_argument(
        "--quick", action="store_true", help="fewer jobs, no peers that need a server: to see that it runs"
    )
    run.add_argument("--redis", choices=FLAVOURS, default="redis", help="which private server, where none is given")
    run.add_argument("--timeout", type=float, default=180.0, help="seconds for one measurement")
    run.add_argument("--json", type=Path, help="write everything to this file")
    return parser


def _chosen(given: str, known: list[str], default: list[str], what: str) -> list[str]:
    chosen = [name.strip() for name in given.split(",") if name.strip()] or default
    if unknown := sorted(set(chosen) - set(known)):
        raise SystemExit(f"unknown {what}: {', '.join(unknown)}; known are: {', '.join(known)}")
    return chosen


def main() -> None:
    """Run what the command line says."""
    given = _arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end with us
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    if given.command == "list":
        for scenario in SCENARIOS.values():
            console.print(f"[bold]{scenario.name:8}[/] {scenario.title}", highlight=False)
        console.print(", ".join(catalog.names()), highlight=False)
        return
    known = catalog.names()
    entrants = _chosen(given.entrants, known, list(QUICK) if given.quick else known, "entrants")
    scenarios = _chosen(given.scenario, list(SCENARIOS), list(SCENARIOS), "scenarios")
    rounds = given.rounds or (1 if given.quick else 3)
    _run(console, given, entrants, scenarios, rounds)


def _run(console: Console, given: argparse.Namespace, entrants: list[str], scenarios: list[str], rounds: int) -> None:
    errors = Console(stderr=True)
    results: dict[str, list[Outcome]] = {}
    with (
        errors.status("looking at the entrants") as status,
        Runner(
            entrants,
            rounds=rounds,
            quick=given.quick,
            timeout=given.timeout,
            note=status.update,
            flavour=given.redis,
        ) as runner,
    ):
        report.show_skipped(console, runner.skipped)
        baseline = given.baseline if given.baseline in runner.entrants else next(iter(runner.entrants), "")
        for name in scenarios:
            results[name] = runner.run(SCENARIOS[name])
            report.show_scenario(console, SCENARIOS[name], results[name], baseline, runner.entrants)
        server = runner.servers
    medians = {name: {each.entrant: each.medians for each in outcomes} for name, outcomes in results.items()}
    verdicts = judge(medians)
    report.show_bars(console, verdicts)
    where = "; ".join(filter(None, (report.machine(), server)))
    console.print(f"{where}; medians of {rounds} round(s); only ratios within one run carry over")
    if given.json:
        run = {"rounds": rounds, "quick": given.quick, "baseline": baseline, "scenarios": scenarios, "server": server}
        data = report.as_data(results, runner.entrants, runner.skipped, verdicts, run)
        given.json.write_text(json.dumps(data, indent=2) + "\n")
