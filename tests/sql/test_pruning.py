"""Records deleted by age: the right ones, in steps, and without forgetting too soon that their jobs ran."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from camora.clock import SYSTEM_CLOCK
from camora.errors import SettingsError
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import JobRecord, Status
from camora_sql.broker import SqlBroker
from camora_sql.results import SqlResultBackend

from tests.servers.fixtures import fresh_postgres_url
from tests.sql.processes import message

HOUR = 3_600_000


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/camora.db?synchronous=normal"


@pytest.fixture
async def results(url: str) -> AsyncIterator[SqlResultBackend]:
    results = SqlResultBackend(url)
    await results.open()
    yield results
    await results.close()


def finished(job_id: str, at: int, status: Status = Status.SUCCEEDED) -> JobRecord:
    return JobRecord(id=job_id, status=status, finished=at, ttl=86_400.0)


async def left(results: SqlResultBackend, *ids: str) -> list[str]:
    return [record.id for record in await results.fetch(ids) if record is not None]


async def test_the_old_go_and_the_new_and_unfinished_stay(results: SqlResultBackend) -> None:
    now = SYSTEM_CLOCK.now_ms()
    running = JobRecord(id="running", status=Status.RUNNING, started=now - 9 * HOUR, ttl=86_400.0)
    old = [finished("old", now - 3 * HOUR), finished("failed", now - 3 * HOUR, Status.FAILED)]
    await results.store([*old, finished("edge", now - 2 * HOUR), finished("new", now), running])
    assert await results.prune(now - 2 * HOUR, only_successful=True) == 1
    assert await left(results, "old", "failed", "edge", "new", "running") == ["failed", "edge", "new", "running"]
    assert await results.prune(now - 2 * HOUR) == 1
    assert await results.prune(now - 2 * HOUR) == 0
    assert await left(results, "failed", "edge", "new", "running") == ["edge", "new", "running"]


async def test_it_goes_in_steps(results: SqlResultBackend) -> None:
    now = SYSTEM_CLOCK.now_ms()
    await results.store([finished(f"job-{number:04}", now - HOUR) for number in range(700)])
    counts = [await results.prune(now, limit=300) for _ in range(4)]
    assert counts == [300, 300, 100, 0]


async def test_a_job_whose_record_was_pruned_does_not_run_twice_within_its_window(
    results: SqlResultBackend, url: str
) -> None:
    now = SYSTEM_CLOCK.now_ms()
    await results.store([finished("just now", now - 1000), finished("long ago", now - 2 * HOUR)])
    assert await results.prune(now) == 2
    broker = SqlBroker(url)
    await broker.open()
    await broker.publish([message("just now"), message("long ago")])
    assert await broker.queues.find("just now") is None
    assert await broker.queues.find("long ago") is not None
    await broker.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_workers_keep_no_more_records_than_are_wanted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camora_sql.consumer._PRUNE_EVERY", 0.0)
    url = fresh_postgres_url() if kind == "postgresql" else f"sqlite:///{tmp_path}/camora.db?synchronous=normal"
    broker = SqlBroker(f"{url}&max_records=3")
    results = broker.own_results()
    await broker.open()
    await results.open()
    now = SYSTEM_CLOCK.now_ms()
    await results.store([finished(f"job-{number:03}", now - HOUR // 2 + number) for number in range(10)])
    running = JobRecord(id="running", status=Status.RUNNING, started=now - 9 * HOUR, ttl=60.0)
    await results.store([finished("newest", now), running])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w"))
    ids = [*(f"job-{number:03}" for number in range(10)), "newest", "running"]
    async with asyncio.timeout(30):
        while True:
            await consumer.receive(1, 0.0)
            with_records = await results.fetch(ids)
            if len([record for record in with_records if record and record.status.finished]) <= 3:
                break
    for _ in range(10):
        await consumer.receive(1, 0.0)
    with_records = await results.fetch(ids)
    assert len([record for record in with_records if record and record.status.finished]) == 3
    assert with_records[-1] is not None
    # One that has just finished is known all the same.
    await broker.publish([message("newest"), message("job-000")])
    assert not await consumer.receive(2, 0.0)
    for opened in (consumer, results, broker):
        await opened.close()


def test_a_number_of_records_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="max_records"):
        SqlBroker(f"sqlite:///{tmp_path}/camora.db?max_records=-1")
