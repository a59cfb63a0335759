"""Messages that nobody can read, jobs that die, and what is left behind."""

from __future__ import annotations

import asyncio
import functools
import random
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from camora import Camora
from camora.outcome import DeadLetter

from tests.sql.faults import mariadb
from tests.sql.faults.rig import Rig, eventually, rigged


async def test_rows_that_nobody_can_read_become_dead_letters_with_all_their_bytes(rig: Rig) -> None:
    worker = rig.worker().ready()
    junk = [b"", b"\xff\xfe\x00junk", b'{"id": 1', b'{"v": 99}', b"x" * 100_000]
    async with rig.app() as app:
        with psycopg.connect(rig.server.url, autocommit=True) as other:
            for number, body in enumerate(junk):
                other.execute(
                    "INSERT INTO camora_jobs (id, queue, state, priority, due, task, body) "
                    "VALUES (%s, 'default', 0, 0, 1, 'work', %s)",
                    [f"junk-{number}", body],
                )
        await rig.load(app, 20)
        letters: dict[str, DeadLetter] = {}

        async def buried() -> bool:
            letters.update({letter.id: letter async for letter in app.dead_letters()})
            return len(letters) == len(junk)

        await eventually(buried, "the dead letters")
        assert [letters[f"junk-{number}"].body for number in range(len(junk))] == junk
        assert {letter.reason for letter in letters.values()} == {"undecodable"}
    await rig.balance(duplicates=0)
    assert worker.text().count("junk-1") < 5
    rig.alive()


@pytest.mark.parametrize("rigged", [rigged, mariadb.rigged], ids=["postgresql", "mariadb"])
async def test_jobs_that_die_with_their_workers_are_messages_or_letters_and_never_neither(
    tmp_path: Path, rigged: Any
) -> None:
    chance = random.Random(8)
    with rigged(tmp_path) as rig:
        async with rig.app() as app:
            vain = [(await rig.dispatch(app, "weigh_in_vain", number=number, text="")).id for number in range(60)]
            await rig.load(app, 20)

            async def letters() -> list[str]:
                return [letter.id async for letter in app.dead_letters()]

            async def none_is_lost() -> None:
                queued = [job.id for job in await app.broker.queues.list("default", limit=1000)]
                assert sorted([*(set(queued) & set(vain)), *await letters()]) == sorted(vain)

            for step in ("before settle", "after settle", "random", "random"):
                worker = rig.worker("--concurrency", "3", SHOP_CRASH=step)
                if step == "random":
                    buried = len(await letters())
                    await eventually(functools.partial(_more_than, letters, buried), "another letter")
                    await asyncio.sleep(chance.random() / 20)
                    worker.process.kill()
                assert await asyncio.to_thread(worker.end) == -signal.SIGKILL
                rig.workers.remove(worker)
                rig.faults += 1
                await none_is_lost()
            rig.worker("--concurrency", "20").ready()
            await eventually(lambda: rig.idle(app.broker), "the end of all")
            assert sorted(await letters()) == sorted(vain)
            # Put back, each runs and dies once more.
            for name in vain:
                assert await app.requeue(name)
            await eventually(lambda: rig.idle(app.broker), "their second end")
            assert sorted(await letters()) == sorted(vain)
        await rig.balance(duplicates=rig.faults * 3 * 2)
        rig.alive()


async def _more_than(letters: Any, count: int) -> bool:
    return len(await letters()) > count


async def test_who_waits_for_a_result_hears_of_it_although_the_server_was_away(rig: Rig) -> None:
    rig.worker().ready()
    async with rig.app() as app:
        job = rig.noted(await app.dispatch("work_for", seconds=2.0))
        await eventually(lambda: rig.ran(job), "its start")
        waiting = asyncio.create_task(job.result(30))
        await asyncio.sleep(0)
        rig.server.kill()
        rig.faults += 1
        rig.server.start()
        assert await waiting
    await rig.balance(duplicates=1)
    rig.alive()


async def test_nothing_is_left_of_workers_and_jobs_that_have_gone(rig: Rig) -> None:
    """Jobs, tokens, names of dead workers: rows do not pile up."""
    async with rig.app() as app:
        await app.broker.queues.counts()
        for _ in range(2):
            worker = rig.worker()
            worker.ready()
            await rig.load(app, 20)
            worker.process.kill()
            rig.workers.remove(worker)
            rig.faults += 1
    rig.worker().ready()
    await rig.balance(duplicates=2 * 10)
    for table in ("jobs", "keys"):
        [(count,)] = rig.server.sql(f"SELECT count(*) FROM camora_{table}")
        assert count == 0, table
    async with rig.app() as app:
        # The dead are listed for as long as their last word holds, and no longer.
        await eventually(lambda: _workers(app), "one worker that is listed", timeout=60)


async def _workers(app: Camora) -> bool:
    directory = app.broker.own_workers()
    assert directory is not None
    await directory.open()
    try:
        return len(await directory.list()) == 1
    finally:
        await directory.close()
