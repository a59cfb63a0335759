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
    ("clock", "machine", "clock_sane"),
    ("time zones", "machine", "zones_known"),
    ("disk", "machine", "disk_free"),
    ("open files", "machine", "files_enough"),
    ("event loop", "machine", "loop_fast"),
    ("broker", "broker", "broker_answers"),
    ("broker writes", "broker", "broker_writes"),
    ("durability", "broker", "broker_durable"),
    ("results", "results", "results_kept"),
    ("limits", "companions", "limits_kept"),
    ("schedules", "companions", "schedules_kept"),
    ("workers", "companions", "workers_seen"),
    ("queues", "queues", "queues_served"),
    ("dead letters", "queues", "letters_few"),
)
_OFFLINE = ("tasks", "machine")
"""The modules whose checks do without the broker."""
_NEEDS = {"broker": ("database place", "redis server")}
"""Where a plugin's look at the store failed, the broker fails for the same cause."""


def checks() -> Sequence[Check]:
    """All of them, ordered from 10 on."""
    return [
        Check(
            name=name,
            run=_late(module, function),
            order=10 + number,
            offline=module in _OFFLINE,
            needs=_NEEDS.get(name, ()),
        )
        for number, (name, module, function) in enumerate(_CHECKS)
    ]


def _late(module: str, function: str) -> Callable[[Any], Awaitable[CheckResult]]:
    async def run(app: Any) -> CheckResult:
        found: CheckResult = await getattr(import_module(f"{__name__}.{module}"), function)(app)
        return found

    return run
