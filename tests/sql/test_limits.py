"""Limits and workers in a database: over processes, deploys and reboots."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from camora.interfaces.limits import Ask, Limit, Limits
from camora.interfaces.workers import WorkerInfo
from camora.testing.clock import VirtualClock
from camora_sql.broker import SqlBroker
from camora_sql.dialects.sqlite import SqliteDialect

from tests.sql.processes import Process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camora.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def limits(path: Path, clock: VirtualClock) -> AsyncIterator[Limits]:
    limits = SqlBroker(f"sqlite:///{path}", clock=clock).own_limits()
    await limits.open()
    yield limits
    await limits.close()


def rate(most: int, per: float) -> Limit:
    return Limit(name="rate", most=most, per=per)


async def ask(limits: Limits, *wanted: Limit, holder: str = "h", lease: float = 60.0) -> float:
    [answer] = await limits.take([Ask(holder=holder, limits=wanted)], lease=lease)
    return answer


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        database.close()


async def test_processes_share_a_limit_and_the_slots_of_a_killed_one_lapse(path: Path) -> None:
    limits = SqlBroker(f"sqlite:///{path}").own_limits()
    await limits.open()
    slot = Limit(name="slot", most=1)
    process = Process("hold_a_slot", f"sqlite:///{path}")
    try:
        assert process.hears() == "ready"
        process.go()
        assert process.hears() == [0.0]
        assert await ask(limits, slot, holder="here") > 0
        process.go()
        assert process.hears() == "given back"
        assert await ask(limits, slot, holder="here") == 0.0
        await limits.give_back(["here"])
        process.go()
        assert process.hears() == [0.0]
    finally:
        process.kill()
        process.close()
    # Nobody keeps its slot any more; it is free when its lease is over, and no sooner.
    [use] = await limits.usage(["slot"])
    assert use.holders == ("there",)
    assert 0 < await ask(limits, slot, holder="here") <= 1.0
    await limits.close()


async def test_a_rate_that_a_deploy_changes_goes_on_from_what_was_granted(limits: Limits, clock: VirtualClock) -> None:
    for _ in range(3):
        assert await ask(limits, rate(3, 1.0)) == 0.0
    # Longer: what was granted counts for the longer time.
    wait = await ask(limits, rate(4, 3600.0))
    assert wait == 0.0
    assert 3500 < await ask(limits, rate(4, 3600.0)) < 3700
    # Shorter: and it is not stuck.
    assert 0 < await ask(limits, rate(4, 1.0)) < 1.1
    clock.advance(3700)
    assert await ask(limits, rate(1, 1.0)) == 0.0
    assert 0 < await ask(limits, rate(1, 1.0)) < 1.1


async def test_what_counts_nothing_any_more_is_deleted(limits: Limits, path: Path, clock: VirtualClock) -> None:
    many = [Limit(name=f"rate of {number}", most=1, per=60.0) for number in range(20)]
    await ask(limits, *many, Limit(name="slot", most=1), lease=10.0)
    assert (len(rows(path, "camora_rates")), len(rows(path, "camora_slots"))) == (20, 1)
    clock.advance(61)
    limits._prune_at = 0.0  # type: ignore[attr-defined]
    await ask(limits, Limit(name="other", most=1, per=1.0))
    assert [row[0] for row in rows(path, "camora_rates")] == ["other"]
    assert rows(path, "camora_slots") == []


async def test_after_a_reboot_slots_and_workers_are_gone_and_rates_are_not_doubled(path: Path) -> None:
    broker = SqlBroker(f"sqlite:///{path}")
    if not SqliteDialect(broker.url, broker.database.settings).lease_epoch():
        pytest.skip("this system does not name its boots")
    limits, workers = broker.own_limits(), broker.own_workers()
    await limits.open()
    await workers.open()
    slot = Limit(name="slot", most=1)
    assert await ask(limits, rate(2, 3600.0), slot, holder="one") == 0.0
    await workers.report(WorkerInfo(name="w"), ttl=3600)
    assert await workers.order("w", "stop")
    await limits.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE camora_facts SET value = 'an earlier boot' WHERE name = 'lease_epoch'")
        # Its clock ran for years, this one's has just begun.
        database.execute("UPDATE camora_rates SET grants = '[[100000000,1]]', until = 9000000000000")
        database.execute("UPDATE camora_slots SET until = 9000000000000")
        database.execute("UPDATE camora_workers SET until = 9000000000000")
    database.close()
    limits, again = broker.own_limits(), broker.own_workers()
    await limits.open()
    await again.open()
    assert list(await again.list()) == []
    assert list(await workers.report(WorkerInfo(name="w"), ttl=3600)) == []
    assert await ask(limits, slot, holder="two") == 0.0
    assert [use.used for use in await limits.usage(["rate"])] == [1]
    assert await ask(limits, rate(2, 3600.0)) == 0.0
    # The one before counts from now on, not for years.
    assert 3500 < await ask(limits, rate(2, 3600.0)) < 3700
    for opened in (limits, workers, again):
        await opened.close()


async def test_reports_wake_nobody_who_waits_for_work(path: Path) -> None:
    broker = SqlBroker(f"sqlite:///{path}")
    await broker.open()
    announced: list[int] = []
    broker.database.dialect.announce = lambda: announced.append(1)  # type: ignore[method-assign]
    workers, limits = broker.own_workers(), broker.own_limits()
    await workers.open()
    await limits.open()
    await workers.report(WorkerInfo(name="w"), ttl=60)
    await ask(limits, rate(2, 3600.0), Limit(name="slot", most=1))
    await limits.keep(["h"], lease=60)
    await limits.give_back(["h"])
    assert announced == []
    await limits.close()
    await workers.close()
    await broker.close()
