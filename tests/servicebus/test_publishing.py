"""Dispatching to Service Bus: batches, limits, what is in doubt and what is not, and a service that falters."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from camora.errors import BrokerUnavailable, DispatchUncertain, MessageTooLarge, UnsupportedCapability
from camora_servicebus import ServiceBusQueue, internals
from camora_servicebus.line import Line, denied
from camora_servicebus.messages import Outgoing

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.sending import (
    LIMIT,
    broker_of,
    ended,
    envelope,
    in_future,
    new_name,
    opened,
    received,
    stored,
    until,
)

KB = 1024


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@pytest.fixture
def own() -> Iterator[ServiceBusServer]:
    """One to which anything may be done."""
    with ServiceBusServer() as server:
        server.create_queue("mail")
        yield server


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages went with each transfer."""
    found: list[int] = []
    transmit = Line._transmit

    async def counting(self: Line, waiting: Any, items: Any, sending: Any) -> None:
        found.append(len(items))
        await transmit(self, waiting, items, sending)

    monkeypatch.setattr(Line, "_transmit", counting)
    return found


# Batches


async def test_a_batch_is_one_transfer_and_stays_in_order(
    shared: ServiceBusServer, queue: str, sends: list[int]
) -> None:
    async with opened(shared) as broker:
        ids = await broker.publish([envelope(queue, number) for number in range(50)])
    assert ids == [f"job-{number}" for number in range(50)] == stored(shared, queue)
    assert sends == [50]


async def test_what_does_not_fit_into_a_batch_goes_with_the_next_one(
    shared: ServiceBusServer, queue: str, sends: list[int]
) -> None:
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, number, body=bytes(30 * KB)) for number in range(20)])
    assert stored(shared, queue) == [f"job-{number}" for number in range(20)]
    assert sends == [8, 8, 4]  # 256 KiB each


async def test_dispatches_at_the_same_time_share_a_batch(
    shared: ServiceBusServer, queue: str, sends: list[int]
) -> None:
    async with opened(shared) as broker:
        await asyncio.gather(*(broker.publish([envelope(queue, number)]) for number in range(500)))
    assert stored(shared, queue) == [f"job-{number}" for number in range(500)]
    assert sum(sends) == 500
    assert len(sends) <= 3


async def test_one_batch_may_be_for_many_queues(shared: ServiceBusServer, sends: list[int]) -> None:
    queues = [shared.create_queue(new_name()) for _ in range(3)]
    async with opened(shared) as broker:
        await broker.publish([envelope(queues[number % 3], number) for number in range(30)])
    for place, queue in enumerate(queues):
        assert stored(shared, queue) == [f"job-{number}" for number in range(place, 30, 3)]
    assert sorted(sends) == [10, 10, 10]


async def test_a_batch_is_of_one_session(shared: ServiceBusServer, sends: list[int]) -> None:
    """The service refuses others."""
    queue = shared.create_queue(new_name(), requires_session=True)
    made = [
        Outgoing(queue, f"job-{number}", "t", b"x", session=f"s{number % 3}", more=more)
        for number in range(30)
        for more in ({}, {"to": "x"})
    ]
    async with opened(shared) as broker:
        await broker._publisher.publish(made)
    assert sorted(sends) == [20, 20, 20]
    found = shared.messages(queue)
    for session in range(3):
        ids = [one["message_id"] for one in found if one["session"] == f"s{session}"]
        assert ids == [f"job-{number}" for number in range(session, 30, 3) for _ in range(2)]


async def test_nothing_is_sent_for_nothing(shared: ServiceBusServer) -> None:
    async with opened(shared) as broker:
        assert await broker.publish([]) == []


# What is too large


async def test_a_body_over_the_limit_is_refused_before_anything_is_sent(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        assert broker.capabilities.largest == 248 * KB
        with pytest.raises(MessageTooLarge) as caught:
            await broker.publish([envelope(queue, 1), envelope(queue, 2, body=bytes(300 * KB))])
        assert (caught.value.size, caught.value.limit) == (300 * KB, 248 * KB)
        assert "max_message_size" in str(caught.value)
        assert stored(shared, queue) == []
        await broker.publish([envelope(queue, 3, body=bytes(broker.capabilities.largest))])
    assert stored(shared, queue) == ["job-3"]


async def test_the_properties_count_too(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        with pytest.raises(MessageTooLarge) as caught:
            long = msgspec.structs.replace(envelope(queue, body=bytes(248 * KB)), id="j" * 9 * KB)
            await broker.publish([long])
        assert caught.value.size > 257 * KB
        assert caught.value.limit == 256 * KB
    assert stored(shared, queue) == []


async def test_the_entity_has_the_last_word(shared: ServiceBusServer, queue: str) -> None:
    """Whoever says that the tier takes more is told by the queue how much it is."""
    async with opened(shared, max_message_size="1MiB") as broker:
        with pytest.raises(MessageTooLarge) as caught:
            await broker.publish([envelope(queue, 1, body=bytes(400 * KB))])
        assert caught.value.size > 400 * KB
        assert caught.value.limit == 256 * KB
        await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-2"]


async def test_a_premium_queue_takes_large_messages_one_by_one() -> None:
    with ServiceBusServer(tier="premium") as server:
        server.create_queue("large", max_message_size=10 * KB * KB)
        async with opened(server, max_message_size="10MiB") as broker:
            await broker.publish(
                [envelope("large", number, body=bytes(size * KB)) for number, size in enumerate((1, 3000, 1, 5000))]
            )
            assert stored(server, "large") == ["job-0", "job-1", "job-2", "job-3"]
            with pytest.raises(MessageTooLarge):
                await broker.publish([envelope("large", 9, body=bytes(11 * KB * KB))])
        [_, large, _, _] = await received(server, "large", 4)
        assert sum(map(len, large.body)) == 3000 * KB


# What is in doubt


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_an_answer_that_is_lost_is_a_doubt(shared: ServiceBusServer, queue: str, how: str) -> None:
    async with opened(shared, timeout=1.0) as broker:
        await broker.publish([envelope(queue, 1)])
        shared.fault("ack_lost", queue, times=1, how=how)
        with pytest.raises(DispatchUncertain) as caught:
            await broker.publish([envelope(queue, 2)])
        assert caught.value.job_id == "job-2"
        assert not caught.value.final
        assert "may run it twice" in str(caught.value) and "job_id='job-2'" in str(caught.value)
        assert await broker.publish([envelope(queue, 3)]) == ["job-3"]
    assert stored(shared, queue) == ["job-1", "job-2", "job-3"]


@pytest.mark.parametrize("fault", ["ack_lost", "send_lost"])
@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_a_queue_that_detects_duplicates_is_asked_again(shared: ServiceBusServer, fault: str, how: str) -> None:
    queue = shared.create_queue(new_name(), requires_duplicate_detection=True)
    declared = ServiceBusQueue(queue, duplicate_detection=600)
    async with opened(shared, declared, timeout=1.5 if how == "silent" else 5.0) as broker:
        await broker.publish([envelope(queue, 0)])
        shared.fault(fault, queue, times=1, how=how)
        sending = asyncio.gather(
            *(broker.publish([envelope(queue, number)]) for number in range(1, 6)), return_exceptions=True
        )
        answers = await asyncio.wait_for(sending, LIMIT)
        if how == "cut":
            assert answers == [[f"job-{number}"] for number in range(1, 6)]
        else:  # the time that a dispatch has went by with waiting for the answer
            assert all(isinstance(answer, DispatchUncertain) for answer in answers)
            assert "does not double it" in str(answers[0])
            for number in range(1, 6):
                await broker.publish([envelope(queue, number)])
    assert stored(shared, queue) == [f"job-{number}" for number in range(6)]


async def test_some_of_a_batch_stored_is_said_for_good(shared: ServiceBusServer, queue: str) -> None:
    other = shared.create_queue(new_name())
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, 0), envelope(other, 0)])
        shared.fault("ack_lost", other, times=1)
        with pytest.raises(DispatchUncertain) as caught:
            await broker.publish([envelope(queue, 1), envelope(other, 2), envelope(queue, 3)])
        assert caught.value.final
        assert caught.value.job_id == "job-2"
        assert "2 of the 3 messages of this batch were enqueued" in str(caught.value)
        shared.update_queue(other, status="SendDisabled")
        with pytest.raises(DispatchUncertain, match="1 of the 2 messages") as caught:
            await broker.publish([envelope(queue, 4), envelope(other, 5)])
        assert caught.value.final and caught.value.job_id == "job-5"


# What is not


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("amqp:resource-limit-exceeded", "no room left"),
        ("com.microsoft:entity-disabled", "disabled"),
        ("amqp:not-found", "`camora servicebus apply` makes it"),
        ("amqp:unauthorized-access", "the credentials are not accepted"),
        ("amqp:internal-error", "told to fail here"),
    ],
)
async def test_a_no_of_the_service_is_no_doubt(shared: ServiceBusServer, queue: str, condition: str, text: str) -> None:
    async with opened(shared) as broker:
        shared.fault("send_rejected", queue, times=1, condition=condition)
        with pytest.raises(BrokerUnavailable) as caught:
            await broker.publish([envelope(queue, 1)])
        assert text in str(caught.value) and repr(queue) in str(caught.value)
        await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-2"]


async def test_a_missing_queue_is_named_with_what_makes_it(shared: ServiceBusServer) -> None:
    queue = new_name("missing")
    async with opened(shared, prefix="shop.") as broker:
        with pytest.raises(BrokerUnavailable) as caught:
            await broker.publish([envelope(queue)])
        assert f"queue {queue!r}: there is no entity 'shop.{queue}'" in str(caught.value)
        assert "camora servicebus apply" in str(caught.value)
        shared.create_queue(f"shop.{queue}")
        await broker.publish([envelope(queue)])
    assert stored(shared, f"shop.{queue}") == ["job-0"]


async def test_a_missing_topic_is_called_one(shared: ServiceBusServer) -> None:
    topic = new_name("missing")
    async with opened(shared) as broker:
        broker.database.topic(topic)
        with pytest.raises(BrokerUnavailable, match=f"topic '{topic}': there is no entity '{topic}'"):
            await broker.publish([envelope(topic)])


async def test_a_full_queue_takes_messages_when_there_is_room(own: ServiceBusServer) -> None:
    own.create_queue("full", status="SendDisabled")
    async with opened(own) as broker:
        with pytest.raises(BrokerUnavailable, match="disabled"):
            await broker.publish([envelope("full", 1)])
        own.update_queue("full", status="Active")
        await broker.publish([envelope("full", 2)])
    assert stored(own, "full") == ["job-2"]


async def test_keys_are_refused(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        assert not broker.capabilities.dedup
        with pytest.raises(UnsupportedCapability, match="which keys are taken"):
            await broker.publish([envelope(queue, key="once")])


# A service that falters


async def test_a_throttled_dispatch_waits(shared: ServiceBusServer, queue: str, sends: list[int]) -> None:
    async with opened(shared, timeout=LIMIT) as broker:
        shared.fault("throttled", queue, times=2)
        answers = await asyncio.gather(*(broker.publish([envelope(queue, number)]) for number in range(3)))
    assert answers == [["job-0"], ["job-1"], ["job-2"]]
    assert stored(shared, queue) == ["job-0", "job-1", "job-2"]
    assert sends == [3, 3, 3]


async def test_a_throttled_dispatch_gives_up_in_time(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared, timeout=1.0) as broker:
        shared.fault("throttled", queue)
        with pytest.raises(BrokerUnavailable, match="throttled"):
            await broker.publish([envelope(queue, 1)])
        shared.clear("throttled")
        await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-2"]


async def test_nobody_waits_for_ever_on_a_mute_peer(own: ServiceBusServer) -> None:
    async with opened(own, timeout=1.0) as broker:
        await broker.publish([envelope("mail", 1)])
        own.mute()
        with pytest.raises(DispatchUncertain):
            await asyncio.wait_for(broker.publish([envelope("mail", 2)]), LIMIT)
        with pytest.raises(BrokerUnavailable):  # not even a connection comes about
            await asyncio.wait_for(broker.publish([envelope("mail", 3)]), LIMIT)
        own.clear()
        await broker.publish([envelope("mail", 4)])
    assert [one for one in stored(own, "mail") if one != "job-2"] == ["job-1", "job-4"]


async def test_nobody_waits_for_ever_on_a_stopped_process(own: ServiceBusServer) -> None:
    async with opened(own, timeout=1.0) as broker:
        await broker.publish([envelope("mail", 1)])
        own.pause()
        try:
            with pytest.raises((DispatchUncertain, BrokerUnavailable)):
                await asyncio.wait_for(broker.publish([envelope("mail", 2)]), LIMIT)
        finally:
            own.resume()
        await broker.publish([envelope("mail", 3)])
    assert stored(own, "mail")[-1] == "job-3"


async def test_an_outage_is_said_and_passes(own: ServiceBusServer) -> None:
    async with opened(own) as broker:
        await broker.publish([envelope("mail", 1)])
        own.outage()
        await ended(broker)
        with pytest.raises(BrokerUnavailable, match="mail"):
            await broker.publish([envelope("mail", 2)])
        own.clear()
        await broker.publish([envelope("mail", 3)])
    assert stored(own, "mail") == ["job-1", "job-3"]


async def test_a_restart_is_survived(own: ServiceBusServer) -> None:
    async with opened(own) as broker:
        await broker.publish([envelope("mail", 1)])
        own.kill()
        await ended(broker)
        with pytest.raises(BrokerUnavailable):
            await broker.publish([envelope("mail", 2)])
        await asyncio.to_thread(own.restart)
        await broker.publish([envelope("mail", 3)])
    assert stored(own, "mail") == ["job-1", "job-3"]


@pytest.mark.parametrize("condition", ["amqp:link:detach-forced", "amqp:connection:forced", "com.microsoft:timeout"])
async def test_a_link_that_was_detached_meanwhile_is_no_news(
    shared: ServiceBusServer, queue: str, condition: str
) -> None:
    """The service does so after ten minutes without a call."""
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, 1)])
        assert await asyncio.to_thread(shared.detach, queue, condition) == 1
        await ended(broker)
        await broker.publish([envelope(queue, 2)])
        assert await asyncio.to_thread(shared.cut, queue) == 1
        await ended(broker)
        await broker.publish([envelope(queue, 3)])
    assert stored(shared, queue) == ["job-1", "job-2", "job-3"]


async def test_a_connection_with_nothing_to_do_is_looked_after(
    shared: ServiceBusServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camora_servicebus.publishing._PULSE", 0.05)
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, 1)])
        [line] = broker._publisher._lines.values()
        assert line._sender is not None
        shared.detach(queue)
        await until(lambda: line._sender is None, "the dead connection is closed")
        await asyncio.gather(*(broker.publish([envelope(queue, number)]) for number in range(2, 5)))
    assert stored(shared, queue) == ["job-1", "job-2", "job-3", "job-4"]


async def test_a_connection_that_nobody_uses_is_closed(
    shared: ServiceBusServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camora_servicebus.publishing._PULSE", 0.05)
    monkeypatch.setattr("camora_servicebus.line._IDLE", 0.0)
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, 1)])
        await until(lambda: not any(queue in str(one["links"]) for one in shared.connections()), "it is closed")
        await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-1", "job-2"]


# Cancelled


async def test_a_dispatch_that_is_cancelled_in_mid_send_leaves_no_trouble(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared, timeout=2.0) as broker:
        await broker.publish([envelope(queue, 1)])
        shared.fault("ack_lost", queue, times=1, how="silent")
        sending = asyncio.create_task(broker.publish([envelope(queue, 2)]))
        await until(lambda: len(stored(shared, queue)) == 2, "it is on its way")
        waiting = asyncio.create_task(broker.publish([envelope(queue, 3)]))
        dropped = asyncio.create_task(broker.publish([envelope(queue, 4)]))
        await asyncio.sleep(0)
        sending.cancel()
        dropped.cancel()
        assert isinstance((await asyncio.gather(sending, return_exceptions=True))[0], asyncio.CancelledError)
        assert await asyncio.wait_for(waiting, LIMIT) == ["job-3"]
        await broker.publish([envelope(queue, 5)])
    # What was not on its way when it was cancelled was not sent.
    assert stored(shared, queue) == ["job-1", "job-2", "job-3", "job-5"]


# Later


async def test_jobs_for_later_have_sequence_numbers_that_call_them_off(
    shared: ServiceBusServer, queue: str, sends: list[int]
) -> None:
    due = [in_future(3600 + number) for number in range(5)]
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, number, due=due[number]) for number in range(5)])
        known = [broker.database.scheduled.take(f"job-{number}") for number in range(5)]
    assert sends == [5]  # one request, although each has a time of its own
    waiting = {one["message_id"]: one for one in shared.messages(queue)}
    for number, found in enumerate(known):
        assert found is not None
        assert found[0] == queue and found[2] == due[number]
        assert waiting[f"job-{number}"]["sequence"] == found[1]
        assert waiting[f"job-{number}"]["state"] == "scheduled"
    scheduled = {event["message_id"]: event["when"] for event in shared.events("scheduled", entity=queue)}
    assert [round(scheduled[f"job-{number}"] * 1000) for number in range(5)] == due


async def test_what_is_due_comes_by_itself(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        await broker.publish(
            [envelope(queue, 1, due=in_future(0.5)), envelope(queue, 2, due=in_future(-60)), envelope(queue, 3)]
        )
    came = await received(shared, queue, 3)
    assert sorted(str(message.message_id) for message in came) == ["job-1", "job-2", "job-3"]
    [told] = [event for event in shared.events("due", entity=queue) if event["message_id"] == "job-1"]
    [planned] = [event for event in shared.events("scheduled", entity=queue) if event["message_id"] == "job-1"]
    assert told["at"] >= planned["when"]


async def test_many_jobs_for_later_go_by_requests_that_fit(
    shared: ServiceBusServer, queue: str, sends: list[int]
) -> None:
    due = in_future(3600)
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, number, due=due, body=bytes(50 * KB)) for number in range(12)])
        with pytest.raises(MessageTooLarge):
            await broker.publish(
                [msgspec.structs.replace(envelope(queue, 99, due=due, body=bytes(248 * KB)), id="j" * 9 * KB)]
            )
    assert stored(shared, queue) == [f"job-{number}" for number in range(12)]
    assert sends == [5, 5, 2]


async def test_a_lost_answer_to_a_request_is_a_doubt(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared, timeout=1.0) as broker:
        shared.fault("management_answer_lost", queue, times=1, how="silent")
        with pytest.raises(DispatchUncertain):
            await asyncio.wait_for(broker.publish([envelope(queue, 1, due=in_future(3600))]), LIMIT)
        shared.fault("management_silent", queue, times=1)
        with pytest.raises(DispatchUncertain):
            await asyncio.wait_for(broker.publish([envelope(queue, 2, due=in_future(3600))]), LIMIT)
        await broker.publish([envelope(queue, 3, due=in_future(3600))])
    assert stored(shared, queue) == ["job-1", "job-3"]


async def test_a_throttled_request_waits(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared, timeout=LIMIT) as broker:
        await broker.publish([envelope(queue, 1)])
        shared.fault("throttled", queue, times=1)
        await broker.publish([envelope(queue, 2, due=in_future(3600))])
    assert stored(shared, queue) == ["job-1", "job-2"]


async def test_a_refused_request_is_no_doubt(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        shared.fault("management_refused", queue, times=1, condition="com.microsoft:argument-error", status=400)
        with pytest.raises(BrokerUnavailable):
            await broker.publish([envelope(queue, 1, due=in_future(3600))])
        await broker.publish([envelope(queue, 2, due=in_future(3600))])
    assert stored(shared, queue) == ["job-2"]


async def test_nobody_waits_for_ever_when_the_client_has_another_inside(
    shared: ServiceBusServer, queue: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bool:
        raise AttributeError("it is called otherwise now")

    async with opened(shared) as broker:
        with monkeypatch.context() as patch:
            patch.setattr(internals, "add", broken)
            with pytest.raises(DispatchUncertain, match="it is called otherwise now"):
                await asyncio.wait_for(broker.publish([envelope(queue, 1)]), LIMIT)
        assert "sending failed" in caplog.text
        await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-2"]


# Life


async def test_opening_needs_no_queue(shared: ServiceBusServer) -> None:
    async with opened(shared, prefix="nowhere."):
        pass


async def test_opening_says_who_does_not_answer() -> None:
    with ServiceBusServer() as server:
        pass
    broker = broker_of(server)
    with pytest.raises(BrokerUnavailable) as caught:
        await broker.open()
    assert f"servicebus://127.0.0.1:{server.port}" in str(caught.value)
    assert server.key not in str(caught.value)
    await broker.close()


async def test_a_broker_is_opened_once(shared: ServiceBusServer, queue: str) -> None:
    broker = broker_of(shared)
    with pytest.raises(BrokerUnavailable, match="open"):
        await broker.publish([envelope(queue)])
    await broker.open()
    await broker.publish([envelope(queue, 1)])
    await broker.close()
    await broker.close()
    with pytest.raises(BrokerUnavailable):
        await broker.publish([envelope(queue)])
    with pytest.raises(BrokerUnavailable, match="twin"):
        await broker.open()
    twin = broker.twin()
    await twin.open()
    await twin.publish([envelope(queue, 2)])
    await twin.close()
    assert stored(shared, queue) == ["job-1", "job-2"]


async def test_closing_finishes_what_is_on_its_way(shared: ServiceBusServer, queue: str) -> None:
    broker = broker_of(shared)
    await broker.open()
    sending = [asyncio.create_task(broker.publish([envelope(queue, number)])) for number in range(20)]
    await asyncio.sleep(0)
    await broker.close()
    assert await asyncio.gather(*sending) == [[f"job-{number}"] for number in range(20)]
    assert len(stored(shared, queue)) == 20


async def test_closing_waits_for_nobody_who_is_mute(own: ServiceBusServer) -> None:
    broker = broker_of(own, timeout=1.0)
    await broker.open()
    await broker.publish([envelope("mail", 1)])
    own.mute()
    sending = asyncio.create_task(broker.publish([envelope("mail", 2)]))
    await asyncio.sleep(0)
    await asyncio.wait_for(broker.close(), LIMIT)
    with pytest.raises((DispatchUncertain, BrokerUnavailable)):
        await sending
    assert not [thread for thread in threading.enumerate() if "servicebus" in thread.name]


def test_a_loop_that_is_closed_without_the_broker_leaves_nothing_open(shared: ServiceBusServer, queue: str) -> None:
    broker = broker_of(shared)

    async def dispatch() -> None:
        await broker.open()
        await broker.publish([envelope(queue, 1)])

    asyncio.run(dispatch())
    broker.abandon()
    broker.abandon()
    gc.collect()  # what was left open would be a warning, and that an error
    deadline = time.monotonic() + LIMIT
    while any(queue in str(link) for one in shared.connections() for link in one.get("links", [])):
        assert time.monotonic() < deadline, "the connection is still there"
        time.sleep(0.02)


async def test_a_polite_close_is_quick(shared: ServiceBusServer, queue: str) -> None:
    """The client's own sleeps for up to a second, for a task that is not made here."""
    async with opened(shared) as broker:
        await broker.publish([envelope(queue, 1)])
        [line] = broker._publisher._lines.values()
        assert line._sender is not None
        assert line._sender._handler._keep_alive_thread is None
        assert internals.silent(line._sender)


def test_no_credentials_at_all_are_no_matter_of_roles() -> None:
    text = "DefaultAzureCredential failed to retrieve a token from the included credentials. Attempted credentials: …"
    assert "run az login" in denied(False, text)
    assert "roles" not in denied(False, text)
    assert "Data Sender" in denied(False, "claims required")
