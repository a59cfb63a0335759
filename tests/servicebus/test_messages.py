"""What a job's message is in the service: read here by the service's own client, and from messages of strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage
from camora import Camora
from camora_servicebus.messages import (
    ADDED,
    COPY,
    Outgoing,
    added_of,
    body_of,
    copy_of,
    job_id_of,
    message_id_of,
    task_of,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.sending import bare, broker_of, envelope, new_name, opened, received


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


async def one(server: ServiceBusServer, queue: str) -> ServiceBusReceivedMessage:
    [message] = await received(server, queue)
    return message


# Out


async def test_a_dispatched_job_as_everybody_sees_it(shared: ServiceBusServer, queue: str) -> None:
    app = Camora(broker_of(shared), results=False)

    @app.task(name="shop.greet", queue=queue)
    def greet(who: str) -> None:
        raise NotImplementedError

    async with app:
        job = await greet.dispatch("Ann")
    message = await one(shared, queue)
    assert (message.message_id, message.correlation_id, message.subject) == (job.id, job.id, "shop.greet")
    assert message.application_properties is None
    assert message.time_to_live is None
    assert message.session_id is None
    body = b"".join(message.body)
    assert json.loads(body)["kwargs"] == {"who": "Ann"}
    assert body == body_of(message)
    assert (job_id_of(message), task_of(message), copy_of(message), added_of(message)) == (job.id, "shop.greet", 0, 0)


async def test_later_copies_have_ids_and_counts_of_their_own(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        await broker._publisher.publish([Outgoing.of(envelope(queue, 7), queue, copy=3, added=2)])
    message = await one(shared, queue)
    assert (message.message_id, message.correlation_id) == ("job-7:3", "job-7")
    assert message.application_properties == {ADDED.encode(): 2, COPY.encode(): 3}
    assert (job_id_of(message), copy_of(message), added_of(message)) == ("job-7", 3, 2)


async def test_the_next_copy_keeps_what_a_stranger_has_said(shared: ServiceBusServer, queue: str) -> None:
    sent = ServiceBusMessage(
        b"\x00body", message_id="m", correlation_id="c", subject="s", content_type="text/x", to="to", reply_to="r",
        reply_to_session_id="rs", partition_key="p",
        application_properties={"color": "red", b"size": 3, "DeadLetterReason": "old", COPY: 4, ADDED: 9},
    )  # fmt: skip
    async with bare(shared) as client, client.get_queue_sender(queue) as sender:
        await sender.send_messages(sent)
    first = await one(shared, queue)
    async with opened(shared) as broker:
        await broker._publisher.publish([Outgoing.again(first, queue, added=-1)])
    again = await one(shared, queue)
    assert (again.message_id, again.correlation_id, again.subject) == ("c:5", "c", "s")
    assert (again.content_type, again.to, again.reply_to, again.partition_key) == ("text/x", "to", "r", "p")
    assert again.reply_to_session_id == "rs"
    assert again.application_properties == {b"color": b"red", b"size": 3, ADDED.encode(): -1, COPY.encode(): 5}
    assert body_of(again) == b"\x00body"


def test_ids_that_are_too_long_for_the_service_stay_different() -> None:
    assert message_id_of("j" * 128) == "j" * 128
    long = [
        message_id_of("j" * 129),
        message_id_of("j" * 130),
        message_id_of("j" * 129, 1),
        message_id_of("j" * 127, 1),
    ]
    assert len(set(long)) == 4
    assert all(len(one) <= 128 for one in long)


async def test_a_job_with_a_long_id_is_still_itself(shared: ServiceBusServer, queue: str) -> None:
    long = "ü" * 200
    async with opened(shared) as broker:
        made = Outgoing(queue, long, "t", b"x")
        await broker._publisher.publish([made])
    message = await one(shared, queue)
    assert job_id_of(message) == long


@given(job_id=st.text(min_size=1, max_size=300), copy=st.integers(0, 10**6))
def test_message_ids_fit_and_say_which_copy(job_id: str, copy: int) -> None:
    made = message_id_of(job_id, copy)
    assert 0 < len(made) <= 128
    assert made != message_id_of(job_id, copy + 1)
    assert made == message_id_of(job_id, copy)


# In


async def read(server: ServiceBusServer, queue: str, message: Any) -> ServiceBusReceivedMessage:
    async with bare(server) as client, client.get_queue_sender(queue) as sender:
        await sender.send_messages(message)
    return await one(server, queue)


async def test_strangers_need_not_know_our_properties(shared: ServiceBusServer, queue: str) -> None:
    message = await read(shared, queue, ServiceBusMessage("text"))
    assert body_of(message) == b"text"
    assert task_of(message) == ""
    assert job_id_of(message) == str(message.message_id)  # the service gives every message one
    assert (copy_of(message), added_of(message)) == (0, 0)
    assert Outgoing.again(message, queue).job_id == job_id_of(message)
    nameless = ServiceBusReceivedMessage.from_bytes(b"\x00Su\xa0\x01x")  # a body of one letter, and nothing else
    assert job_id_of(nameless) == job_id_of(nameless)
    assert job_id_of(nameless).startswith("servicebus-")
    named = await read(shared, queue, ServiceBusMessage("text", message_id="mine"))
    assert job_id_of(named) == "mine"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"data_body": [b"one", b"two"]}, b"onetwo"),
        ({"value_body": "text"}, b"text"),
        ({"value_body": {"a": [1, True]}}, b'{"a":[1,true]}'),
        ({"value_body": None}, b"null"),
        ({"sequence_body": [[1, 2], [3]]}, b"[[1,2],[3]]"),
    ],
    ids=["sections", "text", "map", "nothing", "sequence"],
)
async def test_every_kind_of_body_becomes_bytes(
    shared: ServiceBusServer, queue: str, body: dict[str, Any], found: bytes
) -> None:
    assert body_of(await read(shared, queue, AmqpAnnotatedMessage(**body))) == found


@pytest.mark.parametrize("value", ["7", 7.5, True, b"7"])
async def test_counts_that_are_none_count_nothing(shared: ServiceBusServer, queue: str, value: Any) -> None:
    message = await read(shared, queue, ServiceBusMessage("x", application_properties={ADDED: value, COPY: value}))
    assert (copy_of(message), added_of(message)) == (0, 0)
