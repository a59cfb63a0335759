"""What becomes of messages whose `receive` was cancelled, and what an idle worker does about rows of others' locks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.outcome import Action, Settlement
from camora_sql.broker import SqlBroker
from camora_sql.claiming import Claimer
from camora_sql.drivers.asyncpg import AsyncpgDriver
from camora_sql.session import Session
from sqlalchemy.util.concurrency import await_

from tests.sql.locks import fresh, stranger
from tests.sql.processes import PATIENCE, message

SERVERS = ["postgresql", "mariadb"]
LEASE = 3600.0
"""None of them lapses in these tests: what comes again was given back."""


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh(request.param, tmp_path)


@pytest.fixture
async def broker(url: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def other(broker: SqlBroker) -> AsyncIterator[SqlBroker]:
    made = broker.twin()
    await made.open()
    yield made
    await made.close()


async def consumer_of(broker: SqlBroker, **settings: Any) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=LEASE, **settings))


def acknowledged(deliveries: Any) -> list[Settlement]:
    return [Settlement(delivery=one, action=Action.ACK) for one in deliveries]


class LateAnswer:
    """Keeps the answer of the next claim back: the database has lent its messages out, and nobody knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broker: SqlBroker) -> None:
        self._loop = asyncio.get_running_loop()
        self._blocking = broker.database.dialect.blocking
        self.armed = False
        self._in_loop, self._in_thread = asyncio.Event(), threading.Event()
        self.lent = asyncio.Event()
        # Where a claim is one statement, it is that one's answer; else it is the commit's.
        kind, name = (AsyncpgDriver, "rows") if broker.database.dialect.name == "postgresql" else (Session, "write")
        monkeypatch.setattr(kind, name, self._late(getattr(kind, name)))

    def _late(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(this: Any, work: Any, *given: Any, **more: Any) -> Any:
            answer = real(this, work, *given, **more)
            claims = "claim" in work if isinstance(work, str) else work.__name__ in ("claim", "<lambda>")
            if self.armed and claims and answer:
                self.armed = False
                self._loop.call_soon_threadsafe(self.lent.set)
                if self._blocking:
                    assert self._in_thread.wait(PATIENCE)
                else:
                    await_(self._in_loop.wait())
            return answer

        return run

    def arrive(self) -> None:
        """Let it come."""
        self._in_loop.set()
        self._in_thread.set()


@pytest.fixture
async def late(monkeypatch: pytest.MonkeyPatch, broker: SqlBroker) -> AsyncIterator[LateAnswer]:
    made = LateAnswer(monkeypatch, broker)
    yield made
    made.arrive()  # a test that failed must end, too


async def cancelled(consumer: Consumer, late: LateAnswer, limit: int) -> None:
    """A `receive` that is cancelled while it waits for the answer."""
    late.armed = True
    first = asyncio.create_task(consumer.receive(limit, 0.0))
    async with asyncio.timeout(PATIENCE):
        await late.lent.wait()
    first.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)


async def test_a_claim_that_nobody_waits_for_takes_nothing_from_the_next(
    broker: SqlBroker, other: SqlBroker, late: LateAnswer
) -> None:
    await broker.publish([message("a"), message("b"), message("c")])
    consumer, second = await consumer_of(broker), await consumer_of(other)
    await cancelled(consumer, late, 1)
    receiving = asyncio.create_task(consumer.receive(1, PATIENCE))
    # Where both were under way at once, this one would end first.
    await asyncio.wait([receiving], timeout=0.3)
    late.arrive()
    held = await receiving
    assert len(held) == 1
    rest: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(rest) < 2:
            rest += await second.receive(5, 1.0)
    assert sorted(one.id for one in [*held, *rest]) == ["a", "b", "c"]
    assert {one.deliveries for one in [*held, *rest]} == {1}
    assert await consumer.settle(acknowledged(held)) == [True]
    assert await second.settle(acknowledged(rest)) == [True, True]


@pytest.mark.parametrize("end", ["stop", "close"])
async def test_what_nobody_waits_for_is_given_back_before_the_end(
    broker: SqlBroker, other: SqlBroker, late: LateAnswer, end: str
) -> None:
    await broker.publish([message("a"), message("b")])
    consumer = await consumer_of(broker)
    await cancelled(consumer, late, 2)
    ending = asyncio.create_task(getattr(consumer, end)())
    await asyncio.sleep(0)
    assert not ending.done()
    late.arrive()
    await ending
    await broker.close()
    again = await (await consumer_of(other)).receive(2, 0.0)
    assert [(one.id, one.deliveries) for one in again] == [("a", 1), ("b", 1)]


async def test_a_broker_that_is_closed_first_is_no_error(
    broker: SqlBroker, late: LateAnswer, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.publish([message("a")])
    consumer = await consumer_of(broker)
    await cancelled(consumer, late, 1)
    closing = asyncio.create_task(broker.close())
    await asyncio.sleep(0)
    late.arrive()
    await closing
    await consumer.close()
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno >= logging.ERROR]


@pytest.mark.parametrize("url", SERVERS, indirect=True)
@pytest.mark.parametrize("state", ["ready", "due", "lapsed"])
async def test_an_idle_worker_is_idle_while_somebody_has_locked_what_there_is_to_do(
    broker: SqlBroker, url: str, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    await broker.publish([message("locked")])
    consumer = await consumer_of(broker)
    with stranger(url) as somebody:
        past = int(time.time() * 1000) - 1000
        if state == "due":
            somebody.do("UPDATE {jobs} SET state = 1, due = %s", past)
        elif state == "lapsed":
            somebody.do("UPDATE {jobs} SET state = 2, receipt = 1, deliveries = 1, lease_until = %s", past)
        somebody.commit()
        somebody.lock("locked")
        looks = 0
        for kind in (type(consumer._claimer), Claimer):  # type: ignore[attr-defined]
            real = kind._look

            def look(self: Claimer, session: Session, real: Any = real) -> Any:
                nonlocal looks
                looks += 1
                return real(self, session)

            if "_look" in vars(kind):
                monkeypatch.setattr(kind, "_look", look)
        assert not await consumer.receive(1, 2.0)
        assert 0 < looks < 50
        # What others may have now does not wait for it.
        await broker.publish([message("free")])
        assert [one.id for one in await consumer.receive(1, PATIENCE)] == ["free"]
        somebody.commit()
    assert [one.id for one in await consumer.receive(1, PATIENCE)] == ["locked"]


async def test_an_upkeep_that_fails_is_told_once_until_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("camora_sql.consumer._PRUNE_EVERY", 0.0)
    broker = SqlBroker(url := fresh("postgresql", tmp_path))
    await broker.open()
    consumer = await consumer_of(broker)
    prefix = url.rpartition("prefix=")[2]
    real, prunes = Claimer.prune, []

    def prune(self: Claimer, session: Session) -> bool:
        try:
            answer = real(self, session)
        except Exception:
            prunes.append(False)
            raise
        prunes.append(True)
        return answer

    monkeypatch.setattr(Claimer, "prune", prune)

    async def pruned(works: bool) -> None:
        """Until it has done so three times more."""
        before = prunes.count(works)
        async with asyncio.timeout(PATIENCE):
            while prunes.count(works) < before + 3:
                await consumer.receive(1, 0.0)

    def told() -> int:
        return caplog.text.count("upkeep")

    with stranger(url) as somebody:
        somebody.do(
            f"CREATE FUNCTION {prefix}no() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'permission denied'; END $$"
        )
        refuse = f"CREATE TRIGGER no BEFORE DELETE ON {{done}} FOR EACH STATEMENT EXECUTE FUNCTION {prefix}no()"
        for turn in (1, 2):
            somebody.do(refuse)
            somebody.commit()
            await pruned(False)
            assert told() == turn
            somebody.do("DROP TRIGGER no ON {done}")
            somebody.commit()
            await pruned(True)
            assert told() == turn
    assert "permission denied" in caplog.text
    assert "Traceback" not in caplog.text
    await consumer.close()
    await broker.close()
