"""Leases under fire: wrong clocks, rolling restarts, consumers that stop at any moment, answers that are lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, JobCancelled
from camora.interfaces.broker import ConsumerSettings, Leases, LeaseVerdict
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement, Status
from processes import WorkerProcess

from tests.redis.faults.rig import LEASE, Rig, begun, eventually


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_with_a_wrong_clock_starts_nothing_early_and_keeps_its_leases(rig: Rig, hours: int) -> None:
    wrong = rig.worker(SHOP_CLOCK=str(hours * 3600)).ready()
    async with rig.app() as app:
        for number in range(20):
            await rig.delayed(app, 1.5 + number / 10, "work", number=number)
        job = rig.noted(await app.dispatch("work_for", seconds=2 * LEASE))
        await eventually(lambda: rig.ran(job), "the start of the long one")
        rig.worker().ready()
    await rig.balance(duplicates=0)
    assert "lost its lease" not in wrong.text()


async def test_a_job_is_cancelled_while_it_runs(rig: Rig) -> None:
    rig.worker(through=True).ready()
    async with rig.app() as app:
        job = await app.dispatch("hold", name="a")
        await begun(rig, "a")
        rig.proxy.cut()
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(60)
        assert (await job.info()).status is Status.CANCELLED


async def test_supervised_workers_under_fire(rig: Rig) -> None:
    """Rolling restarts in order, while jobs come in."""
    async with rig.app() as app:
        workers: list[WorkerProcess] = [rig.worker().ready()]
        for _ in range(3):
            await rig.load(app, 20)
            workers.append(rig.worker().ready())
            leaving = workers.pop(0)
            leaving.signal(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.end) == 0
            rig.workers.remove(leaving)
            rig.faults += 1
    found = await rig.balance(duplicates=0)
    assert not found.beside_itself


async def test_a_consumer_that_is_stopped_while_it_connects_takes_nothing(rig: Rig) -> None:
    async with rig.app(through=True) as app:
        rig.proxy.delay(0.02)
        for number in range(12):
            queue = f"late-{number}"
            consumer = await app.broker.consumer(ConsumerSettings(queues=(queue,), worker="stops"))
            waiting = asyncio.create_task(consumer.receive(10, 5.0))
            await asyncio.sleep(0.04 + 0.02 * number)
            await consumer.stop()
            assert list(await waiting) == []
            await app.broker.publish([Envelope(id=queue, task="t", queue=queue, body=b"{}")])
            assert (await app.broker.queues.counts())[queue] == {"ready": 1}
            await consumer.close()


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "after-a-lease"])
async def test_what_came_with_a_lost_answer_is_handed_out_once(rig: Rig, late: bool) -> None:
    async with rig.app() as near, rig.app(through=True) as far:
        lease = 2 * LEASE
        consumer = await far.broker.consumer(ConsumerSettings(queues=("lost",), worker="deaf", lease=lease))
        try:
            assert not await consumer.receive(10, 0)  # it looks, and does not wait yet
            lost = rig.proxy.drop_next_reply(b"XREADGROUP")
            waiting = asyncio.create_task(consumer.receive(10, 5.0))
            await eventually(lambda: rig.server.info("clients")["blocked_clients"] == "1", "the wait")
            await near.broker.publish([Envelope(id="lost", task="t", queue="lost", body=b"{}")])
            await asyncio.wait([waiting])
            assert lost.is_set()
            assert isinstance(waiting.exception(), BrokerUnavailable)
            if late:
                await asyncio.sleep(1.1 * lease)
            [one] = await consumer.receive(10, 5.0)
            assert (one.id, one.deliveries) == ("lost", 2 if late else 1)
            await asyncio.sleep(0.7 * lease)  # nobody takes it away: its lease is a new one
            assert not await consumer.receive(10, 0.1)
            assert list(await consumer.settle([Settlement(delivery=one, action=Action.ACK)])) == [True]
        finally:
            await consumer.close()


async def test_the_keeper_of_leases_knows_in_time_that_nobody_answers(rig: Rig) -> None:
    """Also where the server may take longer for an answer than a lease lasts."""
    lease = 4 * LEASE  # so long that a busy machine's delays are short beside it
    async with Camora(rig.url(through=True, timeout=30), results=False) as app:
        consumer = await app.broker.consumer(ConsumerSettings(queues=("kept",), worker="keeps", lease=lease))
        await app.broker.publish([Envelope(id="kept", task="t", queue="kept", body=b"{}")])
        held = await consumer.receive(1, 5.0)
        keeper = await asyncio.to_thread(consumer.leases)
        try:
            assert await asyncio.to_thread(keeper.extend, held) == [LeaseVerdict.HELD]
            rig.proxy.hold()
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                await asyncio.to_thread(keeper.extend, held)
            assert time.monotonic() - began < lease
            rig.proxy.heal()
            await eventually(lambda: asyncio.to_thread(extended, keeper, held), "an answer")
        finally:
            await asyncio.to_thread(keeper.close)
            await consumer.close()


def extended(keeper: Leases, held: Sequence[Delivery]) -> bool:
    """Whether the keeper got through; the lease itself may be over."""
    try:
        keeper.extend(held)
    except BrokerUnavailable:
        return False
    return True
