"""The server's disk is full for a while."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from camora.errors import BrokerUnavailable

from tests.redis.faults.rig import Rig, eventually, rigged


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
