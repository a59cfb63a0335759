"""A long run of jobs of all outcomes leaves nothing that grows: no stream, list, hash, consumer or helper key."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from camora import AppSettings, Camora, Context, RetryPolicy, WorkerSettings
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement
from camora_redis import shelf
from camora_redis.scripting import Script

from tests.redis.faults.rig import eventually
from tests.servers.fixtures import private
from tests.servers.redis import Server

WINDOW = 1000
"""How many ids of finished jobs each queue remembers."""
ROUND = 300
"""How many jobs of each sort there are in a round."""
ROUNDS = 4
LEASE = 1.0
QUEUES = ("default", "side")
STREAMS = tuple(f"camora:{queue}" for queue in QUEUES)


@attrs.frozen
class Key:
    """What lies under one name; `size` is the number of its elements."""

    kind: str
    size: int
    memory: int


def keys_of(server: Server) -> dict[str, Key]:
    """Everything that is in the server."""
    counting = {"stream": "XLEN", "hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "string": "STRLEN"}
    found = {}
    with server.connection() as connection:
        cursor = "0"
        while True:
            cursor, names = connection.call("SCAN", cursor, "COUNT", 1000)
            for name in names:
                kind = connection.call("TYPE", name)
                if kind != "none":
                    size = connection.call(counting[kind], name)
                    memory = connection.call("MEMORY", "USAGE", name, "SAMPLES", 0)
                    found[name] = Key(kind, size or 0, memory or 0)
            if cursor == "0":
                return found


def consumers_of(server: Server) -> dict[str, list[str]]:
    """The names of the consumers of every group."""
    found: dict[str, list[str]] = {}
    with server.connection() as connection:
        for name, key in keys_of(server).items():
            if key.kind == "stream":
                for group in connection.call("XINFO", "GROUPS", name):
                    for consumer in connection.call("XINFO", "CONSUMERS", name, _field(group, "name")):
                        found.setdefault(name, []).append(_field(consumer, "name"))
    return found


def names_of(server: Server) -> set[str]:
    """The names of all consumers."""
    return {name for names in consumers_of(server).values() for name in names}


def pending_of(server: Server) -> int:
    """How many entries all groups have lent."""
    with server.connection() as connection:
        streams = [name for name, key in keys_of(server).items() if key.kind == "stream"]
        return sum(_field(group, "pending") for name in streams for group in connection.call("XINFO", "GROUPS", name))


def _field(flat: Sequence[Any], name: str) -> Any:
    return flat[flat.index(name) + 1]


def tasks_of(app: Camora) -> dict[str, Any]:
    """One of each outcome that a worker brings about."""

    @app.task(name="succeed")
    async def succeed(number: int) -> int:
        return number

    @app.task(name="again", retry_policy=RetryPolicy(max_tries=3, delay=0.01))
    async def again(ctx: Context, number: int) -> int:
        if ctx.attempt < 2:
            raise ConnectionError("again")
        return number

    @app.task(name="fail")
    async def fail(number: int) -> None:
        raise ValueError(number)

    @app.task(name="sleep")
    async def sleep(number: int) -> None:
        await asyncio.sleep(60)

    return {"succeed": succeed, "again": again, "fail": fail, "sleep": sleep}


@asynccontextmanager
async def consumer_of(app: Camora, name: str, queues: Sequence[str]) -> AsyncIterator[Consumer]:
    consumer = await app.broker.consumer(ConsumerSettings(queues=tuple(queues), worker=name, lease=LEASE))
    try:
        yield consumer
    finally:
        await consumer.close()


async def by_hand(app: Camora, number: int) -> None:
    """What workers do seldom: jobs given back, lent and forgotten, lent again; consumers that are never seen again."""
    jobs = [Envelope(id=f"hand-{number}-{one}", task="t", queue="side", body=b"{}") for one in range(ROUND)]
    await app.broker.publish(jobs)
    async with consumer_of(app, f"forgetful-{number}", ["side"]) as forgetful:
        forgotten = await forgetful.receive(ROUND // 4, 5.0)
        assert forgotten
    left = {job.id for job in jobs}
    async with consumer_of(app, f"careful-{number}", ["side"]) as careful:
        async with asyncio.timeout(60):
            for turn in range(10_000):
                taken = await careful.receive(100, 0.5)
                await careful.settle([_released_or_done(delivery, turn, left) for delivery in taken])
                if not left:
                    return


def _released_or_done(delivery: Delivery, turn: int, left: set[str]) -> Settlement:
    if turn < 10:
        delay = 0.02 * (turn % 2)
        return Settlement(delivery=delivery, action=Action.RELEASE, delay=delay, charged=turn % 3 == 0)
    left.discard(delivery.id)
    return Settlement(delivery=delivery, action=Action.ACK)


async def one_round(app: Camora, tasks: Mapping[str, Any], number: int) -> int:
    """Some thousands of jobs, of all outcomes; how many."""
    count = 0
    sorts = [
        [tasks["succeed"].s(number=one) for one in range(ROUND)],
        [tasks["again"].s(number=one) for one in range(ROUND)],
        [tasks["fail"].s(number=one) for one in range(ROUND)],
        [tasks["succeed"].options(delay=0.02 + one % 10 / 10).s(number=one) for one in range(ROUND)],
        [tasks["succeed"].options(priority=one % 10).s(number=one) for one in range(ROUND)],
        [tasks["succeed"].options(key=f"{number}-{one}").s(number=one) for one in range(ROUND)],
        [tasks["succeed"].options(key=f"t{number}-{one}", key_ttl=0.2).s(number=one) for one in range(ROUND)],
        [tasks["succeed"].options(expires=0.001, delay=0.02).s(number=one) for one in range(ROUND)],
    ]  # fmt: skip
    for sort in sorts:
        count += len(await app.dispatch_many(sort))
    count += await cancelled(app, tasks["sleep"], ROUND)
    count += await purged(app, tasks["succeed"], ROUND)
    await by_hand(app, number)
    await eventually(lambda: idle(app), "the end of the round", timeout=90)
    letters = [letter.id async for letter in app.dead_letters()]
    for letter in letters[:: len(letters) // 50 or 1]:
        await app.broker.dead_letters.requeue(letter)
    await eventually(lambda: idle(app), "the end of what was put back", timeout=60)
    await app.purge_dead_letters()
    return count + ROUND


async def cancelled(app: Camora, sleep: Any, count: int) -> int:
    """Half of them wait when they are cancelled, some run already."""
    running = [await sleep.dispatch(number=one) for one in range(10)]
    waiting = [await sleep.options(delay=60).dispatch(number=one) for one in range(count)]
    for job in (*running, *waiting):
        await job.cancel()
    return len(running) + len(waiting)


async def purged(app: Camora, succeed: Any, count: int) -> int:
    """Deleted while they wait, in a queue that is paused."""
    await app.broker.queues.pause("side")
    await app.dispatch_many(succeed.options(queue="side", priority=one % 3).s(number=one) for one in range(count))
    await app.dispatch_many(succeed.options(queue="side", delay=30).s(number=one) for one in range(count))
    assert await app.broker.queues.purge("side") == 2 * count
    await app.broker.queues.pause("side", paused=False)
    return 2 * count


async def idle(app: Camora) -> bool:
    counts = await app.broker.queues.counts()
    return not any(queue.get(state) for queue in counts.values() for state in ("ready", "scheduled", "leased"))


def check_bounds(server: Server) -> None:
    """Every key is one that is documented, within its bound."""
    found = keys_of(server)
    for name, key in found.items():
        stream = next((stream for stream in STREAMS if name == stream or name.startswith(f"{{{stream}}}:")), None)
        assert stream is not None or name.startswith("{camora}:"), f"what is this: {name} {key}"
        if stream is None:
            assert key.kind == "string" or key.size <= 64, (name, key)
            continue
        helper = name.removeprefix(f"{{{stream}}}:")
        if name == stream or helper.startswith("p:") or helper == "dead":
            assert (key.kind, key.size) == ("stream", 0), (name, key)
        elif helper == "bell":
            assert key.size <= 8, (name, key)
        elif helper == "index":
            assert key.size <= WINDOW + 1, (name, key)
        elif helper == "done":
            assert key.size <= WINDOW, (name, key)
        else:
            raise AssertionError(f"this should be gone: {name} {key}")
    assert len(found) <= 2 * (2 + 9 + 4) + 10, sorted(found)


@pytest.mark.timeout(300)
async def test_nothing_grows_over_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # A minute, or ten leases if that is longer: only the leases are waited for here.
    minute = shelf._TAKE.text
    assert minute.count("math.max(60000, 10 * lease)") == 1
    shorter = minute.replace("60000", "1000")
    monkeypatch.setattr(shelf, "_TAKE", Script(shorter, hashlib.sha1(shorter.encode()).hexdigest()))
    with private() as server:
        settings = AppSettings(result_ttl=1.0, dispatch_timeout=30.0)
        quiet = logging.getLogger("camora.bounded")
        quiet.setLevel(logging.ERROR)  # thousands of jobs fail on purpose
        async with Camora(f"{server.url}?dedup_window={WINDOW}", settings=settings, logger=quiet) as app:
            tasks = tasks_of(app)
            worker = WorkerSettings(lease=LEASE, concurrency=100, shutdown_timeout=5)
            total, snapshots = 0, []
            early: set[str] = set()
            began = time.monotonic()
            for number in range(ROUNDS):
                # Workers come and go, too.
                async with app.worker(queues=["default"], settings=worker):
                    total += await one_round(app, tasks, number)
                    early |= names_of(server)
                    await eventually(lambda: only_kept(server), "the end of results and keys", timeout=30)
                    check_bounds(server)
                    assert pending_of(server) == 0
                    snapshots.append(keys_of(server))
                if number == 1:
                    old = set(early)
            print(f"{total} jobs in {time.monotonic() - began:.0f} s; {len(early)} consumers")
            for name, last in snapshots[-1].items():
                if name not in snapshots[1]:  # a worker's, with a time of its own
                    assert server.cli("PTTL", name) != -1, name
                    continue
                assert last.memory <= 1.5 * snapshots[1][name].memory + 4096, (name, snapshots[1][name], last)
            # Names of consumers that have left are dropped some time after they were last heard of.
            async with app.worker(queues=list(QUEUES), settings=worker):
                await eventually(lambda: not old & names_of(server), "the end of those names", 120)


def only_kept(server: Server) -> bool:
    """Whether what has a time of its own is gone."""
    return not any(":result:" in name or "}:key:" in name for name in keys_of(server))
