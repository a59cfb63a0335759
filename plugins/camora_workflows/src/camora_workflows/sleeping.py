"""`durable_sleep`: a job that waits for hours holds no slot, and survives its worker."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from camora.clock import seconds as in_seconds
from camora.clock import to_epoch_ms

from camora_workflows.journaling import Running, running

__all__ = ["durable_sleep"]


async def durable_sleep(
    duration: float | timedelta | None = None,
    /,
    *,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    until: datetime | None = None,
    name: str | None = None,
) -> None:
    """Wait for so long, or until an aware moment, without a worker: the job ends here, and runs again from its top.

    Inside an async task. Steps before it are not done again. When it is over is decided once, in the first run. It is
    known by `name`, else by its place among those without one: where their order can change between two runs, or
    between two versions of the code, name them. Its end is as exact as the worker's clock and that of the broker.

    Everything between two steps runs again, so keep the results of steps only. It is ended by a signal that no
    `except Exception` catches; let it pass. Raises `ValueError` for a duration that is none, and as `step`.
    """
    run = running("durable_sleep(…)")
    run.check_own_task("durable_sleep(…)")
    wake = _wake(run, duration, timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds), until)
    entry = run.once("sleep", name if name is not None else f"#{run.count('sleep')}")
    known = (await run.entries()).get(entry)
    if known is None:
        lasting = max(0, wake - run.now()) / 1000
        known = await run.enter(entry, str(wake).encode(), lasting=lasting)
    left = int(known) - run.now()
    if left > 0:
        await run.suspend(left / 1000)


def _wake(run: Running, duration: float | timedelta | None, units: timedelta, until: datetime | None) -> int:
    given = [duration is not None, bool(units), until is not None]
    if sum(given) > 1:
        raise ValueError("durable_sleep: give a duration, or hours=… and the like, or until=…; not several of them")
    if until is not None:
        return to_epoch_ms(until)
    try:
        length = in_seconds(duration if duration is not None else units)
    except (TypeError, ValueError):
        raise ValueError(
            f"durable_sleep({duration!r}): give seconds, a timedelta, days=…, hours=… or until=…"
        ) from None
    if not 0 <= length < math.inf:
        raise ValueError(f"durable_sleep: {length:g} seconds; it takes a duration from 0, and with an end")
    return run.now() + round(length * 1000)
