"""Messages that nobody can read, that nobody knows, that kill, that come twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aio_pika
import pytest
from camora import RetryPolicy
from camora.errors import BrokerUnavailable
from camora.outcome import DeadLetter
from camora.testing.ledger import read

from tests.amqp.faults.rig import Rig, eventually


async def put(rig: Rig, messages: Sequence[tuple[bytes, Mapping[str, Any]]]) -> None:
    """Messages of somebody else's into the queue: bodies and properties."""
    connection = await aio_pika.connect(rig.server.url_of(rig.vhost))
    async with connection:
        channel = await connection.channel()
        for body, properties in messages:
            await channel.default_exchange.publish(aio_pika.Message(body, **properties), routing_key="default")


async def letters_of(app: Any, count: int) -> dict[str, DeadLetter]:
    """The dead letters, once there are so many."""
    found: dict[str, DeadLetter] = {}

    async def buried() -> bool:
        found.clear()
        found.update({letter.id: letter async for letter in app.dead_letters()})
        return len(found) == count

    await eventually(buried, f"{count} dead letters")
    return found


async def test_bytes_that_nobody_can_read_become_dead_letters_with_all_their_bytes(rig: Rig) -> None:
    worker = rig.worker().ready()
    junk = [b"", b"\xff\xfe\x00junk", b'{"id": 1', b'{"v": 99}', b"x" * 300_000]
    async with rig.app() as app:
        await put(rig, [(body, {"message_id": f"junk-{number}"}) for number, body in enumerate(junk)])
        await rig.load(app, 20)
        letters = await letters_of(app, len(junk))
        assert [letters[f"junk-{number}"].body for number in range(len(junk))] == junk
        assert {letter.reason for letter in letters.values()} == {"undecodable"}
    await rig.balance(duplicates=0)
    assert worker.text().count("junk-1") < 5
    rig.alive()


async def test_messages_of_strangers_are_kept_and_hinder_nobody(rig: Rig) -> None:
    """They have none of the properties of a job, or strange ones."""
    rig.worker().ready()
    strange: list[tuple[bytes, Mapping[str, Any]]] = [
        (b"no properties", {}),
        (b"all properties", {"app_id": "a", "correlation_id": "c", "type": "t", "reply_to": "nobody", "priority": 200}),
        (b"headers", {"headers": {"x-death": "no list", "camora-deliveries": "many", "nested": {"a": [1, None]}}}),
        (b"negative", {"headers": {"camora-deliveries": -7, "x-delivery-count": -1}}),
        (b"a letter", {"headers": {"camora-letter": "{"}, "message_id": "\x00 odd \u20ac"}),
    ]
    async with rig.app() as app:
        await put(rig, strange)
        await rig.load(app, 8)
        letters = await letters_of(app, len(strange))
        assert {letter.body for letter in letters.values()} == {body for body, _ in strange}
        assert {letter.reason for letter in letters.values()} == {"undecodable"}
        # Put back they are no better, and still there.
        first = next(iter(letters))
        assert await app.broker.dead_letters.requeue(first)
        assert first in await letters_of(app, len(strange))
    await rig.balance(duplicates=0)
    rig.alive()


async def test_a_task_that_no_worker_knows_waits_for_one_that_does(rig: Rig) -> None:
    old = rig.worker(CAMORA_WORKER__UNKNOWN_TASK_LIMIT="60").ready()
    async with rig.app() as app:
        await app.dispatch("of_tomorrow")
        await asyncio.to_thread(old.wait_for, "of_tomorrow")
        await rig.load(app, 20)
        await eventually(lambda: rig.finished() >= 20, "the work of others")
        await eventually(lambda: rig.left() == 1, "that it alone is left")
        assert not [letter async for letter in app.dead_letters()]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_poison_is_buried_by_the_last_that_takes_it(rig: Rig, queue_type: str) -> None:
    rig.queue_type = queue_type
    supervisor = rig.worker("--processes", "2", "--concurrency", "1", CAMORA_WORKER__MAX_DELIVERIES="3")
    supervisor.ready(2)
    async with rig.app() as app:
        poison = await rig.dispatch(app, "kill_worker")
        await rig.load(app, 40)
        # One at a time: jobs that die with it again and again would be taken for poison, too.
        found = await rig.balance(duplicates=3)
        [letter] = [letter async for letter in app.dead_letters()]
        assert (letter.id, letter.reason) == (poison.id, "poison")
    assert sum(entry.job_id == poison.id for entry in read(rig.folder / "ledger")) == 3
    assert found.interrupted >= 3
    rig.alive()


async def test_an_id_that_is_dispatched_again_is_never_lost_and_has_one_result(rig: Rig) -> None:
    """RabbitMQ does not know ids: it runs as often as it was dispatched."""
    rig.worker().ready()
    async with rig.app() as app:
        for number in range(20):
            job = rig.noted(await app.options(job_id=f"id-{number}").dispatch("work", number=number))
            again = await app.options(job_id=f"id-{number}").dispatch("work", number=number)
            assert again.id == job.id
            assert await job.result(60) == number
    await rig.balance(duplicates=20)


async def test_a_full_queue_refuses_in_words_and_takes_more_when_it_is_drained(rig: Rig) -> None:
    """An operator has limited it; what is to be tried again waits until there is room."""
    with rig.trying_again_after(2):
        async with rig.app(patience=1.0) as app:
            await rig.dispatch(app, "work", number=0)
            rig.limit("default", 8)
            with pytest.raises(BrokerUnavailable, match="full"):
                for number in range(100):
                    await rig.dispatch(app, "flaky", number=number)
            assert len(rig.dispatched) >= 8
        rig.worker().ready()
        async with rig.app() as app:
            await rig.load(app, 40)
        await rig.balance(duplicates=0)
    rig.alive()


async def test_a_queue_that_is_too_full_empties_though_every_job_wants_to_come_back_to_it(rig: Rig) -> None:
    """More retries wait for room than the worker has slots: what waits does not keep it from taking the others."""
    async with rig.app() as app:
        for number in range(60):
            await rig.dispatch(app, "flaky", how={"retry_policy": RetryPolicy(max_tries=3, delay=0)}, number=number)
    rig.limit("default", 8)
    rig.worker().ready()
    await rig.balance(duplicates=0)
    rig.alive()
