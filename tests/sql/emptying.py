"""Databases that are used again: what was left in them is deleted, for new tables take fifty times as long."""

from __future__ import annotations

import sqlite3
from urllib.parse import parse_qs, urlsplit

import psycopg
import pymysql
from camora_sql.schema import tables_named

__all__ = ["empty"]

_KEPT = ("facts",)
"""What is true of a database whatever is in it: which code works with it, and the boot of its machine."""
_NO_TABLE = 1146


def _names() -> list[str]:
    tables = tables_named("")
    return [table.name for table in reversed(tables.metadata.sorted_tables) if table.name not in _KEPT]


def empty(url: str) -> None:
    """Leave nothing in the tables of this store. One whose tables were never made has none to empty.

    Nobody may be at it any more: a row that somebody holds is waited for.
    """
    parts = urlsplit(url)
    [prefix] = parse_qs(parts.query).get("prefix", ["camora_"])
    statements = [f"DELETE FROM {prefix}{name}" for name in _names()]
    if parts.scheme.startswith("sqlite"):
        _empty_sqlite(parts.path.removeprefix("/"), statements)
    elif parts.scheme.startswith("postgresql"):
        _empty_postgresql(parts._replace(scheme="postgresql", query="").geturl(), statements)
    else:
        _empty_mariadb(url, statements)


def _empty_sqlite(path: str, statements: list[str]) -> None:
    connection = sqlite3.connect(path)
    try:
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            with connection:
                for statement in statements:
                    connection.execute(statement)
    finally:
        connection.close()


def _empty_postgresql(url: str, statements: list[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute("; ".join(statements).encode())
        except psycopg.errors.UndefinedTable:
            return


def _empty_mariadb(url: str, statements: list[str]) -> None:
    parts = urlsplit(url)
    connection = pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        database=parts.path.strip("/"),
        ssl_disabled=True,  # else the certificates of all the world are read each time
    )
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()
    except pymysql.err.ProgrammingError as error:
        if error.args[0] != _NO_TABLE:
            raise
    finally:
        connection.close()
