"""What only the memory broker promises: named stores, virtual time, bounded memory."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import msgspec
import pytest
from camora.builtin.memory import MemoryBroker, MemoryResultBackend, MemoryStore, make_broker, make_results
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.outcome import JobRecord, Settlement, Status
from camora.provider import MadeFrom
from camora.testing.clock import VirtualClock
from camora.testing.conformance.making import ack, envelope, job_record, reject, release, retry


async def _open(store: MemoryStore | None = None) -> tuple[MemoryBroker, Consumer]:
    broker = MemoryBroker(store)
    await broker.open()
    return broker, await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=10.0))


# Names


def test_an_unnamed_store_is_one_broker_s_own() -> None:
    one, other = make_broker(MadeFrom(url="memory://")), make_broker(MadeFrom())
    assert one.store is not other.store
    assert not one.settles_into(make_results(MadeFrom(url="memory://")))
    assert one.settles_into(MemoryResultBackend(one.store))


def test_a_named_store_is_shared_by_all_who_name_it_for_as_long_as_they_live() -> None:
    one, other = make_broker(MadeFrom(url="memory://shop")), make_broker(MadeFrom(url="memory://shop"))
    assert one.store is other.store
    assert one.settles_into(make_results(MadeFrom(url="memory://shop")))
    assert not one.settles_into(make_results(MadeFrom(url="memory://another")))
    one.store.ready.paused.add("work")
    del one, other
    gc.collect()
    assert not make_broker(MadeFrom(url="memory://shop")).store.ready.paused


async def test_a_broker_that_is_not_open_says_so() -> None:
    broker = MemoryBroker()
    with pytest.raises(BrokerUnavailable, match="not open"):
        await broker.publish([envelope()])
    await broker.open()
    await broker.close()
    with pytest.raises(BrokerUnavailable, match=r"twin\(\)"):
        await broker.open()


# Virtual time


async def test_moving_the_clock_wakes_who_waits_for_a_due_time() -> None:
    clock = VirtualClock()
    broker, consumer = await _open(MemoryStore(clock))
    message = envelope(due=clock.now_ms() + 3_600_000)
    await broker.publish([message])
    waiting = asyncio.create_task(consumer.receive(1, 60))
    await asyncio.sleep(0)
    clock.advance(3599)
    assert not await MemoryResultBackend(broker.store).wait("never-was", 0.02)
    assert not waiting.done()
    clock.advance(1)
    [delivery] = await waiting
    assert delivery.id == message.id


async def test_moving_the_clock_in_another_thread_wakes_too() -> None:
    clock = VirtualClock()
    broker, consumer = await _open(MemoryStore(clock))
    await broker.publish([envelope()])
    other = await broker.consumer(ConsumerSettings(queues=("work",), worker="v", lease=10.0))
    [first] = await consumer.receive(1, 0)
    waiting = asyncio.create_task(other.receive(1, 60))
    await asyncio.sleep(0)
    await asyncio.to_thread(clock.advance, 10.001)
    [second] = await waiting
    assert (second.id, second.deliveries) == (first.id, 2)


async def test_records_end_by_the_store_s_clock() -> None:
    clock = VirtualClock()
    results = MemoryResultBackend(MemoryStore(clock))
    await results.store([job_record("job", ttl=3600.0)])
    clock.advance(3599)
    assert (await results.fetch(["job"]))[0] is not None
    clock.advance(1)
    assert await results.fetch(["job"]) == [None]
    assert await results.forget(["job"]) == 0


# Settlements that make no sense are refused whole


async def test_a_settlement_without_its_envelope_or_letter_is_refused_with_its_batch() -> None:
    broker, consumer = await _open()
    await broker.publish([envelope(), envelope()])
    first, second = await consumer.receive(2, 0)
    for wrong in (retry(second, changes={}), reject(second)):
        wrong = msgspec.structs.replace(wrong, envelope=None, letter=None)
        with pytest.raises(ValueError, match="needs"):
            await consumer.settle([ack(first), wrong])
    assert await consumer.settle([ack(first), ack(second)]) == [True, True]


# Bounded memory


def _settled(delivery: Delivery, way: int) -> Settlement:
    return release(delivery) if way == 1 else retry(delivery) if way == 2 else ack(delivery)


async def test_a_long_run_does_not_grow() -> None:
    clock = VirtualClock()
    broker, consumer = await _open(MemoryStore(clock, dedup_window=200, most_records=200))

    async def some_work() -> None:
        for number in range(40):
            queue = f"reply-{number}" if number % 10 == 0 else "work"
            await broker.publish([envelope(queue, b"x" * 500, priority=number % 3, key=f"k{number}", key_ttl=5.0)])
            await broker.publish([envelope(due=clock.now_ms() + 1000 * number)])
        for step in range(8):
            taken = await consumer.receive(100, 0)
            await consumer.settle([_settled(one, (step + place) % 4) for place, one in enumerate(taken)])
            await MemoryResultBackend(broker.store).store(
                [job_record(one.id, ttl=float(step + 1), value=b"v" * 500) for one in taken]
                + [JobRecord(id=one.id, status=Status.RUNNING) for one in taken]
            )
            clock.advance(20)
        for state in await broker.queues.list("work", limit=1000):
            await broker.queues.cancel(state.id)
        for name in list(await broker.queues.counts()):
            await broker.queues.purge(name)

    for _ in range(15):
        await some_work()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(3):
            await some_work()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(30):
            await some_work()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # 2,400 messages of half a kilobyte went through: had they stayed, it would be more than a mebibyte.
    assert after - before < 150_000, f"it grew by {after - before} bytes"


async def test_cancelling_a_long_queue_leaves_nothing_behind() -> None:
    broker, _ = await _open()
    messages = [envelope(due=4_000_000_000_000 if number % 2 else 0) for number in range(2000)]
    await broker.publish(messages)
    for message in messages:
        await broker.queues.cancel(message.id)
    store = broker.store
    assert not store.entries
    assert sum(len(lane) for queue in store.ready._queues.values() for lane in queue.lanes.values()) <= 65
    assert len(store.delayed._heap) <= 65


async def test_the_oldest_records_make_room_and_progress_pushes_out_no_result() -> None:
    results = MemoryResultBackend(MemoryStore(most_records=10))
    await results.store([job_record(f"job-{number}") for number in range(15)])
    await results.store([JobRecord(id=f"running-{number}", status=Status.RUNNING) for number in range(50)])
    kept = await results.fetch([f"job-{number}" for number in range(15)])
    assert [record is not None for record in kept] == [False] * 5 + [True] * 10
