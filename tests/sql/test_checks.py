"""`camora doctor` on SQL databases: what is wrong is found, named, and its fix works."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from camora import Camora
from camora.interfaces import Check, CheckResult
from camora_sql.checks import checks
from camora_sql.dialects import sqlite_examining
from camora_sql.dialects.sqlite_examining import file_system_of
from camora_sql.schema import HEAD

from tests.sql.processes import make_revision, message

CHECKS: dict[str, Check] = {check.name.removeprefix("database "): check for check in checks()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camora.db"


async def look(path: Path, part: str) -> CheckResult:
    return await CHECKS[part].run(Camora(f"sqlite:///{path}"))


async def make(path: Path, messages: int = 0) -> None:
    broker = Camora(f"sqlite:///{path}").broker
    await broker.open()
    await broker.publish([message(f"job-{number}") for number in range(messages)])
    await broker.close()


@pytest.mark.parametrize("part", list(CHECKS))
async def test_a_sound_file_passes_and_so_does_one_that_is_not_there_yet(path: Path, part: str) -> None:
    new = await look(path, part)
    assert (new.ok, new.fix) == (True, "")
    assert not path.exists(), "a check creates nothing"
    await make(path)
    made = await look(path, part)
    assert (made.ok, made.fix) == (True, "")
    assert str(path) in made.text


@pytest.mark.parametrize("part", list(CHECKS))
async def test_an_app_without_a_database_passes(part: str) -> None:
    assert await CHECKS[part].run(Camora()) == CheckResult(ok=True, text="no SQL database in use")


async def test_results_of_their_own_are_looked_at_too(tmp_path: Path) -> None:
    await make(tmp_path / "jobs.db")
    (tmp_path / "results.db").write_bytes(b"no database" * 1000)
    app = Camora(f"sqlite:///{tmp_path}/jobs.db", results=f"sqlite:///{tmp_path}/results.db")
    found = await CHECKS["integrity"].run(app)
    assert not found.ok
    assert "results.db" in found.text
    assert "jobs.db" in (await CHECKS["schema"].run(Camora(f"sqlite:///{tmp_path}/jobs.db"))).text


async def test_a_missing_folder_is_named_with_its_fix(tmp_path: Path) -> None:
    found = await look(tmp_path / "not there" / "camora.db", "place")
    assert not found.ok
    assert found.fix.startswith("mkdir -p ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_file_that_cannot_be_written_is_named(path: Path) -> None:
    await make(path)
    path.chmod(0o400)
    found = await look(path, "place")
    assert not found.ok
    assert str(path) in found.text


async def test_another_journal_mode_is_found_and_its_fix_helps(path: Path) -> None:
    await make(path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    found = await look(path, "log")
    assert not found.ok
    assert "'delete'" in found.text
    statement = found.fix.split("'")[1]
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    assert (await look(path, "log")).ok


async def test_an_old_schema_is_advised_and_a_newer_one_refused(path: Path) -> None:
    make_revision(f"sqlite:///{path}")
    old = await look(path, "schema")
    assert old.ok
    assert "0001" in old.text
    assert HEAD in old.text
    assert "camora sql migrate" in old.fix
    await make(path)
    assert not (await look(path, "schema")).fix
    with sqlite3.connect(path) as database:
        database.execute("UPDATE camora_alembic_version SET version_num = '9999'")
        database.execute("UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'")
    database.close()
    new = await look(path, "schema")
    assert not new.ok
    assert "upgrade" in new.fix


async def test_damage_is_found(path: Path) -> None:
    await make(path, 2000)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(root,)] = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'camora_jobs_ready'")
        [(size,)] = database.execute("PRAGMA page_size")
    database.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    found = await look(path, "integrity")
    assert not found.ok
    assert "damaged" in found.text
    assert ".recover" in found.fix


async def test_a_full_disk_and_a_log_that_only_grows_are_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    found = await look(path, "room")
    assert not found.ok
    assert "make room" in found.fix
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    # A reader that never ends keeps the log from being emptied; here the log is only as large on paper.
    log = path.with_name("camora.db-wal")
    with log.open("ab") as file:
        file.truncate(300 * 1024 * 1024)
    found = await look(path, "room")
    assert found.ok
    assert "reading transaction" in found.fix


async def test_a_network_file_system_is_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    lines = ["/dev/sda1 / ext4 rw 0 0", f"server:/share {tmp_path} nfs4 rw,vers=4.2 0 0", "proc /proc proc rw 0 0"]
    mounts.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sqlite_examining, "_MOUNTS", mounts)
    found = await look(path, "place")
    assert not found.ok
    assert "nfs4" in found.text


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/srv/camora.db", "ext4"),
        ("/data/camora.db", "nfs4"),
        ("/database/camora.db", "ext4"),
        ("/data/local/camora.db", "xfs"),
        ("/with blank/camora.db", "cifs"),
        ("/twice/camora.db", "tmpfs"),
    ],
)
def test_the_nearest_and_latest_mount_counts(tmp_path: Path, place: str, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "server:/x /data nfs4 rw 0 0\n"
        "/dev/sdb1 /data/local xfs rw 0 0\n"
        "//host/share /with\\040blank cifs rw 0 0\n"
        "/dev/sdc1 /twice ext4 rw 0 0\n"
        "tmpfs /twice tmpfs rw 0 0\n"
    )
    assert file_system_of(Path(place), mounts) == kind
    assert file_system_of(Path(place), tmp_path / "none") == ""


async def test_each_database_of_an_app_is_looked_at_and_a_failure_names_its_section(tmp_path: Path) -> None:
    away = "postgresql://shop@127.0.0.1:1/shop"
    broker = f"sqlite:///{tmp_path}/jobs.db"
    apps = {"results": Camora(broker, results=away), "outbox": Camora("memory://", outbox=away)}
    for section, app in apps.items():
        found = await CHECKS["place"].run(app)
        assert not found.ok
        assert found.text.startswith(f"[{section}] postgresql://127.0.0.1:1/shop cannot be reached")
        assert found.fix == f"start the server, or mend {section}.url"
    fine = await CHECKS["place"].run(Camora(broker, outbox=f"sqlite:///{tmp_path}/shop.db"))
    assert fine.ok
    assert "jobs.db" in fine.text
    assert f"[outbox] {tmp_path}/shop.db" in fine.text


async def test_a_newer_schema_that_works_with_this_version_is_not_called_wrong(tmp_path: Path) -> None:
    app = Camora(f"sqlite:///{tmp_path}/jobs.db")
    async with app:
        pass
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("UPDATE camora_alembic_version SET version_num = '9999'")
    connection.close()
    found = await CHECKS["schema"].run(app)
    assert (found.ok, found.fix) == (True, "")
    assert "of a newer camora-sql" in found.text
