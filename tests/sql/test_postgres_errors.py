"""What can be wrong with an address, a user, a database: one line that names the thing and the fix, by each driver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError
from camora_sql.broker import SqlBroker

from tests import forked
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer, need
from tests.sql.processes import message

SECRET = "open-sesame"
HBA = """
host all camora,poor,reader 127.0.0.1/32 trust
host all guarded 127.0.0.1/32 scram-sha-256
"""

pytestmark = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(need(), settings=["password_encryption = 'scram-sha-256'"]) as made:
        made.sql(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'")
        made.sql("CREATE ROLE poor LOGIN")
        made.sql("CREATE ROLE reader LOGIN")
        made.sql("CREATE ROLE stranger LOGIN")
        (made.data / "pg_hba.conf").write_text(HBA)
        made.sql("SELECT pg_reload_conf()")
        yield made


def camora(*args: str) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "camora", *args], capture_output=True, text=True, timeout=60, check=False)


# The rest of the URL behind the scheme, what the error is, and what it says.
WRONG: dict[str, tuple[str, type[CamoraError], tuple[str, ...]]] = {
    "password": ("guarded:wrong@{at}/postgres", ConfigurationError, ("the password is wrong",)),
    "no password": ("guarded@{at}/postgres", ConfigurationError, ("password",)),
    "user": ("stranger@{at}/postgres", ConfigurationError, ("does not let this user in", "pg_hba.conf")),
    "database": ("camora@{at}/nowhere", ConfigurationError, ("no such database", "createdb nowhere")),
    "rights": ("poor@{at}/postgres", ConfigurationError, ("lacks a right", "GRANT CREATE ON SCHEMA")),
    "schema": ("camora@{at}/postgres?schema=nowhere", ConfigurationError, ("no such schema", "CREATE SCHEMA nowhere")),
    "port": ("camora@127.0.0.1:{free}/postgres", BrokerUnavailable, ("cannot be reached", "is the server running")),
    "host": ("camora@no-such-host.invalid/postgres", BrokerUnavailable, ("no-such-host.invalid", "cannot be reached")),
    "option": ("camora@{at}/postgres?colour=red", ConfigurationError, ("colour",)),
    "value": ("camora@{at}/postgres?pool_size=1", ConfigurationError, ("pool_size", "2 or more")),
    "twice": ("camora@{at}/postgres?prefix=a_&prefix=b_", ConfigurationError, ("'prefix'", "twice")),
    "prefix": ("camora@{at}/postgres?prefix=Select%20", ConfigurationError, ("prefix", "small letters")),
    "number": ("camora@127.0.0.1:port/postgres", ConfigurationError, ("write postgresql://",)),
}


def url_of(driver: str, server: PostgresServer, rest: str) -> str:
    return f"postgresql+{driver}://{rest}".format(at=f"{server.host}:{server.port}", free=free_port())


@pytest.mark.parametrize("wrong", WRONG)
async def test_opening_says_what_is_wrong(server: PostgresServer, driver: str, wrong: str) -> None:
    rest, kind, told = WRONG[wrong]
    with pytest.raises(kind) as error:
        await Camora(url_of(driver, server, rest)).broker.open()
    said = str(error.value)
    assert all(word in said for word in told), said
    assert "\n" not in said
    assert SECRET not in said


@pytest.mark.parametrize("wrong", ["password", "database", "rights", "schema", "port", "option"])
def test_commands_answer_in_one_line(server: PostgresServer, driver: str, wrong: str) -> None:
    rest, _, told = WRONG[wrong]
    failed = camora("sql", "migrate", "--url", url_of(driver, server, rest))
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    assert all(word in failed.stderr for word in told), failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not failed.stdout


async def test_the_right_password_is_let_in_and_never_shown(server: PostgresServer, driver: str) -> None:
    server.sql("GRANT ALL ON SCHEMA public TO guarded")
    url = url_of(driver, server, f"guarded:{SECRET}@{{at}}/postgres?prefix=guarded_{driver}_")
    broker = SqlBroker(url)
    await broker.open()
    await broker.publish([message("one")])
    assert SECRET not in repr(broker)
    assert SECRET not in broker.url
    await broker.close()
    done = camora("sql", "status", "--url", url)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr


async def test_rights_and_tables_that_go_while_it_works_are_named(server: PostgresServer, driver: str) -> None:
    prefix = f"gone_{driver}_"
    owner = Camora(url_of(driver, server, f"camora@{{at}}/postgres?prefix={prefix}")).broker
    await owner.open()
    await owner.publish([message("one")])
    # Who may only read is told which right is missing; what is there already needs none to be made.
    server.sql(f"GRANT SELECT ON {prefix}jobs, {prefix}alembic_version, {prefix}facts TO reader")
    reader = Camora(url_of(driver, server, f"reader@{{at}}/postgres?prefix={prefix}")).broker
    await reader.open()
    with pytest.raises(BrokerUnavailable, match="lacks a right"):
        await reader.publish([message("two")])
    await reader.close()
    # Somebody drops what it works with.
    for (table,) in server.sql(f"SELECT tablename FROM pg_tables WHERE tablename LIKE '{prefix}%'"):
        server.sql(f"DROP TABLE {table} CASCADE")
    with pytest.raises(
        BrokerUnavailable, match=f"a table of Camora is missing.*camora sql migrate --url '.*prefix={prefix}'"
    ):
        await owner.publish([message("three")])
    await owner.close()


async def test_somebody_without_the_right_to_create_works_with_what_others_made(
    server: PostgresServer, driver: str
) -> None:
    prefix = f"lent_{driver}_"
    assert camora("sql", "migrate", "--url", f"{server.url}?prefix={prefix}").returncode == 0
    for (table,) in server.sql(f"SELECT tablename FROM pg_tables WHERE tablename LIKE '{prefix}%'"):
        server.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO poor")
    server.sql("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO poor")
    broker = Camora(url_of(driver, server, f"poor@{{at}}/postgres?prefix={prefix}")).broker
    await broker.open()
    assert await broker.publish([message("one")]) == ["one"]
    assert await broker.queues.counts() == {"work": {"ready": 1}}
    await broker.close()
