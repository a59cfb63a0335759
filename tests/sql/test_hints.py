"""Commands that errors tell to type: they run as they are printed, and do what was missing."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from camora import Camora
from camora.errors import ConfigurationError
from camora_sql import Inbox
from camora_sql.broker import SqlBroker
from camora_sql.checks import checks
from camora_sql.errors import migrate_command
from camora_sql.schema import HEAD
from camora_sql.store import Store
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from tests import forked
from tests.servers.fixtures import shared_postgres
from tests.servers.mariadb import MariadbServer, private_mariadb
from tests.sql.databases import new_database
from tests.sql.processes import message

__all__ = ["private_mariadb"]

CHECKS = {check.name.removeprefix("database "): check for check in checks()}


def run(told: str) -> subprocess.CompletedProcess[str]:
    """Type the command that stands at the end of a text."""
    words = shlex.split(told[told.index("camora sql") :])
    return forked.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("driver", ["", "+psycopg"])
async def test_the_tables_that_a_transaction_misses_are_made_by_the_command_it_is_told(driver: str) -> None:
    with new_database() as name:
        url = shared_postgres().url_of(name)
        shared_postgres().sql("CREATE SCHEMA jobs", database=name)
        broker = SqlBroker(f"{url.replace(':', f'{driver}:', 1)}?schema=jobs&prefix=my_&application_name=a shop")
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection, pytest.raises(ConfigurationError, match="no tables of Camora") as caught:
            await broker.publish_within(connection, [message("one")])
        migrated = await asyncio.to_thread(run, str(caught.value))
        assert migrated.returncode == 0, migrated.stderr
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT version_num FROM jobs.my_alembic_version").fetchall() == [(HEAD,)]
        with engine.begin() as connection:
            await broker.publish_within(connection, [message("one")])
            connection.execute(text("UPDATE jobs.my_alembic_version SET version_num = '0001'"))
            with pytest.raises(ConfigurationError, match=r"revision 0001.*schema=jobs&prefix=my_'$"):
                await broker.publish_within(connection, [message("two")])
        engine.dispose()


async def test_the_tables_of_a_file_are_made_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a shop.db"
    broker = SqlBroker(f"sqlite:///{path}?prefix=my_&busy_timeout=7")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="no tables of Camora") as caught:
        await broker.publish_within(connection, [message("one")])
    migrated = await asyncio.to_thread(run, str(caught.value))
    assert migrated.returncode == 0, migrated.stderr
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("one")])
    engine.dispose()


async def test_what_a_newer_version_has_made_is_not_to_be_migrated_but_to_be_upgraded_to(tmp_path: Path) -> None:
    broker = SqlBroker(f"sqlite:///{tmp_path}/shop.db")
    await broker.open()
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE camora_alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'"))
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="9999.*pip install --upgrade") as caught:
        await broker.publish_within(connection, [message("one")])
    assert "migrate" not in str(caught.value)
    await broker.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://shop@db/shop?pool_size=9", "postgresql://shop@db/shop"),
        ("postgresql://a,b/shop?schema=jobs", "'postgresql://a,b/shop?schema=jobs'"),
        ("postgresql://db/shop?host=/run/pg&prefix=my_", "'postgresql://db/shop?host=%2Frun%2Fpg&prefix=my_'"),
        ("mariadb://shop@db/shop?prefix=my_", "'mariadb://shop@db/shop?prefix=my_'"),
        ("mysql://shop:secret@db/shop", "'mysql://shop:***@db/shop'  (with the secret for ***)"),
    ],
)
def test_a_url_is_told_with_what_finds_the_tables_and_without_secrets(url: str, told: str) -> None:
    assert migrate_command(Store(url).dialect) == f"camora sql migrate --url {told}"
    assert not re.search("secret@", told)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_who_may_not_use_the_tables_is_told_the_grants_that_help(driver: str) -> None:
    server = shared_postgres()
    with new_database() as name:
        server.sql("CREATE SCHEMA jobs", database=name)
        role = f"user_of_{name}"
        server.sql(f"CREATE ROLE {role} LOGIN")
        rest = f"{server.host}:{server.port}/{name}?schema=jobs"
        owner = SqlBroker(f"postgresql://camora@{rest}")
        poor = SqlBroker(f"postgresql+{driver}://{role}@{rest}")
        await owner.open()
        await owner.close()
        for _ in range(2):  # nothing at all, then the schema alone
            with pytest.raises(ConfigurationError, match="lacks a right") as caught:
                await poor.open()
            found = await CHECKS["schema"].run(Camora(f"postgresql+{driver}://{role}@{rest}"))
            assert not found.ok
            assert "GRANT SELECT, INSERT" in found.text
            assert "log" not in found.fix
            grants = [grant.strip() for grant in str(caught.value).partition("give it: ")[2].split(";") if grant]
            assert len(grants) == 4
            assert "CREATE" not in str(caught.value)
            server.sql(grants[0], database=name)
        # Functions are everybody's where nobody has changed that.
        server.sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA jobs FROM PUBLIC", database=name)
        for grant in grants:
            server.sql(grant, database=name)
        await poor.open()
        assert await poor.publish([message("one")]) == ["one"]
        await poor.close()
        # What only who has made the tables may do is another matter.
        server.sql("UPDATE jobs.camora_alembic_version SET version_num = '0001'", database=name)
        with pytest.raises(ConfigurationError, match=r"make or change tables.*camora sql migrate"):
            await SqlBroker(f"postgresql+{driver}://{role}@{rest}").open()
        server.sql(f"DROP OWNED BY {role}", database=name)
        server.sql(f"DROP ROLE {role}")


async def test_who_may_not_use_the_tables_of_a_mariadb_is_told_the_grants_that_help(
    private_mariadb: Callable[..., MariadbServer],
) -> None:
    server = private_mariadb()
    server.sql("CREATE USER poor@'%' IDENTIFIED BY 'secret'")
    server.sql("CREATE TABLE other (id int)")
    url = server.url_of(user="poor:secret")
    server.sql("GRANT SELECT ON camora.other TO poor@'%'")
    owner = SqlBroker(server.url)
    await owner.open()
    await owner.close()
    with pytest.raises(ConfigurationError, match="lacks a right") as caught:
        await SqlBroker(url).open()
    grant = str(caught.value).partition("give it: ")[2].partition(";")[0]
    assert grant.startswith("GRANT SELECT, INSERT, UPDATE, DELETE ON `camora`.* TO ")
    server.sql(grant)
    poor = SqlBroker(url)
    await poor.open()
    assert await poor.publish([message("one")]) == ["one"]
    await poor.close()
    with pytest.raises(ConfigurationError, match=r"make or change tables.*GRANT ALL ON `camora`"):
        await SqlBroker(f"{url}?prefix=other_").open()


@pytest.mark.parametrize("schema", [None, "jobs"])
async def test_the_table_that_an_inbox_misses_is_made_by_the_command_it_is_told(schema: str | None) -> None:
    with new_database() as name:
        shared_postgres().sql("CREATE SCHEMA jobs", database=name)
        engine = create_engine(shared_postgres().url_of(name).replace("postgresql:", "postgresql+psycopg:"))
        inbox = Inbox(prefix="my_", schema=schema)

        async def call_next() -> str:
            return "done"

        context = SimpleNamespace(id="one", encode_result=str.encode)
        for make in (lambda: Session(engine), engine.connect):
            with make() as given, pytest.raises(ConfigurationError, match="my_inbox cannot be read") as caught:
                await inbox.around(context, given, call_next)
        migrated = await asyncio.to_thread(run, str(caught.value))
        assert migrated.returncode == 0, migrated.stderr
        with Session(engine) as session:
            assert await inbox.around(context, session, call_next) == "done"
        engine.dispose()


def test_an_upgrade_leaves_the_log_alone(tmp_path: Path) -> None:
    """As in a worker: whatever a library tells at INFO is in its log."""
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from camora_sql import migrating, opening\n"
        "from camora_sql.blocking import BlockingSession\n"
        "from camora_sql.store import Store\n"
        "store = Store(sys.argv[1]); session = BlockingSession(store)\n"
        "session.run(lambda session: migrating.migrate(session, store, '0001'))\n"
        "session.run(lambda session: opening.prepare(session, store))\n"
        "logging.getLogger('alembic.runtime.migration').info('of somebody else')\n"
    )
    done = forked.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/old.db"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == "INFO:alembic.runtime.migration:of somebody else\n"
