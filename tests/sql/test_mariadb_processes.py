"""Several processes on one MariaDB."""

from __future__ import annotations

import pytest
from camora import Camora
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.schedule import ScheduleRecord

from tests.servers.mariadb import fresh_url
from tests.sql.processes import Process, message, playing


@pytest.fixture
def url() -> str:
    return fresh_url()


async def test_many_processes_make_one_schema(url: str) -> None:
    with playing("open_first", 5, url) as processes:
        for process in processes:
            process.go()
        assert [process.hears() for process in processes] == ["done"] * 5
    async with Camora(url) as app:
        assert await app.broker.queues.counts() == {"work": {"ready": 5}}


async def test_ids_published_by_many_processes_at_once_are_stored_once(url: str) -> None:
    count = 350
    with playing("publish_ids", 4, url, count) as processes:
        for process in processes:
            process.go()
        for process in processes:
            assert process.hears() == [f"job-{number:05}" for number in range(count)]
    async with Camora(url) as app:
        assert await app.broker.queues.counts() == {"work": {"ready": count}}


async def test_ids_are_stored_once_while_others_finish_them(url: str) -> None:
    """Who publishes an id at the very moment at which it ends stores nothing."""
    count = 350
    async with Camora(url) as app:
        broker = app.broker
        ids = [f"job-{number:05}" for number in range(count)]
        await broker.publish([message(job_id) for job_id in ids])
        with playing("drain", 2, url) as draining, playing("publish_ids", 2, url, count) as publishing:
            for process in (*draining, *publishing):
                process.go()
            for process in publishing:
                process.hears()
            done = [job_id for process in draining for job_id in process.hears()]
        consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="last"))
        rest = [one.id for one in await consumer.receive(count, 0)]
        await consumer.close()
    # Each has run once, or waits for its only run.
    assert sorted(done + rest) == ids


async def test_processes_agree_on_who_holds_a_key(url: str) -> None:
    count = 60
    with playing("publish_keys", 4, url, count) as processes:
        for process in processes:
            process.go()
        answers = [process.hears() for process in processes]
    assert all(answer == answers[0] for answer in answers)
    async with Camora(url) as app:
        assert await app.broker.queues.counts() == {"work": {"ready": count}}


async def test_processes_that_drain_one_queue_share_it_without_overlap(url: str) -> None:
    ids = [f"job-{number:05}" for number in range(2_000)]
    async with Camora(url) as app:
        await app.broker.publish([message(job_id) for job_id in ids])
        with playing("drain", 4, url) as processes:
            for process in processes:
                process.go()
            shares = [process.hears() for process in processes]
        assert sorted(job_id for share in shares for job_id in share) == ids
        assert not any((await app.broker.queues.counts()).values())
        records = await app.results.fetch(ids)
    owners = {record.id: record.worker for record in records if record is not None}
    assert len(owners) == len(ids)
    for process, share in zip(processes, shares, strict=True):
        assert {owners[job_id] for job_id in share} <= {str(process.pid)}


async def test_what_was_acknowledged_to_a_process_that_is_killed_is_there(url: str) -> None:
    acknowledged: list[str] = []
    async with Camora(url) as app:
        await app.broker.queues.counts()
        for _ in range(4):
            process = Process("publish_for_ever", url)
            try:
                assert process.hears() == "ready"
                process.go()
                acknowledged += [process.hears() for _ in range(40)]
            finally:
                process.kill()
                process.close()
        there = {job.id for job in await app.broker.queues.list("work", limit=10_000)}
    assert set(acknowledged) <= there


async def test_each_tick_is_fired_once_whoever_is_killed(url: str) -> None:
    keys = [f"key-{number}" for number in range(5)]
    last = 8
    async with Camora(url) as app:
        store = app.broker.own_schedules()
        assert store is not None
        await store.open()
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
        ids = sorted(job.id for job in await app.broker.queues.list("work", limit=1000))
        assert ids == sorted(f"{key}@{tick}" for key in keys for tick in range(1, last + 1))
        assert [(record.last, record.next) for record in await store.list()] == [(last, None)] * len(keys)
        await store.close()
