"""Leases of rows that somebody else has locked: held while they last, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings, LeaseVerdict
from camora.message import Delivery
from camora.outcome import Action, Settlement
from camora_sql.broker import SqlBroker

from tests.sql.locks import fresh, stranger
from tests.sql.processes import message

HELD, LOST = LeaseVerdict.HELD, LeaseVerdict.LOST
LEASE = 30.0


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh(request.param, tmp_path)


@pytest.fixture
async def broker(url: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(f"{url}&busy_timeout=2")
    await made.open()
    yield made
    await made.close()


async def holding(broker: SqlBroker, *ids: str) -> tuple[Consumer, list[Delivery]]:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=LEASE))
    await broker.publish([message(job_id) for job_id in ids])
    deliveries = list(await consumer.receive(len(ids), 5.0))
    assert [one.id for one in deliveries] == list(ids)
    return consumer, deliveries


async def extend(consumer: Consumer, deliveries: list[Delivery]) -> list[LeaseVerdict]:
    def ask() -> list[LeaseVerdict]:
        leases = consumer.leases()
        try:
            return list(leases.extend(deliveries))
        finally:
            leases.close()

    return await asyncio.to_thread(ask)


def now() -> int:
    return int(time.time() * 1000)


async def test_one_that_is_locked_is_held_while_its_lease_lasts_until_the_next_question(
    broker: SqlBroker, url: str
) -> None:
    consumer, deliveries = await holding(broker, "locked", "free")
    with stranger(url) as other:
        other.do("UPDATE {jobs} SET lease_until = %s", end := now() + 20_000)
        other.commit()
        other.lock("locked")
        assert await extend(consumer, deliveries) == [HELD, HELD]
        other.commit()
        assert other.lease_end("locked") == end
        assert other.lease_end("free") > end
        # Nobody asks again before that is over.
        other.do("UPDATE {jobs} SET lease_until = %s", end := now() + 8_000)
        other.commit()
        other.lock("locked")
        assert await extend(consumer, deliveries) == [LOST, HELD]
        other.commit()
        assert other.lease_end("free") > end
    await consumer.close()


async def test_one_that_is_locked_for_a_moment_is_extended_in_time(broker: SqlBroker, url: str) -> None:
    """As by a settlement that is on its way, and fails."""
    consumer, deliveries = await holding(broker, "locked")
    with stranger(url) as other:
        other.do("UPDATE {jobs} SET lease_until = %s", end := now() + 8_000)
        other.commit()
        other.lock("locked")
        asking = asyncio.create_task(extend(consumer, deliveries))
        assert not (await asyncio.wait([asking], timeout=0.5))[0]
        other.commit()
        assert await asking == [HELD]
        assert other.lease_end("locked") > end
    assert await consumer.settle([Settlement(delivery=deliveries[0], action=Action.ACK)]) == [True]
    await consumer.close()


async def test_one_whose_lease_was_over_under_a_lock_is_lost_to_whoever_takes_it_next(
    broker: SqlBroker, url: str
) -> None:
    consumer, deliveries = await holding(broker, "locked")
    with stranger(url) as other:
        other.do("UPDATE {jobs} SET lease_until = %s", now() - 1)
        other.commit()
        other.lock("locked")
        assert await extend(consumer, deliveries) == [LOST]
        other.commit()
    [again] = await consumer.receive(1, 10.0)
    assert (again.id, again.deliveries) == ("locked", 2)
    assert await extend(consumer, [deliveries[0], again]) == [LOST, HELD]
    answers = [Settlement(delivery=one, action=Action.ACK) for one in (deliveries[0], again)]
    assert await consumer.settle(answers) == [False, True]
    await consumer.close()
