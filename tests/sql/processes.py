"""Other processes on the same file: each runs one of the parts below, and tells what it did line by line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from camora import Camora
from camora.interfaces.broker import Broker, ConsumerSettings
from camora.interfaces.limits import Ask, Limit
from camora.message import Envelope
from camora.outcome import Action, JobRecord, Settlement, Status
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

PATIENCE = 60.0


class Process:
    """A part that plays in a process of its own."""

    def __init__(self, part: str, *args: Any) -> None:
        from tests import forked  # here, because the part itself is a script that knows no `tests`

        self._process = forked.Popen(
            [sys.executable, __file__, part, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def hears(self) -> Any:
        """The next thing it says; waits for it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it ended with {self._process.wait(PATIENCE)}"
        return json.loads(line)

    def go(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def close(self) -> int:
        """Wait for its end; its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


@contextmanager
def playing(part: str, count: int, *args: Any) -> Iterator[list[Process]]:
    """Some processes that play this part, each ready to go; they must end well."""
    processes = [Process(part, *args) for _ in range(count)]
    try:
        for process in processes:
            assert process.hears() == "ready"
        yield processes
    except BaseException:
        for process in processes:
            process.kill()
        raise
    finally:
        codes = [process.close() for process in processes]
    assert codes == [0] * count


# In the other process


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def told_to_go() -> None:
    say("ready")
    sys.stdin.readline()


def broker_at(url: str) -> Broker:
    return Camora(url).broker


def message(job_id: str, **changes: Any) -> Envelope:
    return Envelope(id=job_id, task="a.task", queue="work", body=b"{}", **changes)


async def publish_ids(url: str, count: str) -> None:
    """Publish the same ids as everybody else, a few at a time; says what stands for them."""
    told_to_go()
    broker = broker_at(url)
    await broker.open()
    answers: list[str] = []
    for start in range(0, int(count), 7):
        ids = [f"job-{number:05}" for number in range(start, min(start + 7, int(count)))]
        answers += await broker.publish([message(job_id) for job_id in ids])
    say(answers)
    await broker.close()


async def publish_keys(url: str, count: str) -> None:
    """Publish jobs of one's own under the same keys as everybody else; says what stands for them."""
    told_to_go()
    broker = broker_at(url)
    await broker.open()
    answers = []
    for number in range(int(count)):
        answers += await broker.publish([message(f"{os.getpid()}-{number}", key=f"key-{number}")])
    say(answers)
    await broker.close()


async def drain(url: str) -> None:
    """Take and acknowledge until nothing is left; says which."""
    broker = broker_at(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker=str(os.getpid())))
    told_to_go()
    done = []
    while deliveries := await consumer.receive(13, 0.0):
        settlements = [
            Settlement(
                delivery=one,
                action=Action.ACK,
                record=JobRecord(id=one.id, status=Status.SUCCEEDED, worker=str(os.getpid())),
            )
            for one in deliveries
        ]
        assert all(await consumer.settle(settlements))
        done += [one.id for one in deliveries]
    say(done)
    await consumer.close()
    await broker.close()


async def take(url: str, count: str) -> None:
    """Take messages one by one as they come, and acknowledge; says when each came."""
    broker = broker_at(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="other"))
    told_to_go()
    for _ in range(int(count)):
        deliveries = await consumer.receive(1, PATIENCE)
        [one] = deliveries
        say([one.id, time.time()])
        await consumer.settle([Settlement(delivery=one, action=Action.ACK)])
    await consumer.close()
    await broker.close()


async def take_and_hold(url: str) -> None:
    """Take one message and never settle it."""
    broker = broker_at(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="holder", lease=0.5))
    told_to_go()
    [one] = await consumer.receive(1, PATIENCE)
    say(one.id)
    await asyncio.Event().wait()


async def publish_for_ever(url: str) -> None:
    """Publish one after the other, and say each id once it is acknowledged."""
    broker = broker_at(url)
    await broker.open()
    told_to_go()
    number = 0
    while True:
        job_id = f"{os.getpid()}-{number:06}"
        await broker.publish([message(job_id)])
        say(job_id)
        number += 1


async def record(url: str, job_id: str) -> None:
    """Store a finished record; says when."""
    results = broker_at(url).own_results()
    assert results is not None
    await results.open()
    told_to_go()
    await results.store([JobRecord(id=job_id, status=Status.SUCCEEDED, value=b"42")])
    say(time.time())
    await results.close()


async def open_first(url: str) -> None:
    """Be one of many who open a file that is not there yet, and publish one job."""
    told_to_go()
    broker = broker_at(url)
    await broker.open()
    await broker.publish([message(f"first-{os.getpid()}")])
    await broker.close()
    say("done")


class Fuse:
    """Kills this process, as a power cut or an impatient operator would, at one step of all that it does."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.steps = 0

    def step(self, *_: Any) -> None:
        self.steps += 1
        if self.steps == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, engine: Engine) -> None:
        """A step is: before and after each statement, before each commit."""
        event.listen(engine, "before_cursor_execute", self.step)
        event.listen(engine, "after_cursor_execute", self.step)
        event.listen(engine, "commit", self.step)


def _insert(item: str) -> Any:
    return text("INSERT INTO orders (item) VALUES (:item)").bindparams(item=item)


async def order_once(url: str, kind: str, fuse: Fuse) -> None:
    """An order and its job in one transaction, both or none."""
    broker = broker_at(url)
    await broker.open()
    envelopes = [message("job-cup", key="cup"), message("job-pot")]
    if kind == "connection":
        engine = create_engine(url)
        fuse.watch(engine)
        with engine.begin() as connection:
            connection.execute(_insert("cup"))
            await broker.publish_within(connection, envelopes)
            connection.execute(_insert("pot"))
        fuse.step()
        engine.dispose()
    else:
        asynchronous = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
        fuse.watch(asynchronous.sync_engine)
        async with AsyncSession(asynchronous) as session:
            await session.execute(_insert("cup"))
            await broker.publish_within(session, envelopes)
            await session.execute(_insert("pot"))
            await session.commit()
        fuse.step()
        await asynchronous.dispose()
    await broker.close()


def order_and_die_at_each_step(folder: str, kind: str) -> None:
    """In a process of its own for each step of `order_once`, with a database of its own; says how many there were."""
    told_to_go()
    whole = Fuse(0)
    asyncio.run(order_once(shop_in(folder, 0), kind, whole))
    for at in range(1, whole.steps + 1):
        pid = os.fork()
        if pid == 0:
            asyncio.run(order_once(shop_in(folder, at), kind, Fuse(at)))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    say(whole.steps)


def shop_in(folder: str, number: int) -> str:
    """A database with a table of orders."""
    path = f"{folder}/at-{number}.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
    database.close()
    return f"sqlite:///{path}"


async def order_for_ever(url: str) -> None:
    """One order with its job after the other, every third of them rolled back; says what was committed."""
    broker = broker_at(url)
    await broker.open()
    engine = create_engine(url, connect_args={"timeout": PATIENCE})
    told_to_go()
    number = 0
    while True:
        number += 1
        item = f"{os.getpid()}-{number:06}"
        with engine.connect() as connection:
            connection.execute(_insert(item))
            await broker.publish_within(connection, [message(item)])
            if number % 3:
                connection.commit()
                say(item)


async def fire(url: str, last: str) -> None:
    """Be one of many schedulers: fire tick 1, 2, … of every schedule; says each, and when there are no more."""
    broker = broker_at(url)
    store = broker.own_schedules()
    assert store is not None
    await broker.open()
    await store.open()
    told_to_go()
    # The time of its own that claims are made by: what another one has let lapse is lent again at once.
    moment = 1_000_000
    while await store.next_due() is not None:
        moment += 1000
        for fire in await store.claim(moment, holder=str(os.getpid()), lease=1.0, limit=3):
            tick = fire.record.next
            assert tick is not None
            job_id = f"{fire.record.key}@{tick}"
            await broker.publish([message(job_id)])
            say(job_id)
            await store.advance(fire, last=tick, next_tick=tick + 1 if tick < int(last) else None, job_id=job_id)
    say("done")
    await store.close()
    await broker.close()


async def hold_a_slot(url: str) -> None:
    """Hold the one slot there is, give it back, and hold it again until the end; says how it went, step by step."""
    limits = broker_at(url).own_limits()
    assert limits is not None
    await limits.open()
    told_to_go()
    ask = Ask(holder="there", limits=(Limit(name="slot", most=1),))
    say(await limits.take([ask], lease=PATIENCE))
    sys.stdin.readline()
    await limits.give_back(["there"])
    say("given back")
    sys.stdin.readline()
    say(await limits.take([ask], lease=PATIENCE))
    sys.stdin.readline()


def make_revision(url: str, revision: str = "0001") -> None:
    """A file as an earlier version made it, by the migrations up to there."""
    from camora_sql import migrating, statements
    from camora_sql.session import Session
    from camora_sql.store import Store

    store = Store(url)
    session = Session(store)
    try:
        migrating.migrate(session, store, until=revision)
        # Its first use noted the machine's boot.
        epoch = store.dialect.lease_epoch()
        session.write(lambda session: session.change(statements.write_fact, ("lease_epoch", epoch)))
    finally:
        session.close()


async def publish_and_drain_as_earlier(url: str, count: str, revision: str = "0001") -> None:
    """Do as an earlier version did, which knew revisions up to its own only; says what it has taken."""
    from camora_sql import opening

    opening.HEAD = revision
    broker = broker_at(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker=str(os.getpid())))
    told_to_go()
    done = []
    for number in range(int(count)):
        if number == int(count) // 3:
            say("begun")
            sys.stdin.readline()
        await broker.publish([message(f"{os.getpid()}-{number}")])
        deliveries = await consumer.receive(1, 0.0)
        assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries]))
        done += [one.id for one in deliveries]
    say(done)
    await consumer.close()
    await broker.close()


def upgrade_and_die(url: str) -> None:
    """In a process of its own: upgrade, and be killed when all is done but the commit; says how it ended."""
    from camora_sql.dialects.sqlite import SqliteDialect
    from camora_sql.migrating import migrate
    from camora_sql.session import Session
    from camora_sql.store import Store

    told_to_go()
    pid = os.fork()
    if pid == 0:
        SqliteDialect.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]
        store = Store(url)
        migrate(Session(store), store)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    say(os.waitstatus_to_exitcode(status))


PARTS: dict[str, Callable[..., Coroutine[Any, Any, None] | None]] = {
    part.__name__: part
    for part in (
        publish_ids,
        publish_keys,
        drain,
        take,
        take_and_hold,
        publish_for_ever,
        record,
        open_first,
        order_and_die_at_each_step,
        order_for_ever,
        publish_and_drain_as_earlier,
        upgrade_and_die,
        hold_a_slot,
        fire,
    )
}

if __name__ == "__main__":
    playing_it = PARTS[sys.argv[1]](*sys.argv[2:])
    if playing_it is not None:
        asyncio.run(playing_it)
