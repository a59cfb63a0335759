"""Messages that are made due at another moment, where only a database shows what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.outcome import Action, Settlement
from camora.testing.clock import VirtualClock
from camora_sql.broker import SqlBroker

from tests.sql.processes import message


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def broker(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[SqlBroker]:
    broker = SqlBroker(f"sqlite:///{tmp_path}/camora.db?synchronous=normal", clock=clock)
    await broker.open()
    yield broker
    await broker.close()


async def taker(broker: SqlBroker) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=("work",), worker="me", lease=10.0))


async def test_what_was_lent_to_somebody_who_is_gone_waits(broker: SqlBroker, clock: VirtualClock) -> None:
    await broker.publish([message("job")])
    gone = await taker(broker)
    [lent] = await gone.receive(1, 0.0)
    assert not await broker.queues.reschedule("job", clock.now_ms() + 60_000)
    clock.advance(11)
    assert await broker.queues.reschedule("job", clock.now_ms() + 60_000)
    consumer = await taker(broker)
    assert not await consumer.receive(1, 0.0)
    assert list(await gone.settle([Settlement(delivery=lent, action=Action.ACK)])) == [False]
    clock.advance(61)
    [again] = await consumer.receive(1, 0.0)
    assert again.deliveries == 2
    assert list(await consumer.settle([Settlement(delivery=again, action=Action.ACK)])) == [True]
    await gone.close()
    await consumer.close()


async def test_what_is_ready_keeps_its_place_however_often_it_is_woken(broker: SqlBroker, clock: VirtualClock) -> None:
    await broker.publish([message("first")])
    clock.advance(1)
    await broker.publish([message("second")])
    for _ in range(3):
        clock.advance(1)
        assert await broker.queues.reschedule("first", clock.now_ms())
    consumer = await taker(broker)
    assert [one.id for one in await consumer.receive(2, 0.0)] == ["first", "second"]
    await consumer.close()


async def test_a_job_that_is_woken_early_comes_after_what_waits_and_by_its_urgency(
    broker: SqlBroker, clock: VirtualClock
) -> None:
    later = clock.now_ms() + 3_600_000
    await broker.publish([message("asleep", due=later), message("urgent", due=later, priority=5), message("ready")])
    clock.advance(1)
    for job_id in ("asleep", "urgent"):
        assert await broker.queues.reschedule(job_id, 1)
    found = await broker.queues.find("asleep")
    assert found is not None
    assert (found.state, found.due) == ("ready", clock.now_ms())
    consumer = await taker(broker)
    assert [one.id for one in await consumer.receive(3, 0.0)] == ["urgent", "ready", "asleep"]
    await consumer.close()
