"""A file of an earlier version: upgraded with all that is in it, by many at once, beside processes of that version."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.errors import ConfigurationError
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.schedule import ScheduleRecord
from camora.interfaces.workflows import Mark, Node, WorkflowRecord
from camora.outcome import Action, DeadLetter, JobRecord, Settlement, Status
from camora_sql import opening
from camora_sql.schema import HEAD

from tests.sql.processes import make_revision, message, playing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camora.db"


@pytest.fixture
def url(path: Path) -> str:
    make_revision(f"sqlite:///{path}")
    return f"sqlite:///{path}?synchronous=normal"


def everything(path: Path) -> dict[str, list[Any]]:
    """All rows of all tables of the first revision."""
    database = sqlite3.connect(path)
    names = ("jobs", "keys", "done", "dead_letters", "results", "queues", "facts")
    try:
        rows = {name: database.execute(f"SELECT * FROM camora_{name} ORDER BY 1").fetchall() for name in names}
        # The revision notes there what can work with it.
        return {name: [row for row in found if row[0] != "works_with"] for name, found in rows.items()}
    finally:
        database.close()


def revision(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        [(found,)] = database.execute("SELECT version_num FROM camora_alembic_version")
        return str(found)
    finally:
        database.close()


async def fill(url: str) -> None:
    """Something of all that the first revision keeps."""
    broker = Camora(url).broker
    await broker.open()
    far = 4_000_000_000_000
    await broker.publish([message("ready", priority=3, key="k"), message("far", due=far, expires=far + 1)])
    await broker.publish([message(name) for name in ("done", "dead", "marked", "leased")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me", lease=3600))
    ready, done, dead, marked, _ = await consumer.receive(5, 0.0)
    letter = DeadLetter(id="dead", queue="work", task="a.task", body=b"{}", reason="failed", died=1)
    record = JobRecord(id="done", status=Status.SUCCEEDED, value=b"42", ttl=3600)
    back = Settlement(delivery=ready, action=Action.RELEASE, delay=3600)
    settlements = [
        back,
        Settlement(delivery=marked, action=Action.ACK),
        Settlement(delivery=done, action=Action.ACK, record=record),
        Settlement(delivery=dead, action=Action.REJECT, letter=letter),
    ]
    assert all(await consumer.settle(settlements))
    await broker.queues.pause("closed")
    await consumer.close()
    await broker.close()


async def test_everything_is_there_after_the_upgrade(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(opening, "HEAD", "0001")
        await fill(url)
    assert revision(path) == "0001"
    before = everything(path)
    assert all(before.values()), "something of everything"
    broker = Camora(url).broker
    await broker.open()
    assert revision(path) == HEAD
    assert everything(path) == before
    # It is lent as before, the new tables work, and the record answers.
    assert await broker.queues.counts() == {"work": {"scheduled": 2, "leased": 1, "dead": 1}}
    assert await broker.dead_letters.requeue("dead")
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="new"))
    assert [one.id for one in await consumer.receive(9, 0.0)] == ["dead"]
    assert await broker.publish([message("second", key="k"), message("done"), message("marked")]) == [
        "ready",
        "done",
        "marked",
    ]
    assert not await consumer.receive(9, 0.0)
    schedules, results = broker.own_schedules(), broker.own_results()
    assert schedules is not None
    assert results is not None
    await schedules.open()
    await schedules.put([ScheduleRecord(key="nightly", next=1)])
    assert [record.key for record in await schedules.list()] == ["nightly"]
    await results.open()
    [record] = await results.fetch(["done"])
    assert record is not None
    assert record.value == b"42"
    for opened in (schedules, results, consumer, broker):
        await opened.close()


@pytest.mark.parametrize("before", ["0001", "0002"])
async def test_processes_of_both_versions_work_on_one_file(path: Path, before: str) -> None:
    url, count = f"sqlite:///{path}?synchronous=normal", 60
    make_revision(url, before)
    with playing("publish_and_drain_as_earlier", 2, url, count, before) as earlier:
        for process in earlier:
            process.go()
            assert process.hears() == "begun"
        assert revision(path) == before
        # While they are at it, a process of this version comes, upgrades, and works along.
        broker = Camora(url).broker
        await broker.open()
        assert revision(path) == HEAD
        consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="new"))
        await broker.publish([message(f"new-{number}") for number in range(count)])
        for process in earlier:
            process.go()
        done: list[str] = []
        while deliveries := await consumer.receive(7, 0.0):
            assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries]))
            done += [one.id for one in deliveries]
        for process in earlier:
            done += process.hears()
        # What they published after everybody had looked for the last time.
        while deliveries := await consumer.receive(500, 0.0):
            assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries]))
            done += [one.id for one in deliveries]
        assert sorted(done) == sorted(
            [f"new-{number}" for number in range(count)]
            + [f"{process.pid}-{number}" for process in earlier for number in range(count)]
        )
        await consumer.close()
        await broker.close()


async def test_many_who_open_an_old_file_at_once_upgrade_it_once(path: Path, url: str) -> None:
    with playing("open_first", 4, url) as processes:
        for process in processes:
            process.go()
        assert [process.hears() for process in processes] == ["done"] * 4
    assert revision(path) == HEAD
    broker = Camora(url).broker
    await broker.open()
    assert await broker.queues.counts() == {"work": {"ready": 4}}
    await broker.close()


async def test_an_upgrade_that_is_killed_half_way_leaves_the_old_file(path: Path, url: str) -> None:
    with playing("upgrade_and_die", 1, url) as [process]:
        process.go()
        assert process.hears() == -9
    assert revision(path) == "0001"
    database = sqlite3.connect(path)
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    assert "camora_schedules" not in tables
    broker = Camora(url).broker
    await broker.open()
    assert revision(path) == HEAD
    await broker.close()


async def test_what_the_release_before_has_kept_is_there_beside_workflows(path: Path) -> None:
    url = f"sqlite:///{path}?synchronous=normal"
    make_revision(url, "0002")
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(opening, "HEAD", "0002")
        before = Camora(url).broker
        await before.open()
        schedules = before.own_schedules()
        assert schedules is not None
        await schedules.open()
        await schedules.put([ScheduleRecord(key="nightly", next=1)])
        assert revision(path) == "0002"
    # A process of this version comes, and the old one goes on with what it has open.
    store = Camora(url).broker.own_workflows()
    assert store is not None
    await store.open()
    assert revision(path) == HEAD
    assert await store.create(WorkflowRecord(id="w"))
    assert await store.add("w", [Node(index=0, feeds=(1,)), Node(index=1)])
    assert [fire.record.key for fire in await schedules.claim(5, holder="me", lease=60)] == ["nightly"]
    await before.publish([message("old")])
    [marked] = await store.end([Mark(workflow="w", index=0, status="succeeded")], 1)
    assert [state.index for state in marked.targets] == [1]
    # One of the release before that is started now is told by the database that it may work along.
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(opening, "HEAD", "0002")
        late = Camora(url).broker
        await late.open()
        assert await late.queues.counts() == {"work": {"ready": 1}}
        await late.close()
    for opened in (store, schedules, before):
        await opened.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path, url: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE camora_alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(ConfigurationError, match="9999.*upgrade"):
        await Camora(url).broker.open()
    assert revision(path) == "9999"
