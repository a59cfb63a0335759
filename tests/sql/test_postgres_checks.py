"""`camora doctor` on PostgreSQL: what is wrong is found, named, and its fix works."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from camora import Camora
from camora.interfaces import Check, CheckResult
from camora_sql.checks import checks
from camora_sql.dialects import postgresql_examining
from camora_sql.schema import HEAD

from tests import forked
from tests.servers.fixtures import private_postgres
from tests.servers.postgres import PostgresServer
from tests.sql.processes import message

__all__ = ["private_postgres"]

CHECKS: dict[str, Check] = {check.name.removeprefix("database "): check for check in checks()}


@pytest.fixture
def server(private_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return private_postgres(settings=["max_connections = 30", "superuser_reserved_connections = 3"])


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, server: PostgresServer) -> str:
    return server.url.replace("postgresql", f"postgresql+{request.param}")


async def look(url: str, part: str) -> CheckResult:
    return await CHECKS[part].run(Camora(url))


@contextmanager
def setting(server: PostgresServer, line: str) -> Iterator[None]:
    """A line of the server's configuration, until the end of the context."""
    name = line.split()[0]
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET {line}".encode())
        connection.execute("SELECT pg_reload_conf()")
        yield
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM RESET {name}".encode())
        connection.execute("SELECT pg_reload_conf()")


async def test_a_sound_server_passes_before_and_after_its_first_use(server: PostgresServer, url: str) -> None:
    with setting(server, "fsync = on"):
        for part in CHECKS:
            new = await look(url, part)
            assert (new.ok, new.fix) == (True, ""), new
        assert not server.sql("SELECT 1 FROM pg_tables WHERE tablename LIKE 'camora%'"), "a check creates nothing"
        broker = Camora(url).broker
        await broker.open()
        await broker.publish([message("one")])
        await broker.close()
        for part in CHECKS:
            used = await look(url, part)
            assert (used.ok, used.fix) == (True, ""), used
        assert str(server.port) in (await look(url, "place")).text
        assert HEAD in (await look(url, "schema")).text


async def test_a_server_that_is_away_is_named(server: PostgresServer, url: str) -> None:
    server.stop()
    found = await look(url, "place")
    assert not found.ok
    assert str(server.port) in found.text
    assert "\n" not in found.text
    assert "start the server" in found.fix


async def test_a_server_that_only_reads_is_found(server: PostgresServer, url: str) -> None:
    with setting(server, "default_transaction_read_only = on"):
        found = await look(url, "place")
        assert not found.ok
        assert "only reads" in found.text
        assert "target_session_attrs=read-write" in found.fix
    assert (await look(url, "place")).ok


async def test_connections_that_run_out_are_found(server: PostgresServer, url: str) -> None:
    server.sql("CREATE ROLE others LOGIN")
    with ExitStack() as stack:
        for _ in range(20):
            with suppress(psycopg.OperationalError):
                stack.enter_context(psycopg.connect(server.url_of(user="others")))
        found = await look(url, "room")
        assert not found.ok
        assert "connections left" in found.text
        assert "max_connections" in found.fix


async def test_a_transaction_that_was_forgotten_is_found_and_its_fix_works(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_examining, "_LONG", -1)
    with psycopg.connect(server.url, application_name="a notebook") as forgotten:
        forgotten.execute("SELECT 1")
        found = await look(url, "log")
        assert not found.ok
        assert "'a notebook'" in found.text
        assert "idle in transaction" in found.text
        statement = found.fix.removeprefix("end it: ").split(";")[0]
        server.sql(statement)
        with pytest.raises(psycopg.OperationalError):
            forgotten.execute("SELECT 1")
    assert (await look(url, "log")).ok


async def test_an_old_schema_is_advised_and_a_newer_one_refused(server: PostgresServer, url: str) -> None:
    from camora_sql import migrating
    from camora_sql.blocking import BlockingSession
    from camora_sql.store import Store

    store = Store(server.url)

    def make() -> None:
        session = BlockingSession(store)
        session.run(lambda session: migrating.migrate(session, store, until="0001"))
        session.close()

    await asyncio.to_thread(make)
    old = await look(url, "schema")
    assert old.ok
    assert "0001" in old.text
    assert HEAD in old.text
    assert "camora sql migrate" in old.fix
    broker = Camora(url).broker
    await broker.open()
    await broker.close()
    assert not (await look(url, "schema")).fix
    server.sql("UPDATE camora_alembic_version SET version_num = '9999'")
    allowed = await look(url, "schema")
    assert (allowed.ok, allowed.fix) == (True, ""), "it says of itself that this version works with it"
    server.sql("UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'")
    new = await look(url, "schema")
    assert not new.ok
    assert "upgrade" in new.fix


async def test_a_schema_that_is_missing_is_found_and_its_fix_works(server: PostgresServer, url: str) -> None:
    found = await look(f"{url}?schema=jobs", "schema")
    assert not found.ok
    assert "no schema jobs" in found.text
    server.sql(found.fix)
    assert (await look(f"{url}?schema=jobs", "schema")).ok


@pytest.mark.parametrize(
    "line", ["fsync = off", "full_page_writes = off", "synchronous_commit = off", "autovacuum = off"]
)
async def test_what_loses_data_or_lets_tables_grow_is_found(server: PostgresServer, url: str, line: str) -> None:
    with ExitStack() as stack:
        if not line.startswith("fsync"):
            stack.enter_context(setting(server, "fsync = on"))
        stack.enter_context(setting(server, line))
        found = await look(url, "integrity")
        assert not found.ok
        assert line.split()[0] in found.text
        assert found.fix


def test_the_command_passes_and_fails_with_the_server(server: PostgresServer, url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"import camora\napp = camora.Camora({url!r})\n")

    def doctor() -> subprocess.CompletedProcess[str]:
        return forked.run(
            [sys.executable, "-m", "camora", "doctor", "--app", "shop:app"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    with setting(server, "fsync = on"):
        fine = doctor()
        assert fine.returncode == 0, fine.stdout + fine.stderr
        assert "PostgreSQL" in fine.stdout
    server.stop()
    failed = doctor()
    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout + failed.stderr
    assert str(server.port) in failed.stdout + failed.stderr
