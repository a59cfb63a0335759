"""What the emulator does to the real client when it is told to: each fault does what it says, and no more."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
    ServiceBusServerBusyError,
)

from tests.servers.process import ServerFailed
from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.security import sign

# The client forgets connections that broke without closing them: here nobody is warned of what it leaves.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
_numbers = itertools.count()
_PATIENCE = 60


@pytest.fixture(autouse=True)
def _leaky() -> Iterator[None]:
    """Collect what the client left while nobody is warned, and not in another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def server(shared: ServiceBusServer) -> Iterator[ServiceBusServer]:
    yield shared
    shared.clear()


@pytest.fixture
def queue(server: ServiceBusServer) -> str:
    return server.create_queue(f"queue{next(_numbers)}")


@pytest.fixture
async def client(server: ServiceBusServer) -> AsyncIterator[ServiceBusClient]:
    async with new_client(server) as client:
        yield client


def new_client(server: ServiceBusServer, *, retry_total: int = 0, **options: Any) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(
        server.connection_string, retry_total=retry_total, retry_backoff_factor=0.05, **options
    )


async def receive(receiver: ServiceBusReceiver) -> Any:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            if found := await receiver.receive_messages(1, max_wait_time=5):
                return found[0]
        except OperationTimeoutError:
            continue  # it had to connect anew
    raise AssertionError("no message came")


async def so(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not become so"
        await asyncio.sleep(0.02)


async def test_stored_but_the_ack_is_lost(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server, retry_total=3) as client, client.get_queue_sender(queue) as sender:
        server.fault("ack_lost", queue, times=1)
        await sender.send_messages(ServiceBusMessage("x", message_id="same"))  # it sends again by itself
    assert [one["message_id"] for one in server.messages(queue)] == ["same", "same"]
    assert len(server.events("lost")) == 1


async def test_not_stored_and_the_ack_is_lost(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server, retry_total=3) as client, client.get_queue_sender(queue) as sender:
        server.fault("send_lost", queue, times=1)
        await sender.send_messages(ServiceBusMessage("x", message_id="once"))
    assert [one["message_id"] for one in server.messages(queue)] == ["once"]


async def test_a_fault_of_another_entity_or_a_later_time_does_nothing_yet(
    server: ServiceBusServer, queue: str, client: ServiceBusClient
) -> None:
    server.fault("send_rejected", "elsewhere")
    server.fault("send_rejected", queue.upper(), times=1, after=1, condition="com.microsoft:entity-disabled")
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("good"))
        with pytest.raises(MessagingEntityDisabledError):
            await sender.send_messages(ServiceBusMessage("bad"))
        await sender.send_messages(ServiceBusMessage("good again"))
    assert server.counts(queue)["active"] == 2
    with pytest.raises(ServerFailed, match="'kind' must be in"):
        server.fault("nonsense")


async def test_settled_but_the_answer_is_lost(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server, retry_total=3) as client:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("x"))
        async with client.get_queue_receiver(queue) as receiver:
            message = await receive(receiver)
            server.fault("settle_answer_lost", queue, times=1)
            with pytest.raises(MessageLockLostError):  # though it is completed
                await receiver.complete_message(message)
    assert len(server.events("completed", entity=queue)) == 1
    assert server.counts(queue)["active"] == 0


async def test_not_settled_and_the_answer_is_lost(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server, retry_total=3) as client:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("x"))
        async with client.get_queue_receiver(queue) as receiver:
            message = await receive(receiver)
            server.fault("settle_lost", queue, times=1)
            await receiver.complete_message(message)  # by its lock, on a new connection
    assert server.counts(queue)["active"] == 0


async def test_a_refused_settlement(server: ServiceBusServer, queue: str, client: ServiceBusClient) -> None:
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("x"))
    async with client.get_queue_receiver(queue) as receiver:
        message = await receive(receiver)
        server.fault("settle_refused", queue, times=1, condition="com.microsoft:message-lock-lost")
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)
    assert server.counts(queue)["active"] == 1


async def test_locks_may_die_with_their_link() -> None:
    with ServiceBusServer(locks_die_with_link=True) as server:
        queue = server.create_queue("queue")
        async with new_client(server, retry_total=3) as client:
            async with client.get_queue_sender(queue) as sender:
                await sender.send_messages(ServiceBusMessage("x"))
            async with client.get_queue_receiver(queue) as receiver:
                message = await receive(receiver)
                server.cut(queue)
                await so(lambda: not any(one["locked"] for one in server.messages(queue)))
                with pytest.raises(MessageLockLostError):
                    await receiver.complete_message(message)


async def test_a_mute_peer_takes_connections_and_says_nothing(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server) as client, client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("before"))
        server.mute()
        with pytest.raises(OperationTimeoutError):
            await sender.send_messages(ServiceBusMessage("meanwhile"), timeout=0.5)
        with socket.create_connection((server.host, server.port), timeout=5) as connection:
            connection.sendall(b"AMQP\x03\x01\x00\x00")
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(8)
        assert server.counts(queue)["active"] == 1
        server.clear()
        # What was said is heard late: that is how a message is stored twice.
        await so(lambda: server.counts(queue)["active"] == 2)


async def test_muteness_may_be_of_one_entity(server: ServiceBusServer, queue: str) -> None:
    other = server.create_queue(f"queue{next(_numbers)}")
    async with (
        new_client(server) as client,
        client.get_queue_sender(queue) as sender,
        client.get_queue_sender(other) as heard,
    ):
        await so(lambda: {queue, other} <= {link["path"] for one in server.connections() for link in one["links"]})
        server.mute(entity=queue)
        await heard.send_messages(ServiceBusMessage("x"))
        with pytest.raises(OperationTimeoutError):
            await sender.send_messages(ServiceBusMessage("x"), timeout=0.5)
        server.clear("mute")
        await so(lambda: server.counts(queue)["active"] == 1)


async def test_an_outage_ends(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server, retry_total=10) as client, client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("before"))
        server.outage()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port), timeout=5)
        with pytest.raises(ServiceBusError):
            async with new_client(server) as other, other.get_queue_sender(queue):
                pass
        server.outage(0.3)
        await sender.send_messages(ServiceBusMessage("after"))
    assert server.counts(queue)["active"] == 2


async def test_throttling(server: ServiceBusServer, queue: str, client: ServiceBusClient) -> None:
    async with client.get_queue_sender(queue) as sender:
        server.fault("throttled", seconds=0.5)
        with pytest.raises(ServiceBusServerBusyError):
            await sender.send_messages(ServiceBusMessage("x"))

        async def sent() -> None:
            try:
                await sender.send_messages(ServiceBusMessage("x"))
            except ServiceBusServerBusyError:
                await asyncio.sleep(0.05)
                await sent()

        await sent()
    assert server.counts(queue)["active"] == 1


async def test_a_silent_management(server: ServiceBusServer, queue: str, client: ServiceBusClient) -> None:
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("x"))
    async with client.get_queue_receiver(queue) as receiver:
        message = await receive(receiver)
        server.fault("management_silent", queue, operation="renew-lock", times=1)
        with pytest.raises(OperationTimeoutError):
            await receiver.renew_message_lock(message, timeout=0.5)
        assert [str(one) for one in await receiver.peek_messages(1, sequence_number=1)] == ["x"]
        await receiver.renew_message_lock(message, timeout=_PATIENCE)
        server.fault("management_refused", queue, condition="com.microsoft:message-lock-lost", status=410, times=1)
        with pytest.raises(MessageLockLostError):
            await receiver.renew_message_lock(message)
        await receiver.complete_message(message)


async def test_links_that_are_detached(server: ServiceBusServer, queue: str) -> None:
    async with new_client(server, retry_total=3) as client, client.get_queue_receiver(queue) as receiver:
        waiting = asyncio.create_task(receive(receiver))
        await so(lambda: any(link["credit"] for one in server.connections() for link in one["links"]
                             if link["path"] == queue))  # fmt: skip
        assert server.detach(queue) == 1
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("x"))
        assert str(await waiting) == "x"


async def test_links_end_with_their_entity(server: ServiceBusServer, queue: str, client: ServiceBusClient) -> None:
    async with client.get_queue_receiver(queue) as receiver:
        server.update_queue(queue, status="ReceiveDisabled")
        with pytest.raises(MessagingEntityDisabledError):
            await receive(receiver)
        server.update_queue(queue, status="Active")
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("x"))
        await receive(receiver)
        server.delete_queue(queue)
        with pytest.raises(MessagingEntityNotFoundError):
            await receive(receiver)


async def test_idle_links_and_connections_end() -> None:
    with ServiceBusServer(link_idle=0.2, connection_idle=0.2) as server:
        queue = server.create_queue("queue")
        async with new_client(server, retry_total=3) as client, client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("x"))
            await so(lambda: not any(link["path"] == queue for one in server.connections() for link in one["links"]))
            await sender.send_messages(ServiceBusMessage("y"))
        assert server.counts(queue)["active"] == 2


async def test_a_wrong_key_is_refused() -> None:
    with ServiceBusServer(strict=True) as server:
        queue = server.create_queue("queue")
        async with new_client(server) as client, client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("x"))
        wrong = ServiceBusClient.from_connection_string(server.connection_string_of(key="wrong"), retry_total=0)
        with pytest.raises((ServiceBusAuthenticationError, ServiceBusAuthorizationError)):
            async with wrong, wrong.get_queue_sender(queue):
                pass
        # Nor does a link come without any token.
        assert [link["path"] for one in server.connections() for link in one["links"] if link["path"] == queue] == []


async def test_a_token_that_runs_out_ends_its_links() -> None:
    with ServiceBusServer(strict=True) as server:
        queue = server.create_queue("queue")
        expires = int(time.time()) + 3
        uri = f"sb://{server.fully_qualified_namespace}/{queue}"
        token = sign(server.key_name, server.key, uri, expires)
        text = f"Endpoint=sb://{server.fully_qualified_namespace};SharedAccessSignature={token};UseDevelopmentEmulator=true"
        async with (
            ServiceBusClient.from_connection_string(text, retry_total=0) as client,
            client.get_queue_sender(queue) as sender,
        ):
            await sender.send_messages(ServiceBusMessage("x"))
            await so(lambda: time.time() > expires and server.connections() != [] and not any(
                link["path"] == queue for one in server.connections() for link in one["links"]))  # fmt: skip
            with pytest.raises(ServiceBusError):
                await sender.send_messages(ServiceBusMessage("y"))
        assert server.counts(queue)["active"] == 1


async def test_a_kill_loses_nothing_that_was_answered() -> None:
    with ServiceBusServer() as server:
        queue = server.create_queue("queue")
        async with new_client(server, retry_total=10) as client, client.get_queue_sender(queue) as sender:
            await sender.send_messages([ServiceBusMessage(name, message_id=name) for name in "abc"])
            async with client.get_queue_receiver(queue) as receiver:
                first = await receive(receiver)
                await receiver.complete_message(first)
                second = await receive(receiver)
                server.restart()
                assert [one["locked"] for one in server.messages(queue)] == [True, False]
                await receiver.complete_message(second)  # the lock is the broker's, and it has kept it
                await sender.send_messages(ServiceBusMessage("d", message_id="d"))
        assert [one["message_id"] for one in server.messages(queue)] == ["c", "d"]
        told = [(event["event"], event.get("message_id")) for event in server.events(entity=queue)]
        for number, name in enumerate("abcd"):
            assert told.count(("stored", name)) == 1, (number, told)
        assert told.count(("completed", "b")) == 1


def test_a_paused_server_keeps_its_events() -> None:
    with ServiceBusServer() as server:
        server.pause()
        assert [event["event"] for event in server.events()] == ["started"]
        server.resume()
        assert server.ask("ping") == "pong"
