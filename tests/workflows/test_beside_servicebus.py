"""Workflows over Azure Service Bus: those that travel by themselves, and those that a store beside it keeps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus.aio import ServiceBusClient
from camora import Camora, Status
from camora.errors import UnsupportedCapability
from camora_workflows import chain, durable_sleep, group, step, wait_for_signal

from tests.servers.servicebus.shared import shared, url_of
from tests.workflows.test_beside_rabbitmq import app_of, everything, told_one

HOUR = 3600.0


def queue_of(name: str, **options: Any) -> tuple[str, str]:
    """The URL of one empty queue, and the name of its entity."""
    entity = shared().create_queue(f"{name}.default", lock_duration=5.0, **options)
    return url_of(shared(), prefix=f"{name}."), entity


async def within(what: Any) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.02)


async def due_in(entity: str, sequence: int) -> float:
    """Seconds until the service hands a scheduled message out, as its own client sees it."""
    async with (
        ServiceBusClient.from_connection_string(shared().connection_string) as client,
        client.get_queue_receiver(entity) as receiver,
    ):
        [message] = await receiver.peek_messages(1, sequence_number=sequence)
    assert message.scheduled_enqueue_time_utc is not None
    return message.scheduled_enqueue_time_utc.timestamp() - time.time()


async def test_without_a_store_a_chain_travels() -> None:
    url, _ = queue_of("travels")
    app, add, _total, bad, alert = app_of(url)
    async with app, app.worker():
        job = await chain(add.s(1, 2), bad.s(), add.s(4), on_failure=alert.s()).dispatch()
        assert (await told_one()).job_id == f"{job.id}.1"
        with pytest.raises(UnsupportedCapability, match="redis://"):
            await group(add.s(1, 2), add.s(3, 4)).dispatch()


@pytest.mark.parametrize("detecting", [False, True], ids=["plain", "detecting duplicates"])
async def test_with_a_store_beside_it_everything_works(tmp_path: Path, detecting: bool) -> None:
    """What is run again is no duplicate of what has failed."""
    url, entity = queue_of(f"beside-{detecting}", requires_duplicate_detection=detecting)
    await everything(*app_of(url, f"sqlite:///{tmp_path}/results.db"))
    assert shared().events("duplicate", entity=entity) == []


async def test_a_delay_of_a_link_counts_from_the_end_of_the_one_before(tmp_path: Path) -> None:
    url, entity = queue_of("delays")
    app, add, *_ = app_of(url, f"sqlite:///{tmp_path}/results.db")
    async with app, app.worker():
        job = await chain(add.s(1, 2), add.s(3).options(delay=0.5), add.s(4)).dispatch()
        assert await job.result(timeout=60) == 10
        first, second, _ = [member async for member in job.members()]
        assert first.finished is not None
        assert second.started is not None
        assert (second.started - first.finished).total_seconds() >= 0.5
    [scheduled] = shared().events("scheduled", entity=entity)
    assert scheduled["message_id"] == f"{job.id}.1"


@pytest.mark.parametrize("detecting", [False, True], ids=["plain", "detecting duplicates"])
async def test_jobs_in_steps_sleep_for_hours_and_look_for_signals(tmp_path: Path, detecting: bool) -> None:
    """The service keeps the job until then; for a signal it cannot be woken, so it looks by itself."""
    url, entity = queue_of(f"steps-{detecting}", requires_duplicate_detection=detecting)
    app = Camora(url, results=f"sqlite:///{tmp_path}/results.db")
    done: list[str] = []

    @app.task
    async def order() -> str:
        await step("charge", done.append, "charged")
        await durable_sleep(seconds=0.1)
        found = await wait_for_signal("approved", timeout=2 * HOUR, type=str)
        await step("ship", done.append, "shipped")
        return found

    @app.task
    async def patient() -> None:
        done.append("begun")
        await durable_sleep(hours=6)
        done.append("woken")

    def waits() -> list[dict[str, Any]]:
        return [one for one in shared().messages(entity) if one["message_id"].startswith(long.id)]

    async with app, app.worker(concurrency=2):
        job, long = await order.dispatch(), await patient.dispatch()
        await within(lambda: done.count("charged") == 1)
        assert not await app.signal(job.id, "approved", "yes"), "it cannot be made due at once"
        assert await job.result(60) == "yes"
        await within(lambda: [one["message_id"] for one in waits()] == [f"{long.id}:1"])
        [one] = waits()
        assert one["state"] == "scheduled"
        assert 5 * HOUR < await due_in(entity, one["sequence"]) < 7 * HOUR
        assert await long.status() is Status.SCHEDULED
    assert sorted(done) == ["begun", "charged", "shipped"]
