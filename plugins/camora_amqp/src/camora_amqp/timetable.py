"""What is known of all schedules, as one value: it travels as one message."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from camora.errors import ConfigurationError
from camora.interfaces.schedule import Fire, ScheduleRecord

__all__ = ["Timetable"]

_SET_BACK = 60_000
"""Milliseconds by which a loan may end later than one made now; beyond that, the clock was set back."""


class _Line(msgspec.Struct, omit_defaults=True):
    record: ScheduleRecord
    receipt: int = 0
    """That of the loan under way; 0 for none."""
    until: int = 0

    def change(self, **fields: object) -> None:
        self.record = msgspec.structs.replace(self.record, version=self.record.version + 1, **fields)


class Timetable(msgspec.Struct):
    """Schedules by key, and their loans; moments and spans are milliseconds. The rules are `ScheduleStore`'s."""

    version: int = 0
    """Grows with each change: of two values the one with the higher version counts."""
    receipts: int = 0
    """How many loans there were."""
    lines: dict[str, _Line] = msgspec.field(default_factory=dict)

    # Looking

    def get(self, key: str) -> ScheduleRecord | None:
        """The record of this key."""
        line = self.lines.get(key)
        return None if line is None else line.record

    def all(self, group: str | None) -> list[ScheduleRecord]:
        """Those of a group, or all, in order of key."""
        return [line.record for _, line in sorted(self.lines.items()) if group in (None, line.record.group)]

    def next_due(self, groups: Collection[str] | None) -> int | None:
        """The earliest tick, or end of a loan."""
        moments = [line.until if line.receipt else line.record.next for line in self._wanted(groups)]
        return min((moment for moment in moments if moment is not None), default=None)

    def _wanted(self, groups: Collection[str] | None) -> list[_Line]:
        return [line for line in self.lines.values() if _may_fire(line.record, groups)]

    # Changing: each says how much it has changed

    def put(self, records: Sequence[ScheduleRecord]) -> int:
        """Add or replace all, or none: raises `ConfigurationError`."""
        for record in records:
            _check(self.get(record.key), record)
        return sum([self._put(record) for record in records])

    def _put(self, given: ScheduleRecord) -> bool:
        line = self.lines.get(given.key)
        if line is None:
            self.lines[given.key] = _Line(msgspec.structs.replace(given, version=1))
            return True
        old = line.record
        replanned = given.trigger != old.trigger
        new = msgspec.structs.replace(
            given,
            last=old.last,
            last_job=old.last_job,
            paused=old.paused,
            next=given.next if replanned else old.next,
            version=old.version,
        )
        if new == old:
            return False
        line.record = msgspec.structs.replace(new, version=old.version + 1)
        if replanned:
            line.receipt = 0
        return True

    def remove(self, keys: Sequence[str]) -> int:
        """Delete."""
        return sum([self.lines.pop(key, None) is not None for key in keys])

    def pause(self, keys: Sequence[str], paused: bool | None, next_ticks: Sequence[int | None]) -> int:
        """Pause, resume or plan anew; what gets another tick is not lent any more."""
        found = 0
        for place, key in enumerate(keys):
            line = self.lines.get(key)
            if line is None:
                continue
            found += 1
            fields: dict[str, object] = {} if paused is None else {"paused": paused}
            if next_ticks:
                fields["next"] = next_ticks[place]
                line.receipt = 0
            line.change(**fields)
        return found

    def claim(self, now: int, lease: int, groups: Collection[str] | None, limit: int) -> list[Fire]:
        """Lend out what is due, the oldest tick first."""
        due = sorted((line.record.next or 0, line.record.key) for line in self._wanted(groups))
        lines = [self.lines[key] for tick, key in due if tick <= now]
        free = [line for line in lines if not (line.receipt and now < line.until <= now + lease + _SET_BACK)]
        fires = []
        for line in free[:limit]:
            self.receipts += 1
            line.receipt, line.until = self.receipts, now + lease
            fires.append(Fire(record=line.record, receipt=line.receipt))
        return fires

    def advance(self, fire: Fire, last: int | None, next_tick: int | None, job_id: str) -> bool:
        """End a loan, if it is one yet."""
        line = self.lines.get(fire.record.key)
        if line is None or not line.receipt or line.receipt != fire.receipt:
            return False
        line.receipt = 0
        line.change(next=next_tick, **({} if last is None else {"last": last, "last_job": job_id}))
        return True


def _may_fire(record: ScheduleRecord, groups: Collection[str] | None) -> bool:
    return record.next is not None and not record.paused and (groups is None or record.group in groups)


def _check(old: ScheduleRecord | None, given: ScheduleRecord) -> None:
    if old is None:
        return
    if "runtime" in (old.origin, given.origin) and old.origin != given.origin:
        raise ConfigurationError(
            f"schedule {given.key!r}: there is one already, of origin {old.origin!r} and app {old.app!r}; one of "
            f"origin {given.origin!r} does not replace it. Take another key, or first: "
            f"camora schedules remove {given.key}"
        )
    if given.origin != "runtime" and old.app != given.app:
        raise ConfigurationError(
            f"schedule {given.key!r}: app {old.app!r} declares it (origin {old.origin!r}), and so does app "
            f"{given.app!r}. Take another key, or, if {old.app!r} is no more: camora schedules remove {given.key}"
        )
