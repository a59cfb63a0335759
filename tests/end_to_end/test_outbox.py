"""Dispatching inside a transaction of one's own, while the broker is another system: the outbox and its relay."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, CancelResult, Status
from camora.errors import (
    BrokerUnavailable,
    ConfigurationError,
    DispatchUncertain,
    MessageTooLarge,
    UnsupportedCapability,
)
from camora.message import Envelope
from camora.testing.ledger import audit
from processes import until, workers
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.servers.fixtures import fresh_postgres_url, fresh_url
from tests.servers.proxy import Proxy, Trap


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Engine]:
    """The user's own database."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)"))
    yield engine
    engine.dispose()


@pytest.fixture(params=["memory", "redis", "postgresql"])
def app(request: pytest.FixtureRequest, tmp_path: Path, shop: Engine) -> Camora:
    url = {"memory": lambda: "memory://", "redis": fresh_url, "postgresql": fresh_postgres_url}[request.param]()
    app = Camora(url, outbox=f"sqlite:///{tmp_path}/shop.db")

    @app.task(name="confirm")
    async def confirm(order: int) -> int:
        return order

    return app


async def migrated(app: Camora) -> None:
    """The tables are there before the first transaction, as after `camora sql migrate`."""
    assert app.outbox is not None
    broker = app.outbox.broker.twin()
    await broker.open()
    await broker.close()


async def waiting(app: Camora) -> int:
    """How many messages are in the outbox, on their way or not."""
    assert app.outbox is not None
    broker = app.outbox.broker.twin()
    await broker.open()
    counts = await broker.queues.counts()
    await broker.close()
    return sum(number for states in counts.values() for state, number in states.items() if state != "dead")


def confirm(app: Camora) -> Any:
    return app.tasks.get("confirm")


async def test_a_job_of_a_transaction_runs_once_it_is_committed_and_not_otherwise(app: Camora, shop: Engine) -> None:
    await migrated(app)
    async with app, app.worker():
        with shop.connect() as connection:
            connection.execute(text("INSERT INTO orders VALUES (1, 'cup')"))
            never = await confirm(app).options(connection=connection).dispatch(1)
            connection.rollback()
        with shop.begin() as connection:
            connection.execute(text("INSERT INTO orders VALUES (2, 'pot')"))
            job = await confirm(app).options(connection=connection).dispatch(2)
        assert await job.result(timeout=60) == 2
        assert await job.status() is Status.SUCCEEDED
        assert await never.status() is Status.UNKNOWN


async def test_what_waits_in_the_outbox_is_known_and_can_be_cancelled(app: Camora, shop: Engine) -> None:
    await migrated(app)
    async with app:
        with shop.begin() as connection:
            first = await confirm(app).options(connection=connection, queue="mail").dispatch(1)
            second = await confirm(app).options(connection=connection, delay=60).dispatch(2)
        info = await first.info()
        assert (info.status, info.task, info.queue) == (Status.QUEUED, "confirm", "mail")
        assert await second.status() is Status.SCHEDULED
        assert await first.cancel() is CancelResult.REMOVED
        assert await first.status() is Status.CANCELLED
        async with app.worker():
            # Relayed, it waits there for its time.
            async with asyncio.timeout(60):
                while (found := await app.broker.queues.find(second.id)) is None:
                    await asyncio.sleep(0.01)
            assert found.due > 0
            assert await second.cancel() is CancelResult.REMOVED


async def test_dispatch_sync_in_a_transaction(app: Camora, shop: Engine) -> None:
    await migrated(app)
    with shop.begin() as connection:
        job = confirm(app).options(connection=connection).dispatch_sync(5)
        again = confirm(app).options(connection=connection, job_id=job.id).dispatch_sync(5)
    assert again.id == job.id
    async with app, app.worker():
        assert await job.result(timeout=60) == 5


async def test_a_broker_that_is_away_is_waited_for(app: Camora, shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrated(app)
    publish, tries = app.broker.publish, asyncio.Event()
    away = True

    async def not_now(envelopes: Any) -> Any:
        if away:
            tries.set()
            raise BrokerUnavailable("it is away")
        return await publish(envelopes)

    monkeypatch.setattr(app.broker, "publish", not_now)
    async with app, app.worker():
        with shop.begin() as connection:
            job = await confirm(app).options(connection=connection).dispatch(3)
        async with asyncio.timeout(60):
            await tries.wait()
        assert await job.status() is Status.QUEUED
        away = False
        assert await job.result(timeout=60) == 3


async def test_one_that_the_broker_refuses_does_not_hold_up_the_others(
    app: Camora, shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrated(app)
    publish = app.broker.publish
    refused = ""

    async def picky(envelopes: Any) -> Any:
        if any(envelope.id == refused for envelope in envelopes):
            raise MessageTooLarge("too large for this broker", size=2, limit=1)
        return await publish(envelopes)

    monkeypatch.setattr(app.broker, "publish", picky)
    assert app.outbox is not None
    with shop.begin() as connection:
        refused = (await confirm(app).options(connection=connection).dispatch(1)).id
        good = await confirm(app).options(connection=connection).dispatch(2)
        garbage = Envelope(id="garbage", task="", queue=app.outbox.queue, body=b"\xff nothing of ours")
        await app.outbox.broker.publish_within(connection, [garbage])
    async with app, app.worker():
        assert await good.result(timeout=60) == 2
        async with asyncio.timeout(60):
            while len(letters := [letter async for letter in app.dead_letters()]) < 2:
                await asyncio.sleep(0.01)
        assert {letter.id: letter.reason for letter in letters} == {refused: "refused", "garbage": "undecodable"}
        again = await app.job(refused)
        assert await again.status() is Status.FAILED
        assert (await app.dead_letter("garbage")) is not None
        # Whatever it was that refused it is mended: it sets out again, and arrives.
        monkeypatch.setattr(app.broker, "publish", publish)
        assert await app.requeue(refused)
        assert await again.result(timeout=60) == 1
        assert not await app.requeue(refused)
        assert await app.purge_dead_letters(ids=["garbage"]) == 1
        assert [letter async for letter in app.dead_letters()] == []


async def test_an_answer_that_is_lost_is_no_refusal(app: Camora, shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrated(app)
    publish, lost, refused = app.broker.publish, 0, ""

    async def unheard(envelopes: Any) -> Any:
        nonlocal lost
        if any(envelope.id == refused for envelope in envelopes):
            raise MessageTooLarge("too large for this broker", size=2, limit=1)
        ids = await publish(envelopes)
        lost += 1
        if lost <= 4:  # beside the one that is refused, and later without it
            raise DispatchUncertain("the answer was lost", job_id=ids[0], final=lost % 2 == 0)
        return ids

    monkeypatch.setattr(app.broker, "publish", unheard)
    with shop.begin() as connection:
        jobs = [await confirm(app).options(connection=connection).dispatch(number) for number in range(3)]
        refused = (await confirm(app).options(connection=connection).dispatch(3)).id
    async with app, app.worker():
        assert [await job.result(timeout=60) for job in jobs] == [0, 1, 2]
        async with asyncio.timeout(60):
            while await waiting(app) or lost <= 4:
                await asyncio.sleep(0.01)
        assert [letter.id async for letter in app.dead_letters()] == [refused]


@pytest.mark.parametrize("kind", ["redis", "postgresql+asyncpg", "postgresql+psycopg"])
async def test_jobs_wait_in_the_outbox_while_the_network_loses_answers(
    kind: str, tmp_path: Path, shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = fresh_url() if kind == "redis" else fresh_postgres_url(driver=kind.partition("+")[2])
    address = make_url(near)
    with Proxy((address.host or "", address.port or 0)) as network:
        far = address.set(host=network.host, port=network.port)
        if kind != "redis":
            far = far.update_query_dict({"busy_timeout": "0.1"})
        app = Camora(far.render_as_string(hide_password=False), outbox=f"sqlite:///{tmp_path}/shop.db")
        ran = []

        @app.task(name="confirm")
        async def confirm(order: int) -> int:
            ran.append(order)
            return order

        await migrated(app)
        publish, doubts, enough = app.broker.publish, 0, asyncio.Event()

        async def watched(envelopes: Any) -> Any:
            nonlocal doubts
            try:
                return await publish(envelopes)
            except DispatchUncertain:
                doubts += 1
                if doubts == 3:
                    enough.set()
                raise

        monkeypatch.setattr(app.broker, "publish", watched)
        async with app:
            with shop.begin() as connection:
                job = await confirm.options(connection=connection).dispatch(6)
            network.drop_next_reply(job.id.encode())
            assert network.trap is not None
            network.trap.done = Again(network, job.id)
            async with app.worker():
                async with asyncio.timeout(30):
                    await enough.wait()
                network.heal()
                assert await job.result(timeout=30) == 6
                async with asyncio.timeout(60):
                    while await waiting(app):
                        await asyncio.sleep(0.01)
            assert [letter async for letter in app.dead_letters()] == []
        assert ran == [6]


class Again(threading.Event):
    """Is set when a reply was swallowed, and has the next one swallowed as well."""

    def __init__(self, network: Proxy, job_id: str) -> None:
        super().__init__()
        self._network = network
        self._job_id = job_id

    def set(self) -> None:
        """In the loop of the network, before that hears anything more."""
        super().set()
        self._network.trap = Trap(self._job_id.encode())
        self._network.trap.done = self


async def test_from_a_postgresql_to_a_redis(tmp_path: Path) -> None:
    url = fresh_postgres_url()
    bare = url.partition("?")[0]
    app = Camora(fresh_url("redis"), outbox=url)

    @app.task(name="confirm")
    async def confirm(order: int) -> int:
        return order

    await migrated(app)
    sync = create_engine(bare.replace("postgresql://", "postgresql+psycopg://"))
    asynchronous = create_async_engine(bare.replace("postgresql://", "postgresql+asyncpg://"))
    async with app, app.worker():
        with sync.begin() as connection:
            first = await confirm.options(connection=connection).dispatch(1)
        async with AsyncSession(asynchronous) as session, session.begin():
            second = await confirm.options(connection=session).dispatch(2)
        async with AsyncSession(asynchronous) as session:
            never = await confirm.options(connection=session).dispatch(3)
            await session.rollback()
        assert [await job.result(timeout=60) for job in (first, second)] == [1, 2]
        assert await never.status() is Status.UNKNOWN
    await asynchronous.dispose()
    sync.dispose()


async def test_what_fails_for_no_known_reason_is_tried_again(
    app: Camora, shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrated(app)
    publish, failures = app.broker.publish, 0

    async def broken(envelopes: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 2:  # with all of the batch, and alone
            raise ZeroDivisionError("a mistake of the broker's")
        return await publish(envelopes)

    monkeypatch.setattr(app.broker, "publish", broken)
    async with app, app.worker():
        with shop.begin() as connection:
            job = await confirm(app).options(connection=connection).dispatch(4)
        assert await job.result(timeout=60) == 4
    assert failures == 3


def test_an_outbox_that_cannot_join_a_transaction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"outbox=.*joins no transactions.*sqlite:///shop\.db"):
        Camora("memory://", outbox="memory://")
    (tmp_path / "camora.toml").write_text('[broker]\nurl = "memory://"\n[outbox]\nurl = "memory://"\n')
    with pytest.raises(ConfigurationError, match=r"camora\.toml:4:1: outbox\.url: .*joins no transactions"):
        Camora.from_toml(tmp_path / "camora.toml")


def test_the_outbox_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "camora.toml").write_text('[outbox]\nurl = "sqlite:///shop.db?busy_timeout=3"\ndedup_window = "2h"\n')
    app = Camora.from_toml(tmp_path / "camora.toml")
    assert app.outbox is not None
    assert repr(app.outbox.broker) == f"SqlBroker('{tmp_path}/shop.db', new)"
    (tmp_path / "camora.toml").write_text('[outbox]\nurl = "sqlite:///shop.db"\nbusy_tymeout = 3\n')
    with pytest.raises(ConfigurationError, match=r"camora\.toml:3:1: .*busy_tymeout.*busy_timeout"):
        Camora.from_toml(tmp_path / "camora.toml")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("step", ["before publish", "after publish", "before settle", "after settle"])
async def test_a_relay_that_is_killed_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, shop: Engine, step: str, kind: str
) -> None:
    url = fresh_url("redis") if kind == "redis" else f"sqlite:///{tmp_path}/camora.db"
    outbox = f"sqlite:///{tmp_path}/shop.db"
    app = Camora(url, outbox=outbox)
    await migrated(app)
    jobs = []
    for number in range(40):
        with shop.begin() as connection:
            connection.execute(text("INSERT INTO orders VALUES (:id, 'cup')"), {"id": number})
            jobs.append(await app.options(connection=connection).dispatch("carry", number=number))
    with workers() as start:
        # It relays, and runs nothing itself: what is carried twice is the relay's doing.
        first = start(tmp_path, url, "--queues", "other", app="parcel:app", SHOP_OUTBOX=outbox, SHOP_CRASH=step)
        assert first.end() == -signal.SIGKILL
        start(tmp_path, url, app="parcel:app", SHOP_OUTBOX=outbox).ready()
        ids = [job.id for job in jobs]

        def finished() -> bool:
            return audit(tmp_path / "ledger", dispatched=ids, faults=1).lost == ()

        (tmp_path / "ledger").mkdir(exist_ok=True)
        until(finished, "the last job")
        audit(tmp_path / "ledger", dispatched=ids, faults=1).check(duplicates=0)
        async with app, asyncio.timeout(30):
            while any(number for queue in (await app.broker.queues.counts()).values() for number in queue.values()):
                await asyncio.sleep(0.01)


async def test_what_waits_in_the_outbox_can_be_cancelled_although_its_broker_cannot(
    tmp_path: Path, shop: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Camora("memory://", outbox=f"sqlite:///{tmp_path}/shop.db")

    async def refuse(job_id: str) -> CancelResult:
        raise UnsupportedCapability(f"{job_id} cannot be cancelled", capability="cancel")

    monkeypatch.setattr(app.broker.queues, "cancel", refuse)

    @app.task(name="confirm")
    async def confirm(order: int) -> int:
        return order

    await migrated(app)
    async with app:
        with shop.begin() as connection:
            first = await confirm.options(connection=connection).dispatch(1)
        assert await first.cancel() is CancelResult.REMOVED
        assert await first.status() is Status.CANCELLED
        second = await confirm.dispatch(2)
        with pytest.raises(UnsupportedCapability):
            await second.cancel()
