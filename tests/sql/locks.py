"""Databases of several kinds for one test each, and somebody else who locks rows in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pymysql

from tests.servers import mariadb
from tests.servers.fixtures import fresh_postgres_url

__all__ = ["Stranger", "fresh", "stranger"]


def fresh(kind: str, folder: Path) -> str:
    """The URL of a database without tables."""
    if kind == "sqlite":
        return f"sqlite:///{folder}/camora.db?synchronous=normal"
    return fresh_postgres_url() if kind == "postgresql" else mariadb.fresh_url()


class Stranger:
    """A connection of somebody else's; `{jobs}` in a statement is the table of jobs, and so on."""

    def __init__(self, connection: Any, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    def do(self, statement: str, *values: Any) -> None:
        """Run it; it stands after `commit`."""
        names = {name: f"{self._prefix}{name}" for name in ("jobs", "done")}
        with self._connection.cursor() as cursor:
            cursor.execute(statement.format(**names), values)

    def lock(self, job_id: str) -> None:
        """Lock the row of a job until `commit`."""
        self.do("SELECT 1 FROM {jobs} WHERE id = %s FOR UPDATE", job_id)

    def lease_end(self, job_id: str) -> int:
        """When the lease of a job ends, in milliseconds since the epoch."""
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT lease_until FROM {self._prefix}jobs WHERE id = %s", (job_id,))
            [(found,)] = cursor.fetchall()
        return int(found)

    def commit(self) -> None:
        """End the transaction."""
        self._connection.commit()


@contextmanager
def stranger(url: str) -> Iterator[Stranger]:
    """Somebody else at the database of this URL."""
    parts = urlsplit(url)
    [prefix] = parse_qs(parts.query).get("prefix", ["camora_"])
    connection: Any
    if parts.scheme.startswith("postgresql"):
        connection = psycopg.connect(parts._replace(query="").geturl())
    else:
        connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.strip("/"),
            ssl_disabled=True,  # else the certificates of all the world are read each time
            # Else it would lock the gaps between rows, too, and keep everybody from storing more.
            init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )
    try:
        yield Stranger(connection, prefix)
    finally:
        connection.close()
