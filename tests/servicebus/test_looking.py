"""What looking and taking need of the client's inside is there, and where it is not, the public way does the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError
from camora_servicebus import internals

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.sending import new_name


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@pytest.fixture
async def client(shared: ServiceBusServer) -> AsyncIterator[ServiceBusClient]:
    async with ServiceBusClient.from_connection_string(shared.connection_string, retry_total=0) as made:
        yield made


async def send(client: ServiceBusClient, queue: str, **properties: Any) -> None:
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage(b"x", message_id="m", **properties))


class Outside:
    """A receiver of which only what is documented can be seen."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._receiver, name)

    async def __aenter__(self) -> Any:
        return await self._receiver.__aenter__()


@pytest.mark.parametrize("inside", [True, False])
async def test_a_receiver_that_was_opened_our_way_is_one_of_the_client_s(
    client: ServiceBusClient, queue: str, inside: bool
) -> None:
    receiver: Any = client.get_queue_receiver(queue)
    await send(client, queue)
    try:
        await internals.open_receiver(receiver if inside else Outside(receiver), 10)
        assert internals.socket_of(receiver) is not None
        assert internals.inside_of(receiver) is not None
        [message] = await receiver.receive_messages(1, max_wait_time=10)
        await receiver.complete_message(message)
    finally:
        await internals.close(receiver)


@pytest.mark.parametrize("inside", [True, False])
async def test_who_only_asks_has_no_link_where_that_is_possible(
    shared: ServiceBusServer, client: ServiceBusClient, inside: bool
) -> None:
    queue = shared.create_queue(new_name(), requires_session=inside)
    await send(client, queue, session_id="s")
    receiver: Any = client.get_queue_receiver(queue)
    try:
        await internals.open_looker(receiver if inside else Outside(receiver), 10)
        [message] = await receiver.peek_messages(10, sequence_number=1, timeout=10)
        assert message.message_id == "m"
    finally:
        await internals.close(receiver)
    attached = [event["address"] for event in shared.events("attaching")]
    assert (attached.count(queue) == 1) == inside  # the sender's alone


async def test_a_queue_with_sessions_refuses_the_public_way(shared: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = shared.create_queue(new_name(), requires_session=True)
    receiver = client.get_queue_receiver(queue)
    try:
        with pytest.raises(ServiceBusError):
            await internals.open_receiver(receiver, 10)
    finally:
        await internals.close(receiver)


@pytest.mark.parametrize("inside", [True, False])
async def test_giving_back_counts_a_delivery_only_where_there_is_no_other_way(
    client: ServiceBusClient, queue: str, inside: bool
) -> None:
    await send(client, queue)
    async with client.get_queue_receiver(queue) as receiver:
        [message] = await receiver.receive_messages(1, max_wait_time=10)
        await internals.release(receiver if inside else Outside(receiver), message)
        [message] = await receiver.receive_messages(1, max_wait_time=10)
        assert message.delivery_count == (0 if inside else 1)
        await receiver.complete_message(message)


async def test_a_cut_connection_leaves_the_lock_token(
    shared: ServiceBusServer, client: ServiceBusClient, queue: str
) -> None:
    await send(client, queue)
    first = client.get_queue_receiver(queue)
    await internals.open_receiver(first, 10)
    [message] = await first.receive_messages(1, max_wait_time=10)
    internals.abort(first)
    async with client.get_queue_receiver(queue) as second:
        await asyncio.wait_for(second.complete_message(internals.by_token(message)), 10)
    assert not shared.messages(queue)
    await internals.close(first)
