"""Messages that nobody can read, that nobody knows, that kill."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from camora.outcome import DeadLetter

from tests.redis.faults.rig import Rig, eventually, rigged

STREAM = "camora:default"


async def test_bytes_that_nobody_can_read_become_dead_letters_with_all_their_bytes(rig: Rig) -> None:
    worker = rig.worker().ready()
    junk = [b"", b"\xff\xfe\x00junk", b'{"id": 1', b'{"v": 99}', b"x" * 100_000]
    async with rig.app() as app:
        for number, body in enumerate(junk):
            rig.server.cli("XADD", STREAM, "*", "i", f"junk-{number}", "t", "work", "b", body)
        await rig.load(app, 20)
        letters = {}

        async def buried() -> bool:
            letters.update({letter.id: letter async for letter in app.dead_letters()})
            return len(letters) == len(junk)

        await eventually(buried, "the dead letters")
        assert [letters[f"junk-{number}"].body for number in range(len(junk))] == junk
        assert {letter.reason for letter in letters.values()} == {"undecodable"}
    await rig.balance(duplicates=0)
    assert worker.text().count("junk-1") < 5
    rig.alive()


async def test_entries_of_strangers_in_a_stream_are_kept_and_hinder_nobody(rig: Rig) -> None:
    """Somebody adds entries that have none of our fields, or strange ones."""
    rig.worker().ready()
    strange: list[tuple[object, ...]] = [
        ("foo", "bar"),
        ("i", "only-an-id"),
        ("b", "only-a-body"),
        ("i", b"\xff\xfe", "t", "work", "b", "{}"),
        ("one", "1", "two", "2", "three", "3"),
        ("i", "not-a-number", "t", "work", "b", "{}", "n", "many"),
    ]
    async with rig.app() as app:
        for fields in strange:
            rig.server.cli("XADD", STREAM, "*", *fields)
            await rig.load(app, 4)
        letters: list[DeadLetter] = []

        async def buried() -> bool:
            letters[:] = [letter async for letter in app.dead_letters()]
            return len(letters) == len(strange)

        await eventually(buried, "the dead letters")
        assert {letter.reason for letter in letters} == {"undecodable"}
        bodies = b"".join(letter.body for letter in letters)
        assert all(word in bodies for word in (b"foo", b"bar", b"only-an-id", b"only-a-body", b"three"))
        # Put back they are no better, and still there.
        assert await app.broker.dead_letters.requeue(letters[0].id)
        await eventually(lambda: rig.idle(app.broker), "its second end")
        await eventually(buried, "the dead letter")
    await rig.balance(duplicates=0)
    rig.alive()


async def test_a_task_that_no_worker_knows_waits_for_one_that_does(rig: Rig) -> None:
    old = rig.worker(CAMORA_WORKER__UNKNOWN_TASK_LIMIT="60").ready()
    async with rig.app() as app:
        job = await app.dispatch("of_tomorrow")
        await asyncio.to_thread(old.wait_for, "of_tomorrow")
        await rig.load(app, 20)
        await eventually(lambda: rig.finished() >= 20, "the work of others")
        found = await app.broker.queues.find(job.id)
        assert found is not None
        assert found.state in ("scheduled", "ready", "leased")
        assert not [letter async for letter in app.dead_letters()]


@pytest.mark.parametrize("kind", ["redis-6.2", "redis-7", "redis-8", "valkey-9"])
async def test_poison_is_buried_by_the_last_that_takes_it(tmp_path: Path, kind: str) -> None:
    with rigged(tmp_path, kind) as rig:
        supervisor = rig.worker("--processes", "2", CAMORA_WORKER__MAX_DELIVERIES="3")
        supervisor.ready(2)
        async with rig.app() as app:
            poison = await rig.dispatch(app, "kill_worker")
            await rig.load(app, 20)
            found = await rig.balance(duplicates=20, timeout=90)
            [letter] = [letter async for letter in app.dead_letters()]
            assert (letter.id, letter.reason) == (poison.id, "poison")
        assert found.interrupted >= 3
        rig.alive()
