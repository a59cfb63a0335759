"""Whether every task could run."""

from __future__ import annotations

from typing import Any

from camora.builtin.checks.looking import failed, fine
from camora.interfaces.operations import CheckResult

__all__ = ["chain_composes", "tasks_complete"]


async def tasks_complete(app: Any) -> CheckResult:
    """Every parameter of every task is filled by the payload or a dependency, and every pool exists."""
    tasks = list(app.tasks)
    problems = app._binding.problems(tasks)  # noqa: SLF001 -- one unit with the app
    pools = app._pools  # noqa: SLF001
    problems += [
        f"{task.name}: there is no pool {task.config.pool!r}"
        for task in tasks
        if task.config.pool is not None and task.config.pool not in pools
    ]
    if problems:
        return failed("\n".join(problems), "see each line; workers refuse to start like this")
    if not tasks:
        return fine("the app has no tasks", "import the modules that register them where the app is made")
    return fine(f"{len(tasks)} known; all their parameters are provided")


async def chain_composes(app: Any) -> CheckResult:
    """The links around a job can be put in an order."""
    return fine(" → ".join(link.name for link in app.chain()))
