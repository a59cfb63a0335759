"""A seeded storm: workers and the server are killed, stopped and paused, the network fails, and nothing is lost.

`CAMORA_CHAOS_SEED` and `CAMORA_CHAOS_SECONDS` set another storm, or a longer one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.testing.ledger import read
from processes import WorkerProcess

from tests.redis.faults.rig import LEASE, TIMEOUT, Rig, rigged

SECONDS = float(os.environ.get("CAMORA_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("CAMORA_CHAOS_SEED", "1"))
WORKERS = 3
BUSY = "10"
"""How many jobs each worker runs at once."""


class Nemesis:
    """One fault after the other, each healed before the next; all of its choices come from the seed."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self._rig = rig
        self._random = random.Random(seed)
        self._workers: list[WorkerProcess] = []
        self.log: list[str] = []
        self.killed = 0

    async def begin(self) -> None:
        """Start the workers; every second one sits behind the network that fails."""
        for number in range(WORKERS):
            await asyncio.to_thread(self._hire, number % 2 == 0)

    def _hire(self, through: bool) -> None:
        self._workers.append(self._rig.worker("--concurrency", BUSY, through=through).ready())

    async def rage(self, until: float) -> None:
        """Go on until this monotonic moment."""
        faults: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._kill_worker, self._stop_worker, self._roll_worker, self._kill_server, self._restart_server,
            self._pause_server, self._cut, self._hold, self._refuse, self._delay, self._lose_answers,
            self._forget_scripts, self._kill_clients,
        ]  # fmt: skip
        # Each kind comes by turns, in an order of the seed's.
        while time.monotonic() < until:
            self._random.shuffle(faults)
            for fault in faults:
                if time.monotonic() >= until:
                    break
                self.log.append(fault.__name__.strip("_"))
                self._rig.faults += 1
                await fault()
                await asyncio.sleep(self._random.uniform(0.0, 0.5))

    async def end(self) -> None:
        """Tell all workers to stop; each must end well, and by itself none has."""
        for worker in self._workers:
            assert worker.process.poll() is None, f"a worker ended by itself:\n{worker.text()}"
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(worker.end) for worker in self._workers]
        assert codes == [0] * len(codes)

    def _some_worker(self) -> WorkerProcess:
        return self._random.choice(self._workers)

    async def _replace(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        await asyncio.to_thread(self._hire, self._random.random() < 0.5)

    async def _kill_worker(self) -> None:
        worker = self._some_worker()
        worker.process.kill()
        self.killed += 1
        await self._replace(worker)

    async def _stop_worker(self) -> None:
        worker = self._some_worker()
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.2, 2 * LEASE))
        worker.signal(signal.SIGCONT)

    async def _roll_worker(self) -> None:
        worker = self._some_worker()
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.end) == 0, worker.text()
        await self._replace(worker)

    async def _kill_server(self) -> None:
        self._rig.server.kill()
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        await asyncio.to_thread(self._rig.server.start)

    async def _restart_server(self) -> None:
        await asyncio.to_thread(self._rig.server.stop)
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        await asyncio.to_thread(self._rig.server.start)

    async def _pause_server(self) -> None:
        self._rig.server.pause()
        await asyncio.sleep(self._random.uniform(0.2, 2 * LEASE))
        self._rig.server.resume()

    async def _cut(self) -> None:
        self._rig.proxy.cut()

    async def _hold(self) -> None:
        self._rig.proxy.hold()
        await self._heal(2 * LEASE)

    async def _refuse(self) -> None:
        self._rig.proxy.refuse()
        self._rig.proxy.cut()
        await self._heal(1.0)

    async def _delay(self) -> None:
        self._rig.proxy.delay(self._random.uniform(0.01, TIMEOUT / 4))
        await self._heal(1.0)

    async def _lose_answers(self) -> None:
        for _ in range(3):
            self._rig.proxy.drop_next_reply()
            await asyncio.sleep(self._random.uniform(0.0, 0.3))
        self._rig.proxy.heal()

    async def _heal(self, longest: float) -> None:
        await asyncio.sleep(self._random.uniform(0.2, longest))
        self._rig.proxy.heal()

    async def _forget_scripts(self) -> None:
        self._rig.server.cli("SCRIPT", "FLUSH")

    async def _kill_clients(self) -> None:
        self._rig.server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")


async def produce(rig: Rig, app: Camora, until: float) -> None:
    """Dispatch jobs of all sorts until this monotonic moment."""
    while time.monotonic() < until:
        await rig.load(app, 20)
        await asyncio.sleep(0.05)


def stood_still(rig: Rig, job_id: str) -> bool:
    """Whether one of a job's runs, which take some milliseconds, was stopped in its midst for about a lease."""
    begun: dict[str, int] = {}
    longest = 0
    for entry in read(rig.folder / "ledger"):
        if entry.job_id == job_id and entry.kind == "started":
            begun[entry.worker] = entry.at
        elif entry.job_id == job_id and entry.worker in begun:
            longest = max(longest, entry.at - begun.pop(entry.worker))
    return longest / 1e9 > LEASE / 2


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize(("kind", "seed"), [("redis-8", SEED), ("valkey-9", SEED + 1), ("redis-6.2", SEED + 2)])
async def test_nothing_is_lost_in_a_storm(tmp_path: Path, kind: str, seed: int) -> None:
    with rigged(tmp_path, kind) as rig:
        nemesis = Nemesis(rig, seed)
        await nemesis.begin()
        until = time.monotonic() + SECONDS
        async with rig.app() as near, rig.app(through=True) as far:
            await asyncio.gather(nemesis.rage(until), produce(rig, near, until), produce(rig, far, until))
        healed = time.time_ns()
        # At most what workers held when they, the server or the network went, runs again.
        found = await rig.balance(duplicates=rig.faults * WORKERS * 2 * int(BUSY), timeout=60)
        await nemesis.end()
        drained = max((entry.at for entry in read(rig.folder / "ledger")), default=healed)
        print(f"seed {seed}: {' '.join(nemesis.log)}")
        print(
            f"chaos on {kind}, seed {seed}: {found.summary()}, workers killed {nemesis.killed}, "
            f"drained {max(0.0, (drained - healed) / 1e9):.1f} s after the last fault"
        )
        assert not found.early
        assert not found.dead
        assert not [job for job in found.beside_itself if not stood_still(rig, job)]
