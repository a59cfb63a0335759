"""Workers that are killed at any step, that leave in order or at once, that are frozen."""

from __future__ import annotations

import asyncio
import signal

import psutil
import pytest
from camora.interfaces.broker import ConsumerSettings, LeaseVerdict
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement
from processes import WorkerProcess

from tests.amqp.faults.rig import LEASE, Rig, begun, eventually


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


async def test_a_second_signal_gives_everything_back_at_once(rig: Rig) -> None:
    """What runs and what was sent ahead: another worker has it long before its lease would have lapsed."""
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


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_late_owner_settles_nothing_that_another_one_has(rig: Rig, queue_type: str) -> None:
    """Whatever it wants of what was taken from it, it is refused, and the other one is not hindered."""
    rig.queue_type = queue_type
    async with rig.app() as app:
        consumers = [
            await app.broker.consumer(ConsumerSettings(queues=("q",), worker=name, lease=0.5))
            for name in ("old", "new")
        ]
        old, new = consumers
        await app.broker.publish([Envelope(id=name, task="t", queue="q", body=b"{}") for name in "abcd"])
        stale: list[Delivery] = []
        async with asyncio.timeout(30):
            while len(stale) < 4:
                stale += await old.receive(4 - len(stale), 5.0)
        taken: dict[str, Delivery] = {}
        async with asyncio.timeout(30):
            while len(taken) < 4:
                taken.update({one.id: one for one in await new.receive(4, 5.0)})
        keeper = await asyncio.to_thread(old.leases)
        assert await asyncio.to_thread(keeper.extend, stale) == [LeaseVerdict.LOST] * 4
        await asyncio.to_thread(keeper.close)
        again = Envelope(id=stale[1].id, task="t", queue="elsewhere", body=b"{}")
        follows = Envelope(id="follows", task="t", queue="elsewhere", body=b"{}")
        refused = await old.settle(
            [
                Settlement(delivery=stale[0], action=Action.ACK, successors=(follows,)),
                Settlement(delivery=stale[1], action=Action.RETRY, envelope=again),
                Settlement(delivery=stale[2], action=Action.RELEASE),
                Settlement(delivery=stale[3], action=Action.ACK),
            ]
        )
        assert list(refused) == [False] * 4
        keeper = await asyncio.to_thread(new.leases)
        await asyncio.to_thread(keeper.extend, list(taken.values()))
        settled = await new.settle([Settlement(delivery=one, action=Action.ACK) for one in taken.values()])
        await asyncio.to_thread(keeper.close)
        for answer, one in zip(settled, taken.values(), strict=True):
            if not answer:  # this machine was busy for longer than a lease: it comes again
                async with asyncio.timeout(30):
                    [one] = await new.receive(1, 20.0)
                assert list(await new.settle([Settlement(delivery=one, action=Action.ACK)])) == [True]
        await eventually(lambda: rig.idle(app.broker), "the end")
        for consumer in consumers:
            await consumer.close()


async def test_a_job_that_blocks_the_loop_for_longer_than_lease_and_heartbeat_runs_once(rig: Rig) -> None:
    """The others of the same worker, which are held meanwhile, too."""
    rig.worker("--concurrency", "5").ready()
    async with rig.app() as app:
        rig.noted(await app.dispatch("work_for", seconds=LEASE))
        await app.dispatch("block", name="a")
        await begun(rig, "a")
        rig.worker().ready()
        await asyncio.sleep(3 * LEASE)  # longer than two heartbeats and a lease: that is the fault
        assert len(list(rig.folder.glob("started-a-*"))) == 1
        (rig.folder / "release-a").touch()
    await rig.balance(duplicates=0)
    rig.alive()
