"""Files that are not as they should be, and disks that are full."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, ConfigurationError
from camora.interfaces.broker import Broker, ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, JobRecord, Settlement, Status
from camora_sql.schema import HEAD
from msgspec.structs import replace

from tests.sql.processes import message

ROOT = os.geteuid() == 0


async def opened(path: Path, query: str = "") -> Broker:
    broker = Camora(f"sqlite:///{path}{query}").broker
    await broker.open()
    return broker


async def refused(path: Path) -> str:
    broker = Camora(f"sqlite:///{path}").broker
    try:
        with pytest.raises(ConfigurationError) as error:
            await broker.open()
    finally:
        await broker.close()
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not ROOT or mount is None:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused_with_the_way_out(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory://"):
        Camora(url)


def test_a_misspelt_option_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'synchronous'"):
        Camora(f"sqlite:///{tmp_path}/camora.db?syncronous=full")
    for query in ("synchronous=maybe", "busy_timeout=soon", "busy_timeout=-1"):
        with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
            Camora(f"sqlite:///{tmp_path}/camora.db?{query}")


def test_nothing_is_created_before_it_is_used(tmp_path: Path) -> None:
    Camora(f"sqlite:///{tmp_path}/camora.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_relative_path_is_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broker = Camora("sqlite:///camora.db").broker
    # Whoever goes elsewhere later still means this file.
    monkeypatch.chdir("/")
    await broker.open()
    await broker.close()
    assert (tmp_path / "camora.db").exists()


async def test_names_with_blanks_and_signs_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "with blank"
    folder.mkdir()
    broker = await opened(folder / "cämora.db")
    await broker.publish([message("one")])
    await broker.close()
    assert (folder / "cämora.db").exists()


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    text = await refused(tmp_path / "missing" / "camora.db")
    assert f"{tmp_path}/missing" in text


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    await refused(tmp_path)


async def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "camora.db"
    path.write_bytes(b"this is no database at all" * 1000)
    text = await refused(path)
    assert "SQLite" in text
    assert path.read_bytes() == b"this is no database at all" * 1000


async def test_a_read_only_disk_is_refused(small_disk: Path) -> None:
    path = small_disk / "camora.db"
    await (await opened(path)).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        await refused(path)
        await refused(small_disk / "other.db")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
async def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    await refused(folder / "camora.db")


async def test_a_full_disk_stores_nothing_says_so_and_recovers(small_disk: Path) -> None:
    path = small_disk / "camora.db"
    broker = await opened(path, "?synchronous=normal")
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    stored: list[str] = []

    async def publish_until_it_fails() -> None:
        for number in range(1_000):
            stored.extend(await broker.publish([_heavy(f"job-{number:03}")]))

    with pytest.raises(BrokerUnavailable) as error:
        await publish_until_it_fails()
    assert len(stored) > 3
    assert str(path) in str(error.value)
    assert "full" in str(error.value)
    # What was acknowledged is there, what was refused is not.
    refused_one = f"job-{len(stored):03}"
    assert await broker.queues.find(stored[-1]) is not None
    assert await broker.queues.find(refused_one) is None
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert await broker.publish([_heavy(refused_one)]) == [refused_one]
    taken = 0
    while deliveries := await consumer.receive(10, 0.0):
        assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries]))
        taken += len(deliveries)
    assert taken == len(stored) + 1
    await consumer.close()
    await broker.close()


def _heavy(job_id: str) -> Envelope:
    return replace(message(job_id), body=os.urandom(30_000))


CORRUPTIONS = {
    "body of no bytes": "UPDATE camora_jobs SET body = 'täxt' WHERE id = 'bad'",
    "garbled task": "UPDATE camora_jobs SET task = CAST(X'ff00fe' AS TEXT) WHERE id = 'bad'",
    "garbled key": "UPDATE camora_jobs SET key = CAST(X'ff' AS TEXT) WHERE id = 'bad'",
    "garbled id": "UPDATE camora_jobs SET id = CAST(X'626164ff' AS TEXT) WHERE id = 'bad'",
    "deliveries of text": "UPDATE camora_jobs SET deliveries = 'many' WHERE id = 'bad'",
    "priority of text": "UPDATE camora_jobs SET priority = 'high' WHERE id = 'bad'",
    "due of text": "UPDATE camora_jobs SET due = 'soon' WHERE id = 'bad'",
    "blob for an id": "UPDATE camora_jobs SET id = X'626164' WHERE id = 'bad'",
}


@pytest.mark.parametrize("sql", CORRUPTIONS.values(), ids=CORRUPTIONS)
async def test_a_corrupt_row_neither_stops_nor_blocks_the_queue(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "camora.db"
    broker = await opened(path)
    await broker.publish([message("bad"), message("good")])
    with sqlite3.connect(path) as other:
        assert other.execute(sql).rowcount == 1
    other.close()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    taken = []
    for _ in range(2):
        deliveries = await consumer.receive(10, 1.0)
        for one in deliveries:
            assert isinstance(one.body, bytes)
            assert isinstance(one.id, str)
            assert isinstance(one.deliveries, int)
        assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries]))
        taken += [one.id for one in deliveries]
        if len(taken) == 2:
            break
    assert "good" in taken
    assert not await consumer.receive(10, 0.0)
    await consumer.close()
    await broker.queues.counts()
    await broker.queues.list("work")
    await broker.close()


async def test_a_corrupt_record_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "camora.db"
    results = Camora(f"sqlite:///{path}").broker.own_results()
    assert results is not None
    await results.open()
    await results.store([JobRecord(id=job_id, status=Status.SUCCEEDED, value=b"1") for job_id in ("bad", "good")])
    with sqlite3.connect(path) as other:
        other.execute("UPDATE camora_results SET error = '{', status = 'nonsense' WHERE id = 'bad'")
    other.close()
    _, good = await results.fetch(["bad", "good"])
    assert good is not None
    assert good.value == b"1"
    await results.close()


async def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "camora.db"
    await (await opened(path)).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE camora_alembic_version SET version_num = '9999'")
        other.execute("UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'")
    other.close()
    text = await refused(path)
    assert "9999" in text
    assert "camora-sql" in text


async def test_a_loop_that_ends_without_closing_does_not_hang(tmp_path: Path) -> None:
    code = (
        "import asyncio, camora, sys\n"
        "from tests.sql.processes import message\n"
        "from camora.interfaces.broker import ConsumerSettings\n"
        "async def main():\n"
        "    broker = camora.Camora(sys.argv[1]).broker\n"
        "    await broker.open()\n"
        "    await broker.publish([message('one')])\n"
        "    consumer = await broker.consumer(ConsumerSettings(queues=('work',), worker='w'))\n"
        "    assert len(await consumer.receive(1, 5)) == 1\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.run_until_complete(main())\n"
        "loop.close()\n"
        "print('ended')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, f"sqlite:///{tmp_path}/camora.db",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().strip() == "ended"


async def test_a_file_that_is_deleted_while_it_is_in_use_takes_no_more_messages_with_it(tmp_path: Path) -> None:
    path = tmp_path / "camora.db"
    broker = await opened(path)
    await broker.publish([message("before")])
    path.unlink()
    with pytest.raises(BrokerUnavailable, match="deleted, moved or replaced"):
        await broker.publish([message("after")])
    # From then on there is a new file, which all see.
    assert await broker.publish([message("after")]) == ["after"]
    assert await broker.queues.find("before") is None
    twin = broker.twin()
    await twin.open()
    assert await twin.queues.find("after") is not None
    await twin.close()
    await broker.close()


async def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "camora.db"
    broker = await opened(path, "?synchronous=normal")
    await broker.publish([message(f"job-{number}") for number in range(2000)])
    await broker.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    broker = Camora(f"sqlite:///{path}").broker

    async def use() -> None:
        await broker.open()
        await broker.publish([message("more")])

    with pytest.raises((BrokerUnavailable, ConfigurationError), match=r"damaged.*\.recover") as error:
        await use()
    assert str(path) in str(error.value)
    await broker.close()


async def test_a_newer_schema_that_has_kept_what_we_know_is_used(tmp_path: Path) -> None:
    path = tmp_path / "camora.db"
    await (await opened(path)).close()
    with sqlite3.connect(path) as other:
        # As the next release would leave it, in the middle of a deploy: with one table more.
        other.execute("CREATE TABLE camora_more (name TEXT)")
        other.execute("UPDATE camora_alembic_version SET version_num = '9999'")
        other.execute("UPDATE camora_facts SET value = ? WHERE name = 'works_with'", (HEAD,))
    other.close()
    broker = await opened(path)
    assert await broker.publish([message("one")]) == ["one"]
    assert await broker.publish([message("one")]) == ["one"]
    await broker.close()
