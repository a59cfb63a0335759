"""Schedules in a table, for the schedulers of any number of processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Self

from camora.interfaces.schedule import Fire, ScheduleRecord, ScheduleStore

from camora_sql.link import Link
from camora_sql.planning import record_from, replaced, row_of
from camora_sql.session import Session
from camora_sql.statements import read_fact, write_fact
from camora_sql.statements import schedules as statements
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["SqlScheduleStore"]

_CHANGED = "schedules_changed"
"""The fact that has another value after each change."""
_SET_BACK = 60_000
"""Milliseconds by which a loan may end later than one made now; beyond that, the clock was set back."""
_BREATH = 0.1
"""Seconds between two looks: commits of others, which wake too, may be many."""


class SqlScheduleStore(ScheduleStore):
    """Each method is one transaction, or one look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"SqlScheduleStore({store.dialect.label})")
        self._seen: str | None = None

    def __repr__(self) -> str:
        return f"SqlScheduleStore({self._store.dialect.label!r})"

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()
        self._seen = await self._link.read(_change)

    async def put(self, records: Sequence[ScheduleRecord]) -> None:
        """One transaction."""
        if not records:
            return

        def put(session: Session) -> None:
            session.lock("schedules")
            rows = session.rows_in(statements.read_schedules, [record.key for record in records])
            known = {row[0]: (record_from(row), row[-2:]) for row in rows}
            changed = False
            for given in records:
                old, loan = known.get(given.key, (None, (0, 0)))
                new = replaced(old, given)
                if new is None:
                    continue
                if old is None or new.trigger != old.trigger:
                    loan = (0, 0)
                session.change(statements.put_schedule, (*row_of(new), *loan))
                known[given.key] = (new, loan)
                changed = True
            if changed:
                _tell(session)

        await self._link.write(put)

    async def remove(self, keys: Sequence[str]) -> int:
        """One transaction."""
        if not keys:
            return 0

        def remove(session: Session) -> int:
            gone = session.change_in(statements.delete_schedules, list(dict.fromkeys(keys)))
            if gone:
                _tell(session)
            return gone

        return await self._link.write(remove)

    async def get(self, keys: Sequence[str]) -> Sequence[ScheduleRecord | None]:
        """One look."""
        rows = await self._link.read(lambda session: session.rows_in(statements.read_schedules, keys))
        found = {row[0]: record_from(row) for row in rows}
        return [found.get(key) for key in keys]

    async def list(self, group: str | None = None) -> Sequence[ScheduleRecord]:
        """One look."""

        def read(session: Session) -> Sequence[Any]:
            if group is None:
                return session.rows(statements.list_schedules)
            return session.rows(statements.list_schedules_of, (group,))

        # In order of code point, which not every database has.
        return sorted(map(record_from, await self._link.read(read)), key=lambda record: record.key)

    async def pause(
        self, keys: Sequence[str], *, paused: bool | None = True, next_ticks: Sequence[int | None] = ()
    ) -> int:
        """One transaction."""
        if not keys:
            return 0
        flag = None if paused is None else int(paused)

        def pause(session: Session) -> int:
            found = 0
            for place, key in enumerate(keys):
                there = session.change(statements.pause_schedule, (flag, key))
                if there and next_ticks:
                    session.change(statements.plan_schedule, (next_ticks[place], key))
                found += there
            if found:
                _tell(session)
            return found

        return await self._link.write(pause)

    async def claim(
        self, now: int, *, holder: str, lease: float, groups: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[Fire]:
        """One transaction, if a look before it finds something."""
        if limit <= 0 or (groups is not None and not groups):
            return []
        until = now + round(lease * 1000)
        build = statements.due_schedules if groups is None else statements.due_schedules_of
        values = (*(groups or ()), now, now, until + _SET_BACK, limit)

        def due(session: Session) -> Sequence[Any]:
            return session.rows(build, values, len(groups or ()))

        def lend(session: Session) -> list[Fire]:
            rows = due(session)
            receipt = int.from_bytes(os.urandom(7), "big") + 1
            session.change_in(statements.lend_schedules, [row[0] for row in rows], (receipt, until))
            return [Fire(record=record_from(row), receipt=receipt) for row in rows]

        if not await self._link.read(due):
            return []
        return await self._link.write(lend)

    async def advance(self, fire: Fire, *, last: int | None, next_tick: int | None, job_id: str = "") -> bool:
        """Fenced by the receipt."""
        held = (fire.record.key, fire.receipt)

        def advance(session: Session) -> bool:
            if last is None:
                return session.change(statements.advance_only, (next_tick, *held)) == 1
            return session.change(statements.advance_fired, (last, job_id, next_tick, *held)) == 1

        return await self._link.write(advance)

    async def next_due(self, groups: Sequence[str] | None = None) -> int | None:
        """One look."""
        if groups is not None and not groups:
            return None
        build = statements.next_schedule if groups is None else statements.next_schedule_of
        rows = await self._link.read(lambda session: session.rows(build, groups or (), len(groups or ())))
        moment = rows[0][0]
        return None if moment is None else int(moment)

    async def changed(self, timeout: float) -> None:
        """Woken by commits; a change is told from others by a fact that changes with it."""
        woken = asyncio.Event()
        # Subscribed first, looked second: what comes in between wakes.
        unsubscribe = self._link.wakeups.subscribe(Topic.SCHEDULES, woken.set)
        try:
            async with asyncio.timeout(max(timeout, 0)):
                while not await self._has_changed():
                    await asyncio.sleep(_BREATH)
                    await _wait(woken, self._link.wakeups.floor)
                    woken.clear()
        except TimeoutError:
            pass
        finally:
            unsubscribe()

    async def _has_changed(self) -> bool:
        now = await self._link.read(_change)
        if now == self._seen:
            return False
        self._seen = now
        return True

    def twin(self) -> Self:
        """Another one on the same database, with a connection of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection."""
        await self._link.close()


async def _wait(woken: asyncio.Event, longest: float) -> None:
    timer = asyncio.get_running_loop().call_later(longest, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()


def _change(session: Session) -> str | None:
    rows = session.rows(read_fact, (_CHANGED,))
    return str(rows[0][0]) if rows else None


def _tell(session: Session) -> None:
    """Schedules are not what they were: tell it with the commit."""
    session.change(write_fact, (_CHANGED, os.urandom(8).hex()))
    session.announce(Topic.SCHEDULES)
