"""The network loses single answers; calls are cancelled; keepers of leases hear nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement

from tests.sql.faults.rig import LEASE, Rig, eventually

_SORTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "urgent": {"priority": 3},
    "delayed": {"delay": 0.5},
    "keyed": {"key": "k"},
}


async def test_a_dispatch_whose_answer_is_lost_makes_one_job(either_rig: Rig) -> None:
    rig = either_rig
    rig.worker().ready()
    async with rig.app(through=True) as app:
        await rig.dispatch(app, "work", number=0)
        for number, (sort, options) in enumerate(_SORTS.items()):
            # Bound, executed, answered: the name of the function is sent when it is prepared, or each time.
            await rig.dispatch(app, "work", how=options, number=number)
            lost = rig.proxy.drop_next_reply(f"lost-{sort}".encode())
            named = {**options, "key": "l"} if sort == "keyed" else options
            rig.noted(await app.options(job_id=f"lost-{sort}", **named).dispatch("work", number=number))
            assert lost.is_set()
            rig.faults += 1
        [(count,)] = rig.server.sql("SELECT count(*) FROM camora_results WHERE id LIKE 'lost-%'")
        assert count <= len(_SORTS)
    await rig.balance(duplicates=0)


async def test_a_batch_whose_answer_is_lost_is_there_once(rig: Rig) -> None:
    async with rig.app(through=True) as app:

        @app.task(name="work")
        async def work(number: int) -> None:
            """What the workers have under this name."""

        await rig.dispatch(app, "work", number=0)
        lost = rig.proxy.drop_next_reply(b"in-a-batch")
        for job in await app.dispatch_many(
            work.options(headers={"where": "in-a-batch"}).s(number=number) for number in range(700)
        ):
            rig.noted(job)
        assert lost.is_set()
        rig.faults += 1
        assert (await app.broker.queues.counts())["default"] == {"ready": 701}
    rig.worker("--concurrency", "50").ready()
    await rig.balance(duplicates=0)


@pytest.mark.parametrize("name", ["claim_1", "settle_1", "extend_1"])
async def test_a_workers_call_whose_answer_is_lost_is_made_good(rig: Rig, name: str) -> None:
    # The text of a statement is sent when a connection prepares it: for the first time, or after each cut.
    lost = rig.proxy.drop_next_reply(f"camora_{name}".encode())
    worker = rig.worker(through=True).ready()
    async with rig.app() as app:
        for round_ in itertools.count():
            await rig.load(app, 8)
            if name == "extend_1":  # only what lasts is extended
                rig.noted(await app.dispatch("work_for", seconds=LEASE))
            if lost.is_set() or round_ > 20:
                break
            await asyncio.sleep(0.1)
        assert lost.is_set()
        rig.faults = 1
    found = await rig.balance(duplicates=0)
    assert found.longest_recovery < 1.5 * LEASE + 15
    rig.alive()
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize("driver", ["", "psycopg"])
async def test_a_settlement_whose_answer_is_lost_is_known_to_have_happened(rig: Rig, driver: str) -> None:
    """What is named in the statement is in its values, too: this is the very trip that settles."""
    rig.driver = driver
    async with rig.app() as near, rig.app(through=True) as far:
        consumer = await far.broker.consumer(ConsumerSettings(queues=("q",), worker="deaf", lease=30))
        for number in range(3):
            body = b"{}"
            await near.broker.publish([Envelope(id=f"settled-{number}", task="t", queue="q", body=body)])
            [one] = await consumer.receive(1, 5.0)
            lost = rig.proxy.drop_next_reply(b"other-queue")
            again = Envelope(id=one.id, task="t", queue=f"other-queue-{number}", body=body)
            settlement = Settlement(delivery=one, action=Action.RETRY, envelope=again)
            await consumer.settle([settlement])
            assert lost.is_set()
            assert (await near.broker.queues.counts())[f"other-queue-{number}"] == {"ready": 1}
        assert not await consumer.receive(1, 0.0)
        await consumer.close()


async def test_connections_of_cancelled_calls_are_thrown_away(either_rig: Rig) -> None:
    """Somebody cancels every task that there is, in the middle of all sorts of calls."""
    rig = either_rig
    async with rig.app(through=True) as app:
        await rig.dispatch(app, "work", number=0)
        me = asyncio.current_task()
        rig.proxy.delay(0.01)
        for number in range(8):
            calls = [
                asyncio.ensure_future(app.options(job_id=f"many-{number}-{part}").dispatch("work", number=part))
                for part in range(3)
            ]
            looks = [asyncio.ensure_future(app.broker.queues.counts()) for _ in range(3)]
            await asyncio.sleep(0.006 * number)
            for task in asyncio.all_tasks() - {me}:
                task.cancel()
            await asyncio.wait([*calls, *looks])
            # Nothing of the answers that nobody waits for any more is taken for another one.
            found = await rig.dispatch(app, "work", how={"job_id": f"after-{number}"}, number=number)
            assert found.id == f"after-{number}"
            assert set(await app.broker.queues.counts()) == {"default"}
            await app.broker.queues.find(f"after-{number}")
        rig.proxy.heal()
        known = set(rig.dispatched)
        rig.dispatched += [job.id for job in await app.broker.queues.list("default", limit=1000) if job.id not in known]
    rig.worker("--concurrency", "20").ready()
    await rig.balance(duplicates=0)


async def test_the_keeper_of_leases_knows_in_time_that_nobody_answers(either_rig: Rig) -> None:
    """Also where the server may take longer for an answer than a lease lasts."""
    rig, lease = either_rig, 4 * LEASE  # so long that a busy machine's delays are short beside it
    url = rig.url(through=True, network_timeout=30, connect_timeout=30)
    async with Camora(url, results=False) as app:
        consumer = await app.broker.consumer(ConsumerSettings(queues=("kept",), worker="keeps", lease=lease))
        await app.broker.publish([Envelope(id="kept", task="t", queue="kept", body=b"{}")])
        held = await consumer.receive(1, 5.0)
        keeper = await asyncio.to_thread(consumer.leases)

        def extended() -> bool:
            try:
                keeper.extend(held)
            except BrokerUnavailable:
                return False
            return True

        try:
            assert await asyncio.to_thread(extended)
            rig.proxy.hold()
            for _ in range(2):  # on the connection that there is, and on a new one
                since = time.monotonic()
                with pytest.raises(BrokerUnavailable):
                    await asyncio.to_thread(keeper.extend, held)
                assert time.monotonic() - since < lease
            rig.proxy.heal()
            await eventually(lambda: asyncio.to_thread(extended), "an answer")
        finally:
            await asyncio.to_thread(keeper.close)
            await consumer.close()
