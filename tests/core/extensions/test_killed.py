"""A worker dies after it was said what follows the end of a job, and before that is settled."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from camora import WorkerSettings

from tests.core.extensions.apps.killed import HEADER, make
from tests.end_to_end.processes import WorkerProcess
from tests.servers.fixtures import fresh_url


class Killed(WorkerProcess):
    cwd = Path(__file__).parent / "apps"


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_nothing_is_lost_and_what_follows_runs_once(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/camora.db" if kind == "sqlite" else fresh_url("redis")
    app = make(url, tmp_path)
    async with app:
        job = await app.tasks.by_name["work"].options(headers={HEADER: "1"}).dispatch()
        worker = Killed(tmp_path, url, app="killed:app", KILL="1")
        try:
            assert await asyncio.to_thread(worker.end) == -signal.SIGKILL
        finally:
            worker.destroy()
        assert not (tmp_path / "note").exists()
        async with app.worker(settings=WorkerSettings(lease=2)):
            assert await job.result(timeout=60) == 1
            following = await app.job(f"{job.id}.next")
            assert await following.result(timeout=60) is None
        await app.make_worker().run(burst=True)
    assert (tmp_path / "work").read_text() == "ran\n" * 2
    assert (tmp_path / "note").read_text() == "succeeded\n"
