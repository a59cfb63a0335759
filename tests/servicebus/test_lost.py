"""What must not lose a job, nor run one again and again: each of these was seen to happen once."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.servicebus import ServiceBusMessage
from azure.servicebus.exceptions import MessageNotFoundError
from camora.errors import BrokerUnavailable, DispatchError, MessageTooLarge
from camora.interfaces.broker import ConsumerSettings
from camora_servicebus import ServiceBusQueue, ServiceBusSubscription
from camora_servicebus.admin import Admin
from camora_servicebus.applying import carried_out, planned
from camora_servicebus.differences import Wanted
from camora_servicebus.direct import Direct
from camora_servicebus.pump import Pump
from camora_servicebus.tokens import Tokens

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import (
    ack,
    bury,
    consuming,
    happened,
    publish,
    retry,
    settle,
    take,
    within,
)
from tests.servicebus.sending import bare, broker_of, envelope, new_name, opened, stored


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
        server.create_queue("q")
        yield server


async def test_what_cannot_be_stored_makes_no_other_job_be_stored_again(shared: ServiceBusServer, queue: str) -> None:
    missing = new_name("missing")
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(2))
        first, second = await take(consumer, 2)
        await consumer.stop()
        stuck, again = ack(first, successors=(envelope(missing, 7),)), retry(second)
        assert list(await consumer.settle([stuck, again])) == [None, True]
        with pytest.raises(BrokerUnavailable, match="camora servicebus apply"):
            await consumer.settle([stuck])
        shared.create_queue(missing)
        assert await settle(consumer, stuck) == [True]
    assert stored(shared, queue) == [f"{second.id}:1"], "the retry was stored more than once"
    assert stored(shared, missing) == ["job-7"]


async def test_of_several_followers_none_is_stored_again_because_another_cannot_be(
    shared: ServiceBusServer, queue: str
) -> None:
    there, missing = shared.create_queue(new_name("there")), new_name("missing")
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, [1])
        [one] = await take(consumer)
        ended = ack(one, successors=(envelope(there, 5), envelope(missing, 6)))
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match="camora servicebus apply"):
                await consumer.settle([ended])
        shared.create_queue(missing)
        assert await settle(consumer, ended) == [True]
    assert stored(shared, there) == ["job-5"]


async def test_a_follower_that_no_queue_takes_is_told_and_holds_up_nobody(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue, max_message_size=1024 * 1024) as (broker, consumer):
        await publish(broker, queue, range(2))
        first, second = await take(consumer, 2)
        await consumer.stop()
        # Larger than this entity takes, which only its link says.
        huge, again = ack(first, successors=(envelope(queue, 7, body=b"x" * 400_000),)), retry(second)
        assert list(await consumer.settle([huge, again])) == [None, True]
        with pytest.raises(MessageTooLarge):
            await consumer.settle([huge])
        # As the worker does with what cannot be settled.
        assert await settle(consumer, bury(first)) == [True]
    assert stored(shared, queue) == [f"{second.id}:1"]
    assert shared.counts(queue)["dead"] == 1


async def test_a_time_that_the_wire_cannot_carry_is_refused(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        async with asyncio.timeout(30):
            with pytest.raises((DispatchError, ValueError)):
                await broker.publish([envelope(queue, 1, due=2**70)])
            await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-2"]


@pytest.mark.parametrize("how", ["disabled", "refused"])
async def test_a_queue_that_lets_nobody_in_is_not_hammered(own: ServiceBusServer, how: str) -> None:
    async with consuming(own, "q") as (broker, consumer):
        await publish(broker, "q", [1])
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]
        if how == "disabled":
            own.update_queue("q", status="ReceiveDisabled")
        else:
            own.fault("attach_refused", "q", condition="amqp:unauthorized-access")
        own.detach("q")
        with pytest.raises(BrokerUnavailable):
            for _ in range(20):
                await consumer.receive(1, 1.0)
        before = len(own.events("attaching", entity="q"))
        await asyncio.sleep(3)
        assert len(own.events("attaching", entity="q")) - before <= 6
        own.clear()
        own.update_queue("q", status="Active")
        await publish(broker, "q", [2])
        [two] = await take(consumer)
        assert await settle(consumer, ack(two)) == [True]


async def test_two_letters_of_one_job_make_one_job_where_duplicates_are_detected(shared: ServiceBusServer) -> None:
    name = shared.create_queue(new_name(), requires_duplicate_detection=True)
    letters = f"{name}/$deadletterqueue"
    async with consuming(shared, name, timeout=1.0) as (broker, consumer):
        broker.declare([ServiceBusQueue(name, duplicate_detection=600)])
        await publish(broker, name, [1])
        [one] = await take(consumer)
        assert await settle(consumer, bury(one)) == [True]
        # Whoever requeues it is killed before the letter is deleted.
        shared.fault("settle_lost", letters, how="silent")
        shared.fault("management_silent", letters, operation="update-disposition")
        with pytest.raises(BrokerUnavailable):
            await broker.dead_letters.requeue(one.id)
        shared.clear()
        shared.expire_locks(letters)
        [again] = await take(consumer)
        assert await settle(consumer, bury(again)) == [True]
        assert shared.counts(name)["dead"] == 2
        assert await broker.dead_letters.requeue(one.id)
        [last] = await take(consumer)
        assert last.id == one.id
        assert await settle(consumer, ack(last)) == [True]
    assert shared.counts(name)["dead"] == 0


async def test_an_end_that_was_refused_once_is_told_again_by_the_same_connection(own: ServiceBusServer) -> None:
    own.create_queue("short", lock_duration=5.0)
    async with consuming(own, "short") as (broker, consumer):
        await publish(broker, "short", range(3))
        got = await take(consumer, 3)
        own.fault("settle_refused", "short", times=3, condition="com.microsoft:server-busy")
        async with asyncio.timeout(60):
            assert await settle(consumer, ack(got[0]), retry(got[1]), bury(got[2])) == [True] * 3
    assert stored(own, "short") == [f"{got[1].id}:1"]
    assert own.counts("short")["dead"] == 1


class Fleeting:
    """A connection that is let in and thrown out at once."""

    wanted, ordered = 1, False

    async def open(self, timeout: float) -> None:
        del timeout

    async def run(self) -> None:
        raise ConnectionResetError("thrown out")

    def cease(self) -> None: ...

    async def drain(self, timeout: float) -> None:
        del timeout

    async def close(self, timeout: float) -> None:
        del timeout


async def test_a_connection_that_is_thrown_out_at_once_is_not_made_anew_without_a_rest() -> None:
    made: list[Fleeting] = []
    told: list[Exception] = []

    def make() -> Fleeting:
        made.append(Fleeting())
        return made[-1]

    pump = Pump("q", make, timeout=5.0, changed=lambda one: told.append(one.error) if one.error else None)  # type: ignore[arg-type]
    pump.start()
    async with asyncio.timeout(60):
        while not told:
            await asyncio.sleep(0.01)
            assert len(made) < 100
    await pump.end()


async def test_a_connection_that_cannot_even_be_made_is_told() -> None:
    told: list[Exception] = []

    def make() -> Fleeting:
        raise ValueError("no such thing")

    pump = Pump("q", make, timeout=5.0, changed=lambda one: told.append(one.error) if one.error else None)  # type: ignore[arg-type]
    pump.start()
    async with asyncio.timeout(20):
        while not told:
            await asyncio.sleep(0.01)
    await pump.end()
    assert str(told[0]) == "no such thing"


class Lame:
    """A credential whose service fails, or hangs, after its first token."""

    def __init__(self, lasts: float, how: str) -> None:
        self.lasts = lasts
        self.how = how
        self.asked = 0

    async def get_token(self, *scopes: str, **options: object) -> AccessToken:
        del scopes, options
        self.asked += 1
        if self.asked > 1 and self.how == "hangs":
            await asyncio.Event().wait()
        if self.asked > 1 and self.how == "fails":
            raise OSError("the credential's service is away")
        return AccessToken(f"token-{self.asked}", int(time.time() + self.lasts))

    async def close(self) -> None: ...


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_a_token_that_lasts_is_used_while_the_next_one_does_not_come(how: str) -> None:
    credential = Lame(300, how)
    tokens = Tokens(credential)
    async with asyncio.timeout(30):
        for _ in range(3):
            assert (await tokens.get_token("scope")).token == "token-1"
        credential.how = "well"
        if how == "fails":
            assert (await tokens.get_token("scope")).token == f"token-{credential.asked}" != "token-1"
        await tokens.close()


async def test_a_token_that_is_over_is_waited_for() -> None:
    tokens = Tokens(Lame(1, "well"))
    assert [(await tokens.get_token("scope")).token for _ in range(3)] == ["token-1", "token-2", "token-3"]
    await tokens.close()


async def test_a_retry_gets_through_the_filters_of_others(own: ServiceBusServer) -> None:
    store = broker_of(own, management=f"{own.host}:{own.port}").database
    theirs = "sys.To = 'mail' AND sys.ContentType = 'application/json' AND region = 'eu'"
    own.create_topic("events")
    async with Admin(store) as admin:
        said = {"filter": theirs}
        wanted = Wanted(kind="subscription", name="s", path=("events", "s"), said=said, otherwise={}, ours=True)
        async for _ in carried_out(admin, await planned(admin, [wanted])):
            pass
    async with bare(own) as client, client.get_topic_sender("events") as sender:
        properties: dict[str | bytes, Any] = {"region": "eu"}
        await sender.send_messages(
            ServiceBusMessage(b"1", to="mail", content_type="application/json", application_properties=properties)
        )
    subscription = ServiceBusSubscription("s", topic="events", declare=False)
    async with opened(own, subscription) as broker:
        consumer = await broker.consumer(ConsumerSettings(queues=("s",), worker="w", lease=60.0))
        try:
            [one] = await take(consumer)
            assert await settle(consumer, retry(one)) == [True]
            assert own.counts("events/Subscriptions/s")["active"] == 1, "the retry was dropped"
        finally:
            await consumer.close()


async def test_a_lock_that_cannot_be_renewed_takes_no_other_along(
    own: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Direct._request

    async def gone(self: Direct, operation: bytes, message: dict[str, Any], *rest: Any) -> Any:
        """As if one of many were gone, in a service that calls it so; the emulator says that its lock is lost."""
        if operation == b"com.microsoft:renew-lock" and len(message["lock-tokens"]["VALUE"]) > 1:
            raise MessageNotFoundError(message="one of them is not here")
        return await request(self, operation, message, *rest)

    monkeypatch.setattr(Direct, "_request", gone)
    own.create_queue("short", lock_duration=5.0)
    async with consuming(own, "short") as (broker, consumer):
        await publish(broker, "short", range(3))
        got = await take(consumer, 3)
        await within(lambda: happened(own, "short", "renewed") + happened(own, "short", "lapsed") >= 3, "a renewal")
        assert await settle(consumer, *map(ack, got)) == [True] * 3
    assert happened(own, "short", "lapsed") == 0


async def test_a_worker_without_files_to_spare_is_told(
    shared: ServiceBusServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared) as broker:
        with monkeypatch.context() as patch:

            def none_left() -> None:
                raise OSError(errno.EMFILE, "Too many open files")

            patch.setattr("asyncio.new_event_loop", none_left)
            patch.setattr("asyncio.events.new_event_loop", none_left)
            with pytest.raises(OSError, match="Too many open files"):
                await broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=60.0))
        await publish(broker, queue, [1])
        consumer = await broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=60.0))
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]
        await consumer.close()


@pytest.mark.parametrize("fault", ["settle_refused", "settle_lost", "settle_answer_lost"])
async def test_an_end_in_a_session_is_told_again(own: ServiceBusServer, fault: str) -> None:
    own.create_queue("ordered", requires_session=True, lock_duration=5.0)
    more = {"condition": "com.microsoft:server-busy"} if fault == "settle_refused" else {"how": "silent"}
    async with opened(own, ServiceBusQueue("ordered", sessions=True), timeout=2.0) as broker:
        consumer = await broker.consumer(ConsumerSettings(queues=("ordered",), worker="w", lease=60.0))
        try:
            await broker.publish([envelope("ordered", number, options={"session": "s"}) for number in (1, 2)])
            [one] = await take(consumer)
            own.fault(fault, "ordered", times=1, **more)
            assert await settle(consumer, ack(one)) == [True]
            [two] = await take(consumer)
            assert (one.id, two.id) == ("job-1", "job-2")
            assert await settle(consumer, ack(two)) == [True]
        finally:
            await consumer.close()
    assert happened(own, "ordered", "locked") == happened(own, "ordered", "completed") == 2
