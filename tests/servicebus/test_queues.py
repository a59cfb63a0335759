"""Queues of Service Bus looked into from outside: counted and emptied, jobs called off, deferred ones called for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from camora import Camora, Context, RetryPolicy, WorkerSettings
from camora.errors import BrokerUnavailable, UnsupportedCapability
from camora.outcome import CancelResult
from camora.queue import Queue
from camora_servicebus import Defer, ServiceBusBroker, ServiceBusQueue

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.sending import bare, broker_of, envelope, in_future, new_name, opened, received, stored, until


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@contextlib.asynccontextmanager
async def another(server: ServiceBusServer, *queues: str) -> AsyncIterator[ServiceBusBroker]:
    """Somebody else's, who has heard of nothing but the names."""
    async with opened(server, *map(Queue, queues)) as broker:
        yield broker


# Calling off


async def test_a_job_that_is_not_due_yet_is_called_off_by_its_number(shared: ServiceBusServer, queue: str) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, 1, due=in_future(3600)), envelope(queue, 2, due=in_future(3600))])
        assert await broker.queues.cancel("job-1") is CancelResult.REMOVED
        assert stored(shared, queue) == ["job-2"]
        with pytest.raises(UnsupportedCapability, match="'job-1' does not wait for its time") as refused:
            await broker.queues.cancel("job-1")
        assert refused.value.capability == "cancel"


async def test_whoever_did_not_dispatch_it_finds_it_by_looking(shared: ServiceBusServer, queue: str) -> None:
    other = shared.create_queue(new_name())
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, number) for number in range(450)])
        await broker.publish([envelope(queue, 1000, due=in_future(3600))])
    async with another(shared, other, "missing", queue) as broker:
        assert await broker.queues.cancel("job-1000") is CancelResult.REMOVED
        with pytest.raises(UnsupportedCapability):
            await broker.queues.cancel("job-7")  # it is ready, and stays
    assert len(stored(shared, queue)) == 450
    assert not shared.events("locked", entity=queue)


async def test_one_that_has_come_due_is_not_taken_for_called_off(shared: ServiceBusServer, queue: str) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, 1, due=in_future(0.5))])
        await until(lambda: shared.counts(queue)["active"] == 1, "it is due")
        with pytest.raises(UnsupportedCapability):
            await broker.queues.cancel("job-1")
    assert [message.message_id for message in await received(shared, queue)] == ["job-1"]


@pytest.mark.parametrize("how", ["cut", "silent"])
@pytest.mark.parametrize("fault", ["management_silent", "management_answer_lost"])
async def test_a_lost_answer_does_not_make_it_lie(shared: ServiceBusServer, queue: str, fault: str, how: str) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, 1, due=in_future(3600))])
        shared.fault(fault, queue, times=1, how=how)
        assert await broker.queues.cancel("job-1") is CancelResult.REMOVED
    assert stored(shared, queue) == []


async def test_during_an_outage_nobody_knows(queue: str, shared: ServiceBusServer) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, 1, due=in_future(3600))])
        shared.outage()
        try:
            with pytest.raises(BrokerUnavailable):
                await broker.queues.cancel("job-1")
            with pytest.raises(BrokerUnavailable):
                await broker.dead_letters.get("job-1")
        finally:
            shared.clear()
        assert await broker.queues.cancel("job-1") is CancelResult.REMOVED


async def test_who_is_cancelled_while_calling_off_leaves_a_broker_that_works(
    shared: ServiceBusServer, queue: str
) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, number, due=in_future(3600)) for number in range(20)])
        for number in range(20):
            asking = asyncio.ensure_future(broker.queues.cancel(f"job-{number}"))
            for _ in range(number):
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        for number in range(20):
            with contextlib.suppress(UnsupportedCapability):  # it was, although nobody waited for the answer
                await broker.queues.cancel(f"job-{number}")
        assert stored(shared, queue) == []


# Counting


async def test_counts_by_looking_where_nobody_counts(shared: ServiceBusServer, queue: str) -> None:
    async with another(shared, queue, "missing") as broker:
        assert not await broker.queues.counts()
        await broker.publish([envelope(queue, number) for number in range(300)])
        await broker.publish([envelope(queue, 1000, due=in_future(3600))])
        await bury(shared, queue)
        assert await broker.queues.counts() == {queue: {"ready": 299, "scheduled": 1, "dead": 1}}


async def test_counts_by_the_service_where_it_may_be_asked(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared, Queue(queue), Queue("missing"), management=f"{shared.host}:{shared.port}") as broker:
        await broker.publish([envelope(queue, number) for number in range(5)])
        await broker.publish([envelope(queue, 1000, due=in_future(3600))])
        await bury(shared, queue)
        before = len(shared.events("attaching"))
        assert await broker.queues.counts() == {queue: {"ready": 4, "scheduled": 1, "dead": 1}}
        assert len(shared.events("attaching")) == before  # nobody had to look


async def bury(server: ServiceBusServer, queue: str) -> None:
    async with bare(server) as client, client.get_queue_receiver(queue) as receiver:
        [message] = await receiver.receive_messages(1, max_wait_time=10)
        await receiver.dead_letter_message(message, reason="failed", error_description="")


async def test_what_it_cannot_tell_is_refused(shared: ServiceBusServer, queue: str) -> None:
    async with another(shared, queue) as broker:
        for ask in (
            broker.queues.find("job-1"),
            broker.queues.list(queue),
            broker.queues.pause(queue),
            broker.queues.paused(),
        ):
            with pytest.raises(UnsupportedCapability, match="camora-redis"):
                await ask


async def test_a_queue_with_sessions_is_looked_into_too(shared: ServiceBusServer) -> None:
    queue = shared.create_queue(new_name(), requires_session=True)
    async with bare(shared) as client, client.get_queue_sender(queue) as sender:
        await sender.send_messages([ServiceBusMessage(b"x", message_id=f"m{n}", session_id="s") for n in range(3)])
        await sender.schedule_messages(
            ServiceBusMessage(b"y", message_id="late", session_id="s"), datetime.now(UTC) + timedelta(hours=1)
        )
        async with opened(shared, ServiceBusQueue(queue, sessions=True)) as broker:
            assert await broker.queues.counts() == {queue: {"ready": 3, "scheduled": 1}}
            assert await broker.queues.cancel("late") is CancelResult.REMOVED
            assert list(await broker.dead_letters.list()) == []
            with pytest.raises(UnsupportedCapability, match="it has sessions"):
                await broker.queues.purge(queue)
    assert stored(shared, queue) == ["m0", "m1", "m2"]


# Emptying


async def test_emptying_leaves_what_workers_hold_and_what_was_deferred(shared: ServiceBusServer, queue: str) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, number) for number in range(450)])
        await broker.publish([envelope(queue, 1000, due=in_future(3600))])
        async with bare(shared) as client, client.get_queue_receiver(queue) as receiver:
            held, deferred = await take(receiver, 2)
            await receiver.defer_message(deferred)
            assert await broker.queues.purge(queue) == 449
            assert await broker.queues.purge(queue) == 0
            assert await broker.queues.purge("missing") == 0
            assert sorted(stored(shared, queue)) == sorted([held.message_id, deferred.message_id])
            await receiver.complete_message(held)
        # Nothing is handed out to somebody who does not listen any more.
        await broker.publish([envelope(queue, 2000)])
        assert [message.message_id for message in await received(shared, queue)] == ["job-2000"]


async def take(receiver: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += await receiver.receive_messages(count - len(found), max_wait_time=10)
    return found


# Deferred


async def test_a_deferred_job_is_listed_taken_again_or_dropped(shared: ServiceBusServer, queue: str) -> None:
    async with another(shared, queue) as broker:
        await broker.publish([envelope(queue, number, body=f"body {number}".encode()) for number in range(3)])
        async with bare(shared) as client, client.get_queue_receiver(queue) as receiver:
            for message in await take(receiver, 3):
                await receiver.defer_message(message)
        first, second, third = await broker.deferred.list(queue)
        assert [one.id for one in (first, second, third)] == ["job-0", "job-1", "job-2"]
        assert (first.task, first.queue) == ("shop.tell", queue)
        assert first.since > 0
        assert await broker.deferred.resume(queue, second.sequence_number) is True
        assert await broker.deferred.resume(queue, second.sequence_number) is False
        assert await broker.deferred.drop(queue, third.sequence_number) is True
        assert await broker.deferred.drop(queue, third.sequence_number) is False
        assert list(await broker.deferred.list(queue)) == [first]
        assert await broker.deferred.resume("missing", 1) is False
        [again] = await received(shared, queue)
        assert (again.correlation_id, again.message_id, b"".join(again.body)) == ("job-1", "job-1:1", b"body 1")


@pytest.mark.parametrize("fault", ["management_silent", "management_answer_lost"])
async def test_resuming_through_a_fault_loses_nothing(shared: ServiceBusServer, queue: str, fault: str) -> None:
    async with another(shared, queue) as broker:
        async with bare(shared) as client:
            async with client.get_queue_sender(queue) as sender:
                await sender.send_messages(ServiceBusMessage(b"x", message_id="j", correlation_id="j"))
            async with client.get_queue_receiver(queue) as receiver:
                [message] = await take(receiver, 1)
                number = message.sequence_number
                await receiver.defer_message(message)
        shared.fault(fault, queue, times=1, how="cut", operation="com.microsoft:update-disposition")
        resumed = False
        async with asyncio.timeout(60):
            while not resumed and await broker.deferred.list(queue):
                with contextlib.suppress(BrokerUnavailable):
                    resumed = await broker.deferred.resume(queue, number)
                shared.expire_locks(queue)
    assert {message.correlation_id for message in await received(shared, queue)} == {"j"}


async def test_a_job_sets_itself_aside_until_somebody_calls_for_it(
    shared: ServiceBusServer, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "camora")
    broker: Any = broker_of(shared, Queue(queue))
    app = Camora(broker, results="memory://", retry_policy=RetryPolicy.never())
    paid: set[str] = set()
    waiting: dict[str, int] = {}
    attempts: list[int] = []

    @app.task(queue=queue)
    async def ship(order: str, ctx: Context) -> str:
        attempts.append(ctx.attempt)
        if order not in paid:
            waiting[order] = ctx.delivery.sequence_number
            raise Defer("not paid yet")
        return f"{order} is on its way"

    async with app, app.worker(settings=WorkerSettings(lease=5)):
        job = await ship.dispatch("A-17")
        for _ in range(2):  # as often as needed
            await until(lambda: shared.counts(queue)["deferred"] == 1, "it is deferred")
            [one] = await broker.deferred.list(queue)
            assert (one.id, one.sequence_number) == (job.id, waiting["A-17"])
            assert await broker.deferred.resume(queue, one.sequence_number)
        await until(lambda: shared.counts(queue)["deferred"] == 1, "it is deferred again")
        paid.add("A-17")
        assert await broker.deferred.resume(queue, waiting["A-17"])
        assert await job.result(60) == "A-17 is on its way"
    assert attempts == [1, 1, 1, 1]
    assert f"{job.id}: set aside: not paid yet" in caplog.text
    assert "attempt failed" not in caplog.text
    assert not stored(shared, queue)
