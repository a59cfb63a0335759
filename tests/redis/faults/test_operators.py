"""What operators do to a server in use: scripts forgotten, clients killed, rights changed, keys deleted, all gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from camora.errors import BrokerUnavailable

from tests.redis.faults.rig import Rig, eventually, rigged
from tests.servers.resp import Connection

STREAM = "camora:default"


async def test_scripts_that_the_server_has_forgotten(rig: Rig) -> None:
    rig.worker().ready()
    async with rig.app() as app:
        for _ in range(5):
            await rig.load(app, 8)
            rig.server.cli("SCRIPT", "FLUSH")
            rig.faults += 1
        await rig.load(app, 8)
    await rig.balance(duplicates=0)
    rig.alive()


@pytest.mark.parametrize("skip", ["no", "yes"])
async def test_clients_that_are_killed(rig: Rig, skip: str) -> None:
    rig.worker().ready()
    async with rig.app() as app:
        for _ in range(6):
            await rig.load(app, 12)
            rig.server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", skip)
            rig.server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            rig.faults += 1
    await rig.balance(duplicates=6 * 10)
    rig.alive()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path, users=["ann on >secret ~* &* +@all"]) as made:
        yield made


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (("resetpass", ">other"), ("resetpass", ">secret")),
        (("off",), ("on",)),
        (("-@all", "+ping", "+hello", "+auth"), ("+@all",)),
        (("resetkeys", "~nothing:*"), ("~*",)),
        (("-evalsha",), ("+evalsha",)),
        (("-xadd",), ("+xadd",)),
    ],
    ids=["password", "off", "commands", "keys", "scripts", "one-command"],
)
async def test_rights_that_are_taken_and_given_back(
    guarded: Rig, change: tuple[str, ...], back: tuple[str, ...]
) -> None:
    rig = guarded
    worker = rig.worker(user="ann:secret").ready()
    async with rig.app() as app:
        await rig.load(app, 20)
        await eventually(lambda: rig.finished() > 5, "some work")
        rig.server.cli("ACL", "SETUSER", "ann", *change)
        with contextlib.suppress(OSError):
            rig.server.cli("CLIENT", "KILL", "USER", "ann")
        rig.faults += 1
        await rig.load(app, 40)
        await rig.noticed(worker)
        rig.server.cli("ACL", "SETUSER", "ann", *back)
        await rig.load(app, 20)
    await rig.balance(duplicates=20)
    rig.alive()


async def test_a_group_that_is_destroyed_is_made_again_from_the_start(rig: Rig) -> None:
    rig.worker("--concurrency", "2").ready()
    async with rig.app() as app:
        for _ in range(5):
            await rig.load(app, 40)
            rig.server.cli("XGROUP", "DESTROY", STREAM, "camora")
            rig.faults += 1
    # What was lent is lent again.
    await rig.balance(duplicates=5 * 10)
    rig.alive()


@pytest.mark.parametrize(
    "how", [("DEL", STREAM), ("FLUSHALL",), ("DEL", "{camora:default}:bell")], ids=lambda how: how[0]
)
async def test_new_jobs_run_after_keys_were_deleted_under_waiting_workers(rig: Rig, how: tuple[str, ...]) -> None:
    rig.worker().ready()
    async with rig.app() as app:
        await rig.load(app, 8)
        await rig.balance(duplicates=0)
        for _ in range(3):
            rig.server.cli(*how)
            rig.faults += 1
            # At once: the first of them may be there before the workers' group is.
            await rig.load(app, 8)
            await eventually(lambda: rig.idle(app.broker), "the new jobs")
            await eventually(lambda: rig.finished() >= len(rig.dispatched), "the new jobs' ends")
    rig.alive()


async def test_a_server_that_takes_no_more_connections(tmp_path: Path) -> None:
    with rigged(tmp_path, config=["maxclients 20"]) as rig:
        rig.worker().ready()
        async with rig.app() as app:
            await rig.load(app, 20)
            await eventually(lambda: rig.idle(app.broker), "the first jobs")
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(OSError):
                    for _ in range(30):
                        stack.enter_context(Connection(("127.0.0.1", rig.server.port)))
                # Connections that work are kept; whoever loses one waits for another.
                rig.noted(await app.dispatch("work_for", seconds=2.0))
                await rig.load(app, 20)
            await rig.load(app, 20)
        await rig.balance(duplicates=0)
        rig.alive()


async def test_a_worker_started_while_the_server_takes_no_more_connections(tmp_path: Path) -> None:
    with rigged(tmp_path, config=["maxclients 10"]) as rig:
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(Connection(("127.0.0.1", rig.server.port)))
            worker = rig.worker()
            await asyncio.to_thread(worker.wait_for, "broker away, connecting")
            with pytest.raises(BrokerUnavailable, match="max number of clients reached"):
                async with rig.client():
                    pass
        worker.ready()
        async with rig.app() as app:
            await rig.load(app, 8)
        await rig.balance(duplicates=0)
        rig.alive()
