"""Ticks: moments in whole milliseconds, and the ids of their jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from camora.ids import child_id
from camora.interfaces.schedule import ScheduleRecord, Trigger

__all__ = ["moment_of", "next_tick", "tick_id"]

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)


def moment_of(tick: int) -> datetime:
    """The aware moment, in UTC."""
    return _EPOCH + tick * _MILLISECOND


def next_tick(trigger: Trigger, after: int) -> int | None:
    """The first tick strictly after this millisecond; None when there is none any more.

    Raises `ValueError` for a trigger that answers with a naive moment, or with one that is not later.
    """
    moment = trigger.next_after(moment_of(after))
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"{trigger!r} answered {moment!r}, which has no time zone")
    # Upwards: else the moment itself would still come after its own tick, and be a tick again.
    tick = -((_EPOCH - moment) // _MICROSECOND // 1000)
    if tick <= after:
        raise ValueError(
            f"{trigger!r} answered {moment.isoformat()}, which is not after {moment_of(after).isoformat()}"
        )
    return tick


def tick_id(record: ScheduleRecord, tick: int) -> str:
    """The id of the job of this tick: whoever sends it, and however often, it is the same one."""
    return child_id(f"{max(tick, 0):012x}", f"schedule/{record.app}/{record.key}")
