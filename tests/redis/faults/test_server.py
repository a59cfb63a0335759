"""The server goes away and comes back: workers wait for it, and nothing that it had acknowledged is lost."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.job import Job

from tests.redis.faults.rig import LEASE, TIMEOUT, Rig, eventually, rigged


async def next_finish(rig: Rig) -> float:
    """Seconds until another job has ended."""
    before, began = rig.finished(), time.monotonic()
    await eventually(lambda: rig.finished() > before, "another job's end")
    return time.monotonic() - began


async def more(rig: Rig, app: Camora, count: int) -> list[Job[Any]]:
    """Jobs that are dispatched while the server is away: the dispatcher waits for it."""
    return await asyncio.gather(*(rig.dispatch(app, "work", number=number) for number in range(count)))


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_server_that_is_started_again_has_all_jobs(rig: Rig, how: str) -> None:
    workers = [rig.worker("--concurrency", "3").ready() for _ in range(2)]
    async with rig.app() as app:
        await rig.load(app, 40)
        for _ in range(2):
            await rig.load(app, 60)
            getattr(rig.server, how)()
            rig.faults += 1
            late = asyncio.create_task(more(rig, app, 20))
            await rig.noticed(*workers)
            rig.server.start()
            assert await next_finish(rig) < 6
            await late
            # Who has not heard yet that it is back would say nothing of its next absence.
            await eventually(lambda: rig.idle(app.broker), "the end of what there was")
    # What was running when the server went could not be settled in time; it may have run again.
    await rig.balance(duplicates=2 * 2 * 6)
    rig.alive()


async def test_a_server_that_is_paused_for_longer_than_leases(rig: Rig) -> None:
    worker = rig.worker("--concurrency", "5").ready()
    process = psutil.Process(worker.process.pid)
    async with rig.app() as app:
        await rig.load(app, 60)
        await next_finish(rig)
        threads = process.num_threads()
        rig.server.pause()
        rig.faults += 1
        try:
            late = asyncio.create_task(more(rig, app, 10))
            await rig.noticed(worker)
            await asyncio.sleep(2 * LEASE + TIMEOUT)  # longer than leases and time-outs: that is the fault
            assert process.num_threads() <= threads + 1
        finally:
            rig.server.resume()
        assert await next_finish(rig) < 6
        await late
    await rig.balance(duplicates=20)
    rig.alive()


async def test_a_dispatch_that_finds_no_server_says_so_in_time(rig: Rig) -> None:
    async with rig.app(patience=2.0) as app:
        await rig.dispatch(app, "work", number=1)
        rig.server.pause()
        began = time.monotonic()
        try:
            with pytest.raises(DispatchUncertain, match="cannot double it"):
                await app.dispatch("work", number=2)
        finally:
            rig.server.resume()
        assert time.monotonic() - began < 4
        rig.server.kill()
        with pytest.raises(BrokerUnavailable, match=str(rig.server.port)):
            await app.dispatch("work", number=3)
        rig.server.start()
        await rig.dispatch(app, "work", number=4)


async def test_a_worker_may_be_started_before_the_server(rig: Rig) -> None:
    rig.server.stop()
    worker = rig.worker()
    await asyncio.to_thread(worker.wait_for, "broker away, connecting")
    rig.server.start()
    async with rig.app() as app:
        await rig.load(app, 20)
    await rig.balance(duplicates=0)
    rig.alive()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_stops_dispatching_in_words_until_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    with rigged(tmp_path, appendfsync="everysec", config=[f"dir {small_disk}"]) as rig:
        worker = rig.worker().ready()
        async with rig.app(patience=2.0) as app:
            await rig.load(app, 20)
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
            rig.faults += 1
            # Once a second the server writes what has come; only then does it know.
            with pytest.raises(BrokerUnavailable, match="cannot write to its disk"):
                for number in range(10_000):
                    await rig.dispatch(app, "work", number=number)
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(worker.wait_for, "cannot write to its disk")
            filler.unlink()
            await eventually(lambda: _writable(rig), "the server's recovery")
            await rig.load(app, 20)
        await rig.balance(duplicates=200)
        rig.alive()


def _writable(rig: Rig) -> bool:
    return rig.server.info("persistence")["aof_last_write_status"] == "ok"
