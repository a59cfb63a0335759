"""What tests of receiving share: consumers, what they take and how they settle, and the emulator's own view of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, DeadLetter, Settlement
from camora_servicebus import ServiceBusBroker
from camora_servicebus import consumer as module
from camora_servicebus.plain import Plain

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.sending import LIMIT, envelope, opened

__all__ = [
    "LEASE", "ack", "bury", "by_public_means", "consuming", "happened", "held_by_nobody", "job_ids", "publish",
    "release", "retry", "sent", "settle", "take", "taken", "token_of", "within",
]  # fmt: skip

LEASE = 60.0


def by_public_means(monkeypatch: Any) -> None:
    """From now on, take the client for one of another inside."""
    monkeypatch.setattr(module, "fits", lambda _: False)
    monkeypatch.setattr("camora_servicebus.plain._WAIT", 1.0)
    assert Plain is module.Plain


@contextlib.asynccontextmanager
async def consuming(
    server: ServiceBusServer, *queues: str, lease: float = LEASE, worker: str = "w", **settings: Any
) -> AsyncIterator[tuple[ServiceBusBroker, Consumer]]:
    """A broker and a consumer of these queues, closed at the end."""
    async with opened(server, **settings) as broker:
        consumer = await broker.consumer(ConsumerSettings(queues=queues, worker=worker, lease=lease))
        try:
            yield broker, consumer
        finally:
            await consumer.close()


async def publish(broker: ServiceBusBroker, queue: str, numbers: Sequence[int]) -> None:
    """Jobs with these numbers."""
    await broker.publish([envelope(queue, number, body=b"%d" % number) for number in numbers])


async def sent(server: ServiceBusServer, queue: str, numbers: Sequence[int]) -> None:
    """The same, by a connection that nothing has happened to."""
    async with opened(server) as broker:
        await publish(broker, queue, numbers)


async def take(consumer: Consumer, count: int = 1, *, at_once: int | None = None) -> list[Delivery]:
    """So many, waiting for them; a service that is away for a moment is waited for, as a worker does."""
    found: list[Delivery] = []
    deadline = time.monotonic() + LIMIT
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} came within {LIMIT:g} s"
        try:
            found += await consumer.receive(min(at_once or count, count - len(found)), 5.0)
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
    return found


async def settle(consumer: Consumer, *settlements: Settlement) -> list[bool]:
    """Until each is answered, as a worker does."""
    answers: list[bool | None] = [None] * len(settlements)
    deadline = time.monotonic() + LIMIT
    while None in answers:
        assert time.monotonic() < deadline, f"not settled within {LIMIT:g} s: {answers}"
        places = [place for place, answer in enumerate(answers) if answer is None]
        try:
            for place, answer in zip(places, await consumer.settle([settlements[one] for one in places]), strict=True):
                answers[place] = answer
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
    return [answer is True for answer in answers]


def ack(delivery: Delivery, **more: Any) -> Settlement:
    return Settlement(delivery=delivery, action=Action.ACK, **more)


def release(delivery: Delivery, *, delay: float = 0.0, charged: bool = False) -> Settlement:
    return Settlement(delivery=delivery, action=Action.RELEASE, delay=delay, charged=charged)


def retry(delivery: Delivery, *, due: int = 0) -> Settlement:
    again = Envelope(id=delivery.id, task="shop.tell", queue=delivery.queue, body=b"again", due=due)
    return Settlement(delivery=delivery, action=Action.RETRY, envelope=again)


def bury(delivery: Delivery, reason: str = "failed") -> Settlement:
    letter = DeadLetter(
        id=delivery.id, queue=delivery.queue, task="shop.tell", body=delivery.body, reason=reason, died=1
    )
    return Settlement(delivery=delivery, action=Action.REJECT, letter=letter)


def job_ids(deliveries: Sequence[Delivery]) -> set[str]:
    return {one.id for one in deliveries}


def token_of(delivery: Delivery) -> str:
    return str(delivery.receipt.token)


def happened(server: ServiceBusServer, queue: str, kind: str) -> int:
    """How often this was done to a message of the queue, as the service saw it."""
    return len(server.events(kind, entity=queue))


def taken(server: ServiceBusServer, queue: str) -> dict[str, int]:
    """How often each message was locked, by its id."""
    found: dict[str, int] = {}
    for event in server.events("locked", entity=queue):
        found[event["message_id"]] = found.get(event["message_id"], 0) + 1
    return found


def held_by_nobody(server: ServiceBusServer, queue: str) -> bool:
    """Whether every lock that was ever taken has come to an end."""
    held: set[int] = set()
    for event in server.events(entity=queue):
        if event["event"] == "locked":
            held.add(event["sequence"])
        elif event["event"] in ("completed", "abandoned", "released", "deferred", "dead_lettered", "lapsed"):
            held.discard(event["sequence"])
    return not held


async def within(true: Callable[[], Any], what: str) -> None:
    """Wait until it is so, for a minute at most."""
    deadline = time.monotonic() + LIMIT
    while not await asyncio.to_thread(true):
        assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}"
        await asyncio.sleep(0.02)
