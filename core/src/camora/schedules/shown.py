"""A stored schedule as people and programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from camora.interfaces.schedule import CatchUp, Overlap, ScheduleRecord
from camora.schedules.described import trigger_text
from camora.schedules.ticks import moment_of

__all__ = ["Schedule"]


@attrs.frozen(kw_only=True)
class Schedule:
    """A schedule as it was when it was asked for; moments are aware and in UTC, None where there is none."""

    key: str
    group: str
    trigger: str
    """When it is due, as text: `cron('0 9 * * 1-5', tz='Europe/Paris')`."""
    task: str
    queue: str
    origin: str
    """`code` or `config` when it follows the deploy, `runtime` when it stays until removed."""
    app: str
    catch_up: CatchUp
    overlap: Overlap
    paused: bool
    last: datetime | None
    """The tick that fired last."""
    last_job: str
    next: datetime | None
    described: Mapping[str, Any] = attrs.field(repr=False)
    """The trigger as plain data."""

    @classmethod
    def of(cls, record: ScheduleRecord) -> Schedule:
        """What this record says."""
        return cls(
            key=record.key,
            group=record.group,
            trigger=trigger_text(record.trigger),
            task=record.task,
            queue=record.queue,
            origin=record.origin,
            app=record.app,
            catch_up=record.catch_up,
            overlap=record.overlap,
            paused=record.paused,
            last=None if record.last is None else moment_of(record.last),
            last_job=record.last_job,
            next=None if record.next is None else moment_of(record.next),
            described=record.trigger,
        )
