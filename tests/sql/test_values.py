"""Values that a server does not store: an error of the message, which is told at once, and keeps up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from camora.errors import EncodeError
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import Action, Settlement
from camora_sql.broker import SqlBroker
from msgspec.structs import replace
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tests.servers import mariadb
from tests.servers.fixtures import fresh_postgres_url
from tests.sql.processes import message

LONG = replace(message("long"), queue="q" * 300)


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy"])
def url(request: pytest.FixtureRequest) -> str:
    """Of no tables yet."""
    return mariadb.fresh_url() if request.param == "asyncmy" else fresh_postgres_url(driver=request.param)


@pytest.fixture
async def broker(url: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


async def test_a_text_that_is_too_long_is_refused_and_keeps_up_nobody(broker: SqlBroker) -> None:
    answers = await asyncio.gather(
        *(broker.publish([one]) for one in (message("one"), LONG, message("two"))), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [list, EncodeError, list]
    with pytest.raises(EncodeError, match="too long.*nothing was enqueued"):
        await broker.publish([message("three"), LONG])
    assert await broker.queues.counts() == {"work": {"ready": 2}}


async def test_a_settlement_that_cannot_be_stored_is_no_matter_of_the_server(broker: SqlBroker) -> None:
    """Or it would be tried again for ever."""
    await broker.publish([message("one"), message("two")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    one, two = await consumer.receive(2, 0)
    with pytest.raises(OverflowError, match="too long"):
        await consumer.settle([Settlement(delivery=one, action=Action.ACK, successors=(LONG,))])
    assert list(await consumer.settle([Settlement(delivery=each, action=Action.ACK) for each in (one, two)])) == [
        True,
        True,
    ]
    await consumer.close()


async def test_in_a_transaction_of_somebody_elses_it_leaves_no_trace(broker: SqlBroker, url: str) -> None:
    given = make_url(url).set(query={})
    if given.get_backend_name() == "mariadb":
        bare = given.set(drivername="mariadb+pymysql")
        asynchronous = create_async_engine(given.set(drivername="mariadb+asyncmy"))
    else:
        bare = given.set(drivername="postgresql+psycopg")
        asynchronous = create_async_engine(given)
    engine = create_engine(bare)
    with engine.begin() as connection:
        with pytest.raises(EncodeError, match="nothing was enqueued.*too long"):
            await broker.publish_within(connection, [message("never"), LONG])
        await broker.publish_within(connection, [message("one")])
    async with asynchronous.begin() as connection:
        with pytest.raises(EncodeError, match="nothing was enqueued.*too long"):
            await broker.publish_within(connection, [message("never"), LONG])
        await broker.publish_within(connection, [message("two")])
    assert await broker.queues.counts() == {"work": {"ready": 2}}
    await asynchronous.dispose()
    engine.dispose()
