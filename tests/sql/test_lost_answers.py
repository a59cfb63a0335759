"""Answers of a server that are lost, by each driver: what may have happened is uncertain, and is not done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from camora.errors import DispatchUncertain
from camora_sql.blocking import BlockingSession
from camora_sql.broker import SqlBroker
from camora_sql.errors import CommitUnclear
from camora_sql.opening import prepare
from camora_sql.session import Session
from camora_sql.statements import workers
from camora_sql.store import Store
from sqlalchemy import make_url

from tests.servers import mariadb
from tests.servers.fixtures import fresh_postgres_url
from tests.servers.proxy import Proxy
from tests.sql.processes import message


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy"])
def url(request: pytest.FixtureRequest) -> str:
    """Of no tables yet."""
    return mariadb.fresh_url() if request.param == "asyncmy" else fresh_postgres_url(driver=request.param)


@pytest.fixture
def network(url: str) -> Iterator[Proxy]:
    """In front of the server."""
    address = make_url(url)
    with Proxy((address.host or "", address.port or 0)) as made:
        yield made


@pytest.fixture
def far(url: str, network: Proxy) -> str:
    """The same database over that network; who finds nobody there gives up soon."""
    address = make_url(url).set(host=network.host, port=network.port)
    few = address.update_query_dict({"pool_size": "2", "busy_timeout": "0.5"})
    return few.render_as_string(hide_password=False)


@pytest.fixture
async def broker(far: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(far)
    await made.open()
    await asyncio.gather(made.queues.counts(), made.queues.counts())  # by all connections that it may have
    yield made
    await made.close()


@pytest.fixture
def session(far: str) -> Iterator[BlockingSession]:
    """Connected, with its tables."""
    store = Store(far)
    made = BlockingSession(store)
    made.run(lambda session: prepare(session, store))
    yield made
    made.close()


def give_order(session: Session) -> None:
    """Something that is there twice when it is done twice."""
    session.change(workers.give_order, ("somebody", "stop"))


def orders(session: Session) -> list[str]:
    return [row[1] for row in session.rows(workers.read_orders, ("somebody",))]


async def test_a_publication_whose_answer_is_lost_is_uncertain_while_the_server_is_away(
    broker: SqlBroker, network: Proxy
) -> None:
    # A function is a transaction by itself; of statements it is the commit that counts.
    lost = network.drop_next_reply(b"in-doubt" if broker.url.startswith("postgresql") else b"COMMIT")
    network.refuse()  # whoever would ask again finds nobody
    with pytest.raises(DispatchUncertain, match="job_id='in-doubt' cannot double it") as told:
        await broker.publish([message("in-doubt")])
    assert lost.is_set()
    assert told.value.job_id == "in-doubt"
    network.heal()
    assert await broker.publish([message("in-doubt")]) == ["in-doubt"]
    assert await broker.queues.counts() == {"work": {"ready": 1}}


def test_a_commit_whose_answer_is_lost_is_not_done_again(session: BlockingSession, network: Proxy) -> None:
    lost = network.drop_next_reply(b"COMMIT")
    with pytest.raises(CommitUnclear):
        session.write(give_order)
    assert lost.is_set()
    assert session.read(orders) == ["stop"]


def test_a_commit_that_finds_its_connection_gone_is_known_not_to_have_happened(session: BlockingSession) -> None:
    tries = 0

    def interrupted(session: Session) -> None:
        nonlocal tries
        tries += 1
        give_order(session)
        if tries == 1:
            session.driver.abort()

    session.write(interrupted)
    assert tries == 2
    assert session.read(orders) == ["stop"]
