"""What MariaDB stores is what was given: names as they are, any bytes, and nothing cut; upserts that ask first."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from camora.errors import EncodeError
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import Action, DeadLetter, ErrorInfo, JobRecord, Settlement, Status
from camora_sql import statements
from camora_sql.blocking import BlockingSession
from camora_sql.broker import SqlBroker
from camora_sql.opening import prepare
from camora_sql.records import row_of
from camora_sql.session import Session
from camora_sql.store import Store
from msgspec.structs import replace

from tests.servers.mariadb import fresh_url
from tests.sql.processes import message


@pytest.fixture
async def broker() -> AsyncIterator[SqlBroker]:
    # Many write this for a MariaDB, too.
    made = SqlBroker(fresh_url(scheme="mysql+asyncmy"))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def session() -> Iterator[tuple[BlockingSession, Store]]:
    store = Store(fresh_url())
    made = BlockingSession(store)
    made.run(lambda session: prepare(session, store))
    yield made, store
    made.close()


async def test_names_are_what_they_are(broker: SqlBroker) -> None:
    """Capitals, accents, spaces at the end, and what another collation would take for nothing, or for the same."""
    names = ["job", "JOB", "job ", "jòb", "job\N{ZERO WIDTH SPACE}", "straße", "strasse", "\N{PILE OF POO}", "'; --\\"]
    assert await broker.publish([message(name) for name in names]) == names
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    deliveries = await consumer.receive(100, 0)
    assert [one.id for one in deliveries] == names
    assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries[1:]]))
    assert [name for name in names if await broker.queues.find(name)] == ["job"]
    queues = [replace(message(f"q{place}"), queue=name) for place, name in enumerate(names)]
    await broker.publish(queues)
    assert set(await broker.queues.counts()) == {"work", *names}
    keyed = [replace(message(f"k{place}"), key=name) for place, name in enumerate(names)]
    assert await broker.publish(keyed) == [one.id for one in keyed]
    await consumer.close()


async def test_any_bytes_come_back(broker: SqlBroker) -> None:
    bodies = [bytes(range(256)), b"", b"%s %% \\ ' \" \0", b"\xff" * 100_000, "ü\N{PILE OF POO}".encode()]
    await broker.publish([replace(message(f"b{place}"), body=body) for place, body in enumerate(bodies)])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    assert [one.body for one in await consumer.receive(100, 0)] == bodies
    await consumer.close()


async def test_what_does_not_fit_is_refused_not_cut(broker: SqlBroker) -> None:
    """The server takes 16 MiB at once. A batch is cut into what it takes; one message cannot be."""
    large = [replace(message(f"l{place}"), body=b"\0" * 3_000_000) for place in range(8)]
    assert await broker.publish(large) == [one.id for one in large]
    with pytest.raises(EncodeError, match="max_allowed_packet.*nothing was enqueued"):
        await broker.publish([message("small"), replace(message("huge"), body=b"x" * 17_000_000)])
    with pytest.raises(EncodeError, match="nothing was enqueued"):
        await broker.publish([message("small"), replace(message("long"), queue="q" * 300)])
    with pytest.raises(EncodeError, match="nothing was enqueued"):
        await broker.publish([message("small"), replace(message("half"), task="\ud800")])
    with pytest.raises(EncodeError, match="nothing was enqueued"):
        await broker.publish([message("small"), replace(message("much"), due=2**70)])
    # Those who dispatched at the same moment are not taken along, and the connection is as good as before.
    assert await broker.queues.find("small") is None
    assert await broker.publish([message("small")]) == ["small"]
    assert (await broker.queues.counts())["work"] == {"ready": 9}
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    deliveries = await consumer.receive(20, 0)
    assert sum(len(one.body) for one in deliveries) > 24_000_000
    error = ErrorInfo(type="E", text="t" * 100_000, traceback="\N{PILE OF POO}" * 70_000)
    records = [JobRecord(id=one.id, status=Status.FAILED, error=error, ttl=60.0) for one in deliveries]
    pairs = zip(deliveries, records, strict=True)
    assert all(await consumer.settle([Settlement(delivery=d, action=Action.ACK, record=r) for d, r in pairs]))
    results = broker.own_results()
    await results.open()
    found = await results.fetch(["small"])
    assert found[0] is not None
    assert found[0].error == error
    await results.close()
    await consumer.close()


_OLD = list(itertools.product((False, True), (-1000, 1000)))
_NEW = list(itertools.product((False, True), (0.0, 5.0)))


@pytest.mark.parametrize(("old_final", "old_left"), _OLD)
@pytest.mark.parametrize(("new_final", "new_ttl"), _NEW)
def test_a_record_is_replaced_whole_or_not_at_all(
    session: tuple[BlockingSession, Store], *, old_final: bool, old_left: int, new_final: bool, new_ttl: float
) -> None:
    """A finished one whose time is not over stands. The condition is of columns that the same statement sets."""
    run, _ = session
    now = 1_000_000
    old = JobRecord(id="a", status=Status.SUCCEEDED if old_final else Status.RUNNING, task="old", worker="o", ttl=7.0)
    new = JobRecord(id="a", status=Status.FAILED if new_final else Status.RETRYING, task="new", worker="n", ttl=new_ttl)
    before = list(row_of(old, now))
    before[12] = now + old_left
    after = row_of(new, now)
    run.write(lambda session: session.insert(statements.put_records, [before], (now,)))
    run.write(lambda session: session.insert(statements.put_records, [after, row_of(named(new, "b"), now)], (now,)))
    rows = {row[0]: row for row in run.read(lambda session: session.rows_in(statements.read_records, ["a", "b"]))}
    stands = old_final and old_left > 0
    assert list(rows["a"]) == (before if stands else list(after))
    assert rows["b"][3] == "new"


def named(record: JobRecord, job_id: str) -> JobRecord:
    return JobRecord(id=job_id, status=record.status, task=record.task, worker=record.worker, ttl=record.ttl)


def test_a_key_is_taken_when_it_is_free_or_ones_own(session: tuple[BlockingSession, Store]) -> None:
    run, store = session
    keys = store.dialect.tables.keys.name

    def holders(session: Session) -> list[Any]:
        return [tuple(row) for row in session.driver.rows(f"SELECT job, until FROM {keys}")]

    def step(build: statements.Builder, *values: Any) -> list[Any]:
        run.write(lambda session: session.change(build, values))
        return run.read(holders)

    assert step(statements.take_key, "k", "a", 10) == [("a", None)]
    assert step(statements.take_key, "k", "b", 10) == [("a", None)]
    assert step(statements.keep_key, 20, "k", "a") == [("a", 20)]
    assert step(statements.take_key, "k", "b", 19) == [("a", 20)]
    assert step(statements.retake_key, "k", "c", 19, "c") == [("a", 20)]
    assert step(statements.retake_key, "k", "a", 19, "a") == [("a", None)]
    assert step(statements.keep_key, 20, "k", "a") == [("a", 20)]
    assert step(statements.take_key, "k", "b", 20) == [("b", None)]
    assert step(statements.free_key, "k", "a") == [("b", None)]
    assert step(statements.free_key, "k", "b") == []


async def test_an_id_is_recognised_and_a_requeued_job_is_not_lost_by_it(broker: SqlBroker) -> None:
    """What is over is not stored again; but what is unfinished again stays, whatever else bears its id."""
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    await broker.publish([message("done"), message("dead")])
    done, dead = await consumer.receive(2, 5)
    letter = DeadLetter(
        id="dead",
        queue="work",
        task="a.task",
        body=b"{}",
        reason="failed",
        error=None,
        attempts=1,
        deliveries=1,
        died=1,
    )
    # Its record is past its time at once, and there until somebody deletes it.
    record = JobRecord(id="dead", status=Status.FAILED, ttl=0.0)
    settlements = [
        Settlement(delivery=done, action=Action.ACK),
        Settlement(delivery=dead, action=Action.REJECT, letter=letter, record=record),
    ]
    assert all(await consumer.settle(settlements))
    everything = [message("done"), message("dead"), message("new")]
    assert await broker.publish(everything) == ["done", "dead", "new"]
    assert (await broker.queues.counts())["work"] == {"ready": 1, "dead": 1}
    assert await broker.dead_letters.requeue("dead")
    assert await broker.publish(everything) == ["done", "dead", "new"]
    assert (await broker.queues.counts())["work"] == {"ready": 2}
    assert {one.id for one in await consumer.receive(5, 1)} == {"dead", "new"}
    await consumer.close()
