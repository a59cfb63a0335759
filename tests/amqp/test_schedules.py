"""Schedules in RabbitMQ alone: one message that is never lost, whoever dies when. (Its exam is with the others'.)"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import msgspec
import pytest
from camora import Camora, every
from camora.errors import BrokerUnavailable, ConfigurationError
from camora.interfaces.schedule import ScheduleRecord
from camora_amqp import schedules as schedules_module
from camora_amqp.alone import alone
from camora_amqp.control import Control
from camora_amqp.schedules import AmqpScheduleStore
from camora_amqp.store import Store
from camora_amqp.timetable import Timetable

from tests.end_to_end.processes import WorkerProcess
from tests.servers.rabbitmq import fresh_url
from tests.servers.rabbitmq_sturdy import Sturdy, sturdy_rabbitmq

__all__ = ["sturdy_rabbitmq"]  # a fixture

PATIENCE = 60.0
NOW = 1_700_000_000_000


@pytest.fixture
def url() -> str:
    return fresh_url()


def record(key: str, **changes: Any) -> ScheduleRecord:
    return ScheduleRecord(
        key=key, trigger={"use": "every", "seconds": 60}, task="t", queue="q", next=NOW, app="shop", **changes
    )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AmqpScheduleStore]:
    store = AmqpScheduleStore(Store.of_url(url))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def server_of(store: AmqpScheduleStore) -> AsyncIterator[Any]:
    """A channel of a stranger's."""
    address = store._store.address
    connection = await aio_pika.connect(address.url(address.hosts[0]))
    try:
        channel = connection.channel()
        await channel.initialize()
        yield await channel.get_underlay_channel()
    finally:
        await connection.close()


async def messages(store: AmqpScheduleStore) -> list[Timetable]:
    """What lies in the queue; it is there again afterwards."""
    found = []
    async with server_of(store) as channel:
        while (message := await channel.basic_get(store._queue)).body:
            found.append(msgspec.msgpack.decode(message.body, type=Timetable))
    return found


async def keys(store: AmqpScheduleStore) -> list[str]:
    return [found.key for found in await store.list()]


async def test_there_is_one_message_whatever_is_done(url: str) -> None:
    async with opened(url) as store, opened(url) as other:
        for number in range(5):
            await store.put([record(f"a{number}")])
            await other.claim(NOW, holder="me", lease=5)
            await other.remove([f"a{number}"])
            await store.next_due()
        await store.put([record("x")])
        with pytest.raises(ConfigurationError):
            await other.put([record("y"), record("x", origin="runtime")])
        assert [table.version for table in await messages(store)] == [16]
        assert await keys(store) == ["x"]


# Whoever dies between two steps


@pytest.mark.parametrize("order", ["old first", "new first"])
async def test_of_two_messages_the_later_one_counts(url: str, order: str) -> None:
    async with opened(url) as store:
        await store.put([record("a")])
        [old] = await messages(store)
        await store.put([record("b")])
        [new] = await messages(store)
        both = [old, new] if order == "old first" else [new, old]
        async with server_of(store) as channel:
            # As it is when somebody has stored the new one, and died before he acknowledged the old one.
            await channel.queue_purge(store._queue)
            for table in both:
                await channel.basic_publish(msgspec.msgpack.encode(table), routing_key=store._queue)
        assert await keys(store) == ["a", "b"]
        await store.remove(["a"])
        assert await keys(store) == ["b"]
        assert len(await messages(store)) == 1


@pytest.mark.parametrize("call", ["basic_publish", "basic_ack"])
async def test_the_connection_breaks_before_and_after_the_new_message_is_stored(
    url: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url) as store, opened(url) as other:
        await store.put([record("a")])
        original = store._held

        @asynccontextmanager
        async def breaking() -> AsyncIterator[Any]:
            async with original() as (channel, table, tags):

                async def broken(*_: Any, **__: Any) -> None:
                    raise ConnectionResetError("cut")

                monkeypatch.setattr(channel, call, broken)
                yield channel, table, tags

        monkeypatch.setattr(store, "_held", breaking)
        with pytest.raises(BrokerUnavailable, match="cut"):
            await store.put([record("b")])
        monkeypatch.setattr(store, "_held", original)
        assert await keys(other) == (["a"] if call == "basic_publish" else ["a", "b"])
        await store.put([record("c")])
        assert "c" in await keys(other)
        assert len(await messages(other)) == 1


async def test_a_holder_that_dies_gives_the_message_back(url: str) -> None:
    async with opened(url) as store:
        await store.put([record("a")])
        held, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            other = store.twin()
            try:
                async with other._held():
                    held.set()
                    await release.wait()
            finally:
                await other.close()

        dying = asyncio.create_task(hold())
        await held.wait()
        waiting = asyncio.create_task(keys(store))
        await asyncio.sleep(0)
        dying.cancel()
        async with asyncio.timeout(PATIENCE):
            assert await waiting == ["a"]
        await asyncio.gather(dying, return_exceptions=True)


async def test_a_queue_that_was_made_and_never_filled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules_module, "_LOST", 0.05)
    store = AmqpScheduleStore(Store.of_url(url))
    async with server_of(store) as channel:
        await channel.queue_declare(store._queue, durable=True, arguments={"x-queue-type": "quorum"})
    async with opened(url) as store:
        await store.put([record("a")])
        assert await keys(store) == ["a"]


async def test_who_holds_it_for_too_long_is_named(url: str) -> None:
    async with opened(f"{url}&timeout=0.5") as store:
        control = Control(store._store, "a test")
        async with alone(control, f"{store._queue}.lock", 1.0):
            with pytest.raises(BrokerUnavailable, match=r"camora\.schedules\.lock has been held by another process"):
                await store.list()
        await control.close()
        assert await store.list() == []


async def test_one_lock_has_one_holder(url: str) -> None:
    inside, most, turns = 0, 0, 0

    async def hold() -> None:
        nonlocal inside, most, turns
        control = Control(Store.of_url(url), "a test")
        for _ in range(5):
            async with alone(control, f"{Store.of_url(url).settings.prefix}lock", PATIENCE):
                inside += 1
                most, turns = max(most, inside), turns + 1
                await asyncio.sleep(0)
                inside -= 1
        await control.close()

    await asyncio.gather(*(hold() for _ in range(5)))
    assert (most, turns) == (1, 25)


# Servers and operators


async def test_they_outlive_the_server_and_who_waits_hears_of_changes_again(sturdy_rabbitmq: Sturdy) -> None:
    server, url = sturdy_rabbitmq, sturdy_rabbitmq.fresh_url()
    async with opened(url) as store, opened(url) as other:
        await store.put([record("a")])
        await store.changed(0.01)
        await asyncio.to_thread(server.kill)
        with pytest.raises(BrokerUnavailable):
            await store.list()
        await asyncio.to_thread(server.start)
        assert await keys(store) == ["a"]
        async with asyncio.timeout(PATIENCE):
            await store.changed(PATIENCE)  # a connection that was lost may have missed something
        waiting = asyncio.create_task(store.changed(PATIENCE * 2))
        await asyncio.sleep(0)
        await other.put([record("b")])
        async with asyncio.timeout(PATIENCE):
            await waiting


async def test_an_operator_deletes_the_queue(url: str) -> None:
    async with opened(url) as store:
        await store.put([record("a")])
        async with server_of(store) as channel:
            await channel.queue_delete(store._queue)
        with pytest.raises(BrokerUnavailable, match="no queue"):
            await store.list()
        assert await keys(store) == []
        await store.put([record("a")])
        assert await keys(store) == ["a"]


async def test_a_message_that_is_not_ours(url: str) -> None:
    async with opened(url) as store:
        async with server_of(store) as channel:
            await channel.basic_publish(b"hello", routing_key=store._queue)
        with pytest.raises(ConfigurationError, match="has a message that is not Camora's"):
            await store.list()


async def test_more_than_fits_into_a_message_is_refused_and_nothing_changes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules_module, "_LARGEST", 2000)
    async with opened(url) as store:
        await store.put([record("a")])
        with pytest.raises(ConfigurationError, match=r"101 schedules are \d+ bytes; all of them are one message here"):
            await store.put([record(f"b{number}") for number in range(100)])
        assert await keys(store) == ["a"]


# Schedulers


class SchedulerProcess(WorkerProcess):
    command = ("scheduler", "bell:app")


async def test_each_tick_has_one_job_though_schedulers_are_killed(url: str, tmp_path: Path) -> None:
    def rings() -> list[tuple[str, str]]:
        path = tmp_path / "rings"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(tick, job) for tick, job in (line.split() for line in lines)]

    async def more(count: int) -> None:
        before = len({tick for tick, _ in rings()})
        async with asyncio.timeout(PATIENCE * 2):
            while len({tick for tick, _ in rings()}) < before + count:
                await asyncio.sleep(0.02)

    processes = [WorkerProcess(tmp_path, url, app="bell:app").ready()]
    try:
        processes += [SchedulerProcess(tmp_path, url) for _ in range(2)]
        await more(4)
        for number in (1, 2):
            processes[number].destroy()
            processes.append(SchedulerProcess(tmp_path, url))
            await more(4)
    finally:
        for process in processes:
            process.destroy()
    jobs = Counter(tick for tick, _ in set(rings()))
    assert set(jobs.values()) == {1}, "a tick has one job; one whose scheduler died may have been sent twice"
    ticks = sorted(jobs)
    assert len(ticks) == len(set(ticks)) >= 12


async def test_schedules_of_an_app_that_has_only_rabbitmq(url: str) -> None:
    app: Any = Camora(url)
    ran, numbers = asyncio.Event(), itertools.count()

    @app.task(name="tick")
    async def tick() -> None:
        if next(numbers) == 3:
            ran.set()

    app.schedule("ticking", tick, every(seconds=0.05))
    async with app, app.worker():
        scheduler = app.make_scheduler()
        await scheduler.start()
        running = asyncio.create_task(scheduler.run(signals=contextlib.nullcontext))
        async with asyncio.timeout(PATIENCE):
            await ran.wait()
        scheduler.stop()
        await running
