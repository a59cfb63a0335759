"""The master dies, or gives way to a replica: what at least one replica had is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from processes import workers

from tests.redis.faults.rig import TIMEOUT, Rig, eventually
from tests.servers.binaries import need
from tests.servers.sentinel import Sentinels


class WatchedRig(Rig):
    """A rig on a master that Sentinels watch."""

    sentinels: Sentinels
    replicas = 1

    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL that names the Sentinels. A dispatch counts when so many replicas have it."""
        assert not through
        assert not user
        return f"{self.sentinels.url}?{urlencode({'timeout': TIMEOUT, 'wait_replicas': self.replicas, **options})}"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedRig]:
    with Sentinels(need("redis")) as sentinels, workers() as start:
        rig = WatchedRig(tmp_path, sentinels.master, start)
        rig.sentinels = sentinels
        with rig.proxy:
            yield rig


@pytest.mark.parametrize("how", ["killed", "replaced"])
async def test_jobs_survive_their_master(watched: WatchedRig, how: str) -> None:
    rig = watched
    if how == "replaced":
        # While the old master lives it still has the replica that was not chosen, and what these two have is lost.
        rig.replicas = 2
    for _ in range(2):
        rig.worker().ready()
    async with rig.app() as app:
        await rig.load(app, 40)
        await eventually(lambda: rig.finished() > 10, "some work")
        late = asyncio.create_task(rig.load(app, 100))
        if how == "killed":
            old = rig.sentinels.kill_master()
            await asyncio.to_thread(rig.sentinels.wait_failed_over, old)
        else:
            await asyncio.to_thread(rig.sentinels.failover)
            await asyncio.to_thread(rig.sentinels.wait_settled)
        rig.faults += 1
        await late
        await rig.load(app, 40)
    # What the new master had not heard of was settled in vain, and runs again.
    await rig.balance(duplicates=100)
    rig.alive()
