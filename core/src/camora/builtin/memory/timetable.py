"""What a memory store knows of schedules: plain data and its rules, without locks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import msgspec

from camora.builtin.memory.waiting import Waiter
from camora.errors import ConfigurationError
from camora.interfaces.schedule import Fire, ScheduleRecord

__all__ = ["Timetable"]

_SET_BACK = 60_000
"""Milliseconds by which a loan may end later than one made now; beyond that, the clock was set back."""


@attrs.define
class _Line:
    record: ScheduleRecord
    receipt: int = 0
    """That of the loan under way; 0 for none."""
    until: int = 0

    def lent(self, now: int, lease: int) -> bool:
        return self.receipt != 0 and now < self.until <= now + lease + _SET_BACK

    def write(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, version=self.record.version + 1, **changes)


class Timetable:
    """Schedules by key, and their loans. Moments and spans are milliseconds."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._receipts = 0
        self.changes = 0
        """Grows when somebody puts, removes, pauses or resumes."""
        self.told = 0
        """Up to which of the changes those who wait have been woken."""
        self.waiters: set[Waiter[None]] = set()

    def put(self, records: Sequence[ScheduleRecord]) -> None:
        """See `ScheduleStore.put`."""
        for record in records:
            _refuse_clash(self._lines.get(record.key), record)
        for record in records:
            line = self._lines.get(record.key)
            if line is None:
                self._lines[record.key] = _Line(msgspec.structs.replace(record, version=1))
            elif not self._replace(line, record):
                continue
            self.changes += 1

    def _replace(self, line: _Line, given: ScheduleRecord) -> bool:
        old = line.record
        same_trigger = given.trigger == old.trigger
        kept = {"last": old.last, "last_job": old.last_job, "paused": old.paused, "version": old.version}
        new = msgspec.structs.replace(given, **kept, next=old.next if same_trigger else given.next)
        if new == old:
            return False
        line.record = msgspec.structs.replace(new, version=old.version + 1)
        if not same_trigger:
            line.receipt = 0
        return True

    def remove(self, keys: Sequence[str]) -> int:
        """See `ScheduleStore.remove`."""
        gone = sum(self._lines.pop(key, None) is not None for key in keys)
        self.changes += gone
        return gone

    def get(self, key: str) -> ScheduleRecord | None:
        """The record of this key."""
        line = self._lines.get(key)
        return None if line is None else line.record

    def all(self, group: str | None) -> list[ScheduleRecord]:
        """Those of a group, or all, in order of key."""
        found = [line.record for line in self._lines.values() if group is None or line.record.group == group]
        return sorted(found, key=lambda record: record.key)

    def pause(self, keys: Sequence[str], paused: bool | None, next_ticks: Sequence[int | None]) -> int:
        """See `ScheduleStore.pause`."""
        found = 0
        for place, key in enumerate(keys):
            line = self._lines.get(key)
            if line is None:
                continue
            found += 1
            line.write(paused=line.record.paused if paused is None else paused)
            if next_ticks:
                line.write(next=next_ticks[place])
                line.receipt = 0
        self.changes += found
        return found

    def claim(self, now: int, lease: int, groups: Collection[str] | None, limit: int) -> list[Fire]:
        """See `ScheduleStore.claim`."""
        due = [
            (line.record.next, key)
            for key, line in self._lines.items()
            if line.record.next is not None and line.record.next <= now and _wanted(line, groups)
        ]
        fires: list[Fire] = []
        for _, key in sorted(due):
            line = self._lines[key]
            if line.lent(now, lease):
                continue
            if len(fires) == limit:
                break
            self._receipts += 1
            line.receipt, line.until = self._receipts, now + lease
            fires.append(Fire(record=line.record, receipt=line.receipt))
        return fires

    def advance(self, fire: Fire, last: int | None, next_tick: int | None, job_id: str) -> bool:
        """See `ScheduleStore.advance`."""
        line = self._lines.get(fire.record.key)
        if line is None or not line.receipt or line.receipt != fire.receipt:
            return False
        line.receipt = 0
        if last is None:
            line.write(next=next_tick)
        else:
            line.write(next=next_tick, last=last, last_job=job_id)
        return True

    def next_due(self, groups: Collection[str] | None) -> int | None:
        """See `ScheduleStore.next_due`."""
        return min(
            (
                line.until if line.receipt else line.record.next
                for line in self._lines.values()
                if line.record.next is not None and _wanted(line, groups)
            ),
            default=None,
        )


def _wanted(line: _Line, groups: Collection[str] | None) -> bool:
    return not line.record.paused and (groups is None or line.record.group in groups)


def _refuse_clash(line: _Line | None, given: ScheduleRecord) -> None:
    if line is None:
        return
    old = line.record
    if (old.origin == "runtime") != (given.origin == "runtime"):
        raise ConfigurationError(
            f"schedule {given.key!r} is there already: its origin is {old.origin!r}, of app {old.app!r}, and one of "
            f"origin {given.origin!r} cannot take its place. Choose another key, or remove it first: "
            f"camora schedules remove {given.key}"
        )
    if given.origin != "runtime" and old.app != given.app:
        raise ConfigurationError(
            f"schedule {given.key!r} (origin {old.origin!r}) is app {old.app!r}'s; app {given.app!r} cannot "
            f"declare it, too. Choose another key, or, if {old.app!r} is gone: camora schedules remove {given.key}"
        )
