"""What a review found: a worker that ends badly, a broker that refuses a part of a step, a lane that is never quiet."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from camora import Camora, Status
from camora.builtin.memory.broker import MemoryBroker
from camora.builtin.memory.consumer import MemoryConsumer
from camora.builtin.pools.thread import ThreadPool
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.pool import Call, PoolSettings
from camora.settings import WorkerSettings
from camora_sql.claiming import Claimer

UNCLOSED = """
import asyncio, sys
from camora import Camora
app = Camora(sys.argv[1])
async def main():
    await app.make_worker().start()
    await asyncio.sleep(0.2)
    raise SystemExit(7)
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_program_ends_though_nobody_closed_its_worker(kind: str, tmp_path: Path) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/a.db"
    found = subprocess.run([sys.executable, "-c", UNCLOSED, url], timeout=60, capture_output=True, check=False)
    assert found.returncode == 7


async def test_a_failing_prune_does_not_lose_what_was_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(self: Claimer, session: object) -> bool:
        raise BrokerUnavailable("the disk is full")

    monkeypatch.setattr(Claimer, "prune", prune)
    monkeypatch.setattr("camora_sql.consumer._PRUNE_EVERY", 0.0)
    app = Camora(f"sqlite:///{tmp_path}/a.db")

    @app.task
    async def work() -> int:
        return 1

    async with app, app.worker(settings=WorkerSettings(lease=30, shutdown_timeout=1)):
        job = await app.dispatch(work)
        assert await job.result(60) == 1


async def test_a_suspect_runs_though_its_lane_is_never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Camora("memory://")
    applied = MemoryConsumer.settle

    async def with_a_round_trip(self: MemoryConsumer, settlements: object) -> object:
        answers = await applied(self, settlements)
        await asyncio.sleep(0.06)
        return answers

    @app.task
    async def quick(number: int) -> None:
        await asyncio.sleep(0.01)

    @app.task(queue="suspects")
    async def suspect() -> None: ...

    async with app:
        broker = app.broker
        job = await app.dispatch(suspect)
        dead = await broker.consumer(ConsumerSettings(queues=("suspects",), worker="dead", lease=0.02))
        for _ in range(3):
            while not await dead.receive(1, 1):
                pass
            await asyncio.sleep(0.05)
        await broker.queues.pause("suspects")
        monkeypatch.setattr(MemoryConsumer, "settle", with_a_round_trip)
        await app.dispatch_many(quick.s(number) for number in range(30_000))
        async with app.worker(settings=WorkerSettings(shutdown_timeout=0.1)) as worker:
            while worker.settled < 1000:
                await asyncio.sleep(0.01)
            await broker.queues.pause("suspects", paused=False)
            begun = time.monotonic()
            while (await job.info()).status is not Status.SUCCEEDED and time.monotonic() - begun < 8:
                await asyncio.sleep(0.05)
            assert (await job.info()).status is Status.SUCCEEDED
            assert worker.settled < 30_000


async def test_a_thread_that_could_not_start_costs_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(PoolSettings(kind="thread", workers=1))
    await pool.open()
    real = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        if self.name == "camora-thread":
            raise RuntimeError("can't start new thread")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(pool.call(Call(function=lambda: 1)), 60)
    assert await asyncio.wait_for(pool.call(Call(function=lambda: 2)), 60) == 2
    await pool.close(1)


async def test_a_broker_that_goes_while_a_worker_starts_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was there when the worker connected, and was gone when its lanes were opened."""
    there = MemoryBroker.consumer
    refused = 0

    async def gone_at_first(self: MemoryBroker, settings: ConsumerSettings) -> object:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise BrokerUnavailable("the connection was reset")
        return await there(self, settings)

    monkeypatch.setattr(MemoryBroker, "consumer", gone_at_first)
    app = Camora("memory://")

    @app.task
    async def work() -> int:
        return 1

    async with app, app.worker(queues=["default", "other"]):
        assert await (await work.dispatch()).result(60) == 1
    assert refused == 3
    assert "broker away, connecting: the connection was reset" in caplog.text
