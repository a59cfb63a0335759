"""Waking on MariaDB, which tells nobody: this process at once, others by looking, and idle ones seldom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import JobRecord, Status
from camora_sql.broker import SqlBroker
from camora_sql.dialects import mysql_wakeup
from camora_sql.dialects.mysql_wakeup import Pace, PacedWakeups
from camora_sql.drivers.asyncmy import AsyncmyDriver
from camora_sql.wakeup import Topic

from tests.servers.mariadb import fresh_url
from tests.sql.processes import message


@pytest.fixture
def url() -> str:
    return fresh_url()


@pytest.fixture
async def broker(url: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def stranger(url: str) -> AsyncIterator[SqlBroker]:
    """One that shares nothing with the other but the database, as one of another process."""
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


async def test_waiting_costs_a_question_a_fifth_of_a_second(broker: SqlBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    run = AsyncmyDriver._run

    async def counted(self: AsyncmyDriver, text: bytes) -> object:
        asked.append(text)
        return await run(self, text)

    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    assert not await consumer.receive(1, 1.5)  # it begins quickly, and gets slower
    monkeypatch.setattr(AsyncmyDriver, "_run", counted)
    used = time.process_time()
    for _ in range(3):  # a worker waits again and again, and that is no reason to look more often
        assert not await consumer.receive(1, 1.0)
    used = time.process_time() - used
    print(f"{len(asked)} questions, {used * 1000:.0f} ms of CPU in 3 s")
    assert 5 <= len(asked) <= 30
    assert not any(b"START TRANSACTION" in text or b"FOR UPDATE" in text for text in asked)
    await consumer.close()


async def test_news_of_this_process_wake_at_once(broker: SqlBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = broker.twin()
    await twin.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    # Only what is announced wakes now, or the look that everybody has once a second.
    monkeypatch.setattr(mysql_wakeup, "_SHORTEST", 60.0)
    monkeypatch.setattr(mysql_wakeup, "_LONGEST", 60.0)
    broker.database.dialect.announce()
    delays = []
    for number in range(5):
        receiving = asyncio.ensure_future(consumer.receive(1, 30))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await twin.publish([message(f"job-{number}")])
        [_] = await receiving
        delays.append(time.monotonic() - began)
    assert sorted(delays)[2] < 0.4, delays
    await consumer.close()
    await twin.close()


async def test_news_of_others_are_found_by_looking(broker: SqlBroker, stranger: SqlBroker) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    results = broker.own_results()
    theirs = stranger.own_results()
    await results.open()
    await theirs.open()
    assert not await consumer.receive(1, 1.5)
    delays = []
    for number in range(5):
        receiving = asyncio.ensure_future(consumer.receive(1, 30))
        waiting = asyncio.ensure_future(results.wait(f"job-{number}", 30))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await stranger.publish([message(f"job-{number}")])
        [_] = await receiving
        await theirs.store([JobRecord(id=f"job-{number}", status=Status.SUCCEEDED, ttl=60.0)])
        assert await waiting is not None
        delays.append(time.monotonic() - began)
    assert sorted(delays)[2] < 1, delays
    for one in (results, theirs):
        await one.close()
    await consumer.close()


async def test_the_pace_slows_down_and_news_quicken_it() -> None:
    pace = Pace()
    wakeups = PacedWakeups(pace)
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    paces = [pace.seconds]
    end = wakeups.subscribe(Topic.JOBS, wake)
    while pace.seconds > paces[-1] or woken < 25:
        paces.append(pace.seconds)
        await asyncio.sleep(0.01)
    assert paces == sorted(paces)
    assert pace.seconds == 0.2
    before = woken
    await asyncio.to_thread(pace.announce)
    await asyncio.sleep(0)
    assert woken == before + 1
    assert pace.seconds == 0.005
    end()
    # Nobody waits: nothing is done.
    before = woken
    await asyncio.sleep(0.1)
    assert (woken, wakeups._timer) == (before, None)
    wakeups.close()
