"""Several processes on one file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import time
from pathlib import Path

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, CamoraError
from camora.interfaces.broker import Broker, ConsumerSettings

from tests.sql.processes import Process, message, playing


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/camora.db"


async def test_many_processes_create_one_database(url: str, tmp_path: Path) -> None:
    with playing("open_first", 6, url) as processes:
        for process in processes:
            process.go()
        assert [process.hears() for process in processes] == ["done"] * 6
    broker = Camora(url).broker
    await broker.open()
    assert await broker.queues.counts() == {"work": {"ready": 6}}
    await broker.close()


async def test_ids_published_by_many_processes_at_once_are_stored_once(url: str) -> None:
    count = 350
    with playing("publish_ids", 4, url, count) as processes:
        for process in processes:
            process.go()
        for process in processes:
            assert process.hears() == [f"job-{number:05}" for number in range(count)]
    broker = Camora(url).broker
    await broker.open()
    assert await broker.queues.counts() == {"work": {"ready": count}}
    await broker.close()


async def test_processes_agree_on_who_holds_a_key(url: str) -> None:
    count = 60
    with playing("publish_keys", 4, url, count) as processes:
        for process in processes:
            process.go()
        answers = [process.hears() for process in processes]
    assert all(answer == answers[0] for answer in answers)
    broker = Camora(url).broker
    await broker.open()
    assert await broker.queues.counts() == {"work": {"ready": count}}
    await broker.close()


async def test_processes_that_drain_one_queue_share_it_without_overlap(url: str) -> None:
    ids = [f"job-{number:05}" for number in range(2_000)]
    broker = Camora(url).broker
    await broker.open()
    await broker.publish([message(job_id) for job_id in ids])
    with playing("drain", 4, url) as processes:
        for process in processes:
            process.go()
        shares = [process.hears() for process in processes]
    assert sorted(job_id for share in shares for job_id in share) == ids
    assert await broker.queues.counts() == {}
    results = broker.own_results()
    assert results is not None
    await results.open()
    records = await results.fetch(ids)
    owners = {record.id: record.worker for record in records if record is not None}
    assert len(owners) == len(ids)
    for process, share in zip(processes, shares, strict=True):
        assert {owners[job_id] for job_id in share} <= {str(process.pid)}
    await results.close()
    await broker.close()


async def test_a_publication_wakes_a_receiver_in_another_process(url: str) -> None:
    broker = Camora(url).broker
    await broker.open()
    count, delays = 30, []
    with playing("take", 1, url, count) as [process]:
        process.go()
        for number in range(count):
            begin = time.time()
            await broker.publish([message(f"job-{number}")])
            job_id, came = process.hears()
            assert job_id == f"job-{number}"
            delays.append(came - begin)
    # The floor is a second or more: whoever were woken by it would show.
    assert statistics.median(delays) < 0.3
    await broker.close()


async def test_a_delayed_message_of_another_process_comes_in_time(url: str) -> None:
    broker = Camora(url).broker
    await broker.open()
    with playing("take", 1, url, 1) as [process]:
        process.go()
        due = round(time.time() * 1000) + 400
        await broker.publish([message("later", due=due)])
        _, came = process.hears()
    assert due <= came * 1000 < due + 5000
    await broker.close()


async def test_a_record_of_another_process_ends_waiting(url: str) -> None:
    results = Camora(url).broker.own_results()
    assert results is not None
    await results.open()
    with playing("record", 1, url, "a-job") as [process]:
        process.go()
        record = await results.wait("a-job", 30)
        assert record is not None
        assert record.value == b"42"
        assert time.time() - process.hears() < 5
    await results.close()


async def test_what_a_killed_process_held_comes_to_another_one(url: str) -> None:
    broker = Camora(url).broker
    await broker.open()
    await broker.publish([message("held")])
    process = Process("take_and_hold", url)
    try:
        assert process.hears() == "ready"
        process.go()
        assert process.hears() == "held"
        consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
        assert not await consumer.receive(1, 0.0)
        process.kill()
        # Nobody publishes, nobody else works: waiting alone finds it.
        [delivery] = await consumer.receive(1, 30.0)
        assert (delivery.id, delivery.deliveries) == ("held", 2)
        await consumer.close()
    finally:
        process.kill()
        process.close()
    await broker.close()


async def test_what_was_acknowledged_to_a_killed_publisher_is_there(url: str) -> None:
    said: list[str] = []
    for _ in range(3):
        process = Process("publish_for_ever", url)
        try:
            assert process.hears() == "ready"
            process.go()
            said += [process.hears() for _ in range(40)]
        finally:
            process.kill()
            process.close()
    broker = Camora(url).broker
    await broker.open()
    for job_id in said:
        assert await broker.queues.find(job_id) is not None
    await broker.close()


async def test_a_transaction_of_another_program_is_waited_for(url: str, tmp_path: Path) -> None:
    broker = Camora(f"{url}?busy_timeout=30").broker
    await broker.open()
    other = sqlite3.connect(tmp_path / "camora.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    publishing = asyncio.create_task(broker.publish([message("patient")]))
    await asyncio.wait([publishing], timeout=0.3)
    assert not publishing.done()
    other.execute("COMMIT")
    other.close()
    assert await publishing == ["patient"]
    await broker.close()


async def test_a_transaction_that_does_not_end_is_no_lock_error(url: str, tmp_path: Path) -> None:
    broker = Camora(f"{url}?busy_timeout=0.2").broker
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    other = sqlite3.connect(tmp_path / "camora.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for step in (broker.publish([message("refused")]), broker.queues.pause("work")):
        with pytest.raises(BrokerUnavailable) as error:
            await step
        assert "camora.db" in str(error.value)
        assert "database is locked" not in str(error.value)
    # Looking does not need the lock.
    assert await broker.queues.find("refused") is None
    other.execute("COMMIT")
    other.close()
    assert await broker.publish([message("refused")]) == ["refused"]
    assert [one.id for one in await consumer.receive(1, 5.0)] == ["refused"]
    await consumer.close()
    await broker.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_an_open_broker_is_refused_in_a_forked_child_and_its_twin_works(url: str) -> None:
    broker = Camora(url).broker
    await broker.open()
    await broker.publish([message("parent")])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover -- in the child
        answer = b"?"
        try:
            # The parent's loop is no use here: the child makes its own, as multiprocessing does.
            asyncio.events._set_running_loop(None)
            answer = asyncio.new_event_loop().run_until_complete(_in_the_child(broker)).encode()
        except BaseException as error:
            answer = repr(error).encode()
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    assert answer.startswith("refused: "), answer
    assert "fork" in answer
    # Nothing the child did took anything from the parent.
    await broker.publish([message("after")])
    assert await broker.queues.counts() == {"work": {"ready": 3}}
    await broker.close()


async def _in_the_child(broker: Broker) -> str:
    try:
        await broker.publish([message("by the child")])
    except CamoraError as error:
        twin = broker.twin()
        await twin.open()
        await twin.publish([message("by the twin")])
        await twin.close()
        return f"refused: {error}"
    return "accepted"
