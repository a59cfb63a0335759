"""Processes that are killed in the middle of what takes several steps, at each of them.

Not really each: it is the same after one thing that is asked of the connection and before the next.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from camora import Camora
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, JobRecord, Settlement, Status
from camora.schedules.ticks import tick_id

from tests.servers import mariadb
from tests.servers.fixtures import fresh_postgres_url
from tests.sql.faults.dying import BATCH, MANY, MINUTE, PERIOD, START, Stopped, chimes, doing


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    return fresh_postgres_url() if request.param == "postgresql" else mariadb.fresh_url()


@pytest.fixture
async def app(url: str) -> AsyncIterator[Camora]:
    async with Camora(url) as made:

        @made.task(name="work")
        async def work() -> None:
            """Nobody runs it: the test takes its jobs."""

        await made.broker.queues.counts()
        yield made


async def consumer_of(app: Camora, *queues: str) -> Consumer:
    return await app.broker.consumer(ConsumerSettings(queues=queues, worker="test", lease=30))


def steps() -> Iterator[int]:
    """Before the first thing, and after each."""
    yield 1
    yield from itertools.count(2, 2)


async def finish(consumer: Consumer, wanted: int | None = None) -> list[str]:
    """Take what there is, or as many as are wanted, and end it well, as a worker does; which they were."""
    found: list[str] = []
    while wanted is None or len(found) < wanted:
        taken = await consumer.receive(wanted or BATCH, 0.0 if wanted is None else 10.0)
        if not taken:
            break
        records = [JobRecord(id=one.id, status=Status.SUCCEEDED) for one in taken]
        done = [
            Settlement(delivery=one, action=Action.ACK, record=record)
            for one, record in zip(taken, records, strict=True)
        ]
        assert all(await consumer.settle(done))
        found += [one.id for one in taken]
    return found


async def test_a_scheduler_killed_at_any_step_of_a_fire_fires_each_tick_once(app: Camora, url: str) -> None:
    """Another one comes a minute later, and makes up for what the dead one did not do, each schedule in its way."""
    consumer = await consumer_of(app, "chimes")
    ran: Counter[str] = Counter()
    clock = Stopped(START)
    other = chimes(url, clock)
    async with other:
        scheduler = other.make_scheduler()
        await scheduler.next_due()  # stored: so they all know where to begin
        store = await other.schedules.parts.store()
        before = {record.key: record for record in await store.list()}
        with doing("fire", url) as deed:
            for step in itertools.count(1, 2):
                died, _ = await deed.until(step)
                # What was sent has ended before anybody sends it again.
                ran.update(await finish(consumer))
                clock.moment = START + (step + 1) * MINUTE
                await scheduler.run_due()
                ran.update(await finish(consumer))
                if not died:
                    break
        after = {record.key: record for record in await store.list()}
    print(f"killed at {step // 2} steps, fired {len(ran)}")
    assert step > 25
    assert set(ran.values()) == {1}
    fired = {}
    for key, record in before.items():
        assert record.next is not None
        grid = range(record.next, clock.moment + 1, PERIOD)
        fired[key] = [tick for tick in grid if tick_id(record, tick) in ran]
        assert after[key].last == fired[key][-1]
        assert after[key].next == grid[-1] + PERIOD
        if key == "all":
            assert fired[key] == list(grid)
    # Of the other one a tick each time somebody came: but the same one, where the first had not got as far.
    assert step // 2 < len(fired["one"]) < step
    assert sum(map(len, fired.values())) == len(ran)
    await consumer.close()


@pytest.mark.timeout(300)  # many processes, one after the other
async def test_what_was_acknowledged_of_many_is_there_and_their_repetition_doubles_nothing(
    app: Camora, url: str
) -> None:
    consumer = await consumer_of(app, "default")
    work: Any = app.tasks.get("work")
    unsaid = set()
    with doing("dispatch", url) as deed:
        for step in steps():
            died, acknowledged = await deed.until(step)
            ids = [f"{step}-{number}" for number in range(MANY)]
            assert acknowledged == ids[: len(acknowledged)]
            stored = {job.id for job in await app.broker.queues.list("default", limit=2 * MANY)}
            # Each part is there or not, and at most the one that it died of without anybody having heard of it.
            assert stored in [set(ids[:size]) for size in (0, BATCH, 2 * BATCH, MANY)]
            assert 0 <= len(stored) - len(acknowledged) <= BATCH
            unsaid.add(len(stored) > len(acknowledged))
            # Some of them have ended when whoever dispatched them does it again, and some have not.
            ran = Counter(await finish(consumer, min(30, len(stored))))
            jobs = [job.id async for job in app.dispatch_many(work.options(job_id=name).s() for name in ids)]
            assert jobs == ids
            ran.update(await finish(consumer))
            assert ran == Counter(ids)
            if not died:
                break
    print(f"killed at {step // 2} steps")
    assert step > 2 * 3
    assert unsaid == {True, False}
    await consumer.close()


async def test_a_message_that_dies_is_in_its_queue_or_a_dead_letter_and_never_in_neither(app: Camora, url: str) -> None:
    where: Counter[str] = Counter()
    with doing("bury", url) as deed:
        for step in steps():
            died, said = await deed.until(step)
            queue = f"q{step}"
            names = [f"{queue}-keyed", f"{queue}-plain"]
            queued = [job.id for job in await app.broker.queues.list(queue)]
            letters = [letter.id async for letter in app.dead_letters(queue)]
            assert sorted([queued, letters]) == [[], names]
            where["queue" if queued else "letters"] += 1
            assert said in ([], [[True, True]])
            assert letters if said else True
            # Letters can be put back, and what was only lent comes back with its lease.
            for name in letters:
                assert await app.requeue(name)
            consumer = await consumer_of(app, queue)
            assert sorted(await finish(consumer, 2)) == names
            assert not await finish(consumer)
            assert not [letter async for letter in app.dead_letters(queue)]
            await free(app, f"key-{step}")
            await consumer.close()
            if not died:
                break
    print(f"killed at {step // 2} steps: {dict(where)}")
    assert where["queue"]
    assert where["letters"] > 1


async def test_a_letter_that_is_requeued_is_a_letter_or_a_message_and_never_neither(app: Camora, url: str) -> None:
    where: Counter[str] = Counter()
    with doing("requeue", url) as deed:
        for step in steps():
            died, said = await deed.until(step)
            name = f"q{step}"
            queued = [job.id for job in await app.broker.queues.list(name)]
            letters = [letter.id async for letter in app.dead_letters(name)]
            assert sorted([queued, letters]) == [[], [name]]
            where["queue" if queued else "letters"] += 1
            assert said in ([], [True])
            assert queued if said else True
            assert await app.requeue(name) is bool(letters)
            consumer = await consumer_of(app, name)
            assert await finish(consumer, 1) == [name]
            assert not await finish(consumer)
            await free(app, f"key-{step}")
            await consumer.close()
            if not died:
                break
    print(f"killed at {step // 2} steps: {dict(where)}")
    assert where["letters"] > 1
    assert where["queue"] > 1


async def free(app: Camora, key: str) -> None:
    """See that a key is free: a job that nobody knows gets it."""
    job = Envelope(id=f"after-{key}", task="t", queue="after", body=b"", key=key)
    assert await app.broker.publish([job]) == [job.id]
