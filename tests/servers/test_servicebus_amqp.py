"""The emulator of Service Bus, as the real client meets it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from tests.servers.servicebus import ServiceBusServer, need

_numbers = itertools.count()
_PATIENCE = 60


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    need()
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
async def client(server: ServiceBusServer) -> AsyncIterator[ServiceBusClient]:
    async with ServiceBusClient.from_connection_string(server.connection_string, retry_total=0) as client:
        yield client


@pytest.fixture
def leaky() -> Iterator[None]:
    """The client forgets connections that were cut without closing them: collect them here, where nobody is warned."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def new_queue(server: ServiceBusServer, **options: Any) -> str:
    return server.create_queue(f"queue{next(_numbers)}", **options)


async def send(client: ServiceBusClient, queue: str, *messages: ServiceBusMessage | str) -> None:
    async with client.get_queue_sender(queue) as sender:
        for message in messages:
            await sender.send_messages(ServiceBusMessage(message) if isinstance(message, str) else message)


async def receive(receiver: ServiceBusReceiver, count: int = 1) -> list[ServiceBusReceivedMessage]:
    """So many messages, however they are parted."""
    found: list[ServiceBusReceivedMessage] = []
    until = time.monotonic() + _PATIENCE
    while len(found) < count and time.monotonic() < until:
        found += await receiver.receive_messages(count - len(found), max_wait_time=5)
    assert len(found) == count
    return found


def bodies(messages: list[ServiceBusReceivedMessage]) -> list[str]:
    return [str(message) for message in messages]


async def so(condition: Any, patience: float = _PATIENCE) -> None:
    """Wait until it is so."""
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it did not become so"
        await asyncio.sleep(0.02)


async def test_all_of_a_message_arrives(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    sent = ServiceBusMessage(
        b"onetwo",
        message_id="id-1",
        session_id="s",
        subject="label",
        correlation_id="c",
        content_type="text/plain",
        to="there",
        reply_to="here",
        reply_to_session_id="back",
        partition_key="s",
        time_to_live=timedelta(minutes=5),
        application_properties={"text": "ü", "number": -70000, "yes": True, "real": 0.5, "none": None},
    )
    await send(client, queue, sent)

    async with client.get_queue_receiver(queue) as receiver:
        [message] = await receive(receiver)

    assert b"".join(message.body) == b"onetwo"
    assert (message.message_id, message.session_id, message.subject) == ("id-1", "s", "label")
    assert (message.correlation_id, message.content_type, message.to) == ("c", "text/plain", "there")
    assert (message.reply_to, message.reply_to_session_id, message.partition_key) == ("here", "back", "s")
    assert message.time_to_live == timedelta(minutes=5)
    assert message.application_properties == {
        b"text": "ü".encode(), b"number": -70000, b"yes": True, b"real": 0.5, b"none": None,
    }  # fmt: skip
    assert message.sequence_number == 1
    assert message.enqueued_sequence_number is None
    assert message.delivery_count == 0
    assert message.state == ServiceBusMessageState.ACTIVE
    assert message.expires_at_utc == message.enqueued_time_utc + timedelta(minutes=5)
    assert timedelta(seconds=50) < message.locked_until_utc - datetime.now(UTC) < timedelta(seconds=61)


async def test_batches_are_stored_in_order(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    async with client.get_queue_sender(queue) as sender:
        batch = await sender.create_message_batch()
        for number in range(50):
            batch.add_message(ServiceBusMessage(f"b{number}"))
        await sender.send_messages(batch)
        await sender.send_messages([ServiceBusMessage(f"l{number}") for number in range(50)])

    async with client.get_queue_receiver(queue) as receiver:
        messages = await receive(receiver, 100)

    assert bodies(messages) == [f"{kind}{number}" for kind in "bl" for number in range(50)]
    assert [message.sequence_number for message in messages] == list(range(1, 101))


async def test_messages_larger_than_a_frame_both_ways(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    large = bytes(range(256)) * 1000  # four frames, just under what the tier takes
    await send(client, queue, ServiceBusMessage(large), ServiceBusMessage(large))

    async with client.get_queue_receiver(queue) as receiver:
        for message in await receive(receiver, 2):
            assert b"".join(message.body) == large
            await receiver.complete_message(message)

    assert server.counts(queue)["active"] == 0


async def test_what_is_too_large_is_refused_with_size_and_limit(
    server: ServiceBusServer, client: ServiceBusClient
) -> None:
    queue = new_queue(server)
    with pytest.raises(MessageSizeExceededError):
        await send(client, queue, ServiceBusMessage(b"x" * 300_000))
    assert server.counts(queue)["active"] == 0


async def test_complete_abandon_defer_and_dead_letter(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    await send(client, queue, "complete", "abandon", "defer", "dead-letter")
    async with client.get_queue_receiver(queue) as receiver:
        done, again, later, dead = await receive(receiver, 4)
        await receiver.complete_message(done)
        await receiver.abandon_message(again)
        await receiver.defer_message(later)
        await receiver.dead_letter_message(dead, reason="broken", error_description="no wheel")

        [once_more] = await receive(receiver)
        assert (str(once_more), once_more.delivery_count) == ("abandon", 1)
        [deferred] = await receiver.receive_deferred_messages([later.sequence_number])
        assert (str(deferred), deferred.state) == ("defer", ServiceBusMessageState.ACTIVE)
        assert deferred.lock_token
        await receiver.complete_message(once_more)
        await receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages([later.sequence_number])

    async with client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        [letter] = await receive(receiver)
        assert (str(letter), letter.dead_letter_reason) == ("dead-letter", "broken")
        assert letter.dead_letter_error_description == "no wheel"
        assert letter.dead_letter_source == queue
        await receiver.complete_message(letter)
    assert set(server.counts(queue).values()) == {0}


async def test_receive_and_delete(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    await send(client, queue, "a", "b", "c")
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    async with client.get_queue_receiver(queue, receive_mode=mode) as receiver:
        assert bodies(await receive(receiver, 3)) == ["a", "b", "c"]
    assert server.counts(queue)["active"] == 0
    assert len(server.events("taken", entity=queue)) == 3


async def test_credit_is_kept(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    await send(client, queue, *(f"m{number}" for number in range(5)))
    async with client.get_queue_receiver(queue) as receiver:
        assert bodies(await receive(receiver, 2)) == ["m0", "m1"]
        assert sum(message["locked"] for message in server.messages(queue)) == 2
    async with client.get_queue_receiver(queue, prefetch_count=2) as receiver:
        assert bodies(await receive(receiver, 1)) == ["m2"]


async def test_what_was_prefetched_is_released_at_the_end(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    await send(client, queue, *(f"m{number}" for number in range(5)))
    async with client.get_queue_receiver(queue, prefetch_count=5) as receiver:
        [message] = await receive(receiver, 1)
        await receiver.complete_message(message)
        await so(lambda: sum(one["locked"] for one in server.messages(queue)) == 4)

    await so(lambda: not any(one["locked"] for one in server.messages(queue)))
    assert {one["delivery_count"] for one in server.messages(queue)} == {0}


async def test_a_message_comes_as_soon_as_it_is_sent(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    async with client.get_queue_receiver(queue) as receiver:
        waiting = asyncio.create_task(receiver.receive_messages(1, max_wait_time=_PATIENCE))
        await so(lambda: any(link["credit"] for one in server.connections() for link in one["links"]
                             if link["path"] == queue))  # fmt: skip
        await send(client, queue, "now")
        assert bodies(await waiting) == ["now"]


async def test_locks_lapse_and_are_renewed(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    await send(client, queue, "a")
    async with client.get_queue_receiver(queue) as receiver:
        [message] = await receive(receiver)
        first = message.locked_until_utc
        assert await receiver.renew_message_lock(message) > first
        assert server.expire_locks(queue) == 1
        with pytest.raises(MessageLockLostError):
            await receiver.renew_message_lock(message)
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)
        [again] = await receive(receiver)
        assert again.delivery_count == 1
        await receiver.complete_message(again)


async def test_a_lock_lapses_by_itself_and_the_limit_dead_letters(
    server: ServiceBusServer, client: ServiceBusClient
) -> None:
    queue = new_queue(server, lock_duration=0.3, max_delivery_count=2)
    await send(client, queue, "a")
    async with client.get_queue_receiver(queue) as receiver:
        assert [(await receive(receiver))[0].delivery_count for _ in range(2)] == [0, 1]
        await so(lambda: server.counts(queue)["dead"] == 1)
    [dead] = server.messages(f"{queue}/$DeadLetterQueue")
    assert dead["reason"] == "MaxDeliveryCountExceeded"


async def test_peeking_locks_nothing(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    await send(client, queue, "a", "b", "c")
    async with client.get_queue_receiver(queue) as receiver:
        [one] = await receive(receiver)
        await receiver.defer_message(one)
        assert bodies(await receiver.peek_messages(2, sequence_number=1)) == ["a", "b"]
        assert bodies(await receiver.peek_messages(2)) == ["c"]
        assert await receiver.peek_messages(2) == []
        [again] = await receiver.peek_messages(1, sequence_number=1)
        assert again.state == ServiceBusMessageState.DEFERRED
    assert not any(message["locked"] for message in server.messages(queue))


async def test_schedule_and_cancel(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server)
    async with client.get_queue_sender(queue) as sender:
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        late = datetime.now(UTC) + timedelta(hours=1)
        [due] = await sender.schedule_messages(ServiceBusMessage("due"), soon)
        numbers = await sender.schedule_messages([ServiceBusMessage(name) for name in "ab"], late)
        assert server.counts(queue)["scheduled"] >= 2
        await sender.cancel_scheduled_messages(numbers)
        with pytest.raises(MessageNotFoundError):
            await sender.cancel_scheduled_messages(numbers)
        # Or by the message itself.
        await sender.send_messages(ServiceBusMessage("own", scheduled_enqueue_time_utc=late))

    async with client.get_queue_receiver(queue) as receiver:
        [message] = await receive(receiver)
        assert (str(message), message.sequence_number > due) == ("due", True)
        assert datetime.now(UTC) >= soon
        [peeked] = await receiver.peek_messages(1, sequence_number=due + 3)
        assert (str(peeked), peeked.state) == ("own", ServiceBusMessageState.SCHEDULED)
        assert peeked.scheduled_enqueue_time_utc is not None
    assert server.counts(queue)["scheduled"] == 1


async def test_duplicates_are_dropped(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server, requires_duplicate_detection=True)
    await send(client, queue, *(ServiceBusMessage("x", message_id=name) for name in "aabab"))
    assert [message["message_id"] for message in server.messages(queue)] == ["a", "b"]


async def test_time_to_live(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server, dead_lettering_on_message_expiration=True)
    await send(client, queue, ServiceBusMessage("x", time_to_live=timedelta(milliseconds=300)))
    await so(lambda: server.counts(queue)["dead"] == 1)
    assert server.messages(f"{queue}/$DeadLetterQueue")[0]["reason"] == "TTLExpiredException"


async def test_sessions_keep_order_holder_and_state(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server, requires_session=True)
    with pytest.raises(ServiceBusError, match="session"):
        await send(client, queue, "none")
    await send(client, queue, *(ServiceBusMessage(f"{s}{n}", session_id=s) for n in range(3) for s in "ab"))

    async with client.get_queue_receiver(queue, session_id="b") as receiver:
        assert bodies(await receive(receiver, 2)) == ["b0", "b1"]
        session = receiver.session
        assert session.session_id == "b"
        assert session.locked_until_utc > datetime.now(UTC)
        assert await session.get_state() is None
        await session.set_state(b"half")
        assert await session.get_state() == b"half"
        assert await session.renew_lock() > datetime.now(UTC)
        with pytest.raises(SessionCannotBeLockedError):
            async with client.get_queue_receiver(queue, session_id="b"):
                pass

        async with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION) as other:
            assert other.session.session_id == "a"
            messages = await receive(other, 3)
            assert bodies(messages) == ["a0", "a1", "a2"]
            for message in messages:
                await other.complete_message(message)

    assert [session async for session in client.list_queue_sessions(queue)] == ["b"]
    # Closing gives the session back, and counts no delivery; the state stays.
    async with client.get_queue_receiver(queue, session_id="b") as receiver:
        messages = await receive(receiver, 3)
        assert [(str(one), one.delivery_count) for one in messages] == [("b0", 0), ("b1", 0), ("b2", 0)]
        assert await receiver.session.get_state() == b"half"


async def test_a_session_that_is_waited_for(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server, requires_session=True)
    waiting = client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=_PATIENCE)
    task = asyncio.create_task(receive(waiting))
    await so(lambda: any(link["path"] == queue for one in server.connections() for link in one["links"]))
    await send(client, queue, ServiceBusMessage("x", session_id="late"))
    assert bodies(await task) == ["x"]
    assert waiting.session.session_id == "late"
    await waiting.close()


async def test_no_session_is_waited_for_for_ever(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server, requires_session=True)
    with pytest.raises(OperationTimeoutError, match="no session is available"):
        async with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1):
            pass


async def test_a_session_that_is_lost(server: ServiceBusServer, client: ServiceBusClient) -> None:
    queue = new_queue(server, requires_session=True)
    await send(client, queue, ServiceBusMessage("x", session_id="s"))
    async with client.get_queue_receiver(queue, session_id="s") as receiver:
        [message] = await receive(receiver)
        server.expire_locks(queue)
        with pytest.raises(SessionLockLostError):
            await receiver.complete_message(message)
    [kept] = server.messages(queue)
    assert kept["delivery_count"] == 1


async def test_topics_copy_to_subscriptions_by_rule(server: ServiceBusServer, client: ServiceBusClient) -> None:
    topic = server.create_topic(f"topic{next(_numbers)}")
    paths = [server.create_subscription(topic, name) for name in ("all", "other")]
    async with client.get_topic_sender(topic) as sender:
        await sender.send_messages(ServiceBusMessage("x"))
    for name in ("all", "other"):
        async with client.get_subscription_receiver(topic, name) as receiver:
            [message] = await receive(receiver)
            await receiver.dead_letter_message(message, reason="r")
        async with client.get_subscription_receiver(topic, name, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
            assert bodies(await receive(receiver)) == ["x"]
    assert [server.counts(path)["dead"] for path in paths] == [1, 1]


async def test_what_is_not_there_disabled_or_full(server: ServiceBusServer, client: ServiceBusClient) -> None:
    with pytest.raises(MessagingEntityNotFoundError):
        await send(client, "nowhere", "x")
    with pytest.raises(MessagingEntityNotFoundError):
        async with client.get_queue_receiver("nowhere") as receiver:
            await receiver.receive_messages(max_wait_time=5)
    queue = new_queue(server, max_size=1000)
    with pytest.raises(ServiceBusQuotaExceededError):
        await send(client, queue, *["x" * 300] * 5)
    server.update_queue(queue, status="SendDisabled")
    with pytest.raises(MessagingEntityDisabledError):
        await send(client, queue, "x")


async def test_sessions_and_receivers_must_fit_the_entity(server: ServiceBusServer, client: ServiceBusClient) -> None:
    with pytest.raises(ServiceBusError, match="requires sessions"):
        async with client.get_queue_receiver(new_queue(server, requires_session=True)) as receiver:
            await receiver.receive_messages(max_wait_time=5)
    with pytest.raises(ServiceBusError, match="does not require sessions"):
        async with client.get_queue_receiver(new_queue(server), session_id="s") as receiver:
            await receiver.receive_messages(max_wait_time=5)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("leaky")
async def test_locks_outlive_their_connection(server: ServiceBusServer) -> None:
    queue = new_queue(server)
    async with (
        ServiceBusClient.from_connection_string(server.connection_string) as client,
        client.get_queue_receiver(queue) as receiver,
    ):
        await send(client, queue, "a")
        [message] = await receive(receiver)
        server.cut(queue)
        await receiver.complete_message(message)  # by the lock token, on a new connection
    assert server.counts(queue)["active"] == 0
