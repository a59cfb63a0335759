"""What the emulator says of the service, and what Camora builds on: asked of a real namespace, too, where one is given.

Without `CAMORA_TEST_SERVICEBUS_URL` (a `servicebus://` URL with a key that may manage) only the emulator is asked.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageState, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import MessageLockLostError, MessageNotFoundError
from camora import Camora, CancelResult, Context, Retry, RetryPolicy, WorkerSettings
from camora_servicebus import Defer, internals
from camora_servicebus.client import Connector
from camora_servicebus.store import Store

from tests.servers.process import ServerFailed
from tests.servers.servicebus import ServiceBusServer, real
from tests.servers.servicebus.shared import fresh_url


@pytest.fixture(params=["emulator", "real"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "emulator":
        monkeypatch.delenv(real.GIVEN, raising=False)
    elif not real.given():
        pytest.skip(f"no namespace was given: set {real.GIVEN}")
    return fresh_url(["default"], lock_duration=5.0)


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[tuple[ServiceBusClient, str]]:
    """The bare client, and the entity of the queue `default`."""
    store = Store.of_url(url)
    connector = Connector(store)
    try:
        yield connector.client(), store.names.queue("default")
    finally:
        await connector.close()


async def send(client: ServiceBusClient, queue: str, *bodies: bytes) -> None:
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages([ServiceBusMessage(body, message_id=body.decode()) for body in bodies])


async def take(receiver: Any, count: int = 1) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await receiver.receive_messages(count - len(found), max_wait_time=10)
    return found


async def test_looking_takes_nothing(url: str) -> None:
    async with client_of(url) as (client, queue):
        await send(client, queue, b"a", b"b")
        async with client.get_queue_receiver(queue) as looking:
            assert [message.message_id for message in await looking.peek_messages(10, sequence_number=1)] == ["a", "b"]
            async with client.get_queue_receiver(queue) as receiver:
                began = time.monotonic()
                for message in await take(receiver, 2):
                    assert message.delivery_count == 0
                    await receiver.complete_message(message)
                assert time.monotonic() - began < 30


async def test_a_release_counts_no_delivery_and_abandoning_does(url: str) -> None:
    async with client_of(url) as (client, queue):
        await send(client, queue, b"a")
        async with client.get_queue_receiver(queue) as receiver:
            [message] = await take(receiver)
            await internals.release(receiver, message)
            [message] = await take(receiver)
            assert message.delivery_count == 0
            await receiver.abandon_message(message)
            [message] = await take(receiver)
            assert message.delivery_count == 1
            await receiver.complete_message(message)


async def test_a_message_is_settled_by_its_lock_token_over_another_connection(url: str) -> None:
    async with client_of(url) as (client, queue):
        await send(client, queue, b"a")
        async with client.get_queue_receiver(queue) as first:
            [message] = await take(first)
        async with client.get_queue_receiver(queue) as second:
            await second.peek_messages(1)
            await second.complete_message(internals.by_token(message))
            assert not await second.peek_messages(1, sequence_number=1)
            with pytest.raises(MessageLockLostError):
                message._settled = False
                await second.complete_message(message)


async def test_what_is_scheduled_is_seen_and_called_off_once(url: str) -> None:
    async with client_of(url) as (client, queue), client.get_queue_sender(queue) as sender:
        later = datetime.now(UTC) + timedelta(hours=1)
        [number] = await sender.schedule_messages(ServiceBusMessage(b"late", message_id="late"), later)
        async with client.get_queue_receiver(queue) as looking:
            [message] = await looking.peek_messages(10, sequence_number=1)
            assert (message.state, message.sequence_number) == (ServiceBusMessageState.SCHEDULED, number)
            await sender.cancel_scheduled_messages(number)
            with pytest.raises(MessageNotFoundError):
                await sender.cancel_scheduled_messages(number)
            assert not await looking.peek_messages(10, sequence_number=1)


async def test_a_letter_keeps_its_reason_and_comes_back_to_who_releases_it(url: str) -> None:
    async with client_of(url) as (client, queue):
        await send(client, queue, b"a")
        async with client.get_queue_receiver(queue) as receiver:
            [message] = await take(receiver)
            await receiver.dead_letter_message(message, reason="failed", error_description="x" * 4096)
        async with client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as letters:
            [letter] = await take(letters)
            assert (letter.dead_letter_reason, letter.dead_letter_error_description) == ("failed", "x" * 4096)
            await internals.release(letters, letter)
            [letter] = await take(letters)
            await letters.complete_message(letter)


async def test_a_day_of_a_worker(url: str) -> None:
    app: Any = Camora(url, results="memory://", retry_policy=RetryPolicy(max_tries=3, delay=1, jitter=False, on=()))
    open_doors: set[str] = set()
    shut = [True]

    @app.task
    async def visit(door: str, ctx: Context) -> str:
        if door not in open_doors:
            raise Defer
        if ctx.attempt == 1:
            raise Retry("nobody at home")
        return f"{door} at attempt {ctx.attempt}"

    @app.task
    async def knock() -> str:
        if shut[0]:
            raise ValueError("shut")
        return "come in"

    async with app:
        later = await visit.options(delay=3600).dispatch("later")
        assert await later.cancel() is CancelResult.REMOVED
        async with app.worker(settings=WorkerSettings(lease=10)):
            job = await visit.dispatch("red")
            async with asyncio.timeout(60):
                while not (deferred := await app.broker.deferred.list("default")):
                    await asyncio.sleep(0.1)
            open_doors.add("red")
            assert await app.broker.deferred.resume("default", deferred[0].sequence_number)
            assert await job.result(60) == "red at attempt 2"
            failing = await knock.dispatch()
            async with asyncio.timeout(60):
                while await app.dead_letter(failing.id) is None:
                    await asyncio.sleep(0.1)
            shut[0] = False
            assert await app.requeue(failing.id)
            assert await failing.result(60) == "come in"
        assert not await app.broker.queues.counts()


def test_a_given_namespace_is_used_and_left_as_it_was() -> None:
    with ServiceBusServer() as server:
        port = f"127.0.0.1:{server.port}"
        url = f"servicebus://{server.key_name}:{server.key}@{port}?emulator=true&management={port}"
        root = Path(__file__).parents[2]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "looking and real"],
            env={**os.environ, real.GIVEN: url}, cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        [queue] = {event["entity"] for event in server.events("stored")}
        assert queue.endswith(".default")
        with pytest.raises(ServerFailed, match="refuses counts"):
            server.counts(queue)
