"""The core's checks for `camora doctor`, in the order in which they make sense. Imported when one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from camora.interfaces.operations import Check, CheckResult

__all__ = ["checks"]

_CHECKS = (
    ("tasks", "tasks", "tasks_complete"),
    ("chain", "tasks", "chain_composes"),
    ("broker", "broker", "broker_answers"),
    ("broker writes", "broker", "broker_writes"),
    ("durability", "broker", "broker_durable"),
    ("results", "results", "results_kept"),
    ("limits", "companions", "limits_kept"),
    ("schedules", "companions", "schedules_kept"),
    ("workers", "companions", "workers_seen"),
    ("queues", "queues", "queues_served"),
    ("dead letters", "queues", "letters_few"),
    ("clock", "machine", "clock_sane"),
    ("event loop", "machine", "loop_fast"),
)


def checks() -> Sequence[Check]:
    """All of them."""
    return [
        Check(name=name, run=_late(module, function), order=10 + number)
        for number, (name, module, function) in enumerate(_CHECKS)
    ]


def _late(module: str, function: str) -> Callable[[Any], Awaitable[CheckResult]]:
    async def run(app: Any) -> CheckResult:
        found: CheckResult = await getattr(import_module(f"{__name__}.{module}"), function)(app)
        return found

    return run
