"""Topics: every subscription gets its copy, and what is for one of them reaches no other."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from camora import AppSettings, Camora, Context, RetryPolicy
from camora.errors import ConfigurationError
from camora.queue import Queue
from camora_servicebus import ServiceBusSubscription, ServiceBusTopic
from camora_servicebus.admin import Admin
from camora_servicebus.applying import carried_out, planned
from camora_servicebus.names import Names
from camora_servicebus.topics import rule_text, split
from camora_servicebus.wanting import wanted_of_app

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.shared import url_of
from tests.servicebus.sending import new_name, until


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(lock_seconds=5.0) as server:
        yield server


def app_of(server: ServiceBusServer, queues: Sequence[Queue], prefix: str, **options: Any) -> Any:
    """Its entities are made when it is opened."""
    url = url_of(server, timeout=5.0, prefix=prefix, management=f"{server.host}:{server.port}", create="true")
    return Camora(url, queues=queues, results=False, settings=AppSettings(dispatch_timeout=20), **options)


class Shop:
    """An app whose events are told to several queues, and what ran."""

    def __init__(self, server: ServiceBusServer, *queues: Queue, **options: Any) -> None:
        self.server = server
        self.prefix = new_name("p") + "-"
        self.queues = queues
        self.ran: list[tuple[str, Any]] = []
        self.app = app_of(server, queues, self.prefix, **options)
        self.failing: Counter[str] = Counter()
        """How often the queues' jobs are to fail."""

        @self.app.task(name="tell", topic="events")
        async def tell(what: Any, *, ctx: Context) -> None:
            self.ran.append((ctx.delivery.queue, what))
            if self.failing[ctx.delivery.queue] > 0:
                self.failing[ctx.delivery.queue] -= 1
                raise ConnectionError("not yet")

        self.tell = tell

    def worker(self) -> Any:
        return self.app.worker(queues=[queue.name for queue in self.queues])

    def entity(self, subscription: str) -> str:
        return f"{self.prefix}events/Subscriptions/{subscription}"

    async def ended(self, count: int) -> None:
        """So many ran, and nothing is left."""
        await until(lambda: len(self.ran) >= count, f"{count} of {self.ran}")
        for queue in self.queues:
            await until(
                lambda queue=queue: not self.server.counts(self.entity(queue.name))["active"], "nothing is left"
            )  # type: ignore[misc]


def three() -> list[Queue]:
    return [ServiceBusSubscription(name, topic="events") for name in ("mail", "stock", "books")]


async def test_each_subscription_gets_its_copy(server: ServiceBusServer) -> None:
    shop = Shop(server, *three())
    async with shop.app, shop.worker():
        for number in range(5):
            await shop.tell.dispatch(number)
        await shop.ended(15)
    assert Counter(shop.ran) == Counter((queue, number) for queue in ("mail", "stock", "books") for number in range(5))


@pytest.mark.parametrize("delay", [0, 0.3])
async def test_a_retry_reaches_the_subscription_it_came_from_alone(server: ServiceBusServer, delay: float) -> None:
    shop = Shop(server, *three(), retry_policy=RetryPolicy(max_tries=5, delay=delay, jitter=False))
    shop.failing["stock"] = 2
    async with shop.app, shop.worker():
        await shop.tell.dispatch(1)
        await shop.ended(5)
        await until(lambda: len(server.events("completed", entity=shop.entity("stock"))) == 3, "all are ended")
    assert Counter(shop.ran) == {("mail", 1): 1, ("stock", 1): 3, ("books", 1): 1}
    for name in ("mail", "books"):
        assert len(server.events("locked", entity=shop.entity(name))) == 1  # not even seen


async def test_a_job_can_be_sent_to_one_subscription_by_its_queue(server: ServiceBusServer) -> None:
    shop = Shop(server, *three())

    @shop.app.task(name="alone", queue="books")
    async def alone(*, ctx: Context) -> None:
        shop.ran.append((ctx.delivery.queue, "alone"))

    async with shop.app, shop.worker():
        await alone.dispatch()
        await alone.options(delay=0.3).dispatch()
        await shop.ended(2)
    assert shop.ran == [("books", "alone")] * 2


async def test_filters_choose_by_the_properties_of_a_message_and_let_retries_in(server: ServiceBusServer) -> None:
    queues = [
        ServiceBusSubscription("eu", topic="events", filter="region = 'eu' AND size > 3"),
        ServiceBusSubscription("all", topic="events"),
    ]
    shop = Shop(server, *queues, retry_policy=RetryPolicy(max_tries=3, delay=0))
    shop.failing["eu"] = 1
    async with shop.app, shop.worker():
        for region, size in (("eu", 5), ("eu", 1), ("us", 9)):
            await shop.tell.options(message_properties={"region": region, "size": size}).dispatch([region, size])
        await shop.tell.dispatch("none")
        await shop.ended(6)
    assert [what for queue, what in shop.ran if queue == "eu"] == [["eu", 5], ["eu", 5]]
    assert [what for queue, what in shop.ran if queue == "all"] == [["eu", 5], ["eu", 1], ["us", 9], "none"]


async def test_letters_are_of_one_subscription_and_go_back_to_it_alone(server: ServiceBusServer) -> None:
    shop = Shop(server, *three(), retry_policy=RetryPolicy.never())
    shop.failing["mail"] = 1
    async with shop.app, shop.worker():
        job = await shop.tell.dispatch(1)
        await shop.ended(3)
        [letter] = [one async for one in shop.app.dead_letters()]
        assert (letter.id, letter.queue) == (job.id, "mail")
        counts = await shop.app.broker.queues.counts()
        assert counts["mail"]["dead"] == 1
        assert await shop.app.requeue(letter.id)
        await shop.ended(4)
        assert not [one async for one in shop.app.dead_letters()]
    assert Counter(shop.ran) == {("mail", 1): 2, ("stock", 1): 1, ("books", 1): 1}


async def test_what_is_for_another_is_dropped_where_its_rules_are_somebody_elses(server: ServiceBusServer) -> None:
    shop = Shop(server, *three(), retry_policy=RetryPolicy(max_tries=3, delay=0))
    shop.failing["stock"] = 1
    async with shop.app:
        async with Admin(shop.app.broker.database) as admin:  # as if it had never been applied
            await admin.change("subscription", (f"{shop.prefix}events", "mail"), {"filter": "1=1"})
        async with shop.worker():
            await shop.tell.dispatch(1)
            await shop.ended(4)
            await until(lambda: len(server.events("completed", entity=shop.entity("mail"))) == 2, "it is dropped")
    assert Counter(shop.ran) == {("mail", 1): 1, ("stock", 1): 2, ("books", 1): 1}


async def test_retries_of_several_subscriptions_are_not_taken_for_duplicates(server: ServiceBusServer) -> None:
    topic = ServiceBusTopic("events", duplicate_detection=60)
    queues = [ServiceBusSubscription(name, topic=topic) for name in ("mail", "stock")]
    shop = Shop(server, *queues, retry_policy=RetryPolicy(max_tries=3, delay=0))
    shop.failing.update(mail=2, stock=2)
    async with shop.app, shop.worker():
        await shop.tell.dispatch(1)
        await shop.ended(6)
    assert Counter(shop.ran) == {("mail", 1): 3, ("stock", 1): 3}


async def test_a_scheduled_job_of_a_topic_is_called_off_by_who_sent_it(server: ServiceBusServer) -> None:
    shop = Shop(server, *three())
    async with shop.app:
        job = await shop.tell.options(delay=60).dispatch(1)
        other = await shop.tell.options(delay=0.5).dispatch(2)
        assert (await shop.app.broker.queues.cancel(job.id)).value == "removed"
        async with shop.worker():
            await shop.ended(3)
    assert other.id != job.id
    assert {what for _, what in shop.ran} == {2}


# Making them


async def test_apply_makes_topics_subscriptions_and_rules_and_then_has_nothing_to_do(server: ServiceBusServer) -> None:
    prefix = new_name("p") + "-"
    queues = [
        ServiceBusSubscription("mail", topic=ServiceBusTopic("events", time_to_live="1d"), lock_duration=30),
        ServiceBusSubscription("eu", topic="events", subscription="europe", filter="region = 'eu'", sessions=True),
    ]
    app = app_of(server, queues, prefix)

    @app.task(name="tell", topic="news")
    async def tell() -> None:
        pass

    async def apply() -> dict[str, str]:
        async with Admin(app.broker.database) as admin:
            changes = await planned(admin, wanted_of_app(app))
            async for _ in carried_out(admin, changes):
                pass
        return {f"{change.wanted.kind} {change.wanted.entity}": change.action for change in changes}

    made = await apply()
    assert made == {
        f"topic {prefix}events": "create",
        f"topic {prefix}news": "create",
        f"queue {prefix}default": "create",
        f"subscription {prefix}events/Subscriptions/mail": "create",
        f"subscription {prefix}events/Subscriptions/europe": "create",
    }
    assert set((await apply()).values()) == {"same"}
    async with Admin(app.broker.database) as admin:
        found = await admin.find("subscription", (f"{prefix}events", "europe"))
        assert found is not None
        assert found["filter"] == "camora_to = 'europe' OR (camora_to IS NULL AND (region = 'eu'))"
        assert found["sessions"] is True
        await admin.change("subscription", (f"{prefix}events", "europe"), {"filter": "1=1"})
    assert (await apply())[f"subscription {prefix}events/Subscriptions/europe"] == "change"
    assert set((await apply()).values()) == {"same"}


async def test_the_file_declares_the_same(server: ServiceBusServer, tmp_path: Path) -> None:
    (tmp_path / "camora.toml").write_text(
        f"""
        app = "nothing:here"
        [broker]
        url = "{url_of(server)}"
        [queues.mail]
        kind = "servicebus-subscription"
        topic = {{ name = "events", duplicate_detection = "10m" }}
        filter = "region = 'eu'"
        [queues.stock]
        kind = "servicebus-subscription"
        topic = "events"
        sessions = true
        """
    )
    app = Camora.from_toml(tmp_path / "camora.toml")
    mail, stock = sorted(app.queues, key=lambda queue: queue.name)
    topic = ServiceBusTopic("events", duplicate_detection=600)
    assert mail == ServiceBusSubscription("mail", topic=topic, filter="region = 'eu'")
    assert stock == ServiceBusSubscription("stock", topic="events", sessions=True)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"name": "a/b"}, "subscription 'a/b'"),
        ({"name": "m" * 51}, "1 to 50 ASCII letters"),
        ({"filter": " "}, "a condition"),
        ({"filter": "a = 'b' OR " * 100}, "longer than the 1024"),
        ({"filter": "a = 1", "declare": False}, "leave the filter out"),
        ({"topic": ""}, "topic"),
        ({"topic": 5}, "topic"),
        ({"lock_duration": 1}, "lock_duration=1.0"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ServiceBusSubscription(**{"name": "mail", "topic": "events", **wrong})


def test_a_topic_that_is_declared_twice_is_refused(server: ServiceBusServer) -> None:
    queues = [
        ServiceBusSubscription("a", topic=ServiceBusTopic("events", time_to_live=60)),
        ServiceBusSubscription("b", topic=ServiceBusTopic("events")),
    ]
    with pytest.raises(ConfigurationError, match="topic 'events' is declared twice"):
        app_of(server, queues, "p").broker.declare(queues)


def test_names_of_subscriptions_lead_back_to_their_queues() -> None:
    names = Names("p-")
    names.place("mail", "p-events/Subscriptions/post")
    assert names.queue("mail") == "p-events/Subscriptions/post"
    assert names.of_queue("p-Events/subscriptions/Post") == "mail"
    assert split(names.queue("mail")) == ("p-events", "post")
    assert split("p-events") == ("p-events", "")
    with pytest.raises(ConfigurationError, match="can be one queue alone"):
        names.place("other", "p-events/subscriptions/POST")
    assert rule_text("post", None) == "camora_to = 'post' OR camora_to IS NULL"
