"""Workers that are killed at each step of a settlement: what follows is stored before what it follows is gone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_servicebus import ServiceBusBroker

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.shared import url_of
from tests.servicebus.faults.dying import DEEDS, Deed


@pytest.fixture
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(lock_seconds=60.0) as server:
        for queue in ("default", "q", "next"):
            server.create_queue(queue)
        yield server


async def drained(consumer: Consumer, count: int) -> list[tuple[str, str, bytes]]:
    """So many messages: queue, id, body."""
    found: list[tuple[str, str, bytes]] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            taken = await consumer.receive(10, 5.0)
            found += [(one.queue, one.id, bytes(one.body)) for one in taken]
            assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken]))
    return found


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_worker_killed_at_any_step_of_a_settlement_leaves_one_side_or_both(
    server: ServiceBusServer, deed: str
) -> None:
    url = url_of(server)
    broker = ServiceBusBroker(url)
    await broker.open()
    outcomes = set()
    heir = await broker.consumer(ConsumerSettings(queues=("q", "next"), worker="heir", lease=60))
    with Deed(deed, url) as doing:
        for step in itertools.count(1):
            name = f"{deed}-{step:02}"
            await broker.publish([Envelope(id=name, task="t", queue="q", body=b"first")])
            died = await doing.until(step)
            # The dead one's lock would last for a minute.
            server.expire_locks("q")
            counts = {queue: server.counts(queue) for queue in ("q", "next")}
            found = await drained(heir, sum(count["active"] for count in counts.values()))
            letters = [letter.id for letter in await broker.dead_letters.list()] if counts["q"]["dead"] else []
            if letters:
                await broker.dead_letters.purge()
            before = found.count(("q", name, b"first"))
            after = {
                "succeed": [("next", f"{name}-a", b"{}"), ("next", f"{name}-b", b"{}")],
                "retry": [("q", name, b"again")],
                "bury": [],
            }[deed]
            done = all(found.count(one) == 1 for one in after) and letters == ([name] if deed == "bury" else [])
            outcomes.add((bool(before), done))
            assert before <= 1
            assert before or done, f"step {step}: {found}, {letters}"
            assert len(found) - before <= len(after)
            if not died:
                assert (before, done) == (0, True)
                break
    await heir.close()
    await broker.close()
    assert (True, False) in outcomes
    assert (False, True) in outcomes
