"""What is said to a MySQL 8, which is not at hand here: the statements themselves, and their differences."""

from __future__ import annotations

import functools
import re
from types import ModuleType
from typing import Any

import pytest
from camora.errors import ConfigurationError, SettingsError
from camora_sql import statements
from camora_sql.drivers.errors import ServerError
from camora_sql.migrating import upgrade_statements
from camora_sql.statements import Statements, letters, limits, locking, records, schedules, workers
from camora_sql.store import Store
from sqlalchemy.schema import CreateTable

MYSQL, MARIADB = "mysql://shop:secret@db.example/shop", "mariadb://shop:secret@db.example/shop"
_MODULES: list[ModuleType] = [statements, letters, limits, locking, records, schedules, workers]
# The way of those databases that change and answer in one statement.
_NOT_OURS = {"claim", "insert_and_tell"}


def builders() -> dict[str, Any]:
    found = {name: getattr(module, name) for module in _MODULES for name in module.__all__}
    return {name: one for name, one in found.items() if type(one).__name__ == "function" and name not in _NOT_OURS}


@functools.cache
def told(url: str) -> Statements:
    """What this server is told. Made once: that takes fifty times as long as one statement."""
    return Statements(Store(url).dialect)


@pytest.mark.parametrize("name", sorted(builders()))
@pytest.mark.parametrize("size", [1, 4])
def test_both_servers_are_told_the_same(name: str, size: int) -> None:
    texts = [told(url)(builders()[name], size)[0] for url in (MYSQL, MARIADB)]
    # But for what must be quoted.
    assert texts[0].replace("`", "") == texts[1].replace("`", "")


@pytest.mark.parametrize("name", sorted(builders()))
def test_statements_hold_nothing_that_mysql_refuses(name: str) -> None:
    text = " ".join(told(MYSQL)(builders()[name], 2)[0].split())
    assert "RETURNING" not in text
    assert "IGNORE" not in text
    # MySQL 8 has no LIMIT in a subquery of IN, and no change of a table that a subquery of WHERE reads.
    for _, inner in re.findall(r"( IN | EXISTS )\(SELECT([^()]*)", text):
        assert "LIMIT" not in inner
    if text.startswith(("UPDATE", "DELETE")):
        where = text.partition(" WHERE ")[2]
        assert "SELECT" not in where or "AS picked" in text
    assert "NULLS" not in text


def test_names_have_the_collation_of_the_server() -> None:
    for url, name in ((MYSQL, "utf8mb4_0900_bin"), (MARIADB, "utf8mb4_nopad_bin")):
        dialect = Store(url).dialect
        for table in [*dialect.tables.metadata.sorted_tables, dialect.tables.version]:
            text = str(CreateTable(table).compile(dialect=dialect.compiler()))
            assert f"COLLATE {name}" in text
            assert "ENGINE=InnoDB" in text
        texts = upgrade_statements(dialect)
        creating = [text for text in texts if text.lstrip().startswith("CREATE TABLE") and "alembic" not in text]
        assert len(creating) > 10
        assert all(f"COLLATE {name}" in text for text in creating)
        whole = "\n".join(texts)
        assert "LONGTEXT" in whole or "TEXT(4294967295)" in whole
        assert "GENERATED ALWAYS AS (-priority) STORED" in whole
        assert not re.search(r"\b(FLOAT|BLOB|TEXT)\b(?!\()", whole)
        assert " WHERE state" not in whole


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mysql://db.example", "no database"),
        ("mysql://db.example/a/b", "no database"),
        ("mysql://db.example:port/shop", "port"),
        ("mysql://db.example/shop?sslmode=require", "sslmode=require is no setting"),
        ("mysql+pymysql://db.example/shop", "scheme 'mysql\\+pymysql'"),
        ("mysql://db.example/shop?schema=other", "is a database"),
        ("mysql://shop:secret@db.example/shop?ssl=perhaps", "ssl=perhaps"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(url: str, text: str) -> None:
    with pytest.raises((ConfigurationError, SettingsError), match=text) as raised:
        Store(url)
    assert "secret" not in str(raised.value)


def test_an_address_says_all_that_the_driver_wants() -> None:
    dialect: Any = Store(
        "mysql+asyncmy://sh%40p:p%C3%A4ss@[::1]:3307/shop?ssl_ca=/ca.pem&charset=utf8mb4&pool_size=2&prefix=jobs_"
    ).dialect
    assert dialect._address.options == {
        "host": "::1",
        "port": 3307,
        "user": "sh@p",
        "password": "päss".encode(),
        "database": "shop",
        "charset": "utf8mb4",
        "program_name": "camora",
        "ssl": {"ca": "/ca.pem"},
    }
    assert dialect.label == "mysql://[::1]:3307/shop"
    assert dialect.tables.jobs.name == "jobs_jobs"
    same = [Store(url).dialect.url for url in (MYSQL, MARIADB, f"{MYSQL}?pool_size=3")]
    assert len(set(same)) == 1
    assert "secret" not in same[0]
    assert Store(f"{MYSQL}?prefix=jobs_").dialect.url != same[0]


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("1045", "user name or the password", "ConfigurationError"),
        ("1049", r"create it: CREATE DATABASE `shop`", "ConfigurationError"),
        ("1044", r"GRANT ALL ON `shop`", "ConfigurationError"),
        ("1142", "lacks a right", "ConfigurationError"),
        ("2059", "log in", "ConfigurationError"),
        ("1040", "max_connections", "BrokerUnavailable"),
        ("1290", "only reads", "BrokerUnavailable"),
        ("1205", "keeps a transaction open", "BrokerUnavailable"),
        ("1213", "deadlocks", "BrokerUnavailable"),
        ("1114", "disk", "BrokerUnavailable"),
        ("4031", "idle", "BrokerUnavailable"),
        ("9999", "said so", "BrokerUnavailable"),
    ],
)
def test_errors_say_what_to_do(code: str, text: str, kind: str) -> None:
    told = Store(MYSQL).dialect.explain(ServerError("said so", code=code, broken=True, connecting=True), opening=True)
    assert type(told).__name__ == kind
    assert re.search(text, str(told))
    assert str(told).startswith("mysql://db.example/shop")
