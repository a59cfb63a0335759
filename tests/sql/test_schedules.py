"""Schedules in a database, and schedulers that are killed in the middle of a tick."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from camora.errors import ConfigurationError
from camora.interfaces.schedule import ScheduleRecord
from camora_sql import plugin
from camora_sql.broker import SqlBroker
from camora_sql.schedules import SqlScheduleStore
from camora_sql.statements import schedules as statements

from tests.sql.processes import Process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camora.db"


async def test_each_tick_is_fired_once_whoever_is_killed(path: Path) -> None:
    url = f"sqlite:///{path}"
    broker = SqlBroker(url)
    store = broker.own_schedules()
    await broker.open()
    await store.open()
    keys = [f"key-{number}" for number in range(8)]
    last = 12
    await store.put([ScheduleRecord(key=key, next=1) for key in keys])
    processes = [Process("fire", url, last) for _ in range(3)]
    try:
        for process in processes:
            assert process.hears() == "ready"
            process.go()
        # One is killed wherever it is; the others repeat what it began.
        assert processes[0].hears()
        processes[0].kill()
        processes[0].close()
        for process in processes[1:]:
            while process.hears() != "done":
                pass
            assert process.close() == 0
    finally:
        for process in processes:
            process.kill()
    ids = sorted(row[0] for row in _rows(path, "SELECT id FROM camora_jobs"))
    assert ids == sorted(f"{key}@{tick}" for key in keys for tick in range(1, last + 1))
    assert [(record.last, record.next) for record in await store.list()] == [(last, None)] * len(keys)
    await store.close()
    await broker.close()


async def test_a_trigger_that_comes_back_from_json_is_no_other_trigger(path: Path) -> None:
    store = SqlBroker(f"sqlite:///{path}").own_schedules()
    await store.open()
    declared = ScheduleRecord(key="a", trigger={"use": "calendar", "minutes": (0, 30)}, next=5)
    await store.put([declared])
    [before] = await store.list()
    [fire] = await store.claim(5, holder="me", lease=60)
    # As each deploy does.
    await store.put([ScheduleRecord(key="a", trigger={"use": "calendar", "minutes": (0, 30)}, next=99)])
    [after] = await store.list()
    assert after == before
    assert await store.advance(fire, last=5, next_tick=6)
    await store.close()


async def test_the_provider_makes_one_by_url(path: Path) -> None:
    [provider] = plugin.camora_schedule_stores()
    assert "sqlite" in provider.schemes
    store = provider.make(f"sqlite:///{path}?synchronous=normal", {"busy_timeout": 1})
    assert isinstance(store, SqlScheduleStore)
    await store.open()
    await store.put([ScheduleRecord(key="a", app="shop")])
    with pytest.raises(ConfigurationError, match="'a'.*'shop'"):
        await store.put([ScheduleRecord(key="a", app="bank")])
    await store.close()


async def test_what_is_due_is_found_by_index(path: Path) -> None:
    broker = SqlBroker(f"sqlite:///{path}")
    await broker.open()
    sql = broker.database.statements(statements.due_schedules, 0)[0]
    database = sqlite3.connect(path)
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [0] * sql.count("?"))]
    database.close()
    assert any("camora_schedules_next" in step for step in plan), plan
    await broker.close()


def _rows(path: Path, query: str) -> list[tuple[str, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()
