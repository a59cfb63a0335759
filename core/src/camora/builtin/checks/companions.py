"""Whether the stores keep what the app asks for beside messages."""

from __future__ import annotations

from typing import Any

from camora.builtin.checks.looking import connection_of, failed, fine
from camora.interfaces.operations import CheckResult

__all__ = ["limits_kept", "schedules_kept", "workers_seen"]

_ELSEWHERE = "keep broker or results in a store that does, for example  sqlite:///camora.db  (camora-sql)"


async def limits_kept(app: Any) -> CheckResult:
    """Limits of tasks and queues hold across workers."""
    limited = [task.name for task in app.tasks if task.config.rate_limit or task.config.max_concurrency]
    limited += [f"queue {queue.name}" for queue in app.queues if queue.rate_limit]
    if await (await connection_of(app)).limits() is not None:
        return fine(
            f"counted across workers: {', '.join(limited)}" if limited else "none set; the store can count them"
        )
    if limited:
        return failed(f"neither store counts limits, and these have some: {', '.join(limited)}", _ELSEWHERE)
    return fine("none set; the stores cannot count them")


async def schedules_kept(app: Any) -> CheckResult:
    """Schedules have a store."""
    declared = len(app._declared_schedules.by_key)  # noqa: SLF001 -- one unit with the app
    store = await (await connection_of(app)).schedules()
    if store is not None:
        return fine(f"{len(await store.list())} stored, {declared} declared by the app")
    if declared:
        return failed(f"the app declares {declared}, and neither store keeps schedules", _ELSEWHERE)
    return fine("none declared; the stores cannot keep them")


async def workers_seen(app: Any) -> CheckResult:
    """Workers report, by clocks that agree with this one."""
    directory = await (await connection_of(app)).workers()
    if directory is None:
        return fine("the stores keep no directory of workers: camora workers lists none")
    workers = await directory.list()
    now = app.clock.now_ms()
    ahead = [worker.name for worker in workers if worker.seen > now + 5_000]
    if ahead:
        return failed(
            f"reported at a moment that has not come yet: {', '.join(ahead)}", "let all machines keep time by NTP"
        )
    if not workers:
        return fine("none runs now", "camora worker")
    return fine(f"{len(workers)} run: {', '.join(worker.name for worker in workers[:5])}")
