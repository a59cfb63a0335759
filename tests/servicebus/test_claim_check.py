"""Bodies larger than the service takes are kept in another store: a real SQLite file, and a store of one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, CamoraError, MessageTooLarge
from camora.message import Delivery
from camora.outcome import Action, Settlement
from camora.plugins import load
from camora_servicebus import ServiceBusBroker, ServiceBusSettings
from camora_servicebus.claims import ClaimingConsumer

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import ack, bury, consuming, release, settle, take
from tests.servicebus.sending import envelope, opened, until

LARGE = b"x" * 300_000
"""More than a message of the Standard tier has."""


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer, request: pytest.FixtureRequest) -> str:
    return shared.create_queue(f"q{abs(hash(request.node.name))}")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'claims.db'}"


@contextlib.asynccontextmanager
async def looking_into(store: str) -> AsyncIterator[Any]:
    """The store itself."""
    found = load(strict=False).for_url("camora_result_backends", store).make(store)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


def claim_of(body: bytes) -> str:
    """Under which name a claim's body is kept."""
    assert len(body) < 100
    assert body.startswith(b"\xc1camora-claim:")
    return body.decode(errors="replace").rpartition(":")[2]


async def raw(server: ServiceBusServer, queue: str) -> bytes:
    """The body of the one message in a queue, as the service has it; it is given back."""
    [body] = await bodies(server, queue, 1)
    return body


async def bodies(server: ServiceBusServer, queue: str, count: int) -> list[bytes]:
    """Of so many messages."""
    async with consuming(server, queue) as (_, claiming):
        assert isinstance(claiming, ClaimingConsumer)
        consumer = claiming._inner
        found = await take(consumer, count)
        await settle(consumer, *map(release, found))
    return [one.body for one in found]


def next_try(delivery: Delivery, body: bytes) -> Settlement:
    """It is to be tried again, as a message with this body."""
    return Settlement(delivery=delivery, action=Action.RETRY, envelope=envelope(delivery.queue, body=body))


async def there(store: str, name: str) -> bool:
    async with looking_into(store) as results:
        return list(await results.fetch([name])) != [None]


async def test_without_a_store_a_large_body_is_refused_with_its_size_and_the_limit(
    shared: ServiceBusServer, queue: str
) -> None:
    async with opened(shared) as broker:
        with pytest.raises(MessageTooLarge) as caught:
            await broker.publish([envelope(queue, body=LARGE)])
    assert caught.value.size >= len(LARGE)
    assert caught.value.limit <= 256 * 1024
    assert shared.counts(queue)["active"] == 0


async def test_a_worker_without_the_store_buries_a_claim_and_says_what_it_needs(
    shared: ServiceBusServer, queue: str, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(shared, claim_check=store) as broker:
        await broker.publish([envelope(queue, body=LARGE), envelope(queue, 1, body=b"small")])
        async with consuming(shared, queue) as (poor, consumer):
            [small] = await take(consumer)
            assert small.body == b"small"
            assert await settle(consumer, ack(small)) == [True]
            assert "claim_check=" in caplog.text
            [letter] = await poor.dead_letters.list(queue=queue)
            assert letter.error is not None and "set claim_check= for it" in letter.error.text
        assert await broker.dead_letters.requeue(letter.id)
        async with consuming(shared, queue, claim_check=store) as (_, consumer):
            [large] = await take(consumer)
            assert large.body == LARGE
            assert await settle(consumer, ack(large)) == [True]


async def test_a_large_body_travels_by_a_claim_and_is_deleted_with_its_job(
    shared: ServiceBusServer, queue: str, store: str
) -> None:
    async with consuming(shared, queue, claim_check=store) as (broker, consumer):
        await broker.publish([envelope(queue, body=LARGE)])
        name = claim_of(await raw(shared, queue))
        [found] = await take(consumer)
        assert found.body == LARGE
        assert await there(store, name)
        assert await settle(consumer, ack(found)) == [True]
        assert not await there(store, name)
    assert shared.counts(queue)["active"] == 0


async def test_small_bodies_stay_in_their_messages(shared: ServiceBusServer, queue: str, store: str) -> None:
    async with consuming(shared, queue, claim_check=store) as (broker, consumer):
        await broker.publish([envelope(queue, body=b"small"), envelope(queue, 1, body=LARGE)])
        assert min(await bodies(shared, queue, 2), key=len) == b"small"
        got = await take(consumer, 2)
        assert sorted((one.body for one in got), key=len) == [b"small", LARGE]
        assert await settle(consumer, *map(ack, got)) == [True, True]


async def test_the_next_try_has_a_claim_of_its_own_and_the_one_before_goes(
    shared: ServiceBusServer, queue: str, store: str
) -> None:
    async with consuming(shared, queue, claim_check=store) as (broker, consumer):
        await broker.publish([envelope(queue, body=LARGE)])
        first = claim_of(await raw(shared, queue))
        [found] = await take(consumer)
        assert await settle(consumer, next_try(found, LARGE + b"2")) == [True]
        second = claim_of(await raw(shared, queue))
        assert second != first
        assert not await there(store, first)
        [again] = await take(consumer)
        assert again.body == LARGE + b"2"
        await settle(consumer, ack(again))
        assert not await there(store, second)


async def test_what_is_given_back_keeps_its_body(shared: ServiceBusServer, queue: str, store: str) -> None:
    async with consuming(shared, queue, claim_check=store) as (broker, consumer):
        await broker.publish([envelope(queue, body=LARGE)])
        for _ in range(2):
            [found] = await take(consumer)
            assert found.body == LARGE
            await settle(consumer, release(found))
        [found] = await take(consumer)
        later = Settlement(delivery=found, action=Action.RELEASE, charged=False, delay=0.1)  # goes by a copy
        await settle(consumer, later)
        [found] = await take(consumer)
        assert found.body == LARGE
        await settle(consumer, ack(found))


async def test_a_dead_letter_keeps_its_body_and_has_it_when_it_is_requeued(
    shared: ServiceBusServer, queue: str, store: str
) -> None:
    async with consuming(shared, queue, claim_check=store) as (broker, consumer):
        await broker.publish([envelope(queue, body=LARGE)])
        [found] = await take(consumer)
        await settle(consumer, bury(found))
        assert shared.counts(queue)["dead"] == 1
        assert await broker.dead_letters.requeue(found.id)
        [again] = await take(consumer)
        assert again.body == LARGE
        assert await settle(consumer, ack(again)) == [True]


async def test_a_body_that_is_lost_makes_a_dead_letter_that_says_so(
    shared: ServiceBusServer, queue: str, store: str
) -> None:
    async with consuming(shared, queue, claim_check=store) as (broker, consumer):
        await broker.publish([envelope(queue, body=LARGE), envelope(queue, 1, body=b"small")])
        async with looking_into(store) as results:
            name = next(claim_of(body) for body in await bodies(shared, queue, 2) if body != b"small")
            assert await results.forget([name]) == 1
        [found] = await take(consumer)
        assert found.body == b"small", "the other one is not held up"
        await settle(consumer, ack(found))
        while not shared.counts(queue)["dead"]:
            assert not await consumer.receive(1, 0.2)
    [dead] = [one for one in shared.messages(f"{queue}/$deadletterqueue") if one["reason"]]
    assert "claim_check" in dead["description"]
    assert name in dead["description"]


class Away:
    """A store that is away while it is told so: the real one behind it."""

    private = False

    def __init__(self, real: Any) -> None:
        self.real = real
        self.away = False
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def twin(self) -> Any:
        return self

    async def open(self) -> None:
        await self.real.open()

    async def close(self) -> None:
        await self.real.close()

    def abandon(self) -> None:
        self.real.abandon()

    def _look(self) -> None:
        if self.away:
            raise BrokerUnavailable("the store is away")

    async def store(self, records: Sequence[Any]) -> None:
        self._look()
        await self.real.store(records)

    async def fetch(self, names: Sequence[str]) -> Any:
        self._look()
        self.asked.set()
        await self.answers.wait()
        return await self.real.fetch(names)

    async def forget(self, names: Sequence[str]) -> int:
        self._look()
        return int(await self.real.forget(names))


@pytest.mark.parametrize("then", ["received", "stopped"])
async def test_what_was_taken_by_a_call_that_is_cancelled_comes_with_the_next_one_or_goes_back(
    shared: ServiceBusServer, queue: str, store: str, then: str
) -> None:
    slow = Away(load(strict=False).for_url("camora_result_backends", store).make(store))
    async with consuming(shared, queue, claim_check=slow) as (broker, consumer):
        await broker.publish([envelope(queue, body=LARGE)])
        slow.answers.clear()
        receiving = asyncio.create_task(consumer.receive(1, 60))
        async with asyncio.timeout(60):
            await slow.asked.wait()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        slow.answers.set()
        if then == "stopped":
            await consumer.stop()
            async with consuming(shared, queue, claim_check=store) as (_, other):
                [found] = await take(other)
                assert await settle(other, ack(found)) == [True]
        else:
            [found] = await take(consumer)
            assert await settle(consumer, ack(found)) == [True]
        assert (found.body, found.deliveries) == (LARGE, 1)


async def test_a_store_that_is_away_loses_nothing(
    shared: ServiceBusServer, queue: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camora_servicebus.claims._PAUSE", 0.2)
    away = Away(load(strict=False).for_url("camora_result_backends", store).make(store))
    async with consuming(shared, queue, claim_check=away) as (broker, consumer):
        assert isinstance(consumer, ClaimingConsumer)
        away.away = True
        with pytest.raises(BrokerUnavailable):
            await broker.publish([envelope(queue, body=LARGE)])
        assert shared.counts(queue)["active"] == 0, "no claim without its body"
        away.away = False
        await broker.publish([envelope(queue, body=LARGE)])
        away.away = True
        assert not await consumer.receive(1, 2.0)
        await until(lambda: shared.counts(queue)["scheduled"] + shared.counts(queue)["active"] == 1, "it is there")
        away.away = False
        [found] = await take(consumer)
        assert found.body == LARGE
        assert found.deliveries == 1, "that was nobody's fault"
        # While it is away, what was done counts all the same, and the body stays for its time.
        away.away = True
        assert await settle(consumer, ack(found)) == [True]
    assert shared.counts(queue)["active"] == 0


async def test_an_app_runs_a_job_with_a_large_argument(shared: ServiceBusServer, queue: str, store: str) -> None:
    settings = ServiceBusSettings(connection_string=shared.connection_string, claim_check=store, timeout=5.0)
    app = Camora(ServiceBusBroker(None, settings), results=False)
    ran = asyncio.Event()
    sizes: list[int] = []

    @app.task(queue=queue)
    async def weigh(text: str) -> None:
        sizes.append(len(text))
        ran.set()

    try:
        await weigh.dispatch("y" * 400_000)
        async with app.worker():
            await asyncio.wait_for(ran.wait(), 60)
    finally:
        await app.close()
    assert sizes == [400_000]
    assert shared.counts(queue)["active"] == 0


@pytest.mark.parametrize(("url", "text"), [("memory://", "this process alone"), ("nowhere://x", "nowhere")])
def test_a_store_that_workers_cannot_reach_is_refused(url: str, text: str) -> None:
    settings = ServiceBusSettings(
        connection_string="Endpoint=sb://shop.servicebus.windows.net;SharedAccessKeyName=a;SharedAccessKey=b",
        claim_check=url,
    )
    with pytest.raises(CamoraError, match=text):
        ServiceBusBroker(None, settings)
