"""Workers get in as dispatchers do: over TLS and WebSockets, with tokens that run out while they receive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from camora.interfaces.broker import ConsumerSettings
from camora_servicebus import ServiceBusBroker, ServiceBusSettings

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import ack, happened, held_by_nobody, publish, sent, settle, take, within
from tests.servicebus.sending import LIMIT, new_name
from tests.servicebus.test_auth import Credential, far, url_of


@pytest.fixture(scope="module")
def secure() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(tls=True, strict=True) as server:
        yield server


@pytest.mark.parametrize("transport", ["amqp", "websocket"])
async def test_receiving_settling_and_renewing_over_tls(secure: ServiceBusServer, transport: str) -> None:
    queue = secure.create_queue(new_name(), lock_duration=5.0)
    broker = ServiceBusBroker(far(secure, f"{secure.key_name}:{secure.key}@", transport=transport))
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=60.0))
    try:
        await publish(broker, queue, range(30))
        got = await take(consumer, 30)
        await within(lambda: happened(secure, queue, "renewed") >= 30, "renewals")
        # An answer does not wait until a read is over.
        for one in got:
            assert await settle(consumer, ack(one)) == [True]
        await consumer.stop()
    finally:
        await consumer.close()
        await broker.close()
    assert secure.counts(queue)["active"] == 0
    assert happened(secure, queue, "lapsed") == 0


async def test_tokens_that_run_out_are_renewed_while_a_worker_receives() -> None:
    credential = Credential(seconds=5)
    with ServiceBusServer(strict=True) as server:
        queue = server.create_queue(new_name(), lock_duration=30.0)
        broker = ServiceBusBroker(url_of(server), ServiceBusSettings(credential=credential))
        await broker.open()
        consumer = await broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=60.0))
        deadline, number = time.monotonic() + LIMIT, 0
        try:
            await sent(server, queue, [0])
            [kept] = await take(consumer)
            asked = len(credential.asked)
            while len(credential.asked) < asked + 3:
                assert time.monotonic() < deadline
                number += 1
                await sent(server, queue, [number])
                [one] = await take(consumer)
                assert await settle(consumer, ack(one)) == [True]
                await asyncio.sleep(0.3)
            assert await settle(consumer, ack(kept)) == [True]
        finally:
            await consumer.close()
            await broker.close()
        assert credential.loops == {asyncio.get_running_loop()}, "it is asked where it lives"
        assert held_by_nobody(server, queue)
        assert happened(server, queue, "locked") == number + 1
