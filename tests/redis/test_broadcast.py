"""Broadcast queues: every worker that listens gets each job, once at most, and nothing is kept."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import msgspec
import pytest
from camora import Camora, Context, Queue, Retry, RetryPolicy, WorkerSettings, cron
from camora.errors import BrokerUnavailable, ConfigurationError, JobFailed, UnsupportedCapability
from camora.interfaces.broker import Broker, Consumer, ConsumerSettings, LeaseVerdict
from camora.message import Delivery, Envelope
from camora.testing.conformance import BrokerConformance
from camora.testing.conformance.making import ack, envelope, reject, release, retry
from camora_redis import ListQueue, PubSubQueue, RedisBroker
from camora_redis.broadcast import packed_broadcast
from camora_redis.subscription import Subscription

from tests.servers.fixtures import fresh_url, private_server, shared_cluster, shared_sentinels
from tests.servers.proxy import Proxy
from tests.servers.redis import Server

__all__ = ["private_server"]  # a fixture

NewServer = Callable[..., Server]
Heard = list[tuple[str, Any]]
_prefixes = itertools.count()


def url_at(server: Server, **options: Any) -> str:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"{server.url}?timeout=1{more}"


def fresh(kind: str) -> str:
    """An empty place; channels know no databases, so each has a prefix of its own."""
    if kind == "cluster":
        url = shared_cluster().url
    elif kind == "sentinel":
        url = shared_sentinels().url
    else:
        url = fresh_url(kind)
    return f"{url}?prefix=bus{next(_prefixes)}"


@pytest.fixture(params=["redis", "valkey"])
def url(request: pytest.FixtureRequest) -> str:
    return fresh(request.param)


async def eventually(what: Callable[[], object], text: str) -> None:
    """Look until it is so: what other connections do has no event here."""
    async with asyncio.timeout(60):
        while not (found := what()) or (isinstance(found, Awaitable) and not await found):
            await asyncio.sleep(0.01)
    assert what(), text


def listening(url: str, name: str, heard: Heard, **options: Any) -> Any:
    """An app whose task on the bus notes that it ran under this name."""
    app: Any = Camora(url)
    queue = options.pop("queue", PubSubQueue("bus"))

    @app.task(name="hear", queue=queue, **options)
    async def hear(what: Any = None) -> str:
        heard.append((name, what))
        return name

    return app


# All listen


@pytest.mark.parametrize("kind", ["redis", "valkey", "redis-6.2", "sentinel", "cluster"])
async def test_every_worker_gets_each_job_once(kind: str) -> None:
    url, heard = fresh(kind), Heard()
    apps = [listening(url, name, heard) for name in ("a", "b", "c")]
    async with apps[0], apps[1], apps[2], apps[0].worker(), apps[1].worker(), apps[2].worker():
        for number in range(20):
            await apps[number % 3].dispatch("hear", number)
        await eventually(lambda: len(heard) >= 60, "60 runs")
        await apps[0].dispatch_many([apps[0].tasks.get("hear").s(number) for number in range(20, 120)])
        await eventually(lambda: len(heard) >= 360, "360 runs")
    assert sorted(heard) == sorted((name, number) for name in "abc" for number in range(120))
    for name in "abc":
        assert [number for who, number in heard if who == name][:20] == list(range(20))  # in order, one by one


async def test_a_dispatch_that_nobody_hears_returns_all_the_same(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "camora.redis")
    heard = Heard()
    app = listening(url, "a", heard)
    async with app:
        job = await app.dispatch("hear", "nobody")
        assert f"job {job.id} on {app.broker.database.keys.prefix}:bus: heard by 0" in caplog.text
        assert dict(await app.broker.queues.counts()) == {}
        async with app.worker():
            await app.dispatch("hear", "somebody")
            await eventually(lambda: heard, "the second")
    assert heard == [("a", "somebody")]
    assert "heard by 1" in caplog.text


async def test_a_process_with_several_lanes_runs_it_once(url: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard, queue=PubSubQueue("bus", concurrency=2))

    @app.task(queue=Queue("own", concurrency=3))
    async def own() -> None:
        heard.append(("own", None))

    @app.task
    async def plain() -> None:
        heard.append(("plain", None))

    @app.task(queue=PubSubQueue("other"))
    async def other() -> None:
        heard.append(("other", None))

    async with app, app.worker():
        for _ in range(5):
            await app.dispatch_many([app.tasks.get("hear").s(), own.s(), plain.s(), other.s()])
        # Jobs of plain queues are done when they are settled; whatever is heard twice would come before that.
        await eventually(lambda: len(heard) >= 20, "20 runs")
        await app.dispatch("hear", "last")
        await eventually(lambda: ("a", "last") in heard, "the last")
    assert len(heard) == 21


async def test_streams_and_channels_are_served_beside_each_other(url: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard)

    @app.task(name="plain", queue="mail")
    async def plain(number: int) -> int:
        return number

    async with app, app.worker(queues=["bus", "mail"]):
        jobs = await app.dispatch_many(
            [signature for n in range(50) for signature in (plain.s(n), app.tasks.get("hear").s(n))]
        )
        assert [await job.result(timeout=60) for job in jobs[::2]] == list(range(50))
        await eventually(lambda: len(heard) == 50, "50 runs")
        assert [number for _, number in heard] == list(range(50))


async def test_a_schedule_tells_all(url: str) -> None:
    heard = Heard()
    apps = [listening(url, name, heard) for name in "ab"]
    apps[0].schedule("daily", apps[0].tasks.get("hear").s("tick"), cron("0 9 * * *"))
    async with apps[0], apps[1], apps[0].worker(), apps[1].worker():
        await apps[0].schedules.sync()
        await apps[0].schedules.run_now("daily")
        await eventually(lambda: len(heard) == 2, "two runs")
    assert sorted(heard) == [("a", "tick"), ("b", "tick")]


async def test_the_first_result_stands(url: str) -> None:
    heard, late = Heard(), asyncio.Event()
    first, second = listening(url, "first", heard), Camora(url)

    @second.task(name="hear", queue=PubSubQueue("bus"))
    async def hear(what: Any = None) -> str:
        await late.wait()
        heard.append(("second", what))
        return "second"

    async with first, second, first.worker(), second.worker() as worker:
        job = await first.dispatch("hear")
        assert await job.result(timeout=60) == "first"
        late.set()
        await eventually(lambda: len(heard) == 2 and worker.settled == 1, "the second end")
        assert await job.result(timeout=60) == "first"


async def test_a_retry_is_the_business_of_the_worker_that_failed(url: str) -> None:
    tries: list[tuple[str, int]] = []
    apps = []
    for name in "ab":
        app: Any = Camora(url)

        @app.task(name="hear", queue=PubSubQueue("bus"), retry_policy=RetryPolicy(max_tries=3, delay=0.01))
        async def hear(ctx: Context, name: str = name) -> str:
            tries.append((name, ctx.attempt))
            if name == "a" and ctx.attempt < 3:
                raise Retry
            return name

        apps.append(app)
    async with apps[0], apps[1], apps[0].worker(), apps[1].worker():
        await apps[1].dispatch("hear")
        await eventually(lambda: ("a", 3) in tries and ("b", 1) in tries, "all tries")
    assert sorted(tries) == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]


async def test_a_rate_holds_messages_back_and_loses_none(url: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard, queue=PubSubQueue("bus", rate_limit="10/s"))
    async with app, app.worker():
        await app.dispatch_many([app.tasks.get("hear").s(number) for number in range(15)])
        await eventually(lambda: len(heard) == 15, "all runs")
    assert sorted(number for _, number in heard) == list(range(15))


async def test_a_failed_broadcast_leaves_no_dead_letter(url: str, caplog: pytest.LogCaptureFixture) -> None:
    app: Any = Camora(url)

    @app.task(name="hear", queue=PubSubQueue("bus"))
    async def hear() -> None:
        raise RuntimeError("it is broken")

    async with app, app.worker():
        job = await app.dispatch("hear")
        with pytest.raises(JobFailed):
            await job.result(timeout=60)
        assert [letter.id async for letter in app.dead_letters()] == []
        assert dict(await app.broker.queues.counts()) == {}
    assert "it is broken" in caplog.text


# What cannot be


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": 5}, "nobody keeps a message until later. Leave delay and eta out, schedule the task"),
        ({"priority": 3}, "every worker hears each message at once. Leave the priority out"),
        ({"key": "one"}, "nobody knows which keys are taken. Leave the key out"),
    ],
    ids=["delay", "priority", "key"],
)
async def test_what_needs_a_store_is_refused_and_nothing_is_sent(url: str, options: dict[str, Any], text: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard)
    hear = app.tasks.get("hear")
    async with app, app.worker():
        with pytest.raises(UnsupportedCapability) as refused:
            await app.options(**options).dispatch("hear")
        with pytest.raises(UnsupportedCapability):
            await app.dispatch_many([hear.options(queue="mail").s(), hear.options(**options).s()])
        assert str(refused.value) == f"hear: queue 'bus' is a PubSubQueue: {text}, or use a plain queue"
        assert dict(await app.broker.queues.counts()) == {}
        await app.dispatch("hear", "last")
        await eventually(lambda: heard, "the last")
    assert heard == [("a", "last")]


async def test_it_cannot_be_paused(url: str) -> None:
    app = listening(url, "a", Heard())
    async with app:
        with pytest.raises(UnsupportedCapability, match="queue 'bus' is a PubSubQueue: nothing is stored"):
            await app.broker.queues.pause("bus")
        assert list(await app.broker.queues.paused()) == []
        assert list(await app.broker.queues.list("bus")) == []
        assert await app.broker.queues.purge("bus") == 0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PubSubQueue("finished"), "the channel of this name is used by Camora itself"),
        (lambda: PubSubQueue("schedules"), "the channel of this name is used by Camora itself"),
        (lambda: PubSubQueue("bus", buffer=0), "buffer=0: a whole number from 1"),
    ],
    ids=["results", "schedules", "buffer"],
)
def test_an_impossible_one_is_refused_where_it_is_written(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


# Others on the channel


async def test_other_programs_may_speak_on_the_channel(url: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard)
    async with app, app.worker():
        keys = app.broker.database.keys
        call = app.broker._link.call
        bare = msgspec.json.encode({"id": "1", "task": "hear", "kwargs": {"what": "bare"}})
        packed = msgspec.msgpack.encode(["2", "hear", msgspec.json.encode({"id": "2", "task": "hear", "args": []})])
        for said in (bare, packed, bare, packed):
            assert await call(keys.channel("bus"), "PUBLISH", keys.channel("bus"), said) == 1
        await eventually(lambda: len(heard) == 2, "both")
        await app.dispatch("hear", "last")
        await eventually(lambda: ("a", "last") in heard, "the last")
    assert heard == [("a", "bare"), ("a", None), ("a", "last")]


@pytest.mark.parametrize(
    "said",
    [b"", b"nonsense", b"\x93nonsense", b"\x93\x01\x02\x03", b'{"id": 5}', b"\xff\xfe\x00", b'{"id":"1","task":7}'],
    ids=["nothing", "text", "half", "numbers", "number", "bytes", "wrong"],
)
async def test_nonsense_on_the_channel_stops_nobody(url: str, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    app = listening(url, "a", heard)
    async with app, app.worker():
        channel = app.broker.database.keys.channel("bus")
        await app.broker._link.call(channel, "PUBLISH", channel, said)
        await app.dispatch("hear", "after")
        await eventually(lambda: heard, "the next")
        await eventually(lambda: "failed for good" in caplog.text, "its end in the log")
        assert [letter.id async for letter in app.dead_letters()] == []


async def test_what_is_nested_too_deep_does_not_cost_the_connection(url: str, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    app = listening(url, "a", heard)
    async with app, app.worker():
        channel = app.broker.database.keys.channel("bus")
        deep = b'{"id": "deep", "task": "hear", "args": ' + b"[" * 5000 + b"]" * 5000 + b"}"
        # Were the connection lost with the first, the second would not be heard.
        await asyncio.gather(app.broker._link.call(channel, "PUBLISH", channel, deep), app.dispatch("hear", "after"))
        await eventually(lambda: heard, "the next")
    assert "the connection is lost" not in caplog.text


async def test_a_message_that_cannot_be_used_does_not_end_a_subscription(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = list[bytes]()
    last = asyncio.Event()

    def use(said: bytes) -> None:
        if said == b"bad":
            raise ValueError(said)
        told.append(said)
        last.set()

    async with Camora(url) as app:
        link, channel = app.broker._link, app.broker.database.keys.channel("bus")
        subscription = Subscription(link, channel, told=use, ended=lambda: None)
        await subscription.open(channel)
        await link.calls([(channel, ("PUBLISH", channel, said)) for said in ("bad", "good")])
        async with asyncio.timeout(60):
            await last.wait()
        assert told == [b"good"]
        assert not subscription.closed
        await subscription.close()
    assert "could not be used" in caplog.text


async def test_the_same_id_is_heard_once(url: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard)
    async with app, app.worker():
        for _ in range(3):
            await app.options(job_id="same").dispatch("hear", "same")
        await app.dispatch("hear", "last")
        await eventually(lambda: ("a", "last") in heard, "the last")
    assert heard == [("a", "same"), ("a", "last")]


# Faults


async def test_it_listens_again_after_the_server_was_away(
    private_server: NewServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "camora.redis")
    server, heard = private_server(), Heard()
    app = listening(url_at(server), "a", heard)
    async with app, app.worker():
        await app.dispatch("hear", 1)
        await eventually(lambda: heard, "the first")
        server.kill()
        await eventually(lambda: "queue bus: the connection is lost" in caplog.text, "the loss")
        server.start()
        await eventually(lambda: "queue bus: listening again" in caplog.text, "the return")
        await app.dispatch("hear", 2)
        await eventually(lambda: ("a", 2) in heard, "the second")


async def test_it_listens_again_after_its_connection_was_cut(
    private_server: NewServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "camora.redis")
    server, heard = private_server(), Heard()
    app = listening(url_at(server), "a", heard)

    @app.task
    async def plain() -> str:
        return "done"

    async with app, app.worker():
        for count in range(1, 4):
            assert server.cli("CLIENT", "KILL", "TYPE", "pubsub") >= 1
            await eventually(lambda: caplog.text.count("queue bus: listening again") == count, "the return")  # noqa: B023
            await app.dispatch("hear", count)
            assert await (await plain.dispatch()).result(timeout=60) == "done"
            await eventually(lambda: ("a", count) in heard, "the next")  # noqa: B023
        assert server.cli("PUBSUB", "NUMSUB", "camora:bus") == ["camora:bus", 1]
    assert server.cli("PUBSUB", "NUMSUB", "camora:bus") == ["camora:bus", 0]


async def test_a_job_that_cancels_every_task_does_not_end_the_listening(url: str) -> None:
    heard = Heard()
    app = listening(url, "a", heard)
    main = asyncio.current_task()

    @app.task(name="cancel")
    async def cancel() -> None:
        heard.append(("cancel", None))
        for task in asyncio.all_tasks() - {asyncio.current_task(), main}:
            task.cancel()

    async with app, app.worker():
        for turn in range(3):
            await app.dispatch("cancel")
            await eventually(lambda: heard.count(("cancel", None)) == turn + 1, "its run")  # noqa: B023
            await app.dispatch("hear", turn)
            await eventually(lambda: ("a", turn) in heard, "the next")  # noqa: B023


async def test_a_server_that_has_gone_silent_is_noticed(
    private_server: NewServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "camora.redis")
    monkeypatch.setattr("camora_redis.broadcast._CHECK", 0.2)
    server, heard = private_server(), Heard()
    with Proxy(("127.0.0.1", server.port)) as proxy:
        app = listening(url_at(server).replace(str(server.port), str(proxy.port)), "a", heard)
        async with app, app.worker():
            await app.dispatch("hear", 1)
            await eventually(lambda: heard, "the first")
            proxy.hold()
            await eventually(lambda: "queue bus: the connection is lost" in caplog.text, "the loss")
            proxy.heal()
            await eventually(lambda: "queue bus: listening again" in caplog.text, "the return")
            await app.dispatch("hear", 2)
            await eventually(lambda: ("a", 2) in heard, "the second")


async def test_it_follows_to_the_new_master() -> None:
    sentinels, heard = shared_sentinels(), Heard()
    app = listening(fresh("sentinel") + "&timeout=2", "a", heard)
    async with app, app.worker():
        await app.dispatch("hear", "before")
        await eventually(lambda: heard, "the first")
        await asyncio.to_thread(sentinels.failover)
        try:
            async with asyncio.timeout(60):
                number = 0
                while not any(what == number for _, what in heard):
                    # What is said while nobody listens is gone.
                    number += 1
                    await app.dispatch("hear", number)
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(sentinels.wait_settled)


@pytest.mark.parametrize("kind", ["redis", "cluster"])
async def test_what_follows_a_job_goes_by_its_kind_of_queue(kind: str) -> None:
    broker = RedisBroker.from_url(fresh(kind))
    name = f"successors{next(_prefixes)}"
    broker.declare([PubSubQueue("bus"), ListQueue("jobs", key=name), Queue("mail")])
    await broker.open()
    worker, listener = await consumer_of(broker, "mail"), await consumer_of(broker, "bus")
    await broker.publish([envelope("mail"), envelope("mail")])
    first, second = await all_of(worker, 2)
    spoken, pushed, stored = (
        envelope("bus"),
        envelope("jobs", b'{"id":"one","task":"t"}', id="one"),
        envelope("mail"),
    )
    refused = ack(second, successors=(envelope("bus", priority=3),))
    with pytest.raises(UnsupportedCapability, match="every worker hears each message at once"):
        await worker.settle([refused])
    settlement = ack(first, successors=(spoken, pushed, stored))
    assert await worker.settle([settlement]) == [True]
    assert await worker.settle([settlement]) == [False]
    [heard] = await all_of(listener, 1)
    assert (heard.id, heard.body) == (spoken.id, spoken.body)
    assert await broker._link.call(name, "LRANGE", name, 0, -1) == [pushed.body]
    [got] = await all_of(worker, 1)
    assert got.id == stored.id
    assert list(await listener.receive(1, 0)) == []
    for consumer in (worker, listener):
        await consumer.close()
    await broker.close()


async def test_a_slow_worker_drops_the_oldest_and_says_so(url: str, caplog: pytest.LogCaptureFixture) -> None:
    heard, go = Heard(), asyncio.Event()
    app: Any = Camora(url)

    @app.task(name="hear", queue=PubSubQueue("bus", concurrency=1, buffer=3))
    async def hear(what: int) -> None:
        await go.wait()
        heard.append(("a", what))

    async with app, app.worker(settings=WorkerSettings(prefetch=0)):
        await app.dispatch("hear", 0)
        [ear] = [one for one in await subscribers(app) if one]
        for number in range(1, 11):
            await app.dispatch("hear", number)
        await eventually(lambda: "this worker is too slow" in caplog.text, "the warning")
        go.set()
        await eventually(lambda: ("a", 10) in heard, "the last")
    kept = [number for _, number in heard]
    assert kept[-3:] == [8, 9, 10]
    assert len(kept) < 11
    assert kept == sorted(kept)
    assert ear == 1


async def subscribers(app: Any) -> list[int]:
    channel = app.broker.database.keys.channel("bus")
    return list((await app.broker._link.call(channel, "PUBSUB", "NUMSUB", channel))[1::2])


# The consumer, by itself


@pytest.fixture
async def broker(url: str) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(url)
    broker.declare([PubSubQueue("bus"), PubSubQueue("news"), Queue("mail")])
    await broker.open()
    yield broker
    await broker.close()


async def consumer_of(broker: RedisBroker, *queues: str) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=queues, worker="w", lease=5.0))


async def all_of(consumer: Consumer, count: int, limit: int = 10) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            got = await consumer.receive(limit, 1.0)
            assert len(got) <= limit
            found += got
    return found


async def test_a_waiting_receive_is_woken_by_either(broker: RedisBroker) -> None:
    consumer = await consumer_of(broker, "bus", "mail")
    for queue in ("bus", "mail", "bus", "mail", "mail", "bus"):
        waiting = asyncio.ensure_future(consumer.receive(5, 60.0))
        await asyncio.sleep(0)
        message = envelope(queue)
        await broker.publish([message])
        async with asyncio.timeout(60):
            [got] = await waiting
        assert (got.id, got.queue, got.body) == (message.id, queue, message.body)
        assert await consumer.settle([ack(got)]) == [True]
    await consumer.close()


async def test_neither_starves_the_other(broker: RedisBroker) -> None:
    consumer = await consumer_of(broker, "bus", "mail", "news")
    messages = [envelope(queue) for _ in range(40) for queue in ("bus", "mail", "news")]
    await broker.publish(messages)
    await heard_all(broker, consumer, 80)
    one_by_one = await all_of(consumer, 12, limit=1)
    assert {one.queue for one in one_by_one} == {"bus", "mail", "news"}
    in_tens = await all_of(consumer, 60)
    for at in range(0, 60, 10):
        assert {one.queue for one in in_tens[at : at + 10]} == {"bus", "mail", "news"}
    rest = await all_of(consumer, 48)
    assert {one.id for one in (*one_by_one, *in_tens, *rest)} == {one.id for one in messages}
    await consumer.close()


async def heard_all(broker: RedisBroker, consumer: Any, count: int) -> None:
    await eventually(lambda: sum(len(ear) for ear in consumer._ears.values()) == count, "all to be heard")


async def test_a_cancelled_receive_loses_nothing(broker: RedisBroker) -> None:
    consumer = await consumer_of(broker, "bus", "mail")
    messages = [envelope(queue) for _ in range(50) for queue in ("bus", "mail")]
    found: list[Delivery] = []
    for message in messages:
        receiving = asyncio.ensure_future(consumer.receive(3, 10.0))
        await asyncio.sleep(0)
        await broker.publish([message])
        receiving.cancel()
        await asyncio.wait([receiving])
        if not receiving.cancelled():
            found += receiving.result()
    found += await all_of(consumer, len(messages) - len(found))
    assert sorted(one.id for one in found) == sorted(one.id for one in messages)
    await consumer.close()


async def test_what_was_heard_needs_no_server_to_be_kept_and_settled(private_server: NewServer) -> None:
    server = private_server()
    broker = RedisBroker.from_url(url_at(server))
    broker.declare([PubSubQueue("bus")])
    await broker.open()
    consumer = await consumer_of(broker, "bus")
    messages = [envelope("bus") for _ in range(6)]
    await broker.publish(messages)
    taken = await all_of(consumer, 6)
    leases = await asyncio.to_thread(consumer.leases)
    server.kill()
    assert await asyncio.to_thread(leases.extend, taken) == [LeaseVerdict.HELD] * 6
    assert list(await asyncio.to_thread(leases.cancelled, taken)) == []
    settlements = [
        ack(taken[0]),
        reject(taken[1]),
        release(taken[2]),
        retry(taken[3], b"second attempt"),
        release(taken[4], charged=False),
    ]
    assert await consumer.settle(settlements) == [True] * 5
    assert await consumer.settle(settlements) == [False] * 5
    back = {one.id: one for one in await all_of(consumer, 3)}
    assert back[taken[2].id].deliveries == 2
    assert back[taken[3].id].body == b"second attempt"
    assert back[taken[3].id].deliveries == 1
    assert back[taken[4].id].deliveries == 1
    assert await consumer.settle([ack(one) for one in (*back.values(), taken[5])]) == [True] * 4
    await asyncio.to_thread(leases.close)
    async with asyncio.timeout(60):
        with pytest.raises(BrokerUnavailable):
            while True:
                await consumer.receive(1, 0.05)
    await consumer.close()
    await broker.close()


async def test_after_its_stop_nothing_is_heard_and_settling_goes_on(broker: RedisBroker) -> None:
    consumer = await consumer_of(broker, "bus", "mail")
    await broker.publish([envelope("bus"), envelope("mail"), envelope("bus")])
    taken = await all_of(consumer, 3)
    waiting = asyncio.ensure_future(consumer.receive(1, 60.0))
    await asyncio.sleep(0)
    await consumer.stop()
    async with asyncio.timeout(60):
        assert list(await waiting) == []
    await broker.publish([envelope("bus")])
    assert list(await consumer.receive(1, 0)) == []
    assert await consumer.settle([release(one) for one in taken]) == [True] * 3
    counts = await broker.queues.counts()
    assert {queue: dict(states) for queue, states in counts.items()} == {"mail": {"ready": 1}}
    await consumer.close()


async def test_ids_are_remembered_within_bounds(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camora_redis.broadcast._REMEMBERED", 10)
    consumer: Any = await consumer_of(broker, "bus")
    messages = [envelope("bus") for _ in range(100)]
    await broker.publish(messages)
    taken = await all_of(consumer, 100, limit=100)
    await consumer.settle([ack(one) for one in taken])
    assert len(consumer._ears["bus"]._ids) == 10
    assert not consumer._held
    await consumer.close()


class Beside(RedisBroker):
    """A broker whose consumers all listen, too."""

    async def open(self) -> None:
        self.declare([PubSubQueue("bus")])
        await super().open()

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        return await super().consumer(attrs.evolve(settings, queues=(*settings.queues, "bus")))


class TestStreamsBesideChannels(BrokerConformance):
    """Streams are served as well as without channels."""

    lease = 0.5

    @pytest.fixture
    def broker_factory(self) -> Callable[[], Broker]:
        return lambda: Beside.from_url(fresh("redis"))


def test_what_travels_is_small_and_can_be_made_by_others() -> None:
    message = Envelope(id="1", task="hear", queue="bus", body=b"{}")
    assert packed_broadcast(message) == msgspec.msgpack.encode(["1", "hear", b"{}"])
