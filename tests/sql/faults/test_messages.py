"""Messages that are repeated, that nobody can read; results that cannot be stored; what is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
from camora import Camora
from camora.outcome import DeadLetter

from tests.sql.faults.rig import Rig, eventually, rigged


async def test_an_id_that_is_dispatched_again_runs_once(rig: Rig) -> None:
    rig.worker().ready()
    async with rig.app() as app:
        for number in range(20):
            rig.noted(await app.options(job_id=f"id-{number}").dispatch("work", number=number))
            await app.options(job_id=f"id-{number}").dispatch("work", number=number)
        await eventually(lambda: rig.idle(app.broker), "the jobs' end")
        for number in range(20):
            await app.options(job_id=f"id-{number}").dispatch("work", number=number)
    await rig.balance(duplicates=0)


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


async def test_jobs_are_settled_when_their_results_are_safe(tmp_path: Path) -> None:
    """Results are kept on another server, which is away when jobs have ended."""
    with rigged(tmp_path / "broker") as rig, rigged(tmp_path / "results") as kept:
        worker = rig.worker(SHOP_RESULTS=kept.url()).ready()
        async with Camora(rig.url(), results=kept.url()) as app:
            jobs = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
            assert [await job.result(30) for job in jobs] == list(range(10))
            kept.server.kill()
            late = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
            await asyncio.to_thread(worker.wait_for, "cannot settle")
            assert not await rig.idle(app.broker)
            kept.server.start()
            rig.faults += 1
            assert [await job.result(30) for job in late] == list(range(10))
            assert [await job.result(30) for job in jobs] == list(range(10))
            await eventually(lambda: rig.idle(app.broker), "the settlements")
        rig.alive()


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
