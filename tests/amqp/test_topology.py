"""Exchanges, queues and bindings, with real workers: who gets a job, and that nothing is lost on the way."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from camora import AppSettings, Camora, Context, RetryPolicy, WorkerSettings
from camora.errors import ConfigurationError, DispatchError, UnsupportedCapability
from camora_amqp import Binding, Exchange, ExchangeType, Queue, Route

from tests.servers.rabbitmq import fresh_url

NEWS = Exchange("news", ExchangeType.TOPIC)
ALL = Exchange("all", ExchangeType.FANOUT)
PRINT = Exchange("print", ExchangeType.HEADERS)
SETTINGS = WorkerSettings(lease=5, shutdown_timeout=5, concurrency=20)


class Seen:
    """What ran, by queue."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()

    def note(self, queue: str, what: Any) -> None:
        self.jobs.append((queue, what))
        self._changed.set()

    async def wait(self, count: int) -> list[tuple[str, Any]]:
        """The first so many, sorted."""
        async with asyncio.timeout(30):
            while len(self.jobs) < count:
                self._changed.clear()
                await self._changed.wait()
        return sorted(self.jobs, key=str)


def app_at(url: str, *, patience: float = 10, **options: Any) -> Any:
    return Camora(url, results=False, settings=AppSettings(dispatch_timeout=patience), **options)


def tell(seen: Seen, app: Camora, **options: Any) -> Any:
    """The task that says which queue its job came from."""

    @app.task(name="tell", **options)
    async def tell(what: Any, *, ctx: Context) -> None:
        seen.note(ctx.queue, what)

    return tell


@asynccontextmanager
async def listening(app: Camora, *queues: Any) -> AsyncIterator[None]:
    async with app, app.worker(queues=queues, settings=SETTINGS):
        yield


async def settled(app: Camora) -> None:
    """Wait until no queue has anything ready."""
    async with asyncio.timeout(30):
        while any("ready" in states for states in (await app.broker.queues.counts()).values()):
            await asyncio.sleep(0.01)


# Who gets a job


@pytest.mark.parametrize("how", ["task", "dispatch", "route", "route-of-dispatch"])
async def test_a_topic_exchange_gives_jobs_by_patterns(how: str) -> None:
    seen, app = Seen(), app_at(fresh_url())
    for queue, pattern in (("mail", "a.*"), ("log", "#"), ("other", "b.#")):
        app.broker.bind(Queue(queue), NEWS, pattern)
    givens: dict[str, dict[str, Any]] = {
        "task": {"exchange": NEWS, "routing_key": "a.x"},
        "dispatch": {},
        "route": {"route": Route(NEWS, "a.x")},
        "route-of-dispatch": {},
    }
    onces: dict[str, dict[str, Any]] = {
        "task": {},
        "dispatch": {"exchange": "news", "routing_key": "a.x"},
        "route": {},
        "route-of-dispatch": {"route": Route("news", "a.x")},
    }
    given, once = givens[how], onces[how]
    task = tell(seen, app, **given)
    async with listening(app, "mail", "log", "other"):
        await task.options(**once).dispatch("one")
        assert await seen.wait(2) == [("log", "one"), ("mail", "one")]
        await task.options(**{**once, "routing_key": "b.y.z"}).dispatch("two")
        assert await seen.wait(4) == [("log", "one"), ("log", "two"), ("mail", "one"), ("other", "two")]
        await settled(app)
    assert len(seen.jobs) == 4


async def test_a_direct_exchange_gives_jobs_by_the_very_key() -> None:
    seen, app = Seen(), app_at(fresh_url())
    orders = Exchange("orders")
    app.broker.bind("urgent", orders, "now")
    app.broker.bind("slow", orders, "later")
    task = tell(seen, app, exchange=orders)
    async with listening(app, "urgent", "slow"):
        await task.options(routing_key="now").dispatch(1)
        await task.options(routing_key="later").dispatch(2)
        assert await seen.wait(2) == [("slow", 2), ("urgent", 1)]


async def test_without_a_routing_key_it_is_the_name_of_the_tasks_queue() -> None:
    seen, app = Seen(), app_at(fresh_url())
    app.broker.bind("mail", Exchange("orders"), "mail")
    task = tell(seen, app, exchange="orders", queue="mail")
    async with listening(app, "mail"):
        await task.dispatch(1)
        assert await seen.wait(1) == [("mail", 1)]


async def test_a_headers_exchange_gives_jobs_by_headers_of_the_message() -> None:
    seen, app = Seen(), app_at(fresh_url())
    app.broker.bind("both", PRINT, headers={"format": "pdf", "pages": 2})
    app.broker.bind("any", PRINT, headers={"x-match": "any", "format": "pdf", "pages": 9})
    task = tell(seen, app, exchange=PRINT)
    async with listening(app, "both", "any"):
        await task.options(message_headers={"format": "pdf", "pages": 2}).dispatch("one")
        assert await seen.wait(2) == [("any", "one"), ("both", "one")]
        await task.options(message_headers={"pages": 9}).dispatch("two")
        await app.task(name="routed", route=Route("print", headers={"format": "pdf"}))(task.function).dispatch("three")
        assert await seen.wait(4) == [("any", "one"), ("any", "three"), ("any", "two"), ("both", "one")]


async def test_each_copy_of_a_fan_out_is_a_job_of_its_own() -> None:
    """What fails for one queue is repeated there alone, and becomes a dead letter of that queue alone."""
    seen = Seen()
    app = app_at(fresh_url(), retry_policy=RetryPolicy(max_tries=3, delay=0.05, jitter=False))
    for queue in ("one", "two", "three"):
        app.broker.bind(queue, ALL)

    @app.task(exchange=ALL)
    async def work(ctx: Context) -> None:
        seen.note(ctx.queue, ctx.attempt)
        if ctx.queue == "two":
            raise ConnectionError("always")

    async with listening(app, "one", "two", "three"):
        job = await work.dispatch()
        assert await seen.wait(5) == [("one", 1), ("three", 1), ("two", 1), ("two", 2), ("two", 3)]
        async with asyncio.timeout(30):
            while not (letters := [one async for one in app.dead_letters()]):
                await asyncio.sleep(0.01)
        assert [(letter.id, letter.queue, letter.attempts) for letter in letters] == [(job.id, "two", 3)]
        await settled(app)
    assert Counter(queue for queue, _ in seen.jobs)["one"] == 1


async def test_a_prioritised_copy_is_repeated_in_a_queue_without_priorities() -> None:
    seen = Seen()
    app = app_at(fresh_url(), retry_policy=RetryPolicy(max_tries=2, delay=0, jitter=False))
    app.broker.bind(Queue("urgent", queue_type="classic", max_priority=9), ALL)
    app.broker.bind("plain", ALL)

    @app.task(exchange=ALL, priority=5)
    async def work(ctx: Context) -> None:
        seen.note(ctx.queue, ctx.attempt)
        raise ConnectionError("always")

    async with listening(app, "urgent", "plain"):
        await work.dispatch()
        assert await seen.wait(4) == [("plain", 1), ("plain", 2), ("urgent", 1), ("urgent", 2)]


async def test_exchanges_that_the_server_has_by_itself_need_no_declaration() -> None:
    seen, app = Seen(), app_at(fresh_url())
    prefix = app.broker.database.settings.prefix
    app.broker.bind("mail", "amq.topic", f"{prefix}.a.*")
    app.broker.bind("mail", "amq.fanout")
    task = tell(seen, app, exchange="amq.topic")
    async with listening(app, "mail"):
        await task.options(routing_key=f"{prefix}.a.b").dispatch(1)
        assert await seen.wait(1) == [("mail", 1)]


# Who comes first


async def test_a_worker_may_come_before_the_first_dispatch_and_know_nothing_of_the_producer() -> None:
    url, seen = fresh_url(), Seen()
    worker, producer = app_at(url), app_at(url)
    tell(seen, worker)
    worker.broker.bind(Queue("mail"), NEWS, "a.#")
    task = tell(seen, producer, exchange="news", routing_key="a.b")
    async with listening(worker, "mail"), producer:
        await task.dispatch("one")
        assert await seen.wait(1) == [("mail", "one")]


async def test_a_producer_that_declares_the_queue_may_come_before_the_worker() -> None:
    url, seen = fresh_url(), Seen()
    worker, producer = app_at(url), app_at(url)
    producer.broker.bind("mail", NEWS, "a.#")
    async with producer:
        await tell(seen, producer, exchange=NEWS, routing_key="a.b").dispatch("early")
    tell(seen, worker)
    async with listening(worker, "mail"):
        assert await seen.wait(1) == [("mail", "early")]


async def test_a_dispatch_that_reaches_no_queue_is_an_error_that_says_what_is_missing() -> None:
    url, seen = fresh_url(), Seen()
    producer = app_at(url, patience=0.5)
    task = tell(seen, producer, exchange=NEWS, routing_key="a.b")
    async with producer:
        with pytest.raises(DispatchError, match=r"no queue is bound to exchange '\S*news' with routing key 'a.b'"):
            await task.dispatch("lost")


async def test_an_exchange_that_nobody_declares_is_an_error_that_says_so() -> None:
    seen = Seen()
    producer = app_at(fresh_url())
    task = tell(seen, producer, exchange="nws", routing_key="a.b")
    async with producer:
        with pytest.raises(ConfigurationError, match=r"there is no exchange '\S*nws' on the server: declare it"):
            await task.dispatch("lost")
    worker = app_at(fresh_url())
    worker.broker.bind("mail", "nws", "a.b")
    with pytest.raises(ConfigurationError, match=r"there is no exchange '\S*nws' on the server: declare it"):
        async with worker:
            pass


async def test_an_exchange_that_is_gone_is_made_again() -> None:
    seen, app = Seen(), app_at(fresh_url())
    app.broker.bind("mail", NEWS, "a.#")
    task = tell(seen, app, exchange=NEWS, routing_key="a.b")
    async with listening(app, "mail"):
        await task.dispatch("one")
        await seen.wait(1)
        async with app.broker._control.channel() as channel:
            await channel.exchange_delete(exchange=app.broker.database.names.exchange("news"))
        async with asyncio.timeout(20):
            while True:
                try:
                    await task.dispatch("two")
                    break
                except DispatchError:  # it may have been sent, for all that the connection knows
                    continue
        assert ("mail", "two") in await seen.wait(2)


# Slips


def test_options_that_do_not_go_together_are_refused() -> None:
    app = app_at("amqp://localhost")
    with pytest.raises(ConfigurationError, match="exchange=7: exchange name 7"):
        app.task(name="a", exchange=7)(lambda: None)
    with pytest.raises(ConfigurationError, match="message_headers=.*names that begin with 'x-'"):
        app.task(name="b", message_headers={"x-delay": 1})(lambda: None)
    with pytest.raises(ConfigurationError, match="expected a table"):
        app.task(name="c", route="news")(lambda: None)


async def test_half_a_way_is_refused_when_it_is_used() -> None:
    app = app_at(fresh_url())

    @app.task(name="t")
    async def task() -> None: ...

    async with app:
        with pytest.raises(UnsupportedCapability, match="t: routing_key need.* an exchange"):
            await task.options(routing_key="a").dispatch()
        with pytest.raises(ConfigurationError, match="both say where its jobs go"):
            await task.options(exchange="a", route=Route("b")).dispatch()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Exchange(""), "exchange name ''"),
        (lambda: Exchange("x" * 128), "1 to 127 bytes"),
        (lambda: Exchange("amq.topic"), "the server's own"),
        (lambda: Exchange("amq.mine"), "belong to the server"),
        (lambda: Exchange("a", "tpic"), "type='tpic': expected one of 'direct', 'fanout', 'topic', 'headers'"),
        (lambda: Binding(cast("Any", 3)), "exchange name 3"),
        (lambda: Binding("a", "k" * 256), "at most 255 bytes"),
        (lambda: Binding("a", headers={"n": [1]}), "'n' is \\[1\\]"),
        (lambda: Route("a", headers={"camora-x": "1"}), "are not yours"),
        (lambda: Route("a", headers={"big": 2**63}), "a number"),
    ],
    ids=["empty", "long", "servers", "reserved", "type", "no-name", "key", "list", "ours", "number"],
)
def test_impossible_declarations_are_refused_where_they_stand(wrong: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        wrong()


def test_an_exchange_that_is_declared_in_two_ways_is_named() -> None:
    app = app_at("amqp://localhost")
    app.broker.bind("mail", NEWS, "a")
    app.broker.bind("post", "news", "b")
    with pytest.raises(ConfigurationError, match="exchange 'news' is declared twice.*TOPIC.*FANOUT"):
        app.broker.bind("other", Exchange("news", "fanout"))


async def test_a_queue_binds_itself() -> None:
    seen, app = Seen(), app_at(fresh_url())
    queue = Queue("mail", bindings=[Binding(NEWS, "a.*"), Binding(ALL)])
    task = tell(seen, app, queue=queue)
    async with listening(app, queue):
        await task.options(exchange="news", routing_key="a.b").dispatch(1)
        await task.options(exchange="all").dispatch(2)
        await task.dispatch(3)
        assert await seen.wait(3) == [("mail", 1), ("mail", 2), ("mail", 3)]
