"""Whether work lies where nobody looks."""

from __future__ import annotations

from typing import Any

from camora.builtin.checks.looking import connection_of, fine
from camora.errors import UnsupportedCapability
from camora.interfaces.operations import CheckResult

__all__ = ["letters_few", "queues_served"]


async def queues_served(app: Any) -> CheckResult:
    """No queue is paused, or has waiting jobs that no worker serves."""
    connection = await connection_of(app)
    try:
        counts = await connection.broker.queues.counts()
    except UnsupportedCapability:
        return fine("not looked at: this broker cannot count")
    paused = await connection.broker.queues.paused() if connection.broker.capabilities.pause else ()
    if paused:
        return fine(f"paused: {', '.join(paused)}", f"camora queues resume {paused[0]}")
    directory = await connection.workers()
    workers = [] if directory is None else await directory.list()
    served = {queue for worker in workers for queue in worker.queues}
    left = [f"{queue} ({states['ready']})" for queue, states in counts.items() if states.get("ready")]
    lonely = [text for text in left if directory is not None and text.partition(" ")[0] not in served]
    if lonely:
        return fine(f"with waiting jobs and without a worker: {', '.join(lonely)}", "camora worker")
    return fine(f"with waiting jobs: {', '.join(left)}" if left else "nothing waits")


async def letters_few(app: Any) -> CheckResult:
    """No job has ended in the dead letters."""
    some = await (await connection_of(app)).broker.dead_letters.list(limit=100)
    if not some:
        return fine("none")
    count = "100 or more" if len(some) == 100 else str(len(some))
    return fine(f"{count} wait for somebody to look at them", "camora dead")
