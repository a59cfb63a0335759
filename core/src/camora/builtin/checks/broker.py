"""Whether the broker answers, takes what is written, and keeps it."""

from __future__ import annotations

from typing import Any

from camora.builtin.checks.looking import connection_of, failed, fine, several_processes
from camora.errors import UnsupportedCapability
from camora.interfaces.operations import CheckResult

__all__ = ["broker_answers", "broker_durable", "broker_writes"]

_QUEUE = "camora.doctor"
"""A queue that nobody uses: paused and resumed again, to see whether writing works."""


async def broker_answers(app: Any) -> CheckResult:
    """It can be reached, and asked."""
    broker = (await connection_of(app)).broker
    began = app.clock.monotonic()
    await broker.dead_letters.list(limit=1)
    return fine(f"{broker!r} answers in {(app.clock.monotonic() - began) * 1000:.1f} ms")


async def broker_writes(app: Any) -> CheckResult:
    """What is written is there when it is read, and gone when it is taken back."""
    queues = (await connection_of(app)).broker.queues
    try:
        await queues.pause(_QUEUE)
        try:
            seen = _QUEUE in await queues.paused()
        finally:
            await queues.pause(_QUEUE, paused=False)
    except UnsupportedCapability:
        return fine("not tried: this broker has nothing harmless to write")
    if not seen:
        return failed("what was written was not there afterwards", "look at the broker: does it evict, or lag behind?")
    return fine("written, read back, and taken back")


async def broker_durable(app: Any) -> CheckResult:
    """Jobs outlive processes, and processes share them where several are used."""
    able = app.broker.capabilities
    if not able.shared and several_processes(app):
        return failed(
            f"{app.worker_settings.processes} worker processes are set, and {app.broker!r} lives in one process",
            "use a broker that processes share, for example  sqlite:///camora.db  (camora-sql)",
        )
    if not able.durable:
        return fine(
            f"{app.broker!r} is not durable: jobs end with the process",
            "for more than tests use a durable one, for example  sqlite:///camora.db  (camora-sql)",
        )
    if not able.leases:
        return fine(
            "durable, but without leases", "a worker that is killed takes its jobs along; use a broker with leases"
        )
    return fine("jobs outlive every process; those of a killed worker come back")
