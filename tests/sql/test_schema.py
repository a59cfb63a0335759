"""The schema: made by itself, migrated by command, looked at without touching it, and used by its indexes."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from camora import Camora
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import Action, JobRecord, Settlement, Status
from sqlalchemy import create_engine, inspect

from tests import forked
from tests.sql.processes import message


def camora(*args: str) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "camora", *args], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camora.db"


def test_status_creates_nothing_and_migrate_may_be_repeated(path: Path) -> None:
    url = f"sqlite:///{path}"
    status = camora("sql", "status", "--url", url)
    assert status.returncode == 1
    assert str(path) in status.stdout
    assert not path.exists()
    for _ in range(2):
        migrated = camora("sql", "migrate", "--url", url)
        assert migrated.returncode == 0, migrated.stderr
    assert camora("sql", "status", "--url", url).returncode == 0


def test_migrations_run_by_many_at_once_are_one_migration(path: Path) -> None:
    url = f"sqlite:///{path}"
    running = [
        forked.Popen(
            [sys.executable, "-m", "camora", "sql", "migrate", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(5)
    ]
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out.decode()
    with sqlite3.connect(path) as database:
        assert len(database.execute("SELECT version_num FROM camora_alembic_version").fetchall()) == 1
    database.close()


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"no database" * 1000, "SQLite"), (None, "missing")],
    ids=["another kind of file", "missing folder"],
)
def test_commands_answer_in_one_line(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / ("camora.db" if content else "missing/camora.db")
    if content:
        path.write_bytes(content)
    failed = camora("sql", "migrate", "--url", f"sqlite:///{path}")
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    assert text in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


async def test_migrations_make_what_the_code_works_with(path: Path, tmp_path: Path) -> None:
    from camora_sql.migrating import migrate
    from camora_sql.session import Session
    from camora_sql.store import Store

    # A new database is made at once as the newest revision wants it; an old one gets there by migrations.
    store = Store(f"sqlite:///{path}")
    session = Session(store)
    assert migrate(session, store)
    assert not migrate(session, store)
    session.close()
    broker = Camora(f"sqlite:///{tmp_path}/meant.db").broker
    await broker.open()
    await broker.close()
    made = create_engine(f"sqlite:///{path}")
    meant = create_engine(f"sqlite:///{tmp_path}/meant.db")

    def shape(engine: object) -> dict[str, object]:
        seen = inspect(engine)  # type: ignore[call-overload]
        return {
            table: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in seen.get_columns(table)],
                sorted((index["name"], index["column_names"], index["unique"]) for index in seen.get_indexes(table)),
                seen.get_pk_constraint(table)["constrained_columns"],
            )
            for table in seen.get_table_names()
        }

    try:
        assert shape(made) == shape(meant)
    finally:
        made.dispose()
        meant.dispose()


async def test_a_claim_reads_from_its_index_however_much_is_scheduled(path: Path) -> None:
    broker = Camora(f"sqlite:///{path}?synchronous=normal").broker
    await broker.open()
    far = round(time.time() * 1000) + 3_600_000
    for start in range(0, 100_000, 5_000):
        await broker.publish([message(f"far-{number:06}", due=far + number) for number in range(start, start + 5_000)])
    await broker.publish([message("now")])
    seen: list[str] = []
    consumer = await broker.consumer(ConsumerSettings(queues=("work", "other"), worker="me"))
    sqls = _claims()
    database = sqlite3.connect(path)
    for sql in sqls:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [0] * sql.count("?"))]
        assert any("camora_jobs_ready" in step for step in plan), plan
        assert not any(step.startswith("SCAN camora_jobs") for step in plan), plan
        seen += plan
    # One queue is read in the order of its index, without sorting.
    assert not any("TEMP B-TREE FOR ORDER BY" in step for step in seen[: len(seen) // len(sqls)]), seen
    database.close()
    # The work of the database for one claim, counted in its own steps, does not grow with what is scheduled.
    begin = time.process_time()
    assert [one.id for one in await consumer.receive(10, 0.0)] == ["now"]
    assert time.process_time() - begin < 0.1
    await consumer.close()
    await broker.close()


def _claims() -> list[str]:
    from camora_sql import statements
    from camora_sql.store import Store

    store = Store("sqlite:///unused.db")
    return [store.statements(statements.claim, size)[0] for size in (1, 2)]


async def test_old_records_and_marks_are_pruned_by_workers(path: Path) -> None:
    broker = Camora(f"sqlite:///{path}?dedup_window=0.01").broker
    results = broker.own_results()
    assert results is not None
    await broker.open()
    await results.open()
    count = 1_300
    await broker.publish([message(f"job-{number:04}") for number in range(count)])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    while deliveries := await consumer.receive(200, 0.0):
        settlements = [
            Settlement(delivery=one, action=Action.ACK, record=JobRecord(id=one.id, status=Status.SUCCEEDED, ttl=0.01))
            for one in deliveries
        ]
        await consumer.settle(settlements)
    database = sqlite3.connect(path)
    tables = [
        row[0]
        for row in database.execute("SELECT name FROM sqlite_master WHERE name IN ('camora_results', 'camora_done')")
    ]
    async with asyncio.timeout(30):
        while sum(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables):
            await consumer.receive(1, 0.1)
    database.close()
    await consumer.close()
    await results.close()
    await broker.close()


def test_the_plugin_is_light() -> None:
    code = "import camora, sys; camora.Camora(); import camora_sql.plugin; assert 'sqlalchemy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_alembic_is_loaded_only_to_migrate(path: Path) -> None:
    url = f"sqlite:///{path}"
    code = (
        "import asyncio, camora, sys\n"
        "async def main():\n"
        "    broker = camora.Camora(sys.argv[1]).broker\n"
        "    await broker.open()\n"
        "    await broker.close()\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    loaded = [
        subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert [one.stdout.strip() for one in loaded] == ["False", "False"]
