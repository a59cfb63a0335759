"""Runs scenarios: round after round, the entrants in turn, each measurement in a fresh process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Self

from benchmarks.client import MARK
from benchmarks.scenario import Scenario
from benchmarks.servers import NoServer, Server, serve
from benchmarks.worker import OPTIONS, URL

__all__ = ["Figures", "Outcome", "Runner"]

Figures = dict[str, float]


@dataclass
class Outcome:
    """What one entrant showed in one scenario."""

    entrant: str
    samples: list[Figures] = field(default_factory=list)
    problem: str = ""
    variant: str = ""

    @property
    def medians(self) -> Figures:
        """The median of each metric over the rounds."""
        names = {name for sample in self.samples for name in sample}
        return {name: median([sample[name] for sample in self.samples if name in sample]) for name in sorted(names)}


class Runner:
    """One run: entrants are looked at once, servers live as long as it does."""

    def __init__(
        self,
        entrants: Sequence[str],
        *,
        rounds: int,
        quick: bool,
        timeout: float,
        note: Callable[[str], None],
        flavour: str = "redis",
    ):
        self._flavour = flavour
        self._rounds = rounds
        self._quick = quick
        self._timeout = timeout
        self._note = note
        self._servers: dict[str, Server] = {}
        self._no_servers: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._environment: dict[str, str] = {}
        self._drains_best: dict[str, str] = {}
        self.entrants: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self._wanted = entrants

    def __enter__(self) -> Self:
        # As installed: with bytecode, whatever this shell says of writing it, and none of it left behind.
        bytecode = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="camora-bench-bytecode-"))
        self._environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for name in self._wanted:
            about = self._client("describe", name, {}, {})
            problem = about.get("error", "") or self._server_for(about["server"])
            if problem:
                self.skipped[name] = problem
            else:
                self.entrants[name] = about
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _server_for(self, kind: str) -> str:
        if kind and kind not in self._servers and kind not in self._no_servers:
            try:
                self._servers[kind] = self._stack.enter_context(serve(kind, self._flavour))
            except NoServer as error:
                self._no_servers[kind] = str(error)
        return self._no_servers.get(kind, "")

    @property
    def servers(self) -> str:
        """The servers that entrants were measured on, with their versions; "" where none was needed."""
        return ", ".join(server.name for server in self._servers.values())

    def run(self, scenario: Scenario) -> list[Outcome]:
        """All rounds of one scenario."""
        outcomes = {name: Outcome(name) for name in self.entrants}
        for name, outcome in outcomes.items():
            about = self.entrants[name]
            outcome.problem = about["lacks"].get(scenario.name, "") or scenario.unfit(about)
            if not outcome.problem and about["variants"]:
                outcome.variant = self._best_variant(scenario, outcome)
        for number in range(self._rounds):
            for name, outcome in outcomes.items():
                if not outcome.problem:
                    self._note(f"{scenario.name}: round {number + 1} of {self._rounds}: {name} {outcome.variant}")
                    self._measure(scenario, outcome, self._params(scenario, name))
        return list(outcomes.values())

    def _params(self, scenario: Scenario, name: str, share: int = 1) -> dict[str, Any]:
        params = {**scenario.params, **(scenario.quick if self._quick else {})}
        slow = self.entrants[name]["slow"]
        divisor = (slow if scenario.grows else max(1, slow)) * share
        return {
            key: max(100, int(value / divisor)) if key in scenario.counts else value for key, value in params.items()
        }

    def _best_variant(self, scenario: Scenario, outcome: Outcome) -> str:
        """Try each twice, with fewer jobs; the best sample by the scenario's first metric decides."""
        metric = scenario.metrics[0]
        if not scenario.chooses:
            first = str(next(iter(self.entrants[outcome.entrant]["variants"])))
            return self._drains_best.get(outcome.entrant, first)
        best: tuple[float, str] | None = None
        problems: list[str] = []
        for variant in self.entrants[outcome.entrant]["variants"]:
            self._note(f"{scenario.name}: trying {outcome.entrant} {variant}")
            trial = Outcome(outcome.entrant, variant=variant)
            for _ in range(2):
                self._measure(scenario, trial, self._params(scenario, outcome.entrant, share=4))
            if not trial.samples:
                problems.append(trial.problem)
                continue
            score = max(sample[metric.name] * (1 if metric.more_is_better else -1) for sample in trial.samples)
            if best is None or score > best[0]:
                best = (score, variant)
        if best is None:
            outcome.problem = problems[0]
            return ""
        if scenario.name == "w2":
            self._drains_best[outcome.entrant] = best[1]
        return best[1]

    def _measure(self, scenario: Scenario, outcome: Outcome, params: dict[str, Any]) -> None:
        about = self.entrants[outcome.entrant]
        environment: dict[str, str] = {}
        if server := self._servers.get(about["server"]):
            server.clear()
            environment[URL] = server.url
        options: Mapping[str, Any] = about["variants"].get(outcome.variant, {})
        environment[OPTIONS] = json.dumps(options)
        answer = self._client(scenario.name, outcome.entrant, {**params, "options": options}, environment)
        if "error" in answer:
            outcome.problem = answer["error"]
            self._note(f"  {outcome.entrant}: {answer['error']}")
        else:
            outcome.samples.append(answer)

    def _client(
        self, what: str, name: str, params: Mapping[str, Any], environment: Mapping[str, str]
    ) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.client", what, name, json.dumps(params)]
        # A session of its own: whatever it leaves behind can be ended with it, and nothing else.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self._environment, **environment},
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"did not end within {self._timeout:g} s"}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for line in output.splitlines():
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
        return {"error": f"ended with code {process.returncode}: {' | '.join(errors.splitlines()[-4:])}"}
