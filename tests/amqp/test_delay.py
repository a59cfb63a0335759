"""Delays: on time, in any number, to any queue and exchange, whatever else waits, and whatever happens meanwhile."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from camora import Context, RetryPolicy
from camora.errors import ConfigurationError, UnsupportedCapability
from camora.message import Envelope
from camora_amqp import AmqpBroker, Exchange, ExchangeType, Route, ladder, plugin_delay
from camora_amqp.topology import Names
from hypothesis import given
from hypothesis import strategies as st

from tests.amqp.test_topology import Seen, app_at, listening, tell
from tests.servers.rabbitmq import fresh_url, fresh_vhost, shared
from tests.servers.rabbitmq_operator import having

TOLERANCE = 5.0
"""Seconds: an eighth is promised, and garbage collections and the like take their time."""
LONG_NAME = "ü" * 198


@asynccontextmanager
async def lateness(probe: Any, ran: asyncio.Event) -> AsyncIterator[list[float]]:
    """How long server and worker need for a job without a delay, which sets `ran`: at most, with all else they do."""
    worst = [0.0]

    async def look() -> None:
        while True:
            ran.clear()
            before = time.monotonic()
            await probe.dispatch()
            await ran.wait()
            worst[0] = max(worst[0], time.monotonic() - before)
            await asyncio.sleep(0.2)

    watch = asyncio.ensure_future(look())
    try:
        yield worst
    finally:
        watch.cancel()


async def length(app: Any, name: str) -> int:
    """How many messages wait in a queue of the server's."""
    return int(await app.broker.queues._length(name))


# The ladder alone


@given(st.integers(1, ladder.LONGEST))
def test_whoever_climbs_down_the_ladder_needs_as_long_as_the_delay(delay: int) -> None:
    exchange, key = ladder.entrance("quorum", delay, "word")
    *bits, word = key.split(".")
    assert (len(bits), word) == (ladder.LEVELS, "word")
    levels = {level.name: level for level in ladder.levels("quorum")}
    spent, names = 0, []
    while exchange != ladder.DUE:
        level = levels[exchange]
        place = level.into.split(".").index("1")
        if bits[place] == "1":
            spent += level.ttl
        names.append(exchange)
        exchange = level.following
    assert delay <= spent < delay + ladder.UNIT
    assert bits[ladder.LEVELS - len(names)] == "1", "it enters where it waits for the first time"
    assert ladder.destination(key) == "word"


@pytest.mark.parametrize("key", ["", "mail", "a.b", "0.1.mail", ".".join("01" * 16), "2." * 32 + "mail"])
def test_other_routing_keys_do_not_come_from_the_ladder(key: str) -> None:
    assert ladder.destination(key) == ""


queue_names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="*#{}"), min_size=1, max_size=200)


@given(queue_names, queue_names, st.sampled_from(["", "p.", "x" * 50]))
def test_queues_have_names_and_words_of_their_own_that_lead_back(one: str, other: str, prefix: str) -> None:
    names = Names(prefix)
    both = [one, other]
    full = [names.queue(name) for name in both]
    words = [names.word(name) for name in full]
    assert (full[0] == full[1]) == (words[0] == words[1]) == (one == other)
    assert all(re.fullmatch(r"[a-zA-Z0-9\-_.:@#,/+]{1,255}", name) for name in full)
    assert all(re.fullmatch(r"[^.*#]{1,190}", word) for word in words)
    assert [names.of_queue(name, both) for name in full] == [names.of_word(word, both) for word in words] == both


# On time


async def test_hundreds_of_random_delays_are_on_time_on_quorum_and_on_classic_queues() -> None:
    await asyncio.gather(on_time(fresh_vhost()), on_time(f"{fresh_vhost()}?queue_type=classic"))


async def on_time(url: str) -> None:
    app = app_at(url)
    late: dict[int, float] = {}
    done = asyncio.Event()
    dice = random.Random(17)
    delays = [dice.uniform(0, 9) for _ in range(400)]
    start = time.time() + 2
    """All are dispatched by then, so that none is due before."""

    @app.task
    async def note(number: int) -> None:
        assert number not in late, "twice"
        late[number] = time.time() - (start + delays[number])
        if len(late) == len(delays):
            done.set()

    ran = asyncio.Event()

    @app.task
    async def probe() -> None:
        ran.set()

    async with listening(app, "default"), lateness(probe, ran) as worst:
        await asyncio.gather(
            *(
                note.options(eta=datetime.fromtimestamp(start + delay, UTC)).dispatch(i)
                for i, delay in enumerate(delays)
            )
        )
        async with asyncio.timeout(60):
            await done.wait()
    assert min(late.values()) >= 0, "none is early"
    # Each level is such a way, and a job that is due at the worst moment has them all before it.
    assert max(late.values()) <= TOLERANCE + ladder.top(9_000) * worst[0]


async def test_a_short_delay_does_not_wait_behind_a_long_one() -> None:
    seen, app = Seen(), app_at(fresh_url())
    task = tell(seen, app)
    async with listening(app, "default"):
        await task.options(delay=30).dispatch("long")
        await task.options(delay=0.3).dispatch("short")
        assert await seen.wait(1) == [("default", "short")]


async def test_retries_are_delayed() -> None:
    app = app_at(fresh_url(), retry_policy=RetryPolicy(max_tries=3, delay=0.5, jitter=False))
    at: list[float] = []
    done = asyncio.Event()

    @app.task(queue="mail")
    async def flaky(ctx: Context) -> None:
        at.append(time.monotonic())
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        done.set()

    async with listening(app, "mail"):
        await flaky.dispatch()
        async with asyncio.timeout(30):
            await done.wait()
    assert all(after - before >= 0.5 for before, after in itertools.pairwise(at))


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_delay_of_years_waits_on_the_level_of_years(kind: str) -> None:
    app = app_at(f"{fresh_vhost()}?queue_type={kind}")

    @app.task
    async def much_later() -> None: ...

    years = 10 * 365 * 86400
    async with app:
        await much_later.options(delay=years).dispatch()
        exchange, _ = ladder.entrance("quorum", years * 1000, "default")
        assert await length(app, exchange) == 1
        with pytest.raises(UnsupportedCapability, match="delays at most"):
            await much_later.options(delay=2 * years).dispatch()


# To whom


@pytest.mark.parametrize("type_", list(ExchangeType))
async def test_what_is_late_for_an_exchange_gets_to_its_queues(type_: ExchangeType) -> None:
    seen, app = Seen(), app_at(fresh_url())
    exchange = Exchange("news", type_)
    headers = {"format": "pdf"} if type_ is ExchangeType.HEADERS else {}
    for queue in ("one", "two"):
        app.broker.bind(queue, exchange, "a.b", headers=headers)
    app.broker.bind("other", Exchange("elsewhere"), "a.b")
    task = tell(seen, app, route=Route(exchange, "a.b", headers))
    async with listening(app, "one", "two", "other"):
        before = time.time()
        await task.options(delay=0.4).dispatch(1)
        assert await seen.wait(2) == [("one", 1), ("two", 1)]
        assert time.time() - before >= 0.4


async def test_two_apps_with_prefixes_share_a_ladder_and_nothing_else() -> None:
    vhost = fresh_vhost()
    one, other, plain = Seen(), Seen(), Seen()
    apps = [app_at(f"{vhost}?prefix=one."), app_at(f"{vhost}?prefix=other."), app_at(vhost)]
    tasks = [tell(seen, app) for seen, app in zip((one, other, plain), apps, strict=True)]
    async with listening(apps[0], "mail"), listening(apps[1], "mail"), listening(apps[2], "mail"):
        for name, task in zip(("one", "other", "plain"), tasks, strict=True):
            await task.options(delay=0.3, queue="mail").dispatch(name)
        assert await one.wait(1) == [("mail", "one")]
        assert await other.wait(1) == [("mail", "other")]
        assert await plain.wait(1) == [("mail", "plain")]


HOSTILE = ["a.b", "0.1.0", "x.mail", "ü/ß?&=:@", "%6D%61il", "%h", "'\";\\", "=", LONG_NAME, LONG_NAME + "é"]


async def test_names_of_queues_may_be_anything() -> None:
    seen, app = Seen(), app_at(fresh_url())
    task = tell(seen, app)
    names = [*HOSTILE, "mail"]
    async with listening(app, *names):
        for name in names:
            await task.options(delay=0.2, queue=name).dispatch(name)
        assert await seen.wait(len(names)) == sorted(((name, name) for name in names), key=str)


# What happens meanwhile


async def delete(app: Any, queue: str) -> None:
    async with app.broker._control.channel() as channel:
        await channel.queue_delete(queue=app.broker.database.names.queue(queue))


async def test_messages_wait_while_their_queue_is_deleted_and_made_again() -> None:
    url, seen = fresh_url(), Seen()
    app, worker = app_at(url), app_at(url)
    async with app:
        await tell(seen, app).options(delay=2, queue="mail").dispatch(1)
        await delete(app, "mail")
    tell(seen, worker)
    async with listening(worker, "mail"):
        assert await seen.wait(1) == [("mail", 1)]


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_what_comes_due_for_a_queue_that_is_gone_is_a_dead_letter_and_in_nobodys_way(kind: str) -> None:
    url, seen = f"{fresh_vhost()}?queue_type={kind}&prefix=p.", Seen()
    app = app_at(url)
    task = tell(seen, app)
    names = ["gone.ü", LONG_NAME]
    async with listening(app, "mail"):
        due = datetime.now(UTC) + timedelta(seconds=5)
        jobs = await asyncio.gather(
            *(task.options(eta=due, queue=name).dispatch(name) for name in names for _ in range(60))
        )
        for name in names:
            await delete(app, name)
        assert datetime.now(UTC) < due
        await task.options(eta=due, queue="mail").dispatch("on time")
        assert await seen.wait(1) == [("mail", "on time")]
        assert datetime.now(UTC) - due < timedelta(seconds=30), "not behind those that nobody takes"
        async with asyncio.timeout(30):
            while len(letters := [letter async for letter in app.dead_letters()]) < len(jobs):
                await asyncio.sleep(0.05)
        assert {letter.id for letter in letters} == {job.id for job in jobs}
        assert {(letter.queue, letter.reason, letter.task) for letter in letters} == {
            (name, "unroutable", "tell") for name in names
        }
        assert await app.broker.dead_letters.requeue(jobs[0].id)
        assert (await app.broker.queues.counts())[names[0]] == {"ready": 1}


_READY = "proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages]))"
_IS_EXIT = 'binary:match(element(4, amqqueue:get_name(Q)), <<"camora.due.">>) =/= nomatch'


async def test_what_is_late_for_an_exchange_waits_until_a_queue_is_bound() -> None:
    """The server tries again by itself, here every second."""
    url = f"{fresh_vhost()}?queue_type=classic"
    vhost = url.rpartition("/")[2].partition("?")[0]
    waiting = f'[{_READY} || Q <- rabbit_amqqueue:list(<<"{vhost}">>), {_IS_EXIT}]'
    seen, app = Seen(), app_at(url)
    news = Exchange("news")
    task = tell(seen, app, exchange=news, routing_key="a")
    with having(shared(), dead_letter_worker_publisher_confirm_timeout=1000):
        async with app:
            # The way is made by one that is late for long: what comes due meanwhile would not go by it.
            await task.options(delay=600).dispatch(2)
            await task.options(delay=2).dispatch(1)
            async with asyncio.timeout(60):
                # It is due, and reaches nobody: the server holds it where it came out of the ladder.
                while "1" not in await asyncio.to_thread(shared().eval, waiting):
                    await asyncio.sleep(0.05)
        worker = app_at(url)
        worker.broker.bind("mail", news, "a")
        tell(seen, worker)
        async with listening(worker, "mail"):
            assert await seen.wait(1) == [("mail", 1)]


async def test_the_ladder_is_only_as_high_as_it_is_needed_and_comes_back_when_it_is_deleted() -> None:
    seen, app = Seen(), app_at(fresh_vhost())
    task = tell(seen, app)
    async with listening(app, "default"):
        await task.options(delay=0.7).dispatch(1)
        assert await seen.wait(1) == [("default", 1)]
        async with app.broker._control.channel() as channel:
            await channel.queue_delete(queue="camora.delay.2")
        await task.options(delay=0.7).dispatch(2)
        assert await seen.wait(2) == [("default", 1), ("default", 2)]


# The server's plugin


async def test_a_server_without_the_plugin_is_told_in_words() -> None:
    app = app_at(f"{fresh_vhost()}?delay=plugin")
    with pytest.raises(ConfigurationError, match="delay = 'plugin': the server has no plugin for delayed messages"):
        async with app:
            pass


async def test_what_the_plugin_gets() -> None:
    """Exchange, key and headers; that it delays is the plugin's own business."""
    broker = AmqpBroker("amqp://localhost?delay=plugin&prefix=p.")
    assert broker.capabilities.longest_delay == pytest.approx((2**32 - 1) / 1000)
    publisher = broker._publisher
    publisher.declarer._version = broker.database.topology.version
    publisher.declarer._made.update(
        {("queue", "mail"), ("exchange", "amq.topic"), ("delayed", "p.camora.delayed.amq.topic")}
    )
    due = round(time.time() * 1000) + 60_000
    [plain, routed] = await publisher.jobs(
        [
            Envelope(id="1", task="t", queue="mail", body=b"", due=due),
            Envelope(id="2", task="t", queue="mail", body=b"", due=due, options={"route": Route("amq.topic", "a.b")}),
        ]
    )
    assert (plain.exchange, plain.routing_key, plain.mandatory) == ("p.camora.delayed", "p.mail", False)
    assert (routed.exchange, routed.routing_key, routed.mandatory) == ("p.camora.delayed.amq.topic", "a.b", False)
    from camora_amqp.frames import read_properties

    for message in (plain, routed):
        assert 59_000 < read_properties(message.header).headers["x-delay"] <= 60_000
    with pytest.raises(UnsupportedCapability, match="delays at most"):
        await publisher.jobs([Envelope(id="1", task="t", queue="mail", body=b"", due=due + plugin_delay.LONGEST)])
