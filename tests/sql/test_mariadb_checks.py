"""`camora doctor` on MariaDB: what is wrong is found, named, and its fix works."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pymysql
import pytest
from camora import Camora
from camora.interfaces import Check, CheckResult
from camora_sql.checks import checks
from camora_sql.dialects import mysql_examining
from camora_sql.schema import HEAD

from tests.servers.mariadb import MariadbServer, fresh_url, private_mariadb

__all__ = ["private_mariadb"]

CHECKS: dict[str, Check] = {check.name.removeprefix("database "): check for check in checks()}


async def look(url: str, part: str) -> CheckResult:
    return await CHECKS[part].run(Camora(url))


async def make(url: str) -> None:
    broker = Camora(url).broker
    await broker.open()
    await broker.close()


# A server of tests does not wait for its disk: what that costs is a finding.
@pytest.mark.parametrize("part", [part for part in CHECKS if part != "integrity"])
async def test_a_sound_database_passes_before_and_after_its_tables_are_made(part: str) -> None:
    url = fresh_url()
    for _ in range(2):
        found = await look(url, part)
        assert (found.ok, found.fix) == (True, ""), found.text
        await make(url)


async def test_the_revision_is_told() -> None:
    url = fresh_url()
    assert "no tables of Camora yet" in (await look(url, "schema")).text
    await make(url)
    assert f"revision {HEAD}, the newest" in (await look(url, "schema")).text


async def test_a_newer_schema_is_told(private_mariadb: Callable[..., MariadbServer]) -> None:
    server = private_mariadb()
    await make(server.url)
    server.sql("UPDATE camora_alembic_version SET version_num = '9999'")
    assert (await look(server.url, "schema")).ok, "it says of itself that this version works with it"
    server.sql("UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'")
    found = await look(server.url, "schema")
    assert not found.ok
    assert "9999" in found.text
    assert "upgrade" in found.fix


async def test_what_a_crash_of_the_machine_would_take_is_told(private_mariadb: Callable[..., MariadbServer]) -> None:
    server = private_mariadb(settings=["log-bin=binlog", "server-id=1", "binlog-format=STATEMENT"])
    found = await look(server.url, "integrity")
    assert not found.ok
    assert "binlog_format is STATEMENT" in found.text
    server.sql("SET GLOBAL binlog_format = 'MIXED'")
    found = await look(server.url, "integrity")
    assert not found.ok
    assert "innodb_flush_log_at_trx_commit is 2" in found.text
    assert found.fix == "set innodb_flush_log_at_trx_commit = 1"
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    assert (await look(server.url, "integrity")).ok


async def test_a_server_that_only_reads_or_takes_little(private_mariadb: Callable[..., MariadbServer]) -> None:
    server = private_mariadb()
    server.sql("SET GLOBAL max_allowed_packet = 1048576")
    found = await look(server.url, "place")
    assert not found.ok
    assert "1024 KiB at once (max_allowed_packet)" in found.text
    server.sql("SET GLOBAL max_allowed_packet = 16777216")
    assert (await look(server.url, "place")).ok
    server.sql("SET GLOBAL read_only = 1")
    found = await look(server.url, "place")
    assert not found.ok
    assert "only reads" in found.text
    server.kill()
    found = await look(server.url, "place")
    assert not found.ok
    assert "cannot be reached" in found.text


async def test_few_connections_and_a_forgotten_transaction(
    private_mariadb: Callable[..., MariadbServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = private_mariadb(settings=["max-connections=20"])
    await make(server.url)
    assert (await look(server.url, "room")).ok
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            connection = pymysql.connect(
                host=server.host, port=server.port, user="camora", password="secret", database="camora"
            )
            stack.callback(connection.close)
        found = await look(server.url, "room")
        assert not found.ok
        assert "of 20 connections left" in found.text
        assert "max_connections" in found.fix
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM camora_jobs FOR UPDATE")
        assert (await look(server.url, "log")).ok
        monkeypatch.setattr(mysql_examining, "_LONG", -1)
        found = await look(server.url, "log")
        assert not found.ok
        assert found.fix == f"end it: KILL {connection.thread_id()}"
        server.sql(found.fix.removeprefix("end it: "))
        # The server undoes it in its own time.
        async with asyncio.timeout(60):
            while not (await look(server.url, "log")).ok:
                await asyncio.sleep(0.1)
