"""The management interface of the private Service Bus, by the client that users have."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from tests.servers.servicebus.admin import Administration
from tests.servers.servicebus.entities import Incoming, Namespace, QueueOptions
from tests.servers.servicebus.web import Answer, Asked, Conversation, serve
from tests.servers.tls import Certificates, new_certificates

KEY = "aGVsbG8="


class Plain(RequestsTransport):
    """Without TLS: the client always says https."""

    def send(self, request: Any, **options: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **options)


class AsyncPlain(AsyncioRequestsTransport):
    """The same for the asynchronous client."""

    async def send(self, request: Any, **options: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return await super().send(request, **options)


class Running:
    """A namespace and its management interface, in a thread of its own."""

    def __init__(self, *, tier: str = "standard", tls: Certificates | None = None, **options: Any) -> None:
        self.namespace = Namespace(tier=tier)
        self.administration = Administration(self.namespace, **options)
        self._context = tls_context(tls) if tls else None
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=[self._run()])
        self._thread.start()
        self.port = self._started.result(60)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with await serve(self.administration, "127.0.0.1", tls=self._context) as server:
            self._started.set_result(server.sockets[0].getsockname()[1])
            await self._stop.wait()

    @property
    def connection_string(self) -> str:
        endpoint = f"sb://127.0.0.1:{self.port}"
        return f"Endpoint={endpoint};SharedAccessKeyName=all;SharedAccessKey={KEY};UseDevelopmentEmulator=true"

    def do(self, what: Callable[[Namespace], Any]) -> Any:
        """What this returns, in the thread that has the namespace."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(what(self.namespace))
            except Exception as error:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return future.result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


def tls_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    return context


@pytest.fixture
def running() -> Iterator[Running]:
    yield (running := Running())
    running.close()


@pytest.fixture
def client(running: Running) -> Iterator[ServiceBusAdministrationClient]:
    with client_of(running) as client:
        yield client


def client_of(running: Running) -> ServiceBusAdministrationClient:
    return ServiceBusAdministrationClient.from_connection_string(
        running.connection_string, transport=Plain(), retry_total=0
    )


def test_a_queue_is_created_with_the_defaults_of_the_service(client: ServiceBusAdministrationClient) -> None:
    client.create_queue("orders")
    queue = client.get_queue("orders")
    assert queue.name == "orders"
    assert queue.lock_duration == timedelta(minutes=1)
    assert queue.max_delivery_count == 10
    assert queue.max_size_in_megabytes == 1024
    assert queue.default_message_time_to_live > timedelta(days=10_000_000)
    assert queue.requires_session is False
    assert queue.requires_duplicate_detection is False
    assert queue.duplicate_detection_history_time_window == timedelta(minutes=10)
    assert queue.dead_lettering_on_message_expiration is False
    assert queue.enable_partitioning is False
    assert queue.status == "Active"
    assert queue.forward_to is None
    assert queue.max_message_size_in_kilobytes is None


def test_a_queue_keeps_all_that_it_is_created_with(running: Running, client: ServiceBusAdministrationClient) -> None:
    client.create_queue("target")
    client.create_queue(
        "orders/fast",
        lock_duration=timedelta(minutes=2, seconds=30),
        max_delivery_count=7,
        max_size_in_megabytes=2048,
        requires_duplicate_detection=True,
        duplicate_detection_history_time_window="PT30S",
        default_message_time_to_live=timedelta(days=1, hours=2),
        dead_lettering_on_message_expiration=True,
        enable_partitioning=True,
        forward_dead_lettered_messages_to="target",
        user_metadata="for <orders> & more",
        auto_delete_on_idle=timedelta(hours=1),
    )
    queue = client.get_queue("orders/fast")
    assert queue.lock_duration == timedelta(minutes=2, seconds=30)
    assert queue.max_delivery_count == 7
    assert queue.max_size_in_megabytes == 2048
    assert queue.requires_duplicate_detection is True
    assert queue.duplicate_detection_history_time_window == timedelta(seconds=30)
    assert queue.default_message_time_to_live == timedelta(days=1, hours=2)
    assert queue.dead_lettering_on_message_expiration is True
    assert queue.enable_partitioning is True
    assert queue.forward_dead_lettered_messages_to == "target"
    assert queue.user_metadata == "for <orders> & more"
    assert queue.auto_delete_on_idle == timedelta(hours=1)
    options = running.do(lambda namespace: namespace.entity("orders/fast").options)
    assert options.lock_duration == 150
    assert options.default_time_to_live == 93_600


def test_a_second_queue_of_a_name_is_refused(client: ServiceBusAdministrationClient) -> None:
    client.create_queue("orders")
    with pytest.raises(ResourceExistsError):
        client.create_queue("Orders")
    with pytest.raises(ResourceExistsError):
        client.create_topic("orders")


def test_what_is_not_there_is_not_found(client: ServiceBusAdministrationClient) -> None:
    client.create_topic("events")
    with pytest.raises(ResourceNotFoundError):
        client.get_queue("none")
    with pytest.raises(ResourceNotFoundError):
        client.get_queue_runtime_properties("none")
    with pytest.raises(ResourceNotFoundError):
        client.delete_queue("none")
    with pytest.raises(ResourceNotFoundError):
        client.get_subscription("events", "none")
    with pytest.raises(ResourceNotFoundError):
        client.create_subscription("none", "all")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lock_duration": timedelta(minutes=6)}, "LockDuration"),
        ({"lock_duration": timedelta(seconds=4)}, "LockDuration"),
        ({"lock_duration": "P1Y"}, "LockDuration"),
        ({"max_size_in_megabytes": 1000}, "MaxSizeInMegabytes"),
        ({"auto_delete_on_idle": timedelta(minutes=1)}, "AutoDeleteOnIdle"),
        ({"default_message_time_to_live": timedelta(milliseconds=500)}, "DefaultMessageTimeToLive"),
        ({"max_delivery_count": 0}, "MaxDeliveryCount"),
        (
            {"requires_duplicate_detection": True, "duplicate_detection_history_time_window": "PT1S"},
            "DuplicateDetectionHistoryTimeWindow",
        ),
        ({"max_message_size_in_kilobytes": 1024}, "MaxMessageSizeInKilobytes"),
    ],
)
def test_what_the_service_does_not_take_is_refused(
    client: ServiceBusAdministrationClient, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(HttpResponseError, match=text) as caught:
        client.create_queue("orders", **options)
    assert caught.value.status_code == 400
    assert [queue.name for queue in client.list_queues()] == []


def test_a_queue_is_updated_but_not_in_what_it_is(client: ServiceBusAdministrationClient) -> None:
    client.create_queue("orders", max_delivery_count=3)
    queue = client.get_queue("orders")
    queue.lock_duration = timedelta(seconds=30)
    client.update_queue(queue)
    client.update_queue(queue, status="ReceiveDisabled")
    queue = client.get_queue("orders")
    assert (queue.lock_duration, queue.max_delivery_count, queue.status) == (
        timedelta(seconds=30),
        3,
        "ReceiveDisabled",
    )
    with pytest.raises(HttpResponseError, match="requires_session"):
        client.update_queue(queue, requires_session=True)
    client.delete_queue("orders")
    with pytest.raises(ResourceNotFoundError):
        client.update_queue(queue)


def test_an_update_keeps_what_only_tests_can_set(running: Running, client: ServiceBusAdministrationClient) -> None:
    options = QueueOptions(lock_duration=0.5, max_size=1000)
    running.do(lambda namespace: namespace.create_queue("orders", options))
    client.update_queue(client.get_queue("orders"), max_delivery_count=3)
    found = running.do(lambda namespace: namespace.entity("orders").options)
    assert (found.lock_duration, found.max_size, found.max_delivery_count) == (0.5, 1000, 3)


def test_all_queues_are_listed_page_by_page(running: Running, client: ServiceBusAdministrationClient) -> None:
    names = sorted(f"queue-{number}" for number in range(250))
    running.do(lambda namespace: [namespace.create_queue(name) for name in names])
    client.create_topic("events")
    assert [queue.name for queue in client.list_queues()] == names
    assert [queue.name for queue in client.list_queues_runtime_properties()] == names
    assert [topic.name for topic in client.list_topics()] == ["events"]
    assert running.administration.requests == 8


def test_the_counts_of_a_queue(running: Running, client: ServiceBusAdministrationClient) -> None:
    client.create_queue("orders")

    def fill(namespace: Namespace) -> None:
        now = namespace.ground.clock()
        namespace.target("orders").send([Incoming(b"12345") for _ in range(3)])
        namespace.target("orders").send([Incoming(b"12345", scheduled=now + 3600)])
        one, two = namespace.entity("orders").lock(2, "me")
        namespace.entity("orders").dead_letter(one.token, "because")
        namespace.entity("orders").defer(two.token)

    running.do(fill)
    found = client.get_queue_runtime_properties("orders")
    assert found.active_message_count == 2  # one is deferred: it is still in the queue
    assert found.dead_letter_message_count == 1
    assert found.scheduled_message_count == 1
    assert found.transfer_message_count == 0
    assert found.total_message_count == 4
    assert found.size_in_bytes == 20
    assert found.created_at_utc is not None


def test_topics_and_subscriptions(running: Running, client: ServiceBusAdministrationClient) -> None:
    client.create_topic("events", default_message_time_to_live=timedelta(hours=1), max_size_in_megabytes=5120)
    topic = client.get_topic("events")
    assert topic.default_message_time_to_live == timedelta(hours=1)
    assert topic.max_size_in_megabytes == 5120
    client.create_subscription("events", "all", lock_duration=timedelta(seconds=20), requires_session=True)
    client.create_subscription("events", "other")
    subscription = client.get_subscription("events", "all")
    assert subscription.lock_duration == timedelta(seconds=20)
    assert subscription.requires_session is True
    assert [found.name for found in client.list_subscriptions("events")] == ["all", "other"]
    with pytest.raises(ResourceExistsError):
        client.create_subscription("events", "ALL")
    client.update_subscription("events", subscription, max_delivery_count=4)
    assert client.get_subscription("events", "all").max_delivery_count == 4

    running.do(lambda namespace: namespace.target("events").send([Incoming(b"x", session_id="s")]))
    counted = client.get_subscription_runtime_properties("events", "other")
    assert (counted.active_message_count, counted.total_message_count) == (1, 1)
    assert client.get_topic_runtime_properties("events").subscription_count == 2

    client.delete_subscription("events", "other")
    assert [found.name for found in client.list_subscriptions("events")] == ["all"]
    client.delete_topic("events")
    with pytest.raises(ResourceNotFoundError):
        client.get_topic("events")
    with pytest.raises(ResourceNotFoundError):
        client.get_subscription("events", "all")


def test_rules(running: Running, client: ServiceBusAdministrationClient) -> None:
    client.create_topic("events")
    client.create_subscription("events", "some")
    [default] = client.list_rules("events", "some")
    assert default.name == "$Default"
    assert isinstance(default.filter, TrueRuleFilter)
    client.delete_rule("events", "some", "$Default")

    client.create_rule("events", "some", "sql", filter=SqlRuleFilter("color = @color", parameters={"@color": "red"}))
    properties = {"kind": "big", "count": 3, "whole": True, "part": 0.5}
    client.create_rule(
        "events", "some", "same", filter=CorrelationRuleFilter(label="<a>", correlation_id="c", properties=properties)
    )
    client.create_rule("events", "some", "none", filter=FalseRuleFilter())
    sql = client.get_rule("events", "some", "sql")
    assert sql.filter.sql_expression == "color = @color"
    assert sql.filter.parameters == {"@color": "red"}
    same = client.get_rule("events", "some", "same")
    assert (same.filter.label, same.filter.correlation_id) == ("<a>", "c")
    assert same.filter.properties == properties
    assert [rule.name for rule in client.list_rules("events", "some")] == ["sql", "same", "none"]

    def sent(**fields: Any) -> int:
        def send(namespace: Namespace) -> int:
            entity = namespace.entity("events/Subscriptions/some")
            namespace.target("events").send([Incoming(b"", **fields)])
            return len(entity.take(10, "me"))

        return running.do(send)

    assert sent(application_properties={"color": "red"}) == 1
    assert sent(application_properties={"color": "blue"}) == 0
    assert sent(subject="<a>", correlation_id="c", application_properties=properties) == 1
    assert sent(subject="<a>", correlation_id="d", application_properties=properties) == 0

    sql.filter = SqlRuleFilter("color = 'blue'")
    client.update_rule("events", "some", sql)
    assert sent(application_properties={"color": "blue"}) == 1
    with pytest.raises(ResourceExistsError):
        client.create_rule("events", "some", "sql", filter=TrueRuleFilter())
    with pytest.raises(HttpResponseError, match="SqlExpression"):
        client.create_rule("events", "some", "wrong", filter=SqlRuleFilter("color = "))
    with pytest.raises(HttpResponseError, match="no actions"):
        client.create_rule("events", "some", "acts", filter=TrueRuleFilter(), action=SqlRuleAction("SET a = 1"))
    with pytest.raises(ResourceNotFoundError):
        client.delete_rule("events", "some", "wrong")


def test_forwarding_is_to_a_name_of_the_namespace(running: Running, client: ServiceBusAdministrationClient) -> None:
    client.create_queue("last")
    client.create_queue("first", forward_to="last")
    assert client.get_queue("first").forward_to == "last"
    running.do(lambda namespace: namespace.target("first").send([Incoming(b"x")]))
    assert client.get_queue_runtime_properties("last").active_message_count == 1


@pytest.mark.parametrize(("tier", "sku"), [("standard", "Standard"), ("premium", "Premium")])
def test_the_namespace_says_its_tier(tier: str, sku: str) -> None:
    running = Running(tier=tier)
    with client_of(running) as client:
        found = client.get_namespace_properties()
        assert found.name == "127.0.0.1"
        assert found.messaging_sku == sku
        client.create_queue("large", max_size_in_megabytes=81_920)
        size = client.get_queue("large").max_message_size_in_kilobytes
        assert size == (1024 if tier == "premium" else None)
    running.close()


def test_basic_has_queues_only() -> None:
    running = Running(tier="basic")
    with client_of(running) as client:
        client.create_queue("orders")
        with pytest.raises(HttpResponseError, match="no topics"):
            client.create_topic("events")
        with pytest.raises(HttpResponseError, match="RequiresSession"):
            client.create_queue("ordered", requires_session=True)
    running.close()


def test_a_token_that_is_not_good_is_refused() -> None:
    tokens: list[str] = []

    def refuse(token: str) -> bool:
        tokens.append(token)
        return False

    running = Running(allow=refuse)
    with client_of(running) as client, pytest.raises(ClientAuthenticationError):
        client.get_queue("orders")
    assert tokens
    assert all(token.startswith("SharedAccessSignature sr=") for token in tokens)
    running.close()


async def test_the_asynchronous_client(running: Running) -> None:
    pytest.importorskip("aiohttp", reason="the client's module imports it, whatever the transport")
    from azure.servicebus.aio.management import ServiceBusAdministrationClient as AsyncAdministrationClient

    async with AsyncAdministrationClient.from_connection_string(
        running.connection_string, transport=AsyncPlain(), retry_total=0
    ) as client:
        await client.create_queue("orders", max_delivery_count=5)
        assert (await client.get_queue("orders")).max_delivery_count == 5
        assert (await client.get_queue_runtime_properties("orders")).total_message_count == 0
        assert [queue.name async for queue in client.list_queues()] == ["orders"]
        await client.delete_queue("orders")
        with pytest.raises(ResourceNotFoundError):
            await client.get_queue("orders")


def test_over_tls(tmp_path: Path) -> None:
    certificates = new_certificates(tmp_path)
    running = Running(tls=certificates)
    with ServiceBusAdministrationClient.from_connection_string(
        running.connection_string, connection_verify=str(certificates.authority)
    ) as client:
        client.create_queue("orders")
        assert client.get_queue("orders").name == "orders"
    running.close()


def _echo(asked: Asked) -> Answer:
    return Answer(200, f"{asked.method} {asked.path} {dict(asked.query)} {asked.body.decode()}".encode())


def test_requests_may_come_in_any_pieces() -> None:
    whole = (
        b"PUT /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    at_once = Conversation(_echo)
    expected = at_once.feed(whole)
    assert b"PUT /a b {'x': '1'} abc" in expected
    assert b"GET /c {} " in expected
    assert at_once.closed
    for size in (1, 2, 7, 30):
        conversation = Conversation(_echo)
        pieces = [conversation.feed(whole[at : at + size]) for at in range(0, len(whole), size)]
        assert b"".join(pieces) == expected


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_ends_the_connection(sent: bytes, status: bytes) -> None:
    conversation = Conversation(_echo)
    assert conversation.feed(sent).startswith(b"HTTP/1.1 " + status)
    assert conversation.closed
