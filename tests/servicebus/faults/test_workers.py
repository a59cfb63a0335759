"""Workers that are killed at any step, that leave in order or at once, over a service that falters in its own ways."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import psutil
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from camora.outcome import DeadLetter
from camora.testing.ledger import read
from processes import WorkerProcess

from tests.servicebus.faults.rig import LEASE, Rig, begun, eventually, next_finish


def children(supervisor: WorkerProcess) -> list[psutil.Process]:
    return [child for child in psutil.Process(supervisor.process.pid).children() if child.is_running()]


@pytest.mark.parametrize("step", ["received", "running", "ran", "before settle", "after settle"])
async def test_a_worker_killed_at_any_step_loses_nothing(rig: Rig, step: str) -> None:
    async with rig.app() as app:
        await rig.load(app, 16)
    first = rig.worker(SHOP_CRASH=step)
    assert await asyncio.to_thread(first.end) == -signal.SIGKILL
    rig.workers.remove(first)
    rig.faults += 1
    assert (rig.folder / f"crashed-{step}").exists()
    rig.worker().ready()
    # Those that had run and were not settled run again: at most what one worker holds.
    found = await rig.balance(duplicates=10)
    assert found.longest_recovery < 1.5 * LEASE + 15
    rig.alive()


async def test_workers_killed_under_load(rig: Rig) -> None:
    supervisor = rig.worker("--processes", "2", "--concurrency", "10").ready(2)
    async with rig.app() as app:
        for _ in range(2):
            await rig.load(app, 60)
            await eventually(lambda: len(children(supervisor)) == 2, "two child processes")
            children(supervisor)[0].kill()
            rig.faults += 1
            await asyncio.to_thread(supervisor.wait_for, "was killed by SIGKILL")
    await rig.balance(duplicates=2 * 20)
    rig.alive()


async def test_rolling_restarts_in_order_run_nothing_twice(rig: Rig) -> None:
    async with rig.app() as app:
        workers = [rig.worker().ready()]
        for _ in range(3):
            await rig.load(app, 40)
            workers.append(rig.worker().ready())
            leaving = workers.pop(0)
            leaving.signal(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.end) == 0
            rig.workers.remove(leaving)
            rig.faults += 1
    found = await rig.balance(duplicates=0)
    assert not found.beside_itself
    assert rig.server.events("lapsed", entity=rig.entity) == [], "a lock was left to nobody"


async def test_a_second_signal_gives_everything_back_at_once(rig: Rig) -> None:
    """What runs and what was sent ahead: another worker has it long before its lock would have lapsed."""
    rig.server.update_queue(rig.entity, lock_duration=300.0)
    leaving = rig.worker("--concurrency", "3", CAMORA_WORKER__LEASE="300").ready()
    async with rig.app() as app:
        for name in "abc":
            await app.dispatch("hold", name=name)
            await begun(rig, name)
        for _ in range(10):
            await rig.dispatch(app, "work", number=1)
        rig.worker("--concurrency", "6", CAMORA_WORKER__LEASE="300").ready()
        leaving.signal(signal.SIGINT)
        await asyncio.to_thread(leaving.wait_for, "stopping")
        leaving.signal(signal.SIGINT)
        assert await asyncio.to_thread(leaving.end) == 0
        rig.workers.remove(leaving)
        for name in "abc":
            await begun(rig, name, 2)
            (rig.folder / f"release-{name}").touch()
    await rig.balance(duplicates=0)
    rig.alive()


# The service's own ways


async def test_answers_to_ends_that_are_lost_again_and_again_run_nothing_twice(rig: Rig) -> None:
    """The service has heard them: only it could not say so."""
    rig.server.update_queue(rig.entity, lock_duration=60.0)
    rig.worker(CAMORA_WORKER__LEASE="60").ready()
    async with rig.app() as app:
        for how in ("cut", "silent") * 2:
            rig.server.fault("settle_answer_lost", rig.entity, times=1, how=how)
            rig.faults += 1
            await rig.load(app, 16)
    await rig.balance(duplicates=0)
    rig.alive()


async def test_ends_that_are_lost_on_their_way_are_told_again(rig: Rig) -> None:
    rig.server.update_queue(rig.entity, lock_duration=60.0)
    rig.worker(CAMORA_WORKER__LEASE="60").ready()
    async with rig.app() as app:
        for how in ("cut", "silent") * 2:
            rig.server.fault("settle_lost", rig.entity, times=1, how=how)
            rig.faults += 1
            await rig.load(app, 16)
    await rig.balance(duplicates=0)
    rig.alive()


async def test_a_service_that_detaches_cuts_throttles_and_forgets_locks_under_load(rig: Rig) -> None:
    rig.worker().ready()
    rig.worker().ready()
    async with rig.app() as app:
        for turn in range(9):
            loading = asyncio.create_task(rig.load(app, 20))
            match turn % 4:
                case 0:
                    rig.server.detach(rig.entity)
                case 1:
                    rig.server.cut()
                case 2:
                    rig.server.fault("throttled", rig.entity, seconds=0.5)
                case _:
                    rig.server.expire_locks(rig.entity)
            rig.faults += 1
            await loading
    await rig.balance(duplicates=9 * 10)
    rig.alive()


async def test_an_outage_and_a_mute_service_are_over_when_they_are_over(rig: Rig) -> None:
    worker = rig.worker().ready()
    async with rig.app(patience=60.0) as app:
        for harm in (rig.server.outage, rig.server.mute):
            await rig.load(app, 20)
            harm()
            rig.faults += 1
            late = asyncio.create_task(rig.load(app, 10))
            await rig.noticed(worker)
            rig.server.clear()
            await next_finish(rig)
            await late
            await rig.recovered(worker)
    await rig.balance(duplicates=2 * 10)
    rig.alive()
    assert "Traceback" not in worker.text()


# Messages that nobody can read, that nobody knows, that kill


async def put(rig: Rig, messages: list[ServiceBusMessage]) -> None:
    async with (
        ServiceBusClient.from_connection_string(rig.server.connection_string) as client,
        client.get_queue_sender(rig.entity) as sender,
    ):
        for message in messages:
            await sender.send_messages(message)


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
    junk = [b"", b"\xff\xfe\x00junk", b'{"id": 1', b'{"v": 99}', b"x" * 200_000]
    async with rig.app() as app:
        await put(rig, [ServiceBusMessage(body, message_id=f"junk-{number}") for number, body in enumerate(junk)])
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
    strange = [
        ServiceBusMessage(b"no properties"),
        ServiceBusMessage(b"all properties", subject="t", correlation_id="c", reply_to="nobody", content_type="x/y"),
        ServiceBusMessage(b"odd", application_properties={"camora-deliveries": "many", "camora-copy": -3}),
        ServiceBusMessage(b"negative", application_properties={"camora-deliveries": -7}, message_id=" odd \u20ac"),
    ]
    async with rig.app() as app:
        await put(rig, strange)
        await rig.load(app, 8)
        letters = await letters_of(app, len(strange))
        assert {letter.body for letter in letters.values()} == {
            b"no properties",
            b"all properties",
            b"odd",
            b"negative",
        }
        assert {letter.reason for letter in letters.values()} == {"undecodable"}
        # Put back they are no better, and still there.
        first = next(iter(letters))
        assert await app.broker.dead_letters.requeue(first)
        assert first in await letters_of(app, len(strange))
    await rig.balance(duplicates=0)
    rig.alive()


async def test_poison_is_buried_by_the_last_that_takes_it(rig: Rig) -> None:
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


async def test_a_task_that_no_worker_knows_waits_for_one_that_does(rig: Rig) -> None:
    old = rig.worker(CAMORA_WORKER__UNKNOWN_TASK_LIMIT="60").ready()
    async with rig.app() as app:
        await app.dispatch("of_tomorrow")
        await asyncio.to_thread(old.wait_for, "of_tomorrow")
        await rig.load(app, 20)
        await eventually(lambda: rig.finished() >= 20, "the work of others")
        await eventually(lambda: rig.left() == 1, "that it alone is left")
        assert not [letter async for letter in app.dead_letters()]


async def test_an_id_that_is_dispatched_again_runs_once_where_the_queue_detects_duplicates(rig: Rig) -> None:
    rig.server.delete_queue(rig.entity)
    rig.server.create_queue(rig.entity, lock_duration=LEASE, requires_duplicate_detection=True)
    rig.worker().ready()
    async with rig.app() as app:
        for number in range(20):
            job = rig.noted(await app.options(job_id=f"id-{number}").dispatch("work", number=number))
            again = await app.options(job_id=f"id-{number}").dispatch("work", number=number)
            assert again.id == job.id
            assert await job.result(60) == number
        for number in range(8):  # attempts of one job are no repetitions
            rig.noted(await app.options(job_id=f"again-{number}").dispatch("flaky", number=number))
    await rig.balance(duplicates=0)
    rig.alive()
