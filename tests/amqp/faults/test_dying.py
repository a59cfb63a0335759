"""Workers that are killed at each step of a settlement: what follows is stored before what it follows is gone."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_amqp import AmqpBroker

from tests.amqp.faults.dying import DEEDS, Deed
from tests.servers.rabbitmq import fresh_url


async def drained(consumer: Consumer) -> list[tuple[str, str, bytes]]:
    """All that comes: queue, id, body."""
    found = []
    while taken := await consumer.receive(10, 0.3):
        found += [(one.queue, one.id, bytes(one.body)) for one in taken]
        assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken]))
    return found


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_worker_killed_at_any_step_of_a_settlement_leaves_one_side_or_both(deed: str) -> None:
    url = fresh_url()
    broker = AmqpBroker(url)
    await broker.open()
    outcomes = set()
    with Deed(deed, url) as doing:
        for step in itertools.count(1):
            name = f"{deed}-{step:02}"
            await broker.publish([Envelope(id=name, task="t", queue="q", body=b"first")])
            died = await doing.until(step)
            # One for each step: with its connection all that it held is given back.
            consumer = await broker.consumer(ConsumerSettings(queues=("q", "next"), worker="heir", lease=60))
            found: list[tuple[str, str, bytes]] = []
            letters: list[str] = []
            async with asyncio.timeout(60):
                while not (found or letters):  # the server may hear of the death later
                    found += [one for one in await drained(consumer) if one[1].startswith(name)]
                    letters = [letter.id for letter in await broker.dead_letters.list()]
            await consumer.close()
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
    await broker.close()
    print(f"killed at {step - 1} steps: {sorted(outcomes)}")
    assert step > 4
    assert outcomes >= {(True, False), (False, True)}
