"""What is used of the client's inside is there, and where it is not, the public way does the same."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError
from camora_servicebus import ServiceBusBroker, ServiceBusQueue, ServiceBusSettings, internals
from camora_servicebus.errors import Cause, judge
from camora_servicebus.messages import Outgoing

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.sending import LIMIT, broker_of, ended, envelope, in_future, new_name, opened, stored, until

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(strict=True) as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@pytest.fixture
async def client(shared: ServiceBusServer) -> AsyncIterator[ServiceBusClient]:
    async with ServiceBusClient.from_connection_string(shared.connection_string, retry_total=0) as made:
        yield made


@pytest.fixture
async def sender(client: ServiceBusClient, queue: str) -> AsyncIterator[Any]:
    made = internals.sender_of(client, queue, "me")
    await internals.open_sender(made, 10)
    yield made
    await internals.close(made)


def messages(queue: str, count: int, *, due: int = 0) -> list[tuple[Outgoing, bytes]]:
    made = [Outgoing(queue, f"job-{number}", "t", b"x", due + number if due else 0) for number in range(count)]
    return [(one, one.encoded()) for one in made]


async def test_a_sender_that_was_opened_our_way_is_one_of_the_client_s(sender: Any, queue: str, client: Any) -> None:
    assert internals.largest_message(sender) == 256 * 1024
    async with client.get_queue_sender(queue) as theirs:
        assert sender._max_message_size_on_link == theirs._max_message_size_on_link
        assert sender._max_batch_size_on_link == theirs._max_batch_size_on_link
        assert sender._running and theirs._running
        assert (await sender.create_message_batch()).max_size_in_bytes == 256 * 1024
        assert theirs._handler._keep_alive_thread is not None
    assert sender._handler._keep_alive_thread is None


async def test_a_batch_of_ours_is_one_of_the_client_s(shared: ServiceBusServer, sender: Any, queue: str) -> None:
    ours, theirs = await sender.create_message_batch(), await sender.create_message_batch()
    for one, raw in messages(queue, 300):
        assert internals.add(ours, one, raw)
        theirs.add_message(one.message())
    assert len(ours) == len(theirs) == 300
    # The client writes empty fields out, too.
    assert 0 < ours.size_in_bytes <= theirs.size_in_bytes
    await sender.send_messages(ours, timeout=10)
    assert stored(shared, queue) == [f"job-{number}" for number in range(300)]


async def test_a_batch_knows_when_it_is_full(sender: Any, queue: str) -> None:
    batch = await sender.create_message_batch(10_000)
    one = Outgoing(queue, "j", "t", bytes(4000))
    assert [internals.add(batch, one, one.encoded()) for _ in range(3)] == [True, True, False]
    assert len(batch) == 2


async def test_without_its_inside_a_batch_is_filled_the_public_way(queue: str) -> None:
    class Batch:
        """A batch of a client to come."""

        def __init__(self) -> None:
            self.added: list[Any] = []

        def add_message(self, message: Any) -> None:
            if self.added:
                raise ValueError("full")
            self.added.append(message)

    batch: Any = Batch()
    one = Outgoing(queue, "j", "t", b"x")
    assert [internals.add(batch, one, one.encoded()) for _ in range(2)] == [True, False]
    assert batch.added[0].message_id == "j"


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "public"])
async def test_schedules(shared: ServiceBusServer, sender: Any, queue: str, inside: bool) -> None:
    due = in_future(3600)
    made = messages(queue, 3, due=due)
    public: Any = sender
    if not inside:

        class Public:
            """Nothing but what is documented."""

            schedule_messages = sender.schedule_messages

        public = Public()
    numbers = await internals.schedule(public, made, 10)
    assert numbers == [one["sequence"] for one in shared.messages(queue)]
    assert stored(shared, queue) == ["job-0", "job-1", "job-2"]
    planned = {event["message_id"]: round(event["when"] * 1000) for event in shared.events("scheduled", entity=queue)}
    assert planned == {f"job-{number}": due + number for number in range(3)}


async def test_credentials_are_judged_without_an_entity(shared: ServiceBusServer, client: ServiceBusClient) -> None:
    await internals.authenticate(client, "no-such-queue", "me", 10)
    text = shared.connection_string_of(key="wrong")
    async with ServiceBusClient.from_connection_string(text, retry_total=0) as other:
        with pytest.raises(ServiceBusError) as caught:
            await internals.authenticate(other, "no-such-queue", "me", 10)
    judged = judge(caught.value)
    assert judged.cause is Cause.DENIED and judged.sure
    assert "401" in judged.text and "InvalidSignature" in judged.text
    await until(lambda: not shared.connections(), "both are closed")


async def test_a_sender_says_whether_it_lives(shared: ServiceBusServer, sender: Any, queue: str) -> None:
    assert await internals.alive(sender, 10)
    assert internals.silent(sender)
    await asyncio.to_thread(shared.detach, queue)
    await until(lambda: not internals.silent(sender), "it has heard of it")
    assert not await internals.alive(sender, 10)


async def test_a_sender_that_was_cut_is_dead(shared: ServiceBusServer, sender: Any, queue: str) -> None:
    await asyncio.to_thread(shared.cut, queue)
    await until(lambda: not internals.silent(sender), "it has heard of it")
    assert not await internals.alive(sender, 10)


async def test_closing_and_aborting_leave_no_socket(
    shared: ServiceBusServer, client: ServiceBusClient, queue: str
) -> None:
    for end in (internals.close, internals.abort):
        made = internals.sender_of(client, queue, "me")
        await internals.open_sender(made, 10)
        transport = internals.socket_of(made)
        assert transport is not None and not transport.is_closing()
        done = end(made)
        if done is not None:
            await done
        assert transport.is_closing()
        await internals.close(made)
        await internals.close(made)
    await until(lambda: not any(queue in str(one["links"]) for one in shared.connections()), "they are gone")


@pytest.mark.parametrize(
    ("loop", "way"),
    # A uvloop that is closed over an open connection says so by itself, before anybody can do something about it.
    [("asyncio", "closed"), ("asyncio", "abandoned"), ("uvloop", "closed")],
)
def test_in_each_kind_of_loop(shared: ServiceBusServer, queue: str, loop: str, way: str) -> None:
    """What is left open is a warning, and so an error."""
    broker = broker_of(shared)

    async def main() -> None:
        await broker.open()
        await broker.publish([envelope(queue, 1)])
        await asyncio.to_thread(shared.cut, queue)
        await ended(broker)
        await broker.publish([envelope(queue, 2), envelope(queue, 3, due=in_future(3600))])
        if way == "closed":
            await broker.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    broker.abandon()
    gc.collect()
    assert stored(shared, queue) == ["job-1", "job-2", "job-3"]
    deadline = time.monotonic() + LIMIT
    while any(queue in str(one["links"]) for one in shared.connections()):
        assert time.monotonic() < deadline, "a connection is still there"
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # so the client calls its library
@pytest.mark.parametrize("way", ["closed", "cut"])
async def test_over_websockets_nothing_is_left_open_either(shared: ServiceBusServer, queue: str, way: str) -> None:
    settings = ServiceBusSettings(
        connection_string=shared.connection_string,
        transport="websocket",
        endpoint=f"{shared.host}:{shared.port}",
        timeout=5.0,
    )
    broker = ServiceBusBroker(None, settings)
    await broker.open()
    await broker.publish([envelope(queue, 1)])
    [line] = broker._publisher._lines.values()
    assert line._sender is not None and internals.socket_of(line._sender) is not None
    if way == "cut":
        await asyncio.to_thread(shared.cut, queue)
        await until(lambda: line._sender is None or not internals.socket_of(line._sender), "it has heard of it")
        await broker.publish([envelope(queue, 2)])
        assert stored(shared, queue) == ["job-1", "job-2"]
    await broker.close()
    gc.collect()


async def test_missing_queues_are_made_at_the_opening(shared: ServiceBusServer) -> None:
    name = new_name("made")
    declared = ServiceBusQueue(name, duplicate_detection=60, lock_duration=17)
    given = {"create": True, "management": f"{shared.host}:{shared.port}"}
    for _ in range(2):  # the second finds it there
        async with opened(shared, declared, **given) as broker:
            await broker.publish([envelope(name)])
    assert stored(shared, name) == ["job-0"]  # it detects duplicates


def test_an_answer_that_does_not_come_is_called_so() -> None:
    judged = judge(TimeoutError())
    assert (judged.cause, judged.text) == (Cause.AWAY, "the service did not answer in time (its URL's timeout)")
