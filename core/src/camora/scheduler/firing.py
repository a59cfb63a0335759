"""One fire: from a loan of the store to jobs in the broker, and the schedule moved on."""

from __future__ import annotations

import logging
from typing import Any

from camora.interfaces.observer import ScheduleFired
from camora.interfaces.schedule import Fire, ScheduleRecord, Trigger
from camora.scheduler.catch_up import ticks_to_fire
from camora.scheduler.overlap import unfinished
from camora.schedules import ScheduleParts, make_trigger
from camora.schedules.template import message_of
from camora.schedules.ticks import moment_of, tick_id

__all__ = ["Firing", "Triggers"]

_MOST_TRIGGERS = 10_000


class Triggers:
    """Makes triggers from records; one that was asked for before need not be read again."""

    def __init__(self, parts: ScheduleParts) -> None:
        self._parts = parts
        self._known: dict[str, tuple[dict[str, Any], Trigger]] = {}

    def of(self, record: ScheduleRecord) -> Trigger:
        """The trigger of this record. Raises `ConfigurationError` for what no plugin can make."""
        described, trigger = self._known.get(record.key, (None, None))
        if trigger is None or described != record.trigger:
            trigger = make_trigger(self._parts.catalog, record.trigger)
            if len(self._known) >= _MOST_TRIGGERS:
                self._known.clear()
            self._known[record.key] = record.trigger, trigger
        return trigger


class Firing:
    """Sends the jobs of a loan. First they are in the broker, then the schedule moves on.

    A scheduler that dies in between leaves a loan that lapses, and whoever repeats it sends the same ids.
    """

    def __init__(self, parts: ScheduleParts, triggers: Triggers, logger: logging.Logger) -> None:
        self._parts = parts
        self._triggers = triggers
        self._logger = logger

    async def fire(self, fire: Fire) -> int:
        """Send what is due; returns how many jobs. Raises whatever is wrong with this schedule."""
        parts, record, now = self._parts, fire.record, self._parts.clock.now_ms()
        if record.next is None:
            return 0
        ticks, following = ticks_to_fire(self._triggers.of(record), record.next, now, record.catch_up)
        sent: list[tuple[int, str]] = []
        for tick in ticks:
            if not await self._held_back(record, sent[-1][1] if sent else record.last_job):
                sent.append((tick, await self._send(record, tick, now)))
        last, job_id = sent[-1] if sent else (None, "")
        store = await parts.store()
        if not await store.advance(fire, last=last, next_tick=following, job_id=job_id):
            self._logger.debug("schedule %s was changed or taken over while it fired", record.key)
            return len(sent)
        for tick, sent_id in sent:
            self._logger.info("schedule %s of %s: job %s", record.key, moment_of(tick).isoformat(), sent_id)
            parts.events.emit(ScheduleFired(at=now, key=record.key, tick=tick, job_id=sent_id))
        if following is None and record.origin == "runtime":
            await self._forget(record.key)
        return len(sent)

    async def _held_back(self, record: ScheduleRecord, last_job: str) -> bool:
        return record.overlap == "skip" and await unfinished(await self._parts.connection(), last_job)

    async def _send(self, record: ScheduleRecord, tick: int, now: int) -> str:
        template = self._parts.codec.decode(record.message)
        headers = {"camora.schedule": record.key, "camora.tick": moment_of(tick).isoformat()}
        return await self._parts.send(message_of(template, tick_id(record, tick), now, headers))

    async def _forget(self, key: str) -> None:
        """It has had its last tick, and no deploy declares it again; unless somebody has just put it anew."""
        store = await self._parts.store()
        [record] = await store.get([key])
        if record is not None and record.next is None:
            await store.remove([key])
