"""The schema in MariaDB: made where statements cannot be undone, whoever dies on the way; and used by its indexes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from camora.errors import ConfigurationError
from camora_sql.blocking import BlockingSession
from camora_sql.creating import create
from camora_sql.dialects.mysql import MysqlDialect
from camora_sql.drivers.asyncmy import AsyncmyDriver
from camora_sql.migrating import migrate
from camora_sql.opening import prepare
from camora_sql.schema import HEAD
from camora_sql.session import Session
from camora_sql.statements import locking
from camora_sql.store import Store

from tests import forked
from tests.servers.mariadb import fresh_url

Work = Callable[[Session], Any]


@pytest.fixture
def store() -> Store:
    return Store(fresh_url())


@pytest.fixture
def session(store: Store) -> Iterator[BlockingSession]:
    made = BlockingSession(store)
    yield made
    made.close()


def shape(session: BlockingSession, store: Store) -> dict[str, Any]:
    """Columns and indexes of all tables, by names without the prefix."""
    prefix = store.dialect.tables.prefix

    def look(session: Session) -> dict[str, Any]:
        columns = session.driver.rows(
            "SELECT table_name, column_name, column_type, is_nullable, column_default, collation_name, "
            "generation_expression, extra FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND LEFT(table_name, %s) = %s ORDER BY table_name, column_name",
            [len(prefix), prefix],
        )
        indexes = session.driver.rows(
            "SELECT table_name, index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics "
            "WHERE table_schema = DATABASE() AND LEFT(table_name, %s) = %s "
            "ORDER BY table_name, index_name, seq_in_index",
            [len(prefix), prefix],
        )
        plain = [[str(value).replace(prefix, "") for value in row] for row in [*columns, *indexes]]
        return {"rows": plain, "revision": store.dialect.revision(session.driver)}

    return session.read(look)


def meant() -> dict[str, Any]:
    """What a new database is made like."""
    store = Store(fresh_url())
    session = BlockingSession(store)
    try:
        session.run(lambda session: prepare(session, store))
        return shape(session, store)
    finally:
        session.close()


def versions(session: BlockingSession, store: Store) -> list[str]:
    name = store.dialect.tables.version.name
    return [row[0] for row in session.read(lambda session: session.driver.rows(f"SELECT version_num FROM {name}"))]


def test_migrations_make_what_the_code_works_with(session: BlockingSession, store: Store) -> None:
    assert session.run(lambda session: migrate(session, store))
    assert not session.run(lambda session: migrate(session, store))
    assert shape(session, store) == meant()
    assert len(shape(session, store)["rows"]) > 100
    assert versions(session, store) == [HEAD]


class Killed(BaseException):
    """As if the process had ended here: its connection is gone, and nothing of it runs any more."""


def _die(monkeypatch: pytest.MonkeyPatch, *, noted: bool) -> list[str]:
    """From now on a process dies of each statement once: when it was noted that it was run, or before."""
    run: list[str] = []
    change = AsyncmyDriver.change

    def dying(self: AsyncmyDriver, text: str, values: Any = ()) -> int:
        answer = change(self, text, values)
        is_note = text.startswith("UPDATE") and str(values and values[0]).startswith("~")
        is_step = text.lstrip().startswith(("CREATE", "ALTER", "INSERT", "DELETE", "UPDATE")) and not is_note
        what = f"{text} {values}"
        if (is_note if noted else is_step) and what not in run:
            run.append(what)
            self.abort()
            raise Killed
        return answer

    monkeypatch.setattr(AsyncmyDriver, "change", dying)
    return run


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "not noted"])
@pytest.mark.parametrize("way", ["create", "migrate"])
def test_whoever_comes_after_one_who_died_goes_on_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, way: str, noted: bool
) -> None:
    def work(session: Session) -> None:
        session.ask_time()
        if way == "create":
            create(session, store)
        else:
            migrate(session, store)

    run = _die(monkeypatch, noted=noted)
    deaths = 0
    while True:
        session = BlockingSession(store)
        try:
            session.run(work)
        except Killed:
            deaths += 1
            assert deaths < 100
        else:
            break
        finally:
            session.close()
    monkeypatch.undo()
    # None was made in vain: each died of another statement.
    assert deaths == len(run) > 20
    session = BlockingSession(store)
    assert shape(session, store) == meant()
    assert versions(session, store) == [HEAD]
    session.close()


def test_what_another_way_has_begun_is_begun_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _die(monkeypatch, noted=True)
    for _ in range(5):
        session = BlockingSession(store)
        with pytest.raises(Killed):
            session.run(lambda session: migrate(session, store))
        session.close()
    monkeypatch.undo()
    session = BlockingSession(store)
    session.run(lambda session: prepare(session, store))
    assert shape(session, store) == meant()
    assert versions(session, store) == [HEAD]
    session.close()


def test_a_table_of_somebody_elses_is_left_alone(session: BlockingSession, store: Store) -> None:
    name = f"{store.dialect.tables.prefix}jobs"
    session.read(lambda session: session.driver.change(f"CREATE TABLE {name} (mine INT)"))
    with pytest.raises(Exception, match=r"there is a table of that name.*\?prefix="):
        session.run(lambda session: prepare(session, store))
    assert session.read(lambda session: session.driver.rows(f"SELECT count(mine) FROM {name}")) == ((0,),)


def test_many_who_begin_at_once_make_one_schema() -> None:
    url = fresh_url()
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
    store = Store(url)
    session = BlockingSession(store)
    assert versions(session, store) == [HEAD]
    assert shape(session, store) == meant()
    session.close()


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        ("5.5.5-10.5.29-MariaDB-log", "MariaDB 10.6 or newer"),
        ("10.3.1-MariaDB", "MariaDB 10.6 or newer"),
        ("5.7.44", "MySQL 8.0.17 or newer"),
        ("8.0.16", "MySQL 8.0.17 or newer"),
        ("something", "MySQL 8.0.17 or newer"),
    ],
)
def test_an_old_server_is_refused(
    session: BlockingSession, store: Store, monkeypatch: pytest.MonkeyPatch, said: str, needed: str
) -> None:
    monkeypatch.setattr(AsyncmyDriver, "version", property(lambda _: said))
    with pytest.raises(ConfigurationError, match=needed):
        session.run(lambda session: prepare(session, store))


@pytest.mark.parametrize(
    ("said", "name"), [("5.5.5-10.11.18-MariaDB-0+deb12u1", "mariadb"), ("11.8.2-MariaDB", "mariadb"),
                       ("8.0.17", "mysql"), ("8.4.3-cloud", "mysql"), ("9.1.0", "mysql")],
)  # fmt: skip
def test_a_server_is_what_it_says_whatever_the_url_says(store: Store, said: str, name: str) -> None:
    dialect = store.dialect
    assert isinstance(dialect, MysqlDialect)
    dialect._check_version(said)
    assert dialect.name == name


def test_a_claim_reads_in_the_order_of_its_index_however_much_there_is(session: BlockingSession, store: Store) -> None:
    session.run(lambda session: prepare(session, store))
    jobs = store.dialect.tables.jobs.name

    def fill(session: Session) -> None:
        # Half is ready and of all urgencies, half is for later.
        session.driver.change(
            f"INSERT INTO {jobs} (id, queue, state, priority, due, key_ttl, task, body) "
            f"SELECT CONCAT('j', seq), 'work', seq %% 2, seq %% 7, seq, 0, 't', 'b' FROM seq_1_to_40000"
        )

    session.write(fill)

    def look(session: Session) -> tuple[list[list[Any]], int]:
        text, _ = store.statements(locking.pick, 1)
        values = ["work", "work", 10]
        plans = [list(session.driver.rows(f"EXPLAIN {text}", values))]
        double, _ = store.statements(locking.pick, 2)
        plans.append(list(session.driver.rows(f"EXPLAIN {double}", [*values, "other", "other", 10, 10])))
        session.driver.change("FLUSH STATUS")
        found = session.driver.rows(text, values)
        read = session.driver.rows("SHOW SESSION STATUS LIKE 'Handler_read%%'")
        assert [row[1] for row in found] == [6] * 10
        return plans, sum(int(row[1]) for row in read)

    plans, read = session.read(look)
    for plan in plans:
        for row in plan:
            if row[2] == jobs:
                assert row[5] in (f"{store.dialect.tables.prefix}jobs_ready", "PRIMARY"), row
    [first] = [row for row in plans[0] if row[2] == jobs]
    assert "filesort" not in first[9]
    assert read < 50
    began = time.monotonic()
    assert len(session.write(lambda session: session.rows(locking.pick, ["work", "work", 10]))) == 10
    assert time.monotonic() - began < 10
