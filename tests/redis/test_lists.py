"""List queues: other programs put messages into a list or take them out of it, and none is lost by our workers."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from camora import Camora, Context, Message, Queue, Retry, RetryPolicy, WorkerSettings
from camora.errors import ConfigurationError, JobFailed, UnsupportedCapability
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.testing.conformance.making import ack, envelope
from camora_redis import ListQueue, PubSubQueue, RedisBroker
from camora_redis.lasting import Lasting

from tests.servers.fixtures import fresh_url, private_server, shared_cluster, shared_sentinels
from tests.servers.redis import Server

__all__ = ["private_server"]  # a fixture

NewServer = Callable[..., Server]
_numbers = itertools.count()
KINDS = ["redis", "valkey", "redis-6.2", "sentinel", "cluster"]


def fresh(kind: str) -> tuple[str, str]:
    """An empty place, and the name of a list that nobody else uses."""
    number = next(_numbers)
    if kind == "cluster":
        url = shared_cluster().url
    elif kind == "sentinel":
        url = shared_sentinels().url
    else:
        url = fresh_url(kind)
    return f"{url}?prefix=lists{number}", f"jobs{number}"


@pytest.fixture(params=["redis", "valkey"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    return fresh(request.param)


async def eventually(what: Callable[[], object], text: str) -> None:
    """Look until it is so: what other connections do has no event here."""
    async with asyncio.timeout(60):
        while not (found := what()) or (isinstance(found, Awaitable) and not await found):
            await asyncio.sleep(0.01)


def working(url: str, name: str, ran: list[Any], **options: Any) -> Any:
    """An app whose task on the list notes what it was given."""
    app: Any = Camora(url, **options.pop("app", {}))
    queue = options.pop("queue", ListQueue("jobs", key=name))

    @app.task(name="add", queue=queue, **options)
    async def add(x: int, y: int = 0) -> int:
        ran.append(x + y)
        return x + y

    return app


async def call(app: Any, *words: Any) -> Any:
    """A foreign program's command, to the server of its key."""
    return await app.broker._link.call(words[1], *words)


def told(job_id: str, **more: Any) -> bytes:
    return json.dumps({"id": job_id, "task": "add", **more}).encode()


# Both ways


@pytest.mark.parametrize("kind", KINDS)
async def test_what_others_push_is_run_by_our_workers(kind: str) -> None:
    (url, name), ran = fresh(kind), list[Any]()
    app = working(url, name, ran)
    async with app:
        await call(app, "RPUSH", name, told("early", args=[1]))  # before there is any worker
        async with app.worker():
            assert await (await app.job("early")).result(timeout=60) == 1
            await call(app, "RPUSH", name, told("late", kwargs={"x": 10}))
            assert await (await app.job("late")).result(timeout=60) == 10
            job = await app.dispatch("add", 5, y=6)
            assert await job.result(timeout=60) == 11
    assert ran == [1, 10, 11]


async def test_messages_may_be_message_pack(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran, app={"codec": "msgpack"})
    async with app, app.worker():
        packed = msgspec.msgpack.encode({"id": "packed", "task": "add", "kwargs": {"x": 20, "y": 3}})
        await call(app, "RPUSH", name, packed)
        assert await (await app.job("packed")).result(timeout=60) == 23
        assert await (await app.dispatch("add", 5)).result(timeout=60) == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_others_take_what_is_dispatched_here(kind: str) -> None:
    url, name = fresh(kind)
    app = working(url, name, [])
    async with app:
        job = await app.dispatch("add", 1, y=2)
        many = await app.dispatch_many([app.tasks.get("add").s(number) for number in range(3)])
        assert {queue: dict(states) for queue, states in (await app.broker.queues.counts()).items()} == {
            "jobs": {"ready": 4}
        }
        [key, body] = await call(app, "BLPOP", name, 5)
        assert key == name.encode()
        message = json.loads(body)
        assert (message["id"], message["task"], message["queue"]) == (job.id, "add", "jobs")
        assert message["kwargs"] == {"x": 1, "y": 2}
        bodies = await call(app, "LRANGE", name, 0, -1)
        assert [json.loads(one)["id"] for one in bodies] == [job.id for job in many]
        assert await app.broker.queues.purge("jobs") == 3
        assert await call(app, "EXISTS", name) == 0


async def test_messages_of_a_signing_app_are_known_by_their_ids(place: tuple[str, str]) -> None:
    from camora.builtin.json_codec import JsonCodec
    from camora.builtin.signing import SignedCodec

    (url, name), ran = place, list[Any]()
    app = working(url, name, ran, app={"codec": SignedCodec(JsonCodec(), "k" * 32)})
    async with app, app.worker():
        assert await (await app.dispatch("add", 1)).result(timeout=60) == 1
        await call(app, "RPUSH", name, told("unsigned", args=[5]))
        with pytest.raises(JobFailed):
            await (await app.job("unsigned")).result(timeout=60)
        [letter] = [one async for one in app.dead_letters()]
        assert (letter.id, letter.reason) == ("unsigned", "unsigned")
    assert ran == [1]


async def test_many_push_and_many_workers_run_each_once(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    apps = [working(url, name, ran) for _ in range(3)]
    async with apps[0], apps[1], apps[2], apps[0].worker(), apps[1].worker(), apps[2].worker():

        async def foreign(who: int) -> None:
            for at in range(0, 200, 10):
                bodies = [told(f"{who}-{number}", args=[who * 1000 + number]) for number in range(at, at + 10)]
                await call(apps[who], "RPUSH", name, *bodies)

        await asyncio.gather(*(foreign(who) for who in range(3)))
        await eventually(lambda: len(ran) >= 600, "all runs")
        await eventually(lambda: empty(apps[0], name), "the end of all")
    assert sorted(ran) == sorted(who * 1000 + number for who in range(3) for number in range(200))


async def empty(app: Any, name: str) -> bool:
    return not dict(await app.broker.queues.counts()) and not await call(app, "EXISTS", name)


async def test_foreign_takers_and_our_workers_share_a_list(place: tuple[str, str]) -> None:
    (url, name), ran, theirs = place, list[Any](), list[int]()
    app, other = working(url, name, ran), RedisBroker.from_url(url)
    await other.open()

    async def foreign() -> None:
        wire = await other._link.new_wire(name)
        while (got := await wire.call("BLPOP", name, 1, longer=1.0)) is not None:
            theirs.append(json.loads(got[1])["args"][0])
        await wire.close()

    async with app, app.worker():
        taking = asyncio.ensure_future(foreign())
        for number in range(200):
            await call(app, "RPUSH", name, told(f"job{number}", args=[number]))
        await taking
        await eventually(lambda: len(ran) + len(theirs) >= 200, "all of them")
    await other.close()
    assert sorted([*ran, *theirs]) == list(range(200))


# What a message says of itself


async def test_its_due_time_and_its_priority_and_its_key_are_obeyed(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app:
        due = time.time_ns() // 1_000_000 + 1_000
        await call(
            app, "RPUSH", name,
            told("late", args=[9], due=due), told("plain", args=[1]), told("urgent", args=[2], priority=9),
            told("first", args=[3], key="k"), told("second", args=[4], key="k"),
        )  # fmt: skip
        async with app.worker(settings=WorkerSettings(concurrency=1, prefetch=0)):
            await eventually(lambda: 9 in ran, "the late one")
            assert time.time_ns() // 1_000_000 >= due - 5
    assert ran == [2, 1, 3, 9]


async def test_the_same_id_is_run_once(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app, app.worker():
        for _ in range(3):
            await call(app, "RPUSH", name, told("same", args=[1]), told("same", args=[1]))
        await call(app, "RPUSH", name, told("last", args=[2]))
        await eventually(lambda: 2 in ran, "the last")
    assert ran == [1, 2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "undecodable"),
        (b"nonsense", "undecodable"),
        (b"\xff\xfe\x00\x93", "undecodable"),
        (b'{"id": 5, "task": "add"}', "undecodable"),
        (b'{"task": "add"}', "undecodable"),
        (b'{"id": "\xff", "task": "add"}', "undecodable"),
        (b'{"id": "x", "task": "add", "kwargs": {"z": 1}}', "payload"),
    ],
    ids=["empty", "text", "bytes", "number", "no id", "no text", "arguments"],
)
async def test_what_cannot_be_run_becomes_a_dead_letter_as_it_is(
    place: tuple[str, str], body: bytes, reason: str
) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app, app.worker():
        await call(app, "RPUSH", name, body, told("next", args=[1]))
        await eventually(lambda: ran == [1], "the next one")
        await eventually(lambda: letters(app), "its letter")
        [letter] = [one async for one in app.dead_letters()]
        kept = await app.broker.dead_letters.get(letter.id)
        assert (kept.body, kept.reason, kept.queue) == (body, reason, "jobs")
        assert len(letter.id) == 32 or letter.id == "x"


async def letters(app: Any) -> bool:
    return bool([one async for one in app.dead_letters()])


async def test_an_empty_id_and_a_very_long_one_are_replaced(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app, app.worker():
        await call(app, "RPUSH", name, told("", args=[1]), told("x" * 300, args=[2]), told("priority", priority=99))
        await eventually(lambda: letters(app), "the third's letter")
        await eventually(lambda: sorted(ran) == [1, 2], "both")


_DEEP = b'{"id": "deep", "task": "add", "kwargs": {"x": ' + b"[" * 5000 + b"]" * 5000 + b"}}"


async def test_what_is_nested_too_deep_becomes_a_dead_letter(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app, app.worker():
        await call(app, "RPUSH", name, _DEEP, told("next", args=[1]))
        await eventually(lambda: ran == [1], "the next one")
        await eventually(lambda: letters(app), "its letter")
        [letter] = [one async for one in app.dead_letters()]
        assert (letter.reason, letter.queue) == ("undecodable", "jobs")


@pytest.mark.parametrize(
    "more",
    [{"expires": 10**23}, {"expires": -(10**23)}, {"due": 10**17}, {"key": "k", "key_ttl": 1e300}, {"priority": 99}],
    ids=["expires", "expired", "due", "key_ttl", "priority"],
)
async def test_numbers_that_cannot_be_do_not_stop_a_list(place: tuple[str, str], more: dict[str, Any]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app, app.worker():
        await call(app, "RPUSH", name, told("bad", args=[1], **more), told("next", args=[2]))
        await eventually(lambda: 2 in ran, "the next one")
        await eventually(lambda: ended(app), "the end of both")
        assert await call(app, "LLEN", name) == 0


async def ended(app: Any) -> bool:
    counts = await app.broker.queues.counts()
    return not any(number for queue in counts.values() for state, number in queue.items() if state != "dead")


# As any queue


async def test_retries_leases_and_dead_letters_are_those_of_any_queue(place: tuple[str, str]) -> None:
    url, name = place
    tries: list[int] = []
    app: Any = Camora(url)

    @app.task(name="flaky", queue=ListQueue("jobs", key=name), retry_policy=RetryPolicy(max_tries=2, delay=0.01))
    async def flaky(ctx: Context) -> int:
        tries.append(ctx.attempt)
        if ctx.attempt < 3 and len(tries) < 3:
            raise Retry
        return 7

    async with app, app.worker():
        await call(app, "RPUSH", name, json.dumps({"id": "one", "task": "flaky"}))
        with pytest.raises(JobFailed):
            await (await app.job("one")).result(timeout=60)
        assert tries == [1, 2]
        await app.requeue("one") if hasattr(app, "requeue") else await app.broker.dead_letters.requeue("one")
        assert await (await app.job("one")).result(timeout=60) == 7


@pytest.mark.parametrize("kind", ["redis", "valkey", "cluster"])
async def test_a_job_of_a_dead_worker_comes_again(kind: str) -> None:
    url, name = fresh(kind)
    broker = RedisBroker.from_url(url)
    broker.declare([ListQueue("jobs", key=name), Queue("mail")])
    await broker.open()
    dying = await consumer_of(broker, "jobs", "mail", lease=0.4)
    message = envelope("jobs", b'{"id":"one","task":"t"}', id="one", task="t")
    await broker.publish([message])
    [taken] = await one_of(dying)
    assert (taken.id, taken.body, taken.deliveries) == ("one", message.body, 1)
    heir = await consumer_of(broker, "jobs", "mail", lease=0.4)
    [again] = await one_of(heir)
    assert (again.id, again.body, again.deliveries) == ("one", message.body, 2)
    assert await dying.settle([ack(taken)]) == [False]
    assert await heir.settle([ack(again)]) == [True]
    assert dict(await broker.queues.counts()) == {}
    for consumer in (dying, heir):
        await consumer.close()
    await broker.close()


async def consumer_of(broker: RedisBroker, *queues: str, lease: float = 5.0) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=queues, worker="w", lease=lease))


async def one_of(consumer: Consumer) -> Any:
    async with asyncio.timeout(60):
        while not (found := await consumer.receive(10, 1.0)):
            pass
    return found


async def test_a_paused_queue_leaves_the_list_to_others(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app:
        await app.broker.queues.pause("jobs")
        async with app.worker():
            await call(app, "RPUSH", name, told("one", args=[1]), told("two", args=[2]))
            mover = app.worker  # the worker runs; it must not have moved anything when it is resumed
            assert mover is not None
            assert await call(app, "LLEN", name) == 2
            assert json.loads(await call(app, "LPOP", name))["id"] == "one"
            await app.broker.queues.pause("jobs", paused=False)
            assert await (await app.job("two")).result(timeout=60) == 2
    assert ran == [2]


async def test_a_burst_worker_ends_when_the_list_is_empty(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)
    async with app:
        await app.dispatch_many([app.tasks.get("add").s(number) for number in range(120)])
    async with asyncio.timeout(30):
        await app.start(burst=True)
    assert sorted(ran) == list(range(120))
    await app.close()


async def test_it_is_served_beside_queues_of_other_kinds(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)

    @app.task(name="plain")
    async def plain() -> None:
        ran.append("plain")

    @app.task(name="hear", queue=PubSubQueue("bus"))
    async def hear() -> None:
        ran.append("heard")

    async with app, app.worker():
        await app.dispatch_many([plain.s(), hear.s(), app.tasks.get("add").s(1)] * 10)
        await eventually(lambda: len(ran) == 30, "all of them")
    assert {what: ran.count(what) for what in set(ran)} == {"plain": 10, "heard": 10, 1: 10}


# Where it lies


@pytest.mark.parametrize("key", ["{app}:jobs", "a{tag}b", "with space", "ümlaut", None], ids=str)
async def test_all_keys_of_the_queue_lie_in_the_slot_of_its_list(key: str | None) -> None:
    url, name = fresh("cluster")
    queue = ListQueue(name, key=key and f"{key}{name}")
    broker = RedisBroker.from_url(url)
    broker.declare([queue])
    await broker.open()
    consumer = await consumer_of(broker, name)
    await broker.publish([envelope(name, b'{"id":"one","task":"t"}', id="one")])
    [taken] = await one_of(consumer)
    slots = {
        await broker._link.call(one, "CLUSTER", "KEYSLOT", one)
        for one in (queue.list_key, *(broker.database.keys.helper(name, what) for what in ("index", "dead", "bell")))
    }
    assert len(slots) == 1
    assert await consumer.settle([ack(taken)]) == [True]
    await consumer.close()
    await broker.close()


@pytest.mark.parametrize("kind", ["redis", "cluster"])
async def test_results_with_a_url_of_their_own_are_found(kind: str) -> None:
    (url, name), ran = fresh(kind), list[Any]()
    app = working(url, name, ran, app={"results": url})
    async with app, app.worker():
        assert await (await app.dispatch("add", 1)).result(timeout=60) == 1

        @app.task(name="late", queue=ListQueue("late", key=f"{name}late"))
        async def late() -> str:
            return "late"

    async with app, app.worker():
        assert await (await late.dispatch()).result(timeout=60) == "late"


@pytest.mark.parametrize(
    ("queues", "text"),
    [
        (lambda: ListQueue("jobs", key=""), "key='': the name of a list"),
        (lambda: ListQueue("jobs", key=5), "key=5: the name of a list"),  # type: ignore[arg-type]
        (lambda: ListQueue("jobs", key="a}b"), "braces in the name of a list must enclose its hash tag"),
        (lambda: ListQueue("jobs", key="{}b"), "braces in the name of a list must enclose its hash tag"),
        (
            lambda: RedisBroker().declare([ListQueue("jobs"), ListQueue("other", key="jobs")]),
            "the queues 'jobs' and 'other' are both on the list 'jobs'",
        ),
    ],
    ids=["empty", "number", "brace", "no-tag", "twice"],
)
def test_an_impossible_one_is_refused_where_it_is_written(queues: Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        queues()


async def test_a_key_that_is_no_list_is_told_at_start(place: tuple[str, str]) -> None:
    url, name = place
    app = working(url, name, [])
    async with app:
        await call(app, "SET", name, "text")
        with pytest.raises(ConfigurationError) as refused:
            async with app.worker():
                raise AssertionError("it must not start")
        assert str(refused.value) == (
            f"queue 'jobs' is a ListQueue, and {name!r} is no list: choose another with ListQueue(…, key=…)"
        )
        with pytest.raises(ConfigurationError, match="is no list"):
            await app.dispatch("add", 1)


async def test_a_dispatch_with_a_key_is_refused(place: tuple[str, str]) -> None:
    url, name = place
    app = working(url, name, [])
    async with app:
        with pytest.raises(UnsupportedCapability, match="queue 'jobs' is a ListQueue: nobody knows which keys"):
            await app.options(key="k").dispatch("add", 1)
        assert await call(app, "EXISTS", name) == 0


async def test_a_codec_that_hides_the_id_is_refused(place: tuple[str, str]) -> None:
    from camora.builtin.json_codec import JsonCodec

    class Reversed(JsonCodec):
        name = "reversed"

        def encode(self, message: Message) -> bytes:
            return super().encode(message)[::-1]

    url, name = place
    app = working(url, name, [], app={"codec": Reversed()})
    async with app:
        with pytest.raises(UnsupportedCapability, match="this app's codec writes neither"):
            await app.dispatch("add", 1)
        assert await call(app, "EXISTS", name) == 0


# Faults


async def test_nothing_is_lost_when_the_server_is_killed(private_server: NewServer) -> None:
    server, ran = private_server(appendonly=True, appendfsync="always"), list[Any]()
    app = working(f"{server.url}?timeout=1", "jobs", ran)
    async with app, app.worker(settings=WorkerSettings(lease=2.0)):
        for turn in range(3):
            await asyncio.to_thread(push_and_kill, server, turn)
            # While it comes back, what it has just been told is on its way.
            await eventually(lambda: any(number >= turn * 1000 for number in ran), "the next job")  # noqa: B023
        await eventually(lambda: len(set(ran)) == 300, "all runs")
        assert await (await app.job("2-99")).result(timeout=60) == 2099
        await eventually(lambda: empty(app, "jobs"), "the end of all")


def push_and_kill(server: Server, turn: int) -> None:
    server.cli("RPUSH", "jobs", *(told(f"{turn}-{n}", args=[turn * 1000 + n]) for n in range(100)))
    server.kill()
    server.start()


async def test_a_job_that_cancels_every_task_does_not_end_the_work(place: tuple[str, str]) -> None:
    (url, name), ran = place, list[Any]()
    app = working(url, name, ran)

    @app.task(name="cancel", queue=ListQueue("jobs", key=name))
    async def cancel() -> None:
        ran.append("cancel")
        for task in asyncio.all_tasks() - {asyncio.current_task(), main}:
            task.cancel()

    main = asyncio.current_task()
    async with app, app.worker():
        for turn in range(3):
            await app.dispatch("cancel")
            await eventually(lambda: ran.count("cancel") == turn + 1, "its run")  # noqa: B023
            await call(app, "RPUSH", name, told(f"job{turn}", args=[turn]))
            await eventually(lambda: turn in ran, "the next")  # noqa: B023


async def test_it_goes_on_after_its_connections_were_cut(private_server: NewServer) -> None:
    server, ran = private_server(), list[Any]()
    app = working(f"{server.url}?timeout=1", "jobs", ran)
    async with app, app.worker():
        for number in range(5):
            server.cli("CLIENT", "KILL", "TYPE", "normal")
            server.cli("RPUSH", "jobs", told(f"job{number}", args=[number]))
            await eventually(lambda: number in ran, "the next")  # noqa: B023
    assert sorted(set(ran)) == list(range(5))


async def test_a_slot_that_moves_takes_its_list_along() -> None:
    url, name = fresh("cluster")
    cluster, ran = shared_cluster(), list[Any]()
    app = working(url, name, ran)
    async with app, app.worker():
        for number in range(3):
            await call(app, "RPUSH", name, told(f"job{number}", args=[number]))
            await eventually(lambda: number in ran, "the next")  # noqa: B023
            here = cluster.node_of(name)
            there = next(node for node in cluster.masters if node is not here)
            await asyncio.to_thread(cluster.move_slot, name, to=there)
    assert ran == [0, 1, 2]


@pytest.fixture
async def broker(place: tuple[str, str]) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(place[0])
    broker.declare([ListQueue("jobs", key=place[1])])
    await broker.open()
    yield broker
    await broker.close()


async def test_nothing_is_sent_at_rest(broker: RedisBroker, place: tuple[str, str]) -> None:
    consumer = await consumer_of(broker, "jobs")
    await consumer.stop()
    await broker._link.call(place[1], "RPUSH", place[1], told("one"))
    assert list(await consumer.receive(1, 0)) == []
    assert await broker._link.call(place[1], "LLEN", place[1]) == 1  # who has stopped leaves it to others
    await consumer.close()


async def test_work_in_the_background_is_ended_by_its_owner_alone() -> None:
    begun, refusals = asyncio.Semaphore(0), 0

    async def stubborn() -> None:
        nonlocal refusals
        begun.release()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                refusals += 1
                if refusals % 3 == 0:
                    raise

    work = Lasting(stubborn)
    work.start()
    await begun.acquire()
    for _ in range(3):
        [task] = [one for one in asyncio.all_tasks() if one.get_coro().__name__ == "stubborn"]  # type: ignore[union-attr]
        task.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await begun.acquire()  # it has begun anew
        await work.stop()
    assert refusals == 6
    await work.stop()
